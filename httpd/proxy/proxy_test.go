package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeMember is a server that lists itself as the only member and echoes what it is asked.
type fakeMember struct {
	*httptest.Server
	name string
	mu   sync.Mutex
	got  []*http.Request // guarded by mu; without bodies
	body []string        // guarded by mu
}

func newMember(t *testing.T, name string) *fakeMember {
	t.Helper()
	m := &fakeMember{name: name}
	m.Server = httptest.NewServer(m)
	t.Cleanup(m.Close)
	return m
}

func (m *fakeMember) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m.mu.Lock()
	m.got = append(m.got, r.Clone(context.WithoutCancel(r.Context())))
	m.body = append(m.body, string(body))
	m.mu.Unlock()
	w.Header()["X-Etcd-Index"] = []string{"7"}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Connection", "X-Hop")
	w.Header().Set("X-Hop", "1")
	w.WriteHeader(http.StatusAccepted)
	fmt.Fprintf(w, "%s: %s %s %s\n", m.name, r.Method, r.RequestURI, body)
}

func (m *fakeMember) requests() ([]*http.Request, []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.got), slices.Clone(m.body)
}

// clock is a time that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newProxy returns a proxy that uses these endpoints in this order.
func newProxy(t *testing.T, o Options, endpoints ...string) *Proxy {
	t.Helper()
	transport := NewTransport(TransportOptions{DialTimeout: 10 * time.Second})
	t.Cleanup(transport.CloseIdleConnections)
	if o.Transport == nil {
		o.Transport = transport
	}
	o.shuffle = func([]string) {}
	p := New(o)
	p.members.replace(o.PeerURLs, endpoints)
	return p
}

func ask(p http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func TestForwardsAsIs(t *testing.T) {
	m := newMember(t, "m")
	p := newProxy(t, Options{}, m.URL)
	w := ask(p, "PUT", "/v2/keys/a%2Fb?prevValue=1;2&x=%20", "value=1",
		"X-Forwarded-For", "9.9.9.9", "X-Forwarded-Proto", "https", "Connection", "X-Own", "X-Own", "1", "User-Agent", "")

	if w.Code != http.StatusAccepted || w.Body.String() != "m: PUT /v2/keys/a%2Fb?prevValue=1;2&x=%20 value=1\n" {
		t.Errorf("answer %d %q", w.Code, w.Body)
	}
	if got := w.Header().Get("X-Etcd-Index"); got != "7" {
		t.Errorf("X-Etcd-Index = %q, want 7", got)
	}
	if w.Header().Get("X-Hop") != "" {
		t.Error("a hop-by-hop header of the member came through")
	}
	if got := w.Header().Values("Access-Control-Allow-Origin"); !slices.Equal(got, []string{"*"}) {
		t.Errorf("Access-Control-Allow-Origin = %q, want it once", got)
	}
	got, _ := m.requests()
	h := got[0].Header
	if f := h.Get("X-Forwarded-For"); f != "9.9.9.9, 192.0.2.1" {
		t.Errorf("X-Forwarded-For = %q", f)
	}
	if h.Get("X-Forwarded-Proto") != "https" || h.Get("X-Own") != "" || h.Get("Accept-Encoding") != "" || h.Get("User-Agent") != "" {
		t.Errorf("headers %v", h)
	}
	if got[0].Host != "example.com" {
		t.Errorf("Host = %q, want the client's", got[0].Host)
	}
}

func TestOtherPathsGoToAMember(t *testing.T) {
	m := newMember(t, "m")
	p := newProxy(t, Options{}, m.URL)
	for _, path := range []string{"/health", "/version", "/v2/members", "/", "/v2/machines"} {
		if w := ask(p, "GET", path, ""); w.Body.String() != "m: GET "+path+" \n" {
			t.Errorf("GET %s = %d %q", path, w.Code, w.Body)
		}
	}
}

func TestTriesTheNextMember(t *testing.T) {
	dead, alive := newMember(t, "dead"), newMember(t, "alive")
	dead.Close()
	c := &clock{now: time.Unix(1000, 0)}
	p := newProxy(t, Options{now: c.Now, FailureWait: 5 * time.Second}, dead.URL, alive.URL)

	if w := ask(p, "POST", "/v2/keys/q", "value=1"); w.Body.String() != "alive: POST /v2/keys/q value=1\n" {
		t.Fatalf("answer %d %q, want the second member's, with the body", w.Code, w.Body)
	}
	usable := func() string { return strings.TrimSpace(ask(p, "GET", ConfigPath, "").Body.String()) }
	quote := func(urls ...string) string {
		b, _ := json.Marshal(map[string][]string{"endpoints": urls})
		return string(b)
	}
	if got := usable(); got != quote(alive.URL) {
		t.Errorf("endpoints after the failure %s", got)
	}
	c.move(5*time.Second - 1)
	if got := usable(); got != quote(alive.URL) {
		t.Errorf("endpoints just before the wait is over %s", got)
	}
	c.move(1)
	if got := usable(); got != quote(dead.URL, alive.URL) {
		t.Errorf("endpoints after the wait %s", got)
	}
}

func TestNobodyAnswers(t *testing.T) {
	m := newMember(t, "m")
	m.Close()
	p := newProxy(t, Options{now: (&clock{now: time.Unix(1000, 0)}).Now}, m.URL, m.URL+"0")
	tests := []struct {
		name   string
		status int
		body   string
	}{
		{"all fail", 502, `{"message":"httpproxy: unable to get response from 2 endpoint(s)"}`},
		{"all are out", 503, `{"message":"httpproxy: zero endpoints currently available"}`},
	}
	for _, tt := range tests {
		w := ask(p, "GET", "/v2/keys/", "")
		if w.Code != tt.status || w.Body.String() != tt.body || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %v %q, want %d %q", tt.name, w.Code, w.Header(), w.Body, tt.status, tt.body)
		}
	}
	for _, line := range []string{
		`etcd_proxy_dropped_total{method="GET",proxying_error="failed_getting_response"} 1`,
		`etcd_proxy_dropped_total{method="GET",proxying_error="zero_endpoints"} 1`,
		`etcd_proxy_requests_total{method="GET"} 2`,
	} {
		if body := ask(p, "GET", "/metrics", "").Body.String(); !strings.Contains(body, line+"\n") {
			t.Errorf("metrics lack %s in\n%s", line, body)
		}
	}
}

