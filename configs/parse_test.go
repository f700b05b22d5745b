package configs

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// Every row of the table in spec bootstrap 2, and some neighbours.
func TestParseRefuses(t *testing.T) {
	const verify = "error verifying flags, "
	const see = ". See 'quorate serve --help'."
	tests := []struct {
		name string
		args []string
		env  []string
		exit int
		want string
	}{
		{"unknown flag", []string{"--nonsense"}, nil, 2, "flag provided but not defined: -nonsense"},
		{"unknown flag with value", []string{"-nonsense=1"}, nil, 2, "flag provided but not defined: -nonsense"},
		{"missing value", []string{"--name"}, nil, 2, "flag needs an argument: -name"},
		{"bad syntax", []string{"---name"}, nil, 2, "bad flag syntax: ---name"},
		{"not a number", []string{"--heartbeat-interval", "abc"}, nil, 2, `invalid value "abc" for flag -heartbeat-interval: parse error`},
		{"not unsigned", []string{"--snapshot-count=-1"}, nil, 2, `invalid value "-1" for flag -snapshot-count: parse error`},
		{"out of range", []string{"--election-timeout", "99999999999999999999"}, nil, 2, `invalid value "99999999999999999999" for flag -election-timeout: value out of range`},
		{"out of a duration's range", []string{"--election-timeout", "18446744073709551615"}, nil, 2, `invalid value "18446744073709551615" for flag -election-timeout: value out of range`},
		{"not a boolean", []string{"--debug=maybe"}, nil, 2, `invalid boolean value "maybe" for -debug: parse error`},
		{"ignored boolean is still checked", []string{"--enable-v2=maybe"}, nil, 2, `invalid boolean value "maybe" for -enable-v2: parse error`},
		{"not a log store", []string{"--log-store", "etcd"}, nil, 2, `invalid value "etcd" for flag -log-store: invalid value`},
		{"not a duration", []string{"--disk-stall-limit", "30"}, nil, 2, `invalid value "30" for flag -disk-stall-limit: parse error`},
		{"enum: cluster state", []string{"--initial-cluster-state", "old"}, nil, 2, `invalid value "old" for flag -initial-cluster-state: invalid value`},
		{"enum: proxy", []string{"--proxy", "yes"}, nil, 2, `invalid value "yes" for flag -proxy: invalid value`},
		{"enum: fallback", []string{"--discovery-fallback", "no"}, nil, 2, `invalid value "no" for flag -discovery-fallback: invalid value`},
		{"URL list empty", []string{"--listen-peer-urls", ""}, nil, 2, `invalid value "" for flag -listen-peer-urls: URL scheme must be http or https: `},
		{"URL list bad scheme", []string{"--listen-peer-urls", "ftp://h:1"}, nil, 2, `invalid value "ftp://h:1" for flag -listen-peer-urls: URL scheme must be http or https: ftp://h:1`},
		{"URL list no port", []string{"--listen-peer-urls", "http://h"}, nil, 2, `invalid value "http://h" for flag -listen-peer-urls: URL address does not have the form "host:port": http://h`},
		{"URL list with path", []string{"--advertise-client-urls", "http://h:1/x"}, nil, 2, `invalid value "http://h:1/x" for flag -advertise-client-urls: URL must not contain a path: http://h:1/x`},
		{"URL list second bad", []string{"--advertise-client-urls", "http://h:1,http://i"}, nil, 2, `invalid value "http://h:1,http://i" for flag -advertise-client-urls: URL address does not have the form "host:port": http://i`},
		{"cors", []string{"--cors", ":bad%"}, nil, 2, `invalid value ":bad%" for flag -cors: Invalid CORS origin: parse ":bad%": missing protocol scheme`},
		{"retired and refused", []string{"-peers", "a"}, nil, 2, `flag "-peers" is no longer supported.`},
		{"retired and refused, no value", []string{"--peers-file"}, nil, 2, `flag "-peers-file" is no longer supported.`},

		{"left-over argument", []string{"positional"}, nil, 1, verify + "'positional' is not a valid flag" + see},
		{"left-over behind a flag", []string{"--name", "a", "b", "--nonsense"}, nil, 1, verify + "'b' is not a valid flag" + see},
		{"left-over behind --", []string{"--", "--name"}, nil, 1, verify + "'--name' is not a valid flag" + see},
		{"two ways to bootstrap", []string{"--initial-cluster", "a=http://h:1", "--discovery", "http://d/t"}, nil, 1, verify + `multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"` + see},
		{"two ways, one from the environment", []string{"--discovery-srv", "example.org"}, []string{"ETCD_DISCOVERY=http://d/t"}, 1, verify + `multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"` + see},
		{"listen without advertise", []string{"--listen-client-urls", "http://127.0.0.1:1"}, nil, 1, verify + "--advertise-client-urls is required when --listen-client-urls is set explicitly" + see},
		{"listen without advertise, environment", nil, []string{"QUORATE_LISTEN_CLIENT_URLS=http://127.0.0.1:1"}, 1, verify + "--advertise-client-urls is required when --listen-client-urls is set explicitly" + see},
		{"listen without advertise, fallback exit", []string{"--listen-client-urls", "http://127.0.0.1:1", "--discovery", "http://d/t", "--discovery-fallback", "exit"}, nil, 1, verify + "--advertise-client-urls is required when --listen-client-urls is set explicitly" + see},
		{"election below 5 heartbeats", []string{"--heartbeat-interval", "300"}, nil, 1, verify + "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]" + see},
		{"election too long", []string{"--election-timeout", "60000"}, nil, 1, verify + "--election-timeout[60000ms] is too long, and should be set less than 50000ms" + see},
		{"heartbeat 0", []string{"--heartbeat-interval", "0"}, nil, 1, verify + "--heartbeat-interval must be >0 (set to 0ms)" + see},
		{"election 0", []string{"--election-timeout", "0"}, nil, 1, verify + "--election-timeout must be >0 (set to 0ms)" + see},
		{"listen on a host name", []string{"--listen-peer-urls", "http://h:1"}, nil, 1, verify + "expected IP in URL for binding (http://h:1)" + see},
		{"listen on no host", []string{"--listen-peer-urls", "http://:1"}, nil, 1, verify + "expected IP in URL for binding (http://:1)" + see},
		{"advertise no host", []string{"--initial-advertise-peer-urls", "http://:1"}, nil, 1, verify + `--initial-advertise-peer-urls "http://:1" must be "host:port" (unexpected empty host (http://:1))` + see},
		{"environment value", nil, []string{"ETCD_HEARTBEAT_INTERVAL=abc"}, 1, verify + `invalid value "abc" for ETCD_HEARTBEAT_INTERVAL: parse error` + see},
		{"environment value, own prefix", nil, []string{"QUORATE_PROXY=abc"}, 1, verify + `invalid value "abc" for QUORATE_PROXY: invalid value` + see},
		{"old and new address", []string{"--bind-addr", "127.0.0.1:1", "--listen-client-urls", "http://127.0.0.1:1"}, nil, 1, verify + "Set only one of flags -listen-client-urls and -bind-addr" + see},
		{"old address without IP", []string{"--addr", "h:1"}, nil, 2, `invalid value "h:1" for flag -addr: bad IP in address specification`},
		{"old address with bad port", []string{"--addr", "127.0.0.1:x"}, nil, 2, `invalid value "127.0.0.1:x" for flag -addr: bad port in address specification`},
		{"rights of guests", []string{"--auth-guest", "write"}, nil, 2, `invalid value "write" for flag -auth-guest: invalid value`},
		{"no history", []string{"--event-history", "0"}, nil, 1, verify + "--event-history must be >0 (set to 0)" + see},
		{"service URL", []string{"--discovery-service-url", "h"}, nil, 1, verify + "--discovery-service-url must be an http or https URL without a query: h" + see},

		{"https without files", []string{"--listen-client-urls", "https://127.0.0.1:1", "--advertise-client-urls", "https://127.0.0.1:1"}, nil, 1, verify + "TLS key/cert (--cert-file, --key-file) must be provided for client url https://127.0.0.1:1 with HTTPS scheme" + see},
		{"https without files, peer", []string{"--listen-peer-urls", "https://127.0.0.1:1"}, nil, 1, verify + "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url https://127.0.0.1:1 with HTTPS scheme" + see},
		{"certificate without key", []string{"--cert-file", "server.crt"}, nil, 1, verify + "KeyFile and CertFile must both be present[key: , cert: server.crt]" + see},
		{"key without certificate, peer", []string{"--peer-key-file", "p.key"}, nil, 1, verify + "KeyFile and CertFile must both be present[key: p.key, cert: ]" + see},
		{"client-cert-auth without CA", []string{"--cert-file", "a", "--key-file", "b", "--client-cert-auth"}, nil, 1, verify + "--client-cert-auth needs --trusted-ca-file: without it any certificate that the system trusts would do" + see},
		{"allowed name without a demand", []string{"--peer-cert-allowed-cn", "m"}, nil, 1, verify + "a revocation list or an allowed name for peer certificates needs --peer-client-cert-auth" + see},
		{"unknown cipher suite", []string{"--cipher-suites", "TLS_ROT13"}, nil, 1, verify + `unexpected TLS cipher suite "TLS_ROT13"` + see},
		{"file missing", []string{"--config-file", "nope.yml"}, nil, 1, verify + "open nope.yml: no such file or directory" + see},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Parse(tt.args, tt.env)
			var refusal *Error
			if !errors.As(err, &refusal) {
				t.Fatalf("Parse = %v, want an *Error", err)
			}
			if refusal.Error() != tt.want || refusal.ExitCode() != tt.exit {
				t.Errorf("Parse = exit %d\n%s\nwant exit %d\n%s", refusal.Exit, refusal, tt.exit, tt.want)
			}
		})
	}
}

