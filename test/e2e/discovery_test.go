//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// service is a cluster of one that serves discovery to others.
type service struct {
	*cluster.Member
	tokens int
}

func startService(t *testing.T, kind cluster.Kind) *service {
	t.Helper()
	return &service{Member: cluster.Start(t, cluster.Options{Kind: kind}).Members[0]}
}

// keysToken makes a token by hand, with plain key writes. An empty size makes none.
func (s *service) keysToken(t *testing.T, size string) (tokenURL string) {
	t.Helper()
	s.tokens++
	key := fmt.Sprintf("/discovery/token%d", s.tokens)
	if size != "" {
		mustPut(t, s.Member, key+"/_config/size", size)
	}
	return s.ClientURL + "/v2/keys" + key
}

// newToken asks /new for a token.
func (s *service) newToken(t *testing.T, size string) (tokenURL string) {
	t.Helper()
	resp, err := s.Do(limit(t), http.MethodGet, "/new?size="+size, "", "")
	if err != nil || resp.Status != http.StatusOK {
		t.Fatalf("GET /new?size=%s: %v (%v)", size, resp, err)
	}
	return strings.TrimSpace(resp.Body)
}

// TestDiscoveryBoot boots clusters of either kind from a URL served by either kind: no list of members is given
// to anyone, all find each other, and whoever comes too late is turned away or becomes a proxy.
func TestDiscoveryBoot(t *testing.T) {
	type boot struct {
		service cluster.Kind
		form    string // how the token is made: keys or new
		members cluster.Kind
		size    int
	}
	boots := []boot{
		{cluster.Quorate, "keys", cluster.Quorate, 1},
		{cluster.Quorate, "new", cluster.Quorate, 3},
	}
	if long {
		boots = append(boots, boot{cluster.Quorate, "keys", cluster.Quorate, 3})
		for _, size := range []int{5, 7, 9} {
			boots = append(boots, boot{cluster.Quorate, "new", cluster.Quorate, size})
		}
	}
	if cluster.EtcdBinary() != "" {
		boots = append(boots,
			boot{cluster.Etcd, "keys", cluster.Quorate, 3},
			boot{cluster.Quorate, "new", cluster.Etcd, 3},
			boot{cluster.Quorate, "keys", cluster.Etcd, 3},
		)
	}
	if kind() == cluster.Etcd {
		boots = []boot{{cluster.Etcd, "keys", cluster.Etcd, 1}, {cluster.Etcd, "keys", cluster.Etcd, 3}}
	}
	for _, b := range boots {
		t.Run(fmt.Sprintf("%s/%s serves %d of %s", b.service, b.form, b.size, b.members), func(t *testing.T) {
			t.Parallel()
			s := startService(t, b.service)
			token := s.keysToken
			if b.form == "new" {
				token = s.newToken
			}
			checkDiscoveryBoot(t, b.members, token(t, fmt.Sprint(b.size)), b.size)
		})
	}
}

func checkDiscoveryBoot(t *testing.T, kind cluster.Kind, tokenURL string, size int) {
	t.Helper()
	c := cluster.Start(t, cluster.Options{Kind: kind, Size: size, Discovery: tokenURL})
	c.WaitLeader()
	for i, m := range c.Members {
		mustPut(t, m, fmt.Sprintf("/from/%d", i), m.Name)
	}
	c.WaitEqual()
	ids := map[string]bool{}
	for _, m := range c.Members {
		wantValue(t, m, fmt.Sprintf("/from/%d", size-1), c.Members[size-1].Name)
		list, err := m.MemberList(limit(t))
		if err != nil || len(list) != size {
			t.Fatalf("%s lists %d members (%v), want %d", m.Name, len(list), err, size)
		}
		for _, l := range list {
			ids[l.ID] = true
			if want := api.FormatID(api.MemberID(l.PeerURLs, tokenURL)); l.ID != want {
				t.Errorf("%s has ID %s, its URL and the token give %s", l.Name, l.ID, want)
			}
		}
	}
	if len(ids) != size {
		t.Errorf("the members name %d different IDs, want %d", len(ids), size)
	}

	late := c.Join("late")
	late.Boot = []string{"--discovery", tokenURL, "--discovery-fallback", "exit"}
	late.Start()
	wantRefusal(t, late, "discovery: cluster is full")

	late = c.Join("proxy")
	late.Boot = []string{"--discovery", tokenURL}
	late.Start()
	late.WaitLog("discovery cluster full, falling back to proxy")
	eventuallyPut(t, late, "/through-the-proxy", "1")
	wantValue(t, c.Members[0], "/through-the-proxy", "1")
	if _, err := os.Stat(filepath.Join(late.DataDir, "proxy", "cluster")); err != nil {
		t.Errorf("the proxy has no file of its own: %v", err)
	}
}

