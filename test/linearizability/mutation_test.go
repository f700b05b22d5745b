//go:build linux && faults

package linearizability

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	mutationsFlag = flag.String("mutations", "", "build broken servers and see whether runs find out: all, or the names of some, separated by commas")
	attemptsFlag  = flag.Int("attempts", 10, "runs after which a mutation is said to stay unnoticed")
)

// mutation breaks the server by a change of its source.
type mutation struct {
	name, file, from, to string
	// faults are those that bring it to light; empty for all.
	faults []string
}

var (
	pausedLeader = []string{"pause the leader with readers waiting"}
	newLeaders   = []string{"kill -9 the leader", "stop the leader", "leader alone, connections reset", "connections of the leader reset",
		"slow leader", "mute leader", "replace a member"}
)

// mutations break one promise each. What they change is looked up in the source as it is, so a mutation
// has to follow when that line does.
var mutations = []mutation{
	{"read-unconfirmed", "store/read.go",
		"needed := voters/2 + 1\n", "needed := 0 * voters\n", pausedLeader},
	{"read-verify-leader", "store/read.go",
		"	needed := voters/2 + 1\n", "	if err := r.VerifyLeader().Error(); err != nil {\n		return 0, err\n	}\n	needed := 0 * voters\n", pausedLeader},
	{"apply-twice", "fsm/requests.go",
		"if _, ok := o.applied[id.Sequence]; ok {", "if _, ok := o.applied[id.Sequence]; ok && false {", newLeaders},
	{"reuse-sequences", "store/store.go",
		"if s.boot, err = s.dir.NextBoot(); err != nil {", "s.boot = 1\n	if _, err = s.dir.NextBoot(); err != nil {", nil},
	{"acknowledge-before-disk", "store/parallel.go",
		"if durable >= index {", "if durable >= index || true {", []string{"all that have a write killed"}},
	{"watch-drops-an-event", "fsm/tree/watch.go",
		"	if len(w.queue) < watcherQueue {", "	if e.Index%97 == 0 {\n		return true\n	}\n	if len(w.queue) < watcherQueue {", nil},
	{"watch-skips-what-a-snapshot-brought", "fsm/tree/hub.go",
		"	if first > last {\n", "	if first > last || true {\n", []string{"a follower falls far behind"}},
	{"expire-by-local-clock", "fsm/fsm.go",
		"clock := max(now, f.tree.Clock())", "clock := max(now, f.tree.Clock(), time.Now().UnixNano())", nil},
	{"expire-early", "fsm/fsm.go",
		"return now + int64(ttl)*second", "return now + int64(ttl)*second - second/10", nil},
	{"expire-only-with-writes", "store/leader.go",
		"ok && due <= s.clock.now() {", "ok && due <= s.clock.now() && false {", nil},
}

// TestMutations shows that the runs find servers that are broken on purpose. It takes long, and belongs
// to no other test.
func TestMutations(t *testing.T) {
	if *mutationsFlag == "" {
		t.Skip("-mutations says which")
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/quorate/quorate").Output()
	if err != nil {
		t.Fatalf("find the source: %v", err)
	}
	module := strings.TrimSpace(string(out))
	for _, m := range mutations {
		if *mutationsFlag != "all" && !slices.Contains(strings.Split(*mutationsFlag, ","), m.name) {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			t.Setenv("QUORATE_BINARY", m.build(t, module))
			for seed := range int64(*attemptsFlag) {
				p := newPlan(1+seed, *membersFlag, *durationFlag)
				p.only = m.faults
				res := execute(p, filepath.Join(t.TempDir(), fmt.Sprint(seed)))
				if !res.ok() {
					t.Logf("found in run %d by %s", seed+1, res.found())
					return
				}
			}
			t.Errorf("not found in %d runs", *attemptsFlag)
		})
	}
}

// found names the checks that have found something.
func (res *result) found() string {
	checks := map[string]bool{}
	for _, v := range res.report.Violations {
		checks[v.Check] = true
	}
	for _, f := range res.failures {
		line, _, _ := strings.Cut(f, "\n")
		checks[line] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(checks)), "; ")
}

// build makes the broken server.
func (m mutation) build(t *testing.T, module string) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"go.mod", "go.sum", "api", "client", "cmd", "configs", "discovery", "fsm", "httpd", "internal", "store"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(module, part), dir).CombinedOutput(); err != nil {
			t.Fatalf("copy the source: %v\n%s", err, out)
		}
	}
	path := filepath.Join(dir, m.file)
	source := readFile(path)
	if n := strings.Count(source, m.from); n != 1 {
		t.Fatalf("%s has %q %d times, want it once: the mutation has to follow the source", m.file, m.from, n)
	}
	source = strings.Replace(source, m.from, m.to, 1)
	if strings.Contains(m.to, "time.Now") && !strings.Contains(source, "\"time\"\n") {
		source = strings.Replace(source, "import (\n", "import (\n	\"time\"\n", 1)
	}
	if err := os.WriteFile(path, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "quorate")
	cmd := exec.Command("go", "build", "-o", program, "./cmd/quorate")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the broken server: %v\n%s", err, out)
	}
	return program
}
