// Package imports holds the rule of who may import whom, and the test that enforces it. The order of
// the packages is that of ARCHITECTURE.md: they depend downward only.
package imports

// module is the path of this module.
const module = "github.com/quorate/quorate"

// allowed says, for each package of the program, which packages of this module it may import. A
// package that is not here may not exist; tests may import what they like.
var allowed = map[string][]string{
	"api":    {},
	"client": {"api"},
	"backup": {"internal/durable"},

	"fsm/tree": {"api"},
	"fsm/auth": {"api"},
	"fsm":      {"api", "fsm/auth", "fsm/tree"},

	"store/peer": {"api"},
	"store/disk": {"api", "internal/durable", "internal/wallclock"},
	"store":      {"api", "backup", "fsm", "fsm/auth", "fsm/tree", "internal/durable", "internal/wallclock", "store/disk", "store/peer"},

	// The HTTP side states what it needs of a member as interfaces, and never sees raft.
	"httpd/plain":     {},
	"httpd/limit":     {},
	"httpd":           {"api", "backup", "fsm/tree", "httpd/limit", "httpd/plain", "internal/wallclock"},
	"httpd/auth":      {"api", "fsm/auth", "httpd"},
	"httpd/proxy":     {"api", "internal/durable"},
	"httpd/httpdtest": {"api", "backup", "fsm/auth", "fsm/tree", "httpd"},

	"discovery": {"api"},
	"configs":   {"internal/durable"},

	"internal/certs":           {},
	"internal/certs/certstest": {},
	"internal/durable":         {},
	"internal/imports":         {},
	"internal/leaks":           {},
	"internal/nameserver":      {},
	"internal/lossy":           {},
	"internal/wallclock":       {},

	"cmd/quorate/cli": {"api", "backup", "client"},
	"cmd/quorate":     {"api", "backup", "cmd/quorate/cli", "configs", "discovery", "httpd", "httpd/auth", "httpd/limit", "httpd/proxy", "internal/certs", "internal/durable", "store", "store/disk"},

	// These speak the wire only, so that they run against etcd, too.
	"internal/cluster":     {"api"},
	"internal/sandbox":     {},
	"bench":                {"internal/cluster"},
	"test/conformance":     {},
	"test/docker":          {},
	"test/e2e":             {},
	"test/linearizability": {},
	"test/partition":       {},
}

// raftUsers are the packages that may know of raft.
var raftUsers = []string{"fsm", "store", "store/disk", "store/peer"}
