//go:build linux

package cli_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quorate/quorate/client"
)

// refused returns the URL of a port that nobody listens on, and that nobody else gets meanwhile.
func refused(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", address.(*syscall.SockaddrInet4).Port)
}

func TestUnreachableLikeEtcdctl(t *testing.T) {
	etcdctl(t)
	a := refused(t)
	notEtcd := httptest.NewServer(http.NotFoundHandler())
	defer notEtcd.Close()
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer failing.Close()
	tests := []struct {
		name string
		args string
	}{
		{"during sync", "--endpoints " + a + " get /a"},
		{"without sync", "--endpoints " + a + " --no-sync get /a"},
		// Twice the same one, because etcdctl draws lots for the order.
		{"two endpoints", "--endpoints " + a + "," + a + " --no-sync set /a b"},
		{"old flags", "--peers " + a + " --no-sync ls"},
		{"older flags", "--endpoint " + a + " --no-sync watch /a"},
		{"short flag", "-C " + a + " --no-sync get /a"},
		{"header time-out", "--endpoints " + silent.URL + " --no-sync --timeout 100ms get /a"},
		{"total time-out", "--endpoints " + silent.URL + " --no-sync --timeout 60s --total-timeout 100ms get /a"},
		{"server error", "--endpoints " + failing.URL + " --no-sync get /a"},
		{"not etcd", "--endpoints " + notEtcd.URL + " --no-sync get /a"},
		{"members", "--endpoints " + a + " --no-sync member list"},
		{"members during sync", "--endpoints " + a + " member list"},
		{"users", "--endpoints " + a + " --no-sync user list"},
		{"health", "--endpoints " + a + " cluster-health"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := strings.Fields(tt.args)
			want := runEtcdctl(t, "", args...)
			got := quorate(t, "", args...)
			// etcdctl ends the lists of members and users with an empty line, by accident.
			got.err, want.err = strings.TrimRight(got.err, "\n"), strings.TrimRight(want.err, "\n")
			if got != want {
				t.Errorf("%v\netcdctl: %v", got, want)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		name, args, err string
	}{
		{"unknown verb", "nocmd", `unknown command "nocmd"`},
		{"unknown flag", "get --nope /a", "unknown flag: --nope"},
		{"unknown sub-verb", "member nope", `unknown command "nope" for "quorate member"`},
		{"unknown format", "-o xml set /a b", "Unsupported output format: xml"},
		{"a value that looks like a flag", "set /a -5", "comes after \"--\": quorate set -- KEY -VALUE"},
		{"a value without quotes", "set /a b c", `key and value expected, got 3 arguments: ["/a" "b" "c"]; quote a value with spaces`},
		{"two keys", "rm /a /b", `one key expected, got 2 arguments: ["/a" "/b"]`},
		{"bad endpoint", "-C ftp://x get /a", "scheme must be http or https"},
		{"certificate without key", "--cert-file x get /a", "--cert-file and --key-file need each other"},
		{"missing CA", "--ca-file /does/not/exist get /a", "no such file"},
		{"member list", "member list x", "No arguments accepted"},
		{"member add", "member add x", "Provide a name and a single member peerURL"},
		{"member remove", "member remove", "Provide a single member ID"},
		{"member update", "member update 1", "Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)"},
		{"user", "user add", "Please provide a username"},
		{"user get", "user get", "Please provide a username"},
		{"user grant", "user grant bob", "No roles specified; please use `--roles`"},
		{"role", "role get", "Please provide a role name"},
		{"role path", "role grant dev --read", "No path specified; please use `--path`"},
		{"role path form", "role grant dev --read --path x", "Not canonical path; please use `--path=/x`"},
		{"role permission", "role revoke dev --path /x", "Please specify exactly one of --read, --write or --readwrite"},
		{"role permissions", "role grant dev --path /x --read --write", "Please specify exactly one of --read, --write or --readwrite"},
		{"auth", "auth enable now", "No arguments accepted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := quorate(t, "", strings.Fields(tt.args)...)
			if got.code != 1 || got.out != "" || !strings.Contains(got.err, tt.err) {
				t.Errorf("%v\nwant exit code 1 and %q", got, tt.err)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, args := range []string{"--help", "help", "help get", "set --help", "member", "user --help", "completion bash"} {
		if got := quorate(t, "", strings.Fields(args)...); got.code != 0 || got.out == "" || got.err != "" {
			t.Errorf("%s: %v", args, got)
		}
	}
}

// Every verb says what it does and shows an example, or is plain enough to need none.
func TestHelpTexts(t *testing.T) {
	for _, c := range newRoot().Commands() {
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is %q", c.Name(), c.Short)
		}
		if c.Example == "" && !c.HasSubCommands() && c.Name() != "help" && c.Name() != "completion" {
			t.Errorf("%s has no example", c.Name())
		}
	}
}

func TestEnvironment(t *testing.T) {
	if _, err := keys(t).Set(t.Context(), "/env", "here", client.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	closed := refused(t)
	tests := []struct {
		name string
		env  map[string]string
		args string
		code int
	}{
		{"etcdctl's name", map[string]string{"ETCDCTL_ENDPOINTS": etcd(t)}, "get /env", 0},
		{"own name", map[string]string{"QUORATE_ENDPOINTS": etcd(t)}, "get /env", 0},
		{"own name first", map[string]string{"QUORATE_ENDPOINTS": etcd(t), "ETCDCTL_ENDPOINTS": closed}, "get /env", 0},
		{"flag first", map[string]string{"QUORATE_ENDPOINTS": closed}, "-C " + etcd(t) + " get /env", 0},
		{"environment before old flags", map[string]string{"ETCDCTL_ENDPOINTS": etcd(t)}, "--peers " + closed + " get /env", 0},
		{"old name", map[string]string{"ETCDCTL_PEERS": etcd(t)}, "get /env", 0},
		{"bad CA", map[string]string{"ETCDCTL_ENDPOINTS": etcd(t), "ETCDCTL_CA_FILE": "/does/not/exist"}, "get /env", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, v := range tt.env {
				t.Setenv(name, v)
			}
			if got := quorate(t, "", strings.Fields(tt.args)...); got.code != tt.code || tt.code == 0 && got.out != "here\n" {
				t.Errorf("%v\nwant exit code %d", got, tt.code)
			}
		})
	}
}

// A file holds what is always the same. The environment and flags win over it, and what is wrong in it is said.
func TestConfigFile(t *testing.T) {
	if _, err := keys(t).Set(t.Context(), "/filed", "here", client.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	closed := refused(t)
	tests := []struct {
		name, file string
		mode       os.FileMode
		env        string // of QUORATE_ENDPOINTS
		args       string
		code       int
		stderr     string // contained
	}{
		{"endpoints", "endpoints: " + etcd(t), 0o644, "", "get /filed", 0, ""},
		{"several", "endpoints: " + closed + "," + etcd(t) + "\nusername: root:secret", 0o600, "", "--no-sync get /filed", 0, ""},
		{"environment first", "endpoints: " + closed, 0o644, etcd(t), "get /filed", 0, ""},
		{"flag first", "endpoints: " + closed, 0o644, closed, "-C " + etcd(t) + " get /filed", 0, ""},
		{"endpoints before DNS in the file", "discovery-srv: nowhere.invalid", 0o644, "", "-C " + etcd(t) + " get /filed", 0, ""},
		{"nothing", "", 0o644, etcd(t), "get /filed", 0, ""},
		{"unknown key", "endpoint: " + etcd(t), 0o644, "", "get /filed", 1, "line 1: field endpoint not found"},
		{"password for all to read", "username: root:secret", 0o644, etcd(t), "get /filed", 1, "chmod 600"},
		{"a CA that is not there", "ca-file: /does/not/exist", 0o644, etcd(t), "get /filed", 1, "/does/not/exist"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "quorate.yaml")
			if err := os.WriteFile(path, []byte(tt.file), tt.mode); err != nil {
				t.Fatal(err)
			}
			t.Setenv("QUORATE_ENDPOINTS", tt.env)
			got := quorate(t, "", append([]string{"--config", path}, strings.Fields(tt.args)...)...)
			if got.code != tt.code || tt.code == 0 && got.out != "here\n" || !strings.Contains(got.err, tt.stderr) || strings.Contains(got.err, "secret") {
				t.Errorf("%v\nwant exit code %d, %q", got, tt.code, tt.stderr)
			}
		})
	}
	if got := quorate(t, "", "--config", "/does/not/exist", "get", "/filed"); got.code != 1 || got.err != "Error:  --config: open /does/not/exist: no such file or directory\n" {
		t.Errorf("no file: %v", got)
	}
}

func TestDebug(t *testing.T) {
	endpoint := etcd(t)
	got := quorate(t, "", "--debug", "-C", endpoint, "-u", "root:secret", "set", "/debug", "b c")
	want := "start to sync cluster using endpoints(" + endpoint + ")\n" +
		"cURL Command: curl -X GET " + endpoint + "/v2/members\n" +
		"got endpoints(" + endpoint + ") after sync\n" +
		"Cluster-Endpoints: " + endpoint + "\n" +
		"cURL Command: curl -X PUT " + endpoint + "/v2/keys/debug -d \"value=b+c\"\n"
	if got.err != want || got.out != "b c\n" {
		t.Errorf("%v\nwant stderr\n%s", got, want)
	}
	// What can be pasted into a shell must be safe there, and a password is not for the screen.
	got = quorate(t, "", "--debug", "--no-sync", "-C", endpoint, "get", "/debug")
	if !strings.Contains(got.err, "curl -X GET '"+endpoint+"/v2/keys/debug?quorum=false&recursive=false&sorted=false'\n") {
		t.Errorf("the query is not quoted: %v", got)
	}
	got = quorate(t, "", "--debug", "--no-sync", "-C", refused(t), "user", "add", "bob:hunter2")
	if strings.Contains(got.err, "hunter2") {
		t.Errorf("the password is printed: %v", got)
	}
}

// A write that was answered 500 is not sent again, and says that it may have happened (spec cli.md 5).
func TestUnknownOutcome(t *testing.T) {
	var requests []string
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r.Method)
		w.WriteHeader(http.StatusInternalServerError)
		w.Write([]byte(`{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}`))
	}))
	defer failing.Close()
	got := quorate(t, "", "-C", failing.URL+","+failing.URL, "--no-sync", "set", "/a", "b")
	want := result{4, "", "Error:  300: Raft Internal Error (etcdserver: request timed out) [0]\nThe outcome is unknown: the change may still take effect.\n"}
	if got != want {
		t.Errorf("%v\nwant %v", got, want)
	}
	if len(requests) != 1 {
		t.Errorf("%d requests were sent, want 1", len(requests))
	}
}