// An error of the member is an answer like any other: it may have acted on the request.
func TestErrorsOfMembersAreAnswers(t *testing.T) {
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) }))
	t.Cleanup(broken.Close)
	other := newMember(t, "other")
	p := newProxy(t, Options{}, broken.URL, other.URL)
	if w := ask(p, "GET", "/", ""); w.Code != 500 || w.Body.String() != "no\n" {
		t.Errorf("answer %d %q, want the first member's", w.Code, w.Body)
	}
}

// A client that goes away takes its request with it, and the member is not blamed. If it only sends no
// more, it gets no answer that says the request was done.
func TestClientGoesAway(t *testing.T) {
	arrived, gone := make(chan struct{}), make(chan struct{})
	m := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	}))
	t.Cleanup(m.Close)
	p := newProxy(t, Options{}, m.URL)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w := httptest.NewRecorder()
		defer func() {
			if got := recover(); got != http.ErrAbortHandler || w.Body.Len() > 0 {
				t.Errorf("the connection goes on: %v, %q", got, w.Body)
			}
		}()
		p.ServeHTTP(w, httptest.NewRequest("GET", "/v2/keys/a?wait=true", nil).WithContext(ctx))
	}()
	<-arrived
	cancel()
	<-done
	<-gone
	if got := p.members.usable(time.Now()); !slices.Equal(got, []string{m.URL}) {
		t.Errorf("endpoints %q, want the member still there", got)
	}
}

// A watch is passed on piece by piece.
func TestStreamsAreFlushed(t *testing.T) {
	second := make(chan struct{})
	m := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "one\n")
		w.(http.Flusher).Flush()
		<-second
		io.WriteString(w, "two\n")
	}))
	t.Cleanup(m.Close)
	front := httptest.NewServer(newProxy(t, Options{}, m.URL))
	t.Cleanup(front.Close)
	resp, err := http.Get(front.URL + "/v2/keys/a?wait=true&stream=true")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "one\n" {
		t.Fatalf("first piece %q, %v", first, err)
	}
	close(second)
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "two\n" {
		t.Errorf("second piece %q, %v", rest, err)
	}
}

func TestReadonly(t *testing.T) {
	m := newMember(t, "m")
	p := newProxy(t, Options{Readonly: true}, m.URL)
	for _, method := range []string{"PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"} {
		for _, path := range []string{"/v2/keys/a", ConfigPath, "/metrics"} {
			if w := ask(p, method, path, ""); w.Code != 501 || w.Body.Len() != 0 {
				t.Errorf("%s %s = %d %q, want an empty 501", method, path, w.Code, w.Body)
			}
		}
	}
	if w := ask(p, "GET", "/v2/keys/a", ""); w.Code != http.StatusAccepted {
		t.Errorf("GET = %d", w.Code)
	}
}

func TestOwnPaths(t *testing.T) {
	p := newProxy(t, Options{})
	if w := ask(p, "GET", ConfigPath, ""); w.Code != 200 || w.Body.String() != `{"endpoints":[]}`+"\n" {
		t.Errorf("GET config = %d %q", w.Code, w.Body)
	}
	w := ask(p, "PUT", ConfigPath, "")
	if w.Code != 405 || w.Header().Get("Allow") != "GET" || w.Body.String() != "Method Not Allowed\n" {
		t.Errorf("PUT config = %d %v %q", w.Code, w.Header(), w.Body)
	}
	if w := ask(p, "OPTIONS", "/v2/keys/", ""); w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("OPTIONS = %d %v %q", w.Code, w.Header(), w.Body)
	}
}

