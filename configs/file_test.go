package configs

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

// inFile runs Parse on a file named conf.yml in the working directory.
func inFile(t *testing.T, content string, args ...string) (*Config, []Notice, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("conf.yml", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return Parse(append([]string{"--config-file", "conf.yml"}, args...), nil)
}

func TestFileAccepts(t *testing.T) {
	tests := []struct {
		name string
		file string
		args []string
		want func(*Config)
	}{
		{"empty", "", nil, func(*Config) {}},
		{"only comments", "# nothing\n", nil, func(*Config) {}},
		{"keys without values, as in etcd's sample", "name: 'default'\ndata-dir:\ninitial-cluster:\ndiscovery:\nclient-transport-security:\n", nil, func(*Config) {}},
		{"all types", "name: n\ndata-dir: /d\nsnapshot-count: 5_000\nelection-timeout: 5000\nstrict-reconfig-check: no\nproxy: on\ndisk-stall-limit: 1m\n", nil, func(c *Config) {
			c.Name, c.DataDir, c.SnapshotCount, c.ElectionTimeout = "n", "/d", 5000, 5*time.Second
			c.StrictReconfigCheck, c.Proxy, c.DiskStallLimit = false, ProxyOn, time.Minute
			c.InitialCluster = "n=http://localhost:2380"
		}},
		{"a number can be a name", "name: 7\ndata-dir: /d\n", nil, func(c *Config) {
			c.Name, c.DataDir, c.InitialCluster = "7", "/d", "7=http://localhost:2380"
		}},
		{"lists in one text", "listen-peer-urls: http://127.0.0.1:2,http://127.0.0.1:1\n", nil, func(c *Config) {
			c.ListenPeerURLs = URLs{"http://127.0.0.1:1", "http://127.0.0.1:2"}
		}},
		{"lists as lists", "cors: [http://a, http://b]\nlisten-peer-urls:\n- http://127.0.0.1:2\n- http://127.0.0.1:1\n", nil, func(c *Config) {
			c.CORS, c.ListenPeerURLs = []string{"http://a", "http://b"}, URLs{"http://127.0.0.1:1", "http://127.0.0.1:2"}
		}},
		{"TLS sections", "client-transport-security: {cert-file: s.crt, key-file: s.key, client-cert-auth: true, trusted-ca-file: ca.crt, auto-tls: false}\n" +
			"peer-transport-security:\n  cert-file: p.crt\n  key-file: p.key\n", nil, func(c *Config) {
			c.ClientTLS = TLS{CertFile: "s.crt", KeyFile: "s.key", ClientCertAuth: true, TrustedCAFile: "ca.crt"}
			c.PeerTLS = TLS{CertFile: "p.crt", KeyFile: "p.key"}
		}},
		{"aliases", "initial-advertise-peer-urls: &u http://127.0.0.1:1\nlisten-peer-urls: *u\n", nil, func(c *Config) {
			c.InitialAdvertisePeerURLs, c.ListenPeerURLs = URLs{"http://127.0.0.1:1"}, URLs{"http://127.0.0.1:1"}
			c.InitialCluster = "default=http://127.0.0.1:1"
		}},
		{"the command line wins, option by option", "data-dir: /d\nsnapshot-count: 7\n", []string{"--snapshot-count", "8"}, func(c *Config) {
			c.DataDir, c.SnapshotCount = "/d", 8
		}},
		{"force-new-cluster that says no", "force-new-cluster: false\n", nil, func(*Config) {}},
		{"force-new-cluster on the command line", "data-dir: /d\n", []string{"--force-new-cluster"}, func(c *Config) { c.DataDir, c.ForceNewCluster = "/d", true }},
		{"options of v3", "enable-v2: true\nquota-backend-bytes: 0\nauto-compaction-retention: \"1\"\nlog-outputs: [stderr]\nlogger: zap\n", nil, func(*Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := Default()
			want.DataDir, want.InitialCluster = "default.etcd", "default=http://localhost:2380"
			tt.want(&want)
			got, _, err := inFile(t, tt.file, tt.args...)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*got, want) {
				t.Errorf("got\n%+v\nwant\n%+v", *got, want)
			}
		})
	}
}

