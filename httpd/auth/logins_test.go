package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/crypto/bcrypt"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/httpd"
)

const from = "192.0.2.1:1234"

func hashOf(t testing.TB, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func testLogins(burst int) (*logins, *bytes.Buffer) {
	var buf bytes.Buffer
	frozen := time.Unix(1, 0)
	l := newLimiter(burst, 1, func() time.Time { return frozen })
	return newLogins(bcrypt.MinCost, l, hclog.New(&hclog.LoggerOptions{Output: &buf})), &buf
}

func TestGoodLoginsAreRemembered(t *testing.T) {
	l, _ := testLogins(10)
	old, now := hashOf(t, "pw"), hashOf(t, "pw")
	m := l.mac("bob", "pw")
	if !l.check("bob", "pw", old, from) || !l.isKnown(m, old) {
		t.Fatal("a good login is not remembered")
	}
	for _, c := range []struct {
		what                 string
		name, password, hash string
	}{
		{"another hash of the same password", "bob", "pw", now},
		{"a user that is gone", "bob", "pw", ""},
		{"another password", "bob", "pw2", old},
		{"another user", "bo", "pw", old},
		{"another way to divide the text", "bo", "bpw", old},
	} {
		if l.isKnown(l.mac(c.name, c.password), c.hash) {
			t.Errorf("%s is taken for what was found good", c.what)
		}
	}
	if l.check("bob", "pw", "", from) || l.check("bob", "pw", hashOf(t, "else"), from) {
		t.Error("a password that was good once still is")
	}
	if !l.check("bob", "pw", now, from) || l.isKnown(m, old) {
		t.Error("the new hash did not replace the old one")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	l, _ := testLogins(10)
	for i := range maxKnown + 100 {
		l.remember(l.mac("bob", fmt.Sprint(i)), "h")
	}
	if n := len(l.known); n != maxKnown {
		t.Errorf("%d credentials are remembered, want %d", n, maxKnown)
	}
	if !l.isKnown(l.mac("bob", fmt.Sprint(maxKnown+99)), "h") {
		t.Error("the newest credentials are forgotten")
	}
}

// Many clients begin with the same credentials at once: few computations, and no token is lost.
func TestEqualLoginsAtOnce(t *testing.T) {
	l, log := testLogins(10)
	hash := hashOf(t, "pw")
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if !l.check("bob", "pw", hash, fmt.Sprintf("192.0.2.%d:1", i%3)) {
				t.Error("a good login was refused")
			}
		})
	}
	wg.Wait()
	if n := len(l.limiter.buckets); n != 0 {
		t.Errorf("%d addresses have lost tokens", n)
	}
	if log.Len() > 0 {
		t.Errorf("logged: %s", log)
	}
}

func TestFailuresAreLimited(t *testing.T) {
	l, log := testLogins(3)
	hash := hashOf(t, "pw")
	if !l.check("bob", "pw", hash, from) {
		t.Fatal("the first login was refused")
	}
	for i := range 5 {
		if l.check("eve", fmt.Sprint(i), "", from) {
			t.Error("nobody logged in")
		}
	}
	if got := strings.Count(log.String(), "login refused"); got != 3 {
		t.Errorf("%d logins were looked at, want 3:\n%s", got, log)
	}
	if got := strings.Count(log.String(), "too many"); got != 1 {
		t.Errorf("%d lines about too many failures, want 1:\n%s", got, log)
	}
	if !l.check("bob", "pw", hash, from) {
		t.Error("known credentials are limited")
	}
	if l.check("carol", "pw", hash, from) {
		t.Error("an address without tokens was heard")
	}
	if !l.check("carol", "pw", hash, "192.0.2.2:1234") {
		t.Error("another address is limited")
	}
	l.malformed(from)
	for result, want := range map[prometheus.Counter]float64{l.metrics.known: 1, l.metrics.checked: 2, l.metrics.refused: 3, l.metrics.limited: 4} {
		if got := testutil.ToFloat64(result); got != want {
			t.Errorf("%v counted %v times, want %v", result.Desc(), got, want)
		}
	}
	if strings.Contains(log.String(), "not understood") {
		t.Error("a line for each malformed header of an address without tokens")
	}
}

