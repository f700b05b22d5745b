package discovery

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// The URL and the peer URLs of the record (spec discovery 3). The test's servers are elsewhere; the
// nodes get there by taking them for an HTTP proxy, and so the IDs are those of the record.
const (
	recordURL  = "http://127.0.0.1:23840/v2/keys/discovery/tok1"
	recordPath = "/v2/keys/discovery/tok1"

	getSize = "GET " + recordPath + "/_config/size?quorum=false&recursive=false&sorted=false"
	getDir  = "GET " + recordPath + "?quorum=false&recursive=false&sorted=false"
)

// await fails the test when nothing comes for so long that nothing will.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(60 * time.Second):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

type outcome struct {
	cluster string
	err     error
}

func start(join func(context.Context, Options) (string, error), o Options) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		cluster, err := join(context.Background(), o)
		done <- outcome{cluster, err}
	}()
	return done
}

func TestRecordedSequence(t *testing.T) {
	store := newKeys()
	store.put("/discovery/tok1/_config/size", "3")
	node := func(name, port string) (*recorder, Options) {
		rec := &recorder{next: store}
		return rec, Options{
			URL: recordURL, Proxy: serve(t, rec), Name: name,
			PeerURLs: []string{"http://127.0.0.1:" + port}, DataDir: t.TempDir(),
		}
	}
	rec1, o1 := node("n1", "23821")
	log1 := newJournal()
	o1.Logger = log1
	rec2, o2 := node("n2", "23822")
	rec3, o3 := node("n3", "23823")

	done1 := start(Join, o1)
	await(t, "wait of n1", store.waiting)
	done2 := start(Join, o2)
	await(t, "wait of n1 or n2", store.waiting)
	await(t, "wait of n1 or n2", store.waiting)
	done3 := start(Join, o3)

	const want = "n1=http://127.0.0.1:23821,n2=http://127.0.0.1:23822,n3=http://127.0.0.1:23823"
	for name, done := range map[string]<-chan outcome{"n1": done1, "n2": done2, "n3": done3} {
		if got := await(t, name, done); got.err != nil || got.cluster != want {
			t.Errorf("Join of %s = %q, %v, want %q", name, got.cluster, got.err, want)
		}
	}
	// After an event there is one more read of the directory than in the record.
	equalLines(t, "requests of n1", rec1.sequence(), []string{
		getSize,
		getDir,
		"PUT " + recordPath + "/b22ade8f6c7d031c?prevExist=false value=n1%3Dhttp%3A%2F%2F127.0.0.1%3A23821",
		"GET " + recordPath + "/b22ade8f6c7d031c?recursive=false&wait=true&waitIndex=5",
		getSize,
		getDir,
		"GET " + recordPath + "?recursive=true&wait=true&waitIndex=6",
		getDir,
		"GET " + recordPath + "?recursive=true&wait=true&waitIndex=7",
		getDir,
	})
	equalLines(t, "requests of n2", rec2.sequence(), []string{
		getSize,
		getDir,
		"PUT " + recordPath + "/bdd26960dbda9c26?prevExist=false value=n2%3Dhttp%3A%2F%2F127.0.0.1%3A23822",
		"GET " + recordPath + "/bdd26960dbda9c26?recursive=false&wait=true&waitIndex=6",
		getSize,
		getDir,
		"GET " + recordPath + "?recursive=true&wait=true&waitIndex=7",
		getDir,
	})
	equalLines(t, "requests of n3", rec3.sequence(), []string{
		getSize,
		getDir,
		"PUT " + recordPath + "/89baa9ad6ea07b56?prevExist=false value=n3%3Dhttp%3A%2F%2F127.0.0.1%3A23823",
		"GET " + recordPath + "/89baa9ad6ea07b56?recursive=false&wait=true&waitIndex=7",
		getSize,
		getDir,
	})
	equalLines(t, "log of n1", log1.lines(), []string{
		`[INFO]  discovery: using proxy "` + o1.Proxy + `"`,
		"[INFO]  discovery: found self b22ade8f6c7d031c in the cluster",
		"[INFO]  discovery: found 1 peer(s), waiting for 2 more",
		"[INFO]  discovery: found peer bdd26960dbda9c26 in the cluster",
		"[INFO]  discovery: found 2 peer(s), waiting for 1 more",
		"[INFO]  discovery: found peer 89baa9ad6ea07b56 in the cluster",
		"[INFO]  discovery: found 3 needed peer(s)",
	})

	rec4, o4 := node("n4", "23824")
	_, err := Join(context.Background(), o4)
	if !errors.Is(err, ErrFull) {
		t.Errorf("Join of n4: %v, want %v", err, ErrFull)
	}
	equalLines(t, "requests of n4", rec4.sequence(), []string{getSize, getDir})

	recProxy, proxy := node("", "0")
	proxy.PeerURLs = nil
	if cluster, err := Lookup(context.Background(), proxy); err != nil || cluster != want {
		t.Errorf("Lookup = %q, %v, want %q", cluster, err, want)
	}
	equalLines(t, "requests of the proxy", recProxy.sequence(), []string{getSize, getDir})
}