func TestUnpublished(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"members":[{"id":"1","name":"","peerURLs":["http://x:1"],"clientURLs":[]}]}`))
	}))
	defer s.Close()
	got := quorate(t, "", "-C", s.URL, "get", "/a")
	want := result{4, "", "etcd cluster has no published client endpoints.\n" +
		"Try '--no-sync' if you want to access non-published client endpoints(" + s.URL + ").\n" +
		"Error:  client: no endpoints available\n"}
	if got != want {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(`{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}`))
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		keyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	identity := "--cert-file " + certFile + " --key-file " + keyFile
	tests := []struct {
		name, flags string
		code        int
		err         string
	}{
		{"known", identity + " --ca-file " + certFile, 0, ""},
		{"unverified", identity + " --insecure-skip-tls-verify", 0, ""},
		{"unknown server", identity, 4, "certificate signed by unknown authority"},
		{"unknown client", "--ca-file " + certFile, 4, ""}, // the text depends on who notices first
		{"bundle without a certificate", "--ca-file " + keyFile, 1, "holds no certificate"},
		{"plain text", "--endpoints " + strings.Replace(s.URL, "https", "http", 1), 4, "client: response is invalid json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := quorate(t, "", append([]string{"--endpoints", s.URL, "--no-sync", "get", "/a"}, strings.Fields(tt.flags)...)...)
			if got.code != tt.code || !strings.Contains(got.err, tt.err) {
				t.Errorf("%v\nwant exit code %d and %q", got, tt.code, tt.err)
			}
		})
	}
}