func TestCORSOfAList(t *testing.T) {
	m := newMember(t, "m")
	p := newProxy(t, Options{CORS: []string{"http://a.example"}}, m.URL)
	for origin, want := range map[string]string{"http://a.example": "http://a.example", "http://b.example": "", "": ""} {
		w := ask(p, "GET", "/v2/keys/", "", "Origin", origin)
		if got := w.Header().Get("Access-Control-Allow-Origin"); got != want || w.Code != http.StatusAccepted {
			t.Errorf("Origin %q: allowed %q, status %d, want %q and an answer", origin, got, w.Code, want)
		}
	}
}

// An advertised client URL that leads back here, straight or through another proxy, is noticed.
func TestLoop(t *testing.T) {
	var p, q *Proxy
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.ServeHTTP(w, r) }))
	t.Cleanup(front.Close)
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { q.ServeHTTP(w, r) }))
	t.Cleanup(behind.Close)
	for _, way := range [][]string{{front.URL, front.URL}, {behind.URL, front.URL}} {
		p, q = newProxy(t, Options{}, way[0]), newProxy(t, Options{}, way[1])
		resp, err := http.Get(front.URL + "/v2/keys/")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 502 || !strings.Contains(string(body), "httpproxy: request loop") {
			t.Errorf("%v: %d %q, want a 502 that says loop", way, resp.StatusCode, body)
		}
	}
}

func TestBodyTooLarge(t *testing.T) {
	p := newProxy(t, Options{})
	if w := ask(p, "PUT", "/v2/keys/a", strings.Repeat("x", maxBody+1)); w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", w.Code)
	}
}

// memberList is a server of the peer side.
func memberList(t *testing.T, body func() string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/members" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, body())
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRefresh(t *testing.T) {
	body := "not JSON"
	peer := memberList(t, func() string { return body })
	file := filepath.Join(t.TempDir(), "proxy", "cluster")
	p := newProxy(t, Options{PeerURLs: []string{"http://127.0.0.1:1", peer.URL}, StateFile: file}, "http://old:1")

	for _, bad := range []string{"not JSON", "[]", `[{"clientURLs":["http://x:1"]}]`, "{}"} {
		body = bad
		if err := p.Refresh(t.Context()); err == nil {
			t.Errorf("Refresh with %s succeeded", bad)
		}
	}
	if got := p.members.usable(time.Now()); !slices.Equal(got, []string{"http://old:1"}) {
		t.Errorf("endpoints after failures %q, want the old ones", got)
	}
	if _, ok, err := Load(file); ok || err != nil {
		t.Errorf("a file was written: %v, %v", ok, err)
	}

	// IDs are numbers on some servers and texts on others.
	body = fmt.Sprintf(`[{"id":1,"peerURLs":[%q],"name":"a","clientURLs":["http://c:2/","http://c:1"]},
		{"id":"b","peerURLs":["http://h2:2380"],"clientURLs":["http://c:1","bad:url:x","ftp://c:3"]},{"id":2,"peerURLs":["http://h3:2380"]}]`, peer.URL)
	if err := p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := p.members.usable(time.Now()); !slices.Equal(got, []string{"http://c:1", "http://c:2"}) {
		t.Errorf("endpoints %q", got)
	}
	want := []string{peer.URL, "http://h2:2380", "http://h3:2380"}
	slices.Sort(want)
	got, ok, err := Load(file)
	if err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("Load = %q, %v, %v, want %q", got, ok, err, want)
	}
	for path, perm := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != perm {
			t.Errorf("mode of %s: %v, %v, want %v", path, info.Mode(), err, perm)
		}
	}
	if raw, _ := os.ReadFile(file); !strings.HasPrefix(string(raw), `{"PeerURLs":["http://`) {
		t.Errorf("file %s", raw)
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cluster")
	for _, content := range []string{"", "{", `{"PeerURLs":["nonsense"]}`, `{"PeerURLs":7}`} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Load(file); err == nil || !strings.Contains(err.Error(), "is damaged") {
			t.Errorf("Load of %q = %v", content, err)
		}
	}
}

// The loop looks every second until there are endpoints, and then once per interval.
func TestRunInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var asked []time.Duration
		peers := roundTripper(func(r *http.Request) (*http.Response, error) {
			at := time.Since(start)
			asked = append(asked, at)
			if at < 3*time.Second {
				return nil, errors.New("connection refused")
			}
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(
				`[{"peerURLs":["http://h:2380"],"clientURLs":["http://h:2379"]}]`))}, nil
		})
		p := New(Options{PeerURLs: []string{"http://h:2380"}, RefreshInterval: 30 * time.Second, Transport: peers})
		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Second)
		defer cancel()
		p.Run(ctx)
		want := []time.Duration{0, time.Second, 2 * time.Second, 3 * time.Second, 33 * time.Second, 63 * time.Second}
		if !slices.Equal(asked, want) {
			t.Errorf("asked at %v, want %v", asked, want)
		}
	})
}