func TestLimiter(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLimiter(2, 0.5, func() time.Time { return now })
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	take := func(from netip.Addr, wantOK, wantFirst bool) {
		t.Helper()
		if ok, first := l.take(from); ok != wantOK || first != wantFirst {
			t.Errorf("at %v: take = %v, %v, want %v, %v", now.Unix(), ok, first, wantOK, wantFirst)
		}
	}
	take(a, true, false)
	take(a, true, false)
	take(a, false, true)
	take(a, false, false)
	take(b, true, false)
	now = now.Add(time.Second)
	take(a, false, false)
	now = now.Add(time.Second)
	take(a, true, false)
	take(a, false, true)
	now = now.Add(-time.Hour) // a clock that is set back takes nothing away
	take(a, false, false)
	now = now.Add(time.Hour)
	take(a, true, false)
	take(a, true, false)
	take(a, false, true)
	l.giveBack(a)
	take(a, true, false)
	l.giveBack(b)
	if _, ok := l.buckets[b]; ok {
		t.Error("a full bucket is kept")
	}
	for i := range maxAddresses + 50 {
		l.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if n := len(l.buckets); n > maxAddresses {
		t.Errorf("%d buckets, want %d at most", n, maxAddresses)
	}
}

func TestRemoteHost(t *testing.T) {
	tests := []struct{ remote, want string }{
		{"192.0.2.1:80", "192.0.2.1"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1"},
		{"[2001:db8:1:2:3:4:5:6]:80", "2001:db8:1:2::"},
		{"[fe80::1%eth0]:80", "fe80::"},
		{"@", "invalid IP"},
		{"", "invalid IP"},
	}
	for _, tt := range tests {
		if got := remoteHost(tt.remote).String(); got != tt.want {
			t.Errorf("remoteHost(%q) = %s, want %s", tt.remote, got, tt.want)
		}
	}
}

// A line says who was refused, from where and why, on one line whatever the name is, and never shows
// the password.
func TestRefusedLoginsAreLogged(t *testing.T) {
	tests := []struct {
		name, user, hash, want string
	}{
		{"unknown", "eve", "", `user="eve" remote=192.0.2.1:1234 reason="no such user"`},
		{"wrong", "bob", "h", `user="bob" remote=192.0.2.1:1234 reason="wrong password"`},
		{"line breaks", "a\n2026-01-01 [WARN] b\r\x1b[0m\xff", "", `user="a\n2026-01-01 [WARN] b\r\x1b[0m\xff" remote`},
		{"long", strings.Repeat("x", 1000), "", `user="` + strings.Repeat("x", maxLoggedName) + `..." remote`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, log := testLogins(10)
			if l.check(tt.user, "s3cret", tt.hash, from) {
				t.Fatal("logged in")
			}
			got := log.String()
			if !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 {
				t.Errorf("logged %q, want %q on one line", got, tt.want)
			}
			if strings.Contains(got, "s3cret") {
				t.Errorf("the password is in the log: %s", got)
			}
		})
	}
}

// Whether a user exists cannot be seen from the work that is done: both ends of the comparison have
// the same cost.
func TestUnknownUserCostsTheSame(t *testing.T) {
	l, _ := testLogins(10)
	hash, err := l.hash(context.Background(), "pw")
	if err != nil {
		t.Fatal(err)
	}
	known, err := bcrypt.Cost([]byte(hash))
	if err != nil {
		t.Fatal(err)
	}
	if unknown, err := bcrypt.Cost([]byte(l.nobody())); err != nil || unknown != known {
		t.Errorf("unknown users are compared at cost %d (%v), others at %d", unknown, err, known)
	}
	if g := New(Options{}); g.logins.cost != 10 {
		t.Errorf("the default cost is %d, want 10", g.logins.cost)
	}
}

// With all slots taken, a request for a hash waits no longer than it may.
func TestHashWaitsForASlot(t *testing.T) {
	l, _ := testLogins(10)
	for range cap(l.slots) {
		l.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.hash(ctx, "pw"); !errors.Is(err, context.Canceled) {
		t.Errorf("hash = %v, want %v", err, context.Canceled)
	}
}

// fixed is a Backend whose users and roles stay as they are.
type fixed struct{ state *auth.State }

func (fixed) ClusterID() uint64         { return 1 }
func (f *fixed) AuthState() *auth.State { return f.state }
func (f *fixed) apply(c auth.Change)    { f.state, _, _ = f.state.Apply(&c) }
func (*fixed) ChangeAuth(context.Context, auth.Change) (auth.Outcome, error) {
	return auth.Outcome{}, errors.New("fixed")
}

// inForce returns users root and alice, who may read /a*, and guests who may read /g.
func inForce(t testing.TB) (*Guard, *fixed) {
	t.Helper()
	f := &fixed{state: &auth.State{}}
	hash := hashOf(t, "pw")
	for _, name := range []string{"root", "alice"} {
		f.apply(auth.Change{Op: auth.PutUser, Name: name, User: &auth.UserChange{Hash: hash, Roles: []string{"a"}}})
	}
	role := func(name, read string) {
		f.apply(auth.Change{Op: auth.PutRole, Name: name, Role: &auth.RoleChange{Permissions: auth.Permissions{KV: auth.Patterns{Read: []string{read}}}}})
	}
	role("a", "/a*")
	role(auth.Guest, "/g")
	f.apply(auth.Change{Op: auth.Enable, Guest: &auth.Permissions{}})
	g := New(Options{Cost: bcrypt.MinCost})
	g.SetBackend(f)
	return g, f
}

// Spec auth 6.
func TestCertificateUsers(t *testing.T) {
	g, _ := inForce(t)
	chain := func(names ...string) (out []*x509.Certificate) {
		for _, name := range names {
			out = append(out, &x509.Certificate{Subject: pkix.Name{CommonName: name}})
		}
		return out
	}
	state := func(chains ...[]*x509.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{VerifiedChains: chains}
	}
	tests := []struct {
		name  string
		tls   *tls.ConnectionState
		login string // "" for none
		a, g  bool   // may read /a1, /g
		admin bool
	}{
		{"no TLS", nil, "", false, true, false},
		{"no certificate", state(), "", false, true, false},
		{"not verified", &tls.ConnectionState{PeerCertificates: chain("root")}, "", false, true, false},
		{"root", state(chain("root", "ca")), "", true, true, true},
		{"alice, without the rights of guests", state(chain("alice", "ca")), "", true, false, false},
		{"nobody is a guest", state(chain("nobody", "ca")), "", false, true, false},
		{"no common name", state(chain("")), "", false, true, false},
		{"the first that is a user", state(chain("nobody", "alice", "root")), "", true, false, false},
		{"along the second chain", state(chain("nobody"), chain("x", "root")), "", true, true, true},
		{"good credentials win", state(chain("root")), "alice:pw", true, false, false},
		{"bad credentials lose everything", state(chain("root")), "alice:wrong", false, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.TLS = tt.tls
			if name, password, ok := strings.Cut(tt.login, ":"); ok {
				r.SetBasicAuth(name, password)
			}
			for _, c := range []struct {
				access httpd.Access
				want   bool
			}{
				{httpd.Access{Kind: httpd.Read, Key: "/a1"}, tt.a},
				{httpd.Access{Kind: httpd.Read, Key: "/g"}, tt.g},
				{httpd.Access{Kind: httpd.Write, Key: "/g"}, tt.admin},
				{httpd.Access{Kind: httpd.Admin}, tt.admin},
			} {
				if got := g.Authorize(r, c.access) == nil; got != c.want {
					t.Errorf("%+v: %v, want %v", c.access, got, c.want)
				}
			}
		})
	}
}

// What a proxy shows is its own certificate: whoever it speaks for is a guest without credentials.
func TestCertificateOfAProxyIsNobodys(t *testing.T) {
	g, _ := inForce(t)
	r := httptest.NewRequest("GET", "/", nil)
	r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "root"}}}}}
	admin := httpd.Access{Kind: httpd.Admin}
	if g.Authorize(r, admin) != nil {
		t.Fatal("the certificate counts for nothing")
	}
	r.Header.Set(api.HeaderProxy, "0123456789abcdef")
	if g.Authorize(r, admin) == nil || g.Authorize(r, httpd.Access{Key: "/a1"}) == nil {
		t.Error("a request that was forwarded has the rights of the proxy")
	}
	if g.Authorize(r, httpd.Access{Key: "/g"}) != nil {
		t.Error("it has not those of a guest")
	}
	if r.SetBasicAuth("alice", "pw"); g.Authorize(r, httpd.Access{Key: "/a1"}) != nil {
		t.Error("credentials count for nothing")
	}
}