func TestMissingAdvertiseURLHasAHint(t *testing.T) {
	_, _, err := Parse([]string{"--listen-client-urls", "http://127.0.0.1:1"}, nil)
	var refusal *Error
	if !errors.As(err, &refusal) || !strings.HasPrefix(refusal.Hint, "When listening on specific address(es), ") {
		t.Errorf("Parse = %v, hint %q", err, refusal.Hint)
	}
}

func TestParseAccepts(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  []string
		want func(*Config)
	}{
		{"nothing", nil, nil, func(*Config) {}},
		{"one dash, two words", []string{"-name", "a"}, nil, func(c *Config) {
			c.Name, c.DataDir, c.InitialCluster = "a", "a.etcd", "a=http://localhost:2380"
		}},
		{"two dashes, equal sign", []string{"--data-dir=/d"}, nil, func(c *Config) { c.DataDir = "/d" }},
		{"last one wins", []string{"--data-dir=/d", "--data-dir", "/e"}, nil, func(c *Config) { c.DataDir = "/e" }},
		{"boolean alone", []string{"--debug", "--enable-pprof"}, nil, func(c *Config) { c.LogLevel, c.EnablePprof = "debug", true }},
		{"boolean with value", []string{"--strict-reconfig-check=false", "--discovery-service=0"}, nil, func(c *Config) {
			c.StrictReconfigCheck, c.DiscoveryService = false, false
		}},
		{"hexadecimal as in etcd", []string{"--snapshot-count", "0x10"}, nil, func(c *Config) { c.SnapshotCount = 16 }},
		{"rights of guests", []string{"--auth-guest", "none"}, nil, func(c *Config) { c.AuthGuest = GuestNone }},
		{"snapshot count 0", []string{"--snapshot-count", "0"}, nil, func(*Config) {}},
		{"log store", []string{"--log-store", "wal"}, nil, func(c *Config) { c.LogStore = LogStoreWAL }},
		{"times", []string{"--heartbeat-interval", "20", "--election-timeout", "50000", "--disk-stall-limit", "1m"}, nil, func(c *Config) {
			c.HeartbeatInterval, c.ElectionTimeout, c.DiskStallLimit = 20*time.Millisecond, 50*time.Second, time.Minute
		}},
		{"URL lists are sorted", []string{"--listen-peer-urls", "http://127.0.0.1:2, http://127.0.0.1:1"}, nil, func(c *Config) {
			c.ListenPeerURLs = URLs{"http://127.0.0.1:1", "http://127.0.0.1:2"}
		}},
		{"listen on everything, localhost and IPv6", []string{"--listen-peer-urls", "http://0.0.0.0:1,http://[::1]:2,http://localhost:3"}, nil, func(c *Config) {
			c.ListenPeerURLs = URLs{"http://0.0.0.0:1", "http://[::1]:2", "http://localhost:3"}
		}},
		{"initial cluster is taken as it is", []string{"--initial-cluster", "zz"}, nil, func(c *Config) { c.InitialCluster = "zz" }},
		{"initial cluster from name and URLs", []string{"--name", "n", "--data-dir", "/d", "--initial-advertise-peer-urls", "http://b:2,http://a:1"}, nil, func(c *Config) {
			c.Name, c.DataDir = "n", "/d"
			c.InitialAdvertisePeerURLs = URLs{"http://a:1", "http://b:2"}
			c.InitialCluster = "n=http://a:1,n=http://b:2"
		}},
		{"empty initial cluster stays empty", []string{"--initial-cluster="}, nil, func(c *Config) { c.InitialCluster = "" }},
		{"discovery", []string{"--discovery", "http://d:1/t"}, nil, func(c *Config) { c.Discovery, c.InitialCluster = "http://d:1/t", "" }},
		{"listen without advertise, may become a proxy by discovery", []string{"--discovery", "http://d:1/t", "--listen-client-urls", "http://127.0.0.1:1"}, nil, func(c *Config) {
			c.Discovery, c.InitialCluster = "http://d:1/t", ""
			c.ListenClientURLs, c.AdvertiseClientURLs = URLs{"http://127.0.0.1:1"}, nil
		}},
		{"listen without advertise, proxy", []string{"--proxy", "readonly", "--listen-client-urls", "http://127.0.0.1:1"}, nil, func(c *Config) {
			c.Proxy, c.ListenClientURLs, c.AdvertiseClientURLs = ProxyReadonly, URLs{"http://127.0.0.1:1"}, nil
		}},
		{"environment", nil, []string{"ETCD_INITIAL_CLUSTER_STATE=existing", "QUORATE_DATA_DIR=/q", "ETCD_UNKNOWN=1", "HOME=/x"}, func(c *Config) {
			c.InitialClusterState, c.DataDir = StateExisting, "/q"
		}},
		{"own environment wins over etcd's", nil, []string{"ETCD_DATA_DIR=/e", "QUORATE_DATA_DIR=/q"}, func(c *Config) { c.DataDir = "/q" }},
		{"flag wins over the environment, even a bad one", []string{"--snapshot-count", "7"}, []string{"ETCD_SNAPSHOT_COUNT=x"}, func(c *Config) { c.SnapshotCount = 7 }},
		{"empty variable is not set", nil, []string{"ETCD_LISTEN_PEER_URLS=", "QUORATE_DATA_DIR=", "ETCD_DATA_DIR=/e"}, func(c *Config) { c.DataDir = "/e" }},
		{"the client's authority is not the server's", nil, []string{"QUORATE_CA_FILE=ca"}, func(*Config) {}},
		{"version variable is not for us", nil, []string{"ETCD_VERSION=v3.4.23"}, func(*Config) {}},
		{"cors", []string{"--cors", "http://a.example,https://b.example:8080"}, nil, func(c *Config) {
			c.CORS = []string{"http://a.example", "https://b.example:8080"}
		}},
		{"cors of everything", []string{"--cors", "http://a.example,*"}, nil, func(*Config) {}},
		{"cors empty means all, as in etcd", []string{"--cors", ""}, nil, func(*Config) {}},
		{"addresses of etcd 0.4", []string{"-addr", "10.0.0.1:4001", "-peer-addr", "10.0.0.1:7001"}, nil, func(c *Config) {
			c.AdvertiseClientURLs, c.ListenClientURLs = URLs{"http://10.0.0.1:4001"}, URLs{"http://0.0.0.0:4001"}
			c.InitialAdvertisePeerURLs, c.ListenPeerURLs = URLs{"http://10.0.0.1:7001"}, URLs{"http://0.0.0.0:7001"}
			c.InitialCluster = "default=http://10.0.0.1:7001"
		}},
		{"addresses of etcd 0.4 with TLS", []string{"-addr", "10.0.0.1:4001", "-bind-addr", "10.0.0.1:1", "--cert-file=c", "--key-file=k"}, nil, func(c *Config) {
			c.AdvertiseClientURLs, c.ListenClientURLs = URLs{"https://10.0.0.1:4001"}, URLs{"https://10.0.0.1:1"}
			c.ClientTLS.CertFile, c.ClientTLS.KeyFile = "c", "k"
		}},
		{"authority of etcd 2.3", []string{"--ca-file", "ca", "--peer-ca-file", "pca"}, nil, func(c *Config) {
			c.ClientTLS.TrustedCAFile, c.ClientTLS.ClientCertAuth = "ca", true
			c.PeerTLS.TrustedCAFile, c.PeerTLS.ClientCertAuth = "pca", true
		}},
		{"https with files", []string{"--cert-file=c", "--key-file=k", "--listen-client-urls=https://127.0.0.1:1", "--advertise-client-urls=https://h:1"}, nil, func(c *Config) {
			c.ClientTLS.CertFile, c.ClientTLS.KeyFile = "c", "k"
			c.ListenClientURLs, c.AdvertiseClientURLs = URLs{"https://127.0.0.1:1"}, URLs{"https://h:1"}
		}},
		{"https with automatic certificates", []string{"--peer-auto-tls", "--listen-peer-urls=https://127.0.0.1:1"}, nil, func(c *Config) {
			c.PeerTLS.AutoTLS, c.ListenPeerURLs = true, URLs{"https://127.0.0.1:1"}
		}},
		{"cipher suites are for both sides", []string{"--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}, nil, func(c *Config) {
			c.ClientTLS.CipherSuites = []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}
			c.PeerTLS.CipherSuites = c.ClientTLS.CipherSuites
		}},
		{"log level of etcd 3.4", []string{"--log-level", "panic", "--log-format", "json"}, nil, func(c *Config) { c.LogLevel, c.LogFormat = "error", LogJSON }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := Default()
			want.DataDir, want.InitialCluster = "default.etcd", "default=http://localhost:2380"
			tt.want(&want)
			got, _, err := Parse(tt.args, tt.env)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("Parse(%q, %q) =\n%+v\nwant\n%+v", tt.args, tt.env, *got, want)
			}
		})
	}
}