// wantRefusal waits for a process to end and fails unless it did so with status 1, having said why in plain
// words and without a stack trace.
func wantRefusal(t *testing.T, m *cluster.Member, texts ...string) {
	t.Helper()
	exit, log := m.Wait(), m.Log()
	if exit.Code != 1 {
		t.Errorf("%s ended with %v, want exit status 1", m.Name, exit)
	}
	for _, text := range texts {
		if !strings.Contains(log, text) {
			t.Errorf("%s did not say %q, but:\n%s", m.Name, text, log)
		}
	}
	for _, sign := range []string{"panic", "goroutine "} {
		if strings.Contains(log, sign) {
			t.Errorf("%s shows a stack trace:\n%s", m.Name, log)
		}
	}
}

// register writes an entry of a token directory, as a node would.
func (s *service) register(t *testing.T, tokenURL, id, value string) {
	t.Helper()
	_, key, ok := strings.Cut(tokenURL, "/v2/keys")
	if !ok {
		t.Fatalf("%s is no key's URL", tokenURL)
	}
	mustPut(t, s.Member, key+"/"+id, value)
}

// registered lists the values in a token directory.
func (s *service) registered(t *testing.T, tokenURL string) []string {
	t.Helper()
	_, key, _ := strings.Cut(tokenURL, "/v2/keys")
	values, _, err := s.Listing(limit(t), key)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range values {
		out = append(out, v)
	}
	return out
}

const generic = "was used, but failed to bootstrap the cluster."

// TestDiscoveryFailures goes through what can be wrong with a token; every case ends with status 1 and a reason.
func TestDiscoveryFailures(t *testing.T) {
	t.Parallel()
	s := startService(t, kind())
	tests := []struct {
		name  string
		size  string
		setUp func(t *testing.T, tokenURL string, m *cluster.Member)
		want  []string
		// wantNone says that nothing may be registered.
		wantNone bool
		better   bool // than etcd
	}{
		{name: "no size key", want: []string{"Key not found", generic}, wantNone: true},
		{name: "no size key, said plainly", want: []string{"discovery: size key not found"}, wantNone: true, better: true},
		{name: "size is a word", size: "three", want: []string{"discovery: size key is bad", generic}, wantNone: true},
		{name: "size is negative", size: "-1", want: []string{"discovery: size key is bad", generic}, wantNone: true},
		{name: "size is zero", size: "0", want: []string{"discovery: size key is bad", generic}, wantNone: true, better: true},
		{name: "full", size: "1", want: []string{"discovery: cluster is full", generic},
			setUp: func(t *testing.T, u string, m *cluster.Member) {
				s.register(t, u, "abcd", "other=http://127.0.0.1:1")
				m.Flags = append(m.Flags, "--discovery-fallback", "exit")
			}},
		{name: "own ID has another value", size: "3", want: []string{"has previously registered with discovery service token",
			"But etcd could not find valid cluster configuration in the given data dir"},
			setUp: func(t *testing.T, u string, m *cluster.Member) {
				s.register(t, u, ownID(m, u), "somebody=http://127.0.0.1:1")
			}},
		{name: "two with one name", size: "2", want: []string{"member with duplicated name has registered with discovery service token"},
			setUp: func(t *testing.T, u string, m *cluster.Member) {
				s.register(t, u, "abcd", m.Name+"=http://127.0.0.1:1")
			}},
		{name: "a value is no URL", size: "2", want: []string{"discovery: invalid URL", generic},
			setUp: func(t *testing.T, u string, m *cluster.Member) { s.register(t, u, "abcd", "what is this") }},
		{name: "one URL under two names", size: "2", want: []string{"has duplicate url"},
			setUp: func(t *testing.T, u string, m *cluster.Member) { s.register(t, u, "abcd", "other="+m.PeerURL) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.better {
				quorateOnly(t, tt.name)
			}
			u := s.keysToken(t, tt.size)
			c := cluster.New(t, cluster.Options{Kind: kind(), Discovery: u})
			m := c.Members[0]
			if tt.setUp != nil {
				tt.setUp(t, u, m)
			}
			m.Start()
			wantRefusal(t, m, tt.want...)
			if tt.wantNone {
				if have := s.registered(t, u); len(have) > 0 {
					t.Errorf("it registered all the same: %q", have)
				}
			}
		})
	}
}