// Somebody who guesses as fast as he may is not in front of everybody else: whoever comes from another
// address waits for one computation of his.
func TestGuessesDoNotDelayOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, log := testLogins(100)
		for range cap(l.slots) {
			l.slots <- struct{}{} // all are busy
		}
		own := netip.MustParseAddr("192.0.2.2")
		for l.turns.of(own) == l.turns.of(remoteHost(from)) {
			own = own.Next()
		}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() { l.check("eve", fmt.Sprint(i), "", from) })
		}
		synctest.Wait()
		wg.Go(func() { l.check("bob", "mistyped", "", netip.AddrPortFrom(own, 1).String()) })
		synctest.Wait()
		<-l.slots // one slot for all
		wg.Wait()
		before, _, ok := strings.Cut(log.String(), `user="bob"`)
		if n := strings.Count(before, `user="eve"`); !ok || n > 1 {
			t.Errorf("%d guesses were looked at first", n)
		}
	})
}

// What a request costs: nothing worth mentioning while nobody has asked for users, and no memory for
// guests.
func TestAuthorizeAllocates(t *testing.T) {
	g, f := inForce(t)
	r := httptest.NewRequest("GET", "/", nil)
	read := func(key string) func() {
		return func() {
			if err := g.Authorize(r, httpd.Access{Kind: httpd.Read, Key: key}); err != nil {
				t.Error(err)
			}
		}
	}
	if n := testing.AllocsPerRun(100, read("/g")); n > 0 {
		t.Errorf("%v allocations for a guest, want none", n)
	}
	f.apply(auth.Change{Op: auth.Disable})
	r.SetBasicAuth("alice", "wrong")
	if n := testing.AllocsPerRun(100, read("/x")); n > 0 {
		t.Errorf("%v allocations when switched off, want none", n)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	g, f := inForce(b)
	anybody := httptest.NewRequest("GET", "/", nil)
	alice := httptest.NewRequest("GET", "/", nil)
	alice.SetBasicAuth("alice", "pw")
	off := &fixed{state: &auth.State{}}
	for _, bm := range []struct {
		name    string
		r       *http.Request
		key     string
		backend Backend
	}{
		{"off", anybody, "/x", off}, {"guest", anybody, "/g", f}, {"user", alice, "/a", f},
	} {
		b.Run(bm.name, func(b *testing.B) {
			g.SetBackend(bm.backend)
			b.ReportAllocs()
			for b.Loop() {
				if err := g.Authorize(bm.r, httpd.Access{Kind: httpd.Read, Key: bm.key}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// applying is a Backend that applies changes at once.
type applying struct{ fixed }

func (a *applying) ChangeAuth(_ context.Context, c auth.Change) (auth.Outcome, error) {
	if err := c.Check(); err != nil {
		panic(err) // a handler must not propose it
	}
	// The members learn of it as JSON.
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	var same auth.Change
	if err := json.Unmarshal(text, &same); err != nil {
		panic(err)
	}
	state, out, err := a.state.Apply(&same)
	a.state = state
	return out, err
}

// Whatever is sent as a user or role is answered with one of the statuses of the specification, and
// never changes what another request would be told of names it does not have.
func FuzzBodies(f *testing.F) {
	for _, seed := range [][2]string{
		{"bob", `{"user":"bob","password":"p"}`},
		{"bob", `{"user":"bob","grant":["a","a"],"revoke":["b"]}`},
		{"r", `{"role":"r","permissions":{"kv":{"read":["","*","/a*"]}}}`},
		{"r", `{"ROLE":"r","grant":{"kv":{"write":["/x"]}}} {`},
		{"a\xffb", `{"user":"a\ufffdb","password":"p"}`},
		{"\ufffd", `{"user":"\ufffd","password":"p"}`},
		{"x", `null`}, {"x", `{"user":"x","roles":null,"grant":{}}`},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, name, body string) {
		if name == "" || strings.Contains(name, "/") || name == "." || name == ".." {
			return // other paths
		}
		b := &applying{fixed{state: &auth.State{}}}
		g := New(Options{Cost: bcrypt.MinCost})
		g.SetBackend(b)
		send := func(method, path string) int {
			r := httptest.NewRequest(method, "/", strings.NewReader(body))
			r.URL.Path = path
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			if w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %q answered %q", method, path, w.Body)
			}
			return w.Code
		}
		for _, kind := range []string{"users", "roles"} {
			path := "/v2/auth/" + kind + "/" + name
			status := send("PUT", path)
			switch status {
			case 200, 201, 400, 403, 404, 409:
			default:
				t.Fatalf("PUT %q: %d", path, status)
			}
			if got := send("GET", path); status < 300 && got != 200 && kind == "roles" {
				t.Fatalf("GET %q after PUT: %d", path, got)
			}
			if got := send("DELETE", path); status < 300 && got != 200 || status == 400 && got == 200 {
				t.Fatalf("DELETE %q after %d: %d", path, status, got)
			}
		}
	})
}