func TestFileRefuses(t *testing.T) {
	tests := []struct {
		name string
		file string
		want string // between the frame of the message
	}{
		{"not YAML", "[", "error converting YAML to JSON: yaml: line 1: did not find expected node content"},
		{"not a mapping", "- name\n", "conf.yml line 1: the file must map option names to values"},
		{"two documents", "name: a\n---\nname: b\n", "error converting YAML to JSON: line 2: a second document"},
		{"wrong type", "name: a\nheartbeat-interval: abc\n", "conf.yml line 2: cannot unmarshal string into Go struct field configYAML.heartbeat-interval of type uint"},
		{"wrong type, list", "name: [a]\n", "conf.yml line 1: cannot unmarshal array into Go struct field configYAML.name of type string"},
		{"wrong type, boolean", "debug: 1\n", "conf.yml line 1: cannot unmarshal number into Go struct field configYAML.debug of type bool"},
		{"wrong type, number", "max-snapshots: true\n", "conf.yml line 1: cannot unmarshal bool into Go struct field configYAML.max-snapshots of type uint"},
		{"negative", "max-snapshots: -1\n", "conf.yml line 1: cannot unmarshal number -1 into Go struct field configYAML.max-snapshots of type uint"},
		{"wrong type in a section", "client-transport-security:\n  cert-file: {}\n", "conf.yml line 2: cannot unmarshal object into Go struct field configYAML.client-transport-security.cert-file of type string"},
		{"enum", "initial-cluster-state: old\n", `conf.yml line 1: unexpected clusterState "old"`},
		{"other enum", "proxy: maybe\n", `conf.yml line 1: invalid value "maybe" for proxy: invalid value`},
		{"URL", "name: a\n\nlisten-peer-urls: http://h\n", `conf.yml line 3: invalid value "http://h" for listen-peer-urls: URL address does not have the form "host:port": http://h`},
		{"unknown key", "name: a\nnmae: b\n", `conf.yml line 2: unknown key "nmae"`},
		{"unknown key in a section", "peer-transport-security:\n  cert: b\n", `conf.yml line 2: unknown key "cert"`},
		{"TLS key at the top", "cert-file: a\n", `conf.yml line 1: unknown key "cert-file"; it belongs under client-transport-security, as cert-file`},
		{"peer TLS key at the top", "peer-key-file: a\n", `conf.yml line 1: unknown key "peer-key-file"; it belongs under peer-transport-security, as key-file`},
		{"section that is none", "peer-transport-security: a\n", "conf.yml line 1: peer-transport-security must be a mapping"},
		{"key given twice", "name: a\ndata-dir: /d\nname: b\n", `conf.yml line 3: key "name" was given on line 1 already`},
		{"file in the file", "config-file: b\n", `conf.yml line 1: unknown key "config-file", which is not for files`},
		{"force-new-cluster", "force-new-cluster: true\n", "conf.yml line 1: force-new-cluster must not be in a file, where it would outlive its purpose; use the flag for one start"},
		{"validated like flags", "heartbeat-interval: 300\n", "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]"},
		{"explicit listen", "listen-client-urls: http://127.0.0.1:1\n", "--advertise-client-urls is required when --listen-client-urls is set explicitly"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := inFile(t, tt.file)
			want := "error verifying flags, " + tt.want + ". See 'quorate serve --help'."
			if err == nil || err.Error() != want {
				t.Errorf("Parse = %v\nwant %s", err, want)
			}
		})
	}
}

// FuzzFile: no file makes the parser panic or hang.
func FuzzFile(f *testing.F) {
	for _, seed := range []string{"", "name: a", "a: &a [*a]", "? {a: b}\n: c", "<<: {name: a}", "client-transport-security: {cert-file: a}"} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "conf.yml")
	f.Fuzz(func(t *testing.T, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, _ = Parse([]string{"--config-file", path}, nil)
	})
}

// The sample lists every option that may be in a file, with its default, and is a valid file both
// as it stands and with all its comments taken away.
func TestSampleFile(t *testing.T) {
	sample, err := os.ReadFile("quorate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := inFile(t, string(sample)); err != nil {
		t.Errorf("as it stands: %v", err)
	}
	full := regexp.MustCompile(`(?m)^#( ?)((?:  )?[a-z-]+:)`).ReplaceAllString(string(sample), "$2")
	got, _, err := inFile(t, full)
	if err != nil {
		t.Fatalf("with all options: %v", err)
	}
	want, _, err := Parse(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with all options:\n%+v\nwant the defaults\n%+v", *got, *want)
	}
	for _, g := range groups {
		for _, o := range g.options {
			key := o.name
			if o.key != "" {
				key = "  " + o.key
			}
			documented := strings.Contains(full, "\n"+key+":")
			if wanted := g.title != "" && !o.noFile && o.name != "force-new-cluster" && o.name != "debug"; documented != wanted {
				t.Errorf("the sample has %q: %v, want %v", o.name, documented, wanted)
			}
		}
	}
}