// TestRequestBytes looks at the connection itself: every byte of the requests, and that it is one.
func TestRequestBytes(t *testing.T) {
	store := newKeys()
	store.put("/x/tok/_config/size", "2")
	server := httptest.NewUnstartedServer(store)
	tap := &tapListener{Listener: server.Listener}
	server.Listener = tap
	server.Start()
	defer server.Close()
	defer server.CloseClientConnections()

	done := start(Join, Options{
		URL: server.URL + "/v2/keys/x/tok", Name: "a", MemberID: 0xabc, DataDir: t.TempDir(),
		PeerURLs: []string{"http://h2:1", "http://h1:1"},
	})
	await(t, "wait", store.waiting)
	store.put("/x/tok/d", "b=http://h3:1")
	if got := await(t, "end", done); got.err != nil || got.cluster != "a=http://h1:1,a=http://h2:1,b=http://h3:1" {
		t.Fatalf("Join = %q, %v", got.cluster, got.err)
	}

	host := strings.TrimPrefix(server.URL, "http://")
	head := func(line, more string) string {
		return line + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: Go-http-client/1.1\r\n" + more + "Accept-Encoding: gzip\r\n\r\n"
	}
	const body = "value=a%3Dhttp%3A%2F%2Fh1%3A1%2Ca%3Dhttp%3A%2F%2Fh2%3A1"
	size := head("GET /v2/keys/x/tok/_config/size?quorum=false&recursive=false&sorted=false", "")
	dir := head("GET /v2/keys/x/tok?quorum=false&recursive=false&sorted=false", "")
	want := size + dir +
		head("PUT /v2/keys/x/tok/abc?prevExist=false", "Content-Length: 55\r\nContent-Type: application/x-www-form-urlencoded\r\n") + body +
		head("GET /v2/keys/x/tok/abc?recursive=false&wait=true&waitIndex=5", "") +
		size + dir +
		head("GET /v2/keys/x/tok?recursive=true&wait=true&waitIndex=6", "") +
		dir
	tap.mu.Lock()
	defer tap.mu.Unlock()
	if got := tap.bytes.String(); got != want {
		t.Errorf("sent:\n%s\nwant:\n%s", got, want)
	}
	if tap.accepted != 1 {
		t.Errorf("%d connections, want 1", tap.accepted)
	}
}

// tapListener keeps what arrives on its connections.
type tapListener struct {
	net.Listener
	mu       sync.Mutex
	accepted int
	bytes    bytes.Buffer
}

type tapConn struct {
	net.Conn
	tap *tapListener
}

func (l *tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted++
	return &tapConn{c, l}, nil
}

func (c *tapConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.bytes.Write(b[:n])
	return n, err
}

func TestProxyGetsAbsoluteForm(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "1")
	var mu sync.Mutex
	var uris []string
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		uris = append(uris, r.RequestURI)
		mu.Unlock()
		store.ServeHTTP(w, r)
	}))
	// Without a scheme, as an operator may write it; and the environment has no say.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	bare := strings.TrimPrefix(proxy, "http://")
	log := newJournal()
	if _, err := Join(context.Background(), Options{
		URL: "http://discovery.invalid/v2/keys/t", Proxy: bare, Name: "a", PeerURLs: []string{"http://h:1"}, Logger: log,
	}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := "http://discovery.invalid/v2/keys/t/_config/size?quorum=false&recursive=false&sorted=false"; uris[0] != want {
		t.Errorf("first request to the proxy: %q, want %q", uris[0], want)
	}
	if want := `[INFO]  discovery: using proxy "` + proxy + `"`; log.lines()[0] != want {
		t.Errorf("log: %q, want %q", log.lines()[0], want)
	}
}

// TestRedirects: a PUT stays a PUT wherever it is sent, up to ten times.
func TestRedirects(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "1")
	end := &recorder{next: store}
	target := serve(t, end)
	hops := 0
	var mu sync.Mutex
	from := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		to := target + r.URL.String()
		if hops++; hops%10 != 0 {
			to = r.URL.String() // relative, to itself
		}
		w.Header().Set("Location", to)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}))
	cluster, err := Join(context.Background(), Options{URL: from + "/v2/keys/t", Name: "a", MemberID: 1, PeerURLs: []string{"http://h:1"}})
	if err != nil || cluster != "a=http://h:1" {
		t.Fatalf("Join = %q, %v", cluster, err)
	}
	if want := "PUT /v2/keys/t/1?prevExist=false value=a%3Dhttp%3A%2F%2Fh%3A1"; end.sequence()[2] != want {
		t.Errorf("redirected request: %q, want %q", end.sequence()[2], want)
	}

	endless := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.String(), http.StatusFound)
	}))
	log := newJournal()
	_, err = Join(context.Background(), Options{
		URL: endless + "/v2/keys/t", Name: "a", PeerURLs: []string{"http://h:1"}, Logger: log,
		sleep: func(context.Context, time.Duration) error { return errStop },
	})
	if !errors.Is(err, errStop) || log.lines()[0] != "[ERROR] discovery: error #0: client: too many redirects" {
		t.Errorf("Join = %v, log %q", err, log.lines()[0])
	}
}

var errStop = errors.New("stopped by the test")

func TestUserAndQueryOfTheURLAreKept(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "1")
	var mu sync.Mutex
	var user, password string
	var query url.Values
	base := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		user, password, _ = r.BasicAuth()
		query = r.URL.Query()
		store.ServeHTTP(w, r)
	}))
	u := strings.Replace(base, "http://", "http://joe:secret@", 1) + "/v2/keys/t/?zone=b"
	if _, err := Join(context.Background(), Options{URL: u, Name: "a", PeerURLs: []string{"http://h:1"}}); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if user != "joe" || password != "secret" || query.Get("zone") != "b" || query.Get("quorum") != "false" {
		t.Errorf("last request by %q/%q with %v", user, password, query)
	}
}