func TestParseNotices(t *testing.T) {
	file := filepath.Join(t.TempDir(), "conf.yml")
	if err := os.WriteFile(file, []byte("data-dir: /f\nname: n\nquota-backend-bytes: 0\nlog-outputs: [stderr]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		env  []string
		want []string // W or I, and the text; in this order among others
	}{
		{"no data-dir", nil, nil, []string{"W no data-dir provided, using default data-dir ./default.etcd"}},
		{"environment used", nil, []string{"ETCD_NAME=x"}, []string{"I recognized and used environment variable ETCD_NAME=x"}},
		{"environment unknown", nil, []string{"ETCD_X=1"}, []string{"W unrecognized environment variable ETCD_X=1"}},
		{"flag shadows the environment", []string{"--name", "a"}, []string{"ETCD_NAME=x"}, []string{"I recognized environment variable ETCD_NAME, but unused: shadowed by corresponding flag"}},
		{"environment shadows the environment", nil, []string{"ETCD_NAME=x", "QUORATE_NAME=y"}, []string{
			"I recognized and used environment variable QUORATE_NAME=y",
			"I recognized environment variable ETCD_NAME, but unused: shadowed by QUORATE_NAME"}},
		{"file overridden", []string{"--config-file", file, "--data-dir", "/x"}, []string{"ETCD_NAME=y"}, []string{
			"W " + file + " line 1: data-dir is overridden by flag -data-dir",
			"W " + file + " line 2: name is overridden by environment variable ETCD_NAME",
			"W " + file + " line 3 has no effect - ignoring: there is no v3 API here",
			"W " + file + " line 4 has no effect - ignoring: logs go to standard error"}},
		{"variables of the client", nil, []string{"QUORATE_ENDPOINTS=http://h:1", "QUORATE_CA_FILE=ca", "QUORATE_ENABLE_V2=true"}, []string{
			"W unrecognized environment variable QUORATE_ENABLE_V2=true", "W no data-dir provided, using default data-dir ./default.etcd"}},
		{"retired flags", []string{"-v", "-vv=true", "-snapshot", "-cluster-active-size", "9", "-max-retry-attempts", "-retry-interval=3"}, nil, []string{
			`W flag "-v" is no longer supported - ignoring.`, `W flag "-vv" is no longer supported - ignoring.`,
			`W flag "-snapshot" is no longer supported - ignoring.`, `W flag "-cluster-active-size" is no longer supported - ignoring.`,
			`W flag "-max-retry-attempts" is no longer supported - ignoring.`, `W flag "-retry-interval" is no longer supported - ignoring.`}},
		{"v2 is always on", []string{"--enable-v2"}, nil, []string{"W flag -enable-v2 has no effect - ignoring: the v2 API is always on"}},
		{"v2 is always on, environment", nil, []string{"ETCD_ENABLE_V2=true"}, []string{"W ETCD_ENABLE_V2 has no effect - ignoring: the v2 API is always on"}},
		{"one warning each", []string{"--logger", "zap", "--logger=zap", "--auto-compaction-retention", "1"}, nil, []string{
			"W flag -logger has no effect - ignoring: see --log-format",
			"W flag -auto-compaction-retention has no effect - ignoring: there is no v3 API here"}},
		{"snapshot count", []string{"--snapshot-count=0"}, nil, []string{"I set snapshot count to default 100000"}},
		{"files for plain http", []string{"--cert-file=c", "--key-file=k"}, nil, []string{
			"W The scheme of client url http://localhost:2379 is http while client key/cert files are presented. Ignored client key/cert files."}},
		{"CA without demand", []string{"--peer-trusted-ca-file=c"}, nil, []string{"W a trusted CA file is given without --peer-client-cert-auth: peers need no certificate"}},
		{"backups of a proxy", []string{"--proxy=on", "--backup-dir=b", "--initial-cluster=a=http://h:1"}, nil, []string{
			"W --backup-dir has no effect on a proxy: members write backups"}},
		{"unreachable address", []string{"--advertise-client-urls=http://0.0.0.0:2379"}, nil, []string{
			"W --advertise-client-urls has http://0.0.0.0:2379, which nobody can reach from another machine"}},
		{"notices come with errors too", []string{"-v", "extra"}, nil, []string{`W flag "-v" is no longer supported - ignoring.`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, notices, _ := Parse(tt.args, tt.env)
			var got []string
			for _, n := range notices {
				letter := "I "
				if n.Warn {
					letter = "W "
				}
				got = append(got, letter+n.Text)
			}
			rest := got
			for _, w := range tt.want {
				i := slices.Index(rest, w)
				if i < 0 {
					t.Fatalf("notices\n%s\nwant among them, in order\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
				}
				rest = rest[i+1:]
			}
			if tt.name == "variables of the client" && len(got) != len(tt.want) {
				t.Errorf("notices %q, want just %q", got, tt.want)
			}
			if tt.name == "one warning each" && len(got) != len(tt.want)+1 {
				t.Errorf("notices %q, want just these and the data-dir", got)
			}
		})
	}
}

// Every flag of etcd 3.4.23 must be known, with its kind, so that its value is not taken for a
// left-over argument.
func TestFlagsOfEtcd34(t *testing.T) {
	withValue := strings.Fields(`name data-dir wal-dir snapshot-count heartbeat-interval election-timeout listen-peer-urls
		listen-client-urls max-snapshots max-wals quota-backend-bytes backend-batch-interval backend-batch-limit max-txn-ops
		max-request-bytes max-concurrent-streams grpc-keepalive-min-time grpc-keepalive-interval grpc-keepalive-timeout
		initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token advertise-client-urls discovery
		discovery-fallback discovery-proxy discovery-srv discovery-srv-name auto-compaction-retention auto-compaction-mode
		cert-file key-file client-crl-file client-cert-allowed-hostname trusted-ca-file peer-cert-file peer-key-file
		peer-trusted-ca-file peer-cert-allowed-cn peer-cert-allowed-hostname peer-crl-file cipher-suites cors host-whitelist
		auth-token bcrypt-cost auth-token-ttl metrics listen-metrics-urls logger log-outputs log-output log-level proxy proxy-failure-wait
		proxy-refresh-interval proxy-dial-timeout proxy-write-timeout proxy-read-timeout experimental-corrupt-check-time
		experimental-enable-v2v3 experimental-backend-bbolt-freelist-type experimental-compaction-batch-limit
		experimental-watch-progress-notify-interval experimental-warning-apply-duration log-package-levels config-file`)
	alone := strings.Fields(`initial-election-tick-advance strict-reconfig-check pre-vote enable-v2 client-cert-auth auto-tls
		peer-client-cert-auth peer-auto-tls enable-pprof experimental-initial-corrupt-check experimental-enable-lease-checkpoint
		experimental-peer-skip-client-san-verification force-new-cluster debug version`)
	for _, name := range append(slices.Clone(withValue), alone...) {
		o := options[name]
		if o == nil {
			t.Errorf("flag -%s is unknown", name)
			continue
		}
		if isBool := slices.Contains(alone, name); (o.kind == kindBool) != isBool {
			t.Errorf("flag -%s has kind %s, want boolean %v", name, o.kind, isBool)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"-h"}, {"--help"}, {"-help"}, {"--name", "a", "-h"}} {
		if _, _, err := Parse(args, nil); !errors.Is(err, ErrHelp) {
			t.Errorf("Parse(%q) = %v, want ErrHelp", args, err)
		}
	}
	for _, args := range [][]string{{"--version"}, {"-version=true"}} {
		if _, _, err := Parse(args, []string{"ETCD_PROXY=bad"}); !errors.Is(err, ErrVersion) {
			t.Errorf("Parse(%q) = %v, want ErrVersion", args, err)
		}
	}
	var b strings.Builder
	if err := WriteHelp(&b); err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, o := range g.options {
			if shown := strings.Contains(b.String(), "\n  --"+o.name+" '"); shown != (o.usage != "") || shown != (g.title != "") {
				t.Errorf("help shows --%s: %v, with usage %q in group %q", o.name, shown, o.usage, g.title)
			}
		}
	}
}

func TestEffectiveValues(t *testing.T) {
	c, _, err := Parse([]string{"--name", "n", "--wal-dir", "/w", "--data-dir", "/d"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"name = n", "data dir = /d", "member dir = /d/member", "dedicated WAL dir = /w", "heartbeat = 100ms",
		"election = 1000ms", "snapshot count = 100000", "advertise client URLs = http://localhost:2379"}
	if got := c.EffectiveValues(false); !slices.Equal(got, want) {
		t.Errorf("EffectiveValues(false) = %q, want %q", got, want)
	}
	want = append(want, "initial advertise peer URLs = http://localhost:2380", "initial cluster = n=http://localhost:2380")
	if got := c.EffectiveValues(true); !slices.Equal(got, want) {
		t.Errorf("EffectiveValues(true) = %q, want %q", got, want)
	}
}