// ownID is the key under which a member registers.
func ownID(m *cluster.Member, tokenURL string) string {
	return api.FormatID(api.MemberID([]string{m.PeerURL}, tokenURL))
}

// TestDiscoveryBadEndpoints has URLs that lead to no discovery service at all.
func TestDiscoveryBadEndpoints(t *testing.T) {
	t.Parallel()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<html>Welcome!</html>")
	}))
	defer web.Close()
	tests := []struct {
		name, url, want string
		better          bool
	}{
		{"a web page", web.URL + "/token", "discovery: bad discovery endpoint", false},
		{"not a URL", ":%", "missing protocol scheme", false},
		{"no scheme", "foo/bar", "discovery: bad discovery endpoint", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.better {
				quorateOnly(t, tt.name)
			}
			c := cluster.New(t, cluster.Options{Kind: kind(), Discovery: tt.url})
			c.StartAll()
			wantRefusal(t, c.Members[0], tt.want)
		})
	}
}

// TestDiscoveryFlags has combinations of flags that make no sense.
func TestDiscoveryFlags(t *testing.T) {
	t.Parallel()
	const u = "http://127.0.0.1:1/v2/keys/token"
	for _, tt := range []struct {
		name string
		boot []string
		want string
	}{
		{"joining a running cluster", []string{"--discovery", u, "--initial-cluster-state", "existing"},
			"discovery URL should not be set when joining existing initial cluster"},
		{"a list as well", []string{"--discovery", u, "--initial-cluster", "m0=http://127.0.0.1:1"},
			`multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster.New(t, cluster.Options{Kind: kind()})
			c.Members[0].Boot = tt.boot
			c.StartAll()
			wantRefusal(t, c.Members[0], tt.want)
		})
	}
}

// breakable is a way to a service that can be made to fail.
type breakable struct {
	*httptest.Server
	refuse func(r *http.Request) bool // answers 503 to such requests
	puts   chan string                // paths of the PUTs that came
}

func newBreakable(t *testing.T, s *service, refuse func(r *http.Request) bool) *breakable {
	t.Helper()
	target, err := url.Parse(s.ClientURL)
	if err != nil {
		t.Fatal(err)
	}
	b := &breakable{refuse: refuse, puts: make(chan string, 100)}
	pass := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, FlushInterval: -1}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			b.puts <- r.URL.Path
		}
		if b.refuse(r) {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		b.Server.CloseClientConnections()
		b.Server.Close()
	})
	return b
}

// TestDiscoveryRegistrationIsNotRepeated has a service that refuses the registration: one try, then the end, since
// the outcome of the first is not known.
func TestDiscoveryRegistrationIsNotRepeated(t *testing.T) {
	t.Parallel()
	s := startService(t, kind())
	b := newBreakable(t, s, func(r *http.Request) bool { return r.Method == http.MethodPut })
	u := strings.Replace(s.keysToken(t, "3"), s.ClientURL, b.URL, 1)
	c := cluster.New(t, cluster.Options{Kind: kind(), Discovery: u})
	c.StartAll()
	wantRefusal(t, c.Members[0], "client: etcd member "+b.URL+" has no leader", generic)
	if n := len(b.puts); n != 1 {
		t.Errorf("the service got %d PUTs, want 1", n)
	}
}

// TestDiscoveryWaits starts one member of two while the service is out of order: it keeps trying, registers once it can,
// says so to whoever asks it, and serves when the second one is there.
func TestDiscoveryWaits(t *testing.T) {
	t.Parallel()
	s := startService(t, kind())
	broken := make(chan struct{})
	b := newBreakable(t, s, func(*http.Request) bool {
		select {
		case <-broken:
			return false
		default:
			return true
		}
	})
	u := strings.Replace(s.keysToken(t, "2"), s.ClientURL, b.URL, 1)
	c := cluster.New(t, cluster.Options{Kind: kind(), Size: 2, Discovery: u})
	first, second := c.Members[0], c.Members[1]
	first.Start()
	first.WaitLog("retrying in")
	close(broken)
	first.WaitLog("waiting for 1 more")
	if kind() == cluster.Quorate {
		cluster.Eventually(t, "503 from a member that waits for others", func(ctx context.Context) error {
			for _, path := range []string{"/health", "/v2/keys/x"} {
				resp, err := first.Do(ctx, http.MethodGet, path, "", "")
				if err != nil || resp.Status != http.StatusServiceUnavailable {
					return fmt.Errorf("GET %s: %v (%v)", path, resp, err)
				}
			}
			return nil
		})
	}
	second.Start()
	c.WaitReady()
	mustPut(t, first, "/x", "1")
}

// TestDiscoveryAgain starts members again that had registered: with their directory the token is not even looked at,
// and with an empty one and the same entry a start that was interrupted goes on.
func TestDiscoveryAgain(t *testing.T) {
	t.Parallel()
	s := startService(t, kind())
	u := s.keysToken(t, "1")
	c := cluster.New(t, cluster.Options{Kind: kind(), Discovery: u})
	m := c.Members[0]
	if kind() == cluster.Quorate {
		s.register(t, u, ownID(m, u), m.Name+"="+m.PeerURL)
	}
	m.Start()
	c.WaitReady()
	mustPut(t, m, "/x", "1")
	m.Stop()

	_, key, _ := strings.Cut(u, "/v2/keys")
	if resp, err := s.Delete(limit(t), key+"?recursive=true"); err != nil || !resp.OK() {
		t.Fatalf("delete the token: %v (%v)", resp, err)
	}
	m.Start()
	c.WaitReady()
	m.WaitLog("discovery token ignored since a cluster has already been initialized. Valid log found at")
	wantValue(t, m, "/x", "1")
}

// TestNewToken checks the token maker itself.
func TestNewToken(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it serves no /new")
	s := startService(t, cluster.Quorate)
	for _, tt := range []struct {
		query  string
		status int
		size   string
	}{
		{"", 200, "3"}, {"?size=1", 200, "1"}, {"?size=9", 200, "9"},
		{"?size=0", 400, ""}, {"?size=-1", 400, ""}, {"?size=10", 400, ""}, {"?size=abc", 400, ""},
	} {
		t.Run("new"+tt.query, func(t *testing.T) {
			resp, err := s.Do(limit(t), http.MethodGet, "/new"+tt.query, "", "")
			if err != nil || resp.Status != tt.status {
				t.Fatalf("%v (%v), want status %d", resp, err, tt.status)
			}
			if tt.status != http.StatusOK {
				return
			}
			path, ok := strings.CutPrefix(strings.TrimSpace(resp.Body), s.ClientURL)
			if !ok || len(path) != len("/")+32 {
				t.Fatalf("the token's URL is %q, want %s/ and 32 hex digits", resp.Body, s.ClientURL)
			}
			if resp, err := s.Do(limit(t), http.MethodGet, path+"/_config/size", "", ""); err != nil || resp.Value() != tt.size {
				t.Errorf("its size is %v (%v), want %s", resp, err, tt.size)
			}
			put, err := s.Do(limit(t), http.MethodPut, path+"/_config/size", cluster.Form, "value=5")
			if err != nil || put.OK() {
				t.Errorf("its size could be changed: %v (%v)", put, err)
			}
		})
	}
	resp, err := s.Do(limit(t), http.MethodGet, "/0123456789abcdef0123456789abcdeg", "", "")
	if err != nil || resp.Status != http.StatusNotFound {
		t.Errorf("a token that is not hex: %v (%v), want 404", resp, err)
	}
	if values, _, err := s.Listing(limit(t), "/"); err != nil || len(values) > 0 {
		t.Errorf("tokens show in the key space: %v (%v)", values, err)
	}
}
