package httpd_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/proxy"
)

// The request that an attacker wants to get past somebody in front of us, by making that one believe that
// it is part of another one's body.
const hidden = "PUT /v2/keys/smuggled?value=x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"

// uncertain are requests whose end can be seen at more than one place. What follows them, the hidden
// request, must not be carried out; they themselves may be.
var uncertain = []struct{ name, head, body string }{
	{"length and chunks", "Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"},
	{"length over all, and chunks", "Content-Length: 77\r\nTransfer-Encoding: chunked", "0\r\n\r\n"},
	{"chunks and length", "Transfer-Encoding: chunked\r\nContent-Length: 6", "0\r\n\r\n"},
	{"chunks on a folded line", "Content-Length: 6\r\nTransfer-Encoding:\r\n chunked", "0\r\n\r\n"},
	{"chunks behind a tab", "Content-Length: 6\r\nTransfer-Encoding:\tchunked", "0\r\n\r\n"},
	{"chunks behind another space", "Content-Length: 6\r\nTransfer-Encoding: \vchunked", "0\r\n\r\n"},
	{"space before the colon", "Content-Length: 6\r\nTransfer-Encoding : chunked", "0\r\n\r\n"},
	{"a name with an underscore", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\nTransfer_Encoding: identity", "0\r\n\r\n"},
	{"an unknown encoding", "Transfer-Encoding: xchunked", "0\r\n\r\n"},
	{"encodings in a list", "Transfer-Encoding: chunked, identity", "0\r\n\r\n"},
	{"encodings in two headers", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"},
	{"extensions of chunks", "Transfer-Encoding: chunked", "0;a=b\r\n\r\n"},
	{"an extension that ends a line", "Transfer-Encoding: chunked", "1;a\nb\r\nx\r\n0\r\n\r\n"},
	{"chunks that end with LF alone", "Transfer-Encoding: chunked", "0\n\n"},
	{"trailers", "Transfer-Encoding: chunked\r\nTrailer: Content-Length", "0\r\nContent-Length: 60\r\n\r\n"},
	{"two lengths", "Content-Length: 0\r\nContent-Length: 60", ""},
	{"lengths in a list", "Content-Length: 0, 60", ""},
	{"a length with a sign", "Content-Length: +0", ""},
	{"a length in another system", "Content-Length: 0x0", ""},
	{"a length in two words", "Content-Length: 0 60", ""},
	{"a length behind a bare CR", "X: a\rContent-Length: 60", ""},
	{"a length behind a NUL", "X: a\x00\r\nContent-Length: 0", ""},
	{"a line without a colon", "Content-Length 60", ""},
	{"a length for the whole rest", "Content-Length: 72", ""},
}

// smuggle sends the requests to a server, on a connection each, and looks for the hidden one in the
// member behind it.
func smuggle(t *testing.T, addr string, keys *tree.Tree) {
	send := func(text string) string {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, text+"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		answer, _ := io.ReadAll(conn) // a reset is fine
		return string(answer)
	}
	wasSmuggled := func() bool {
		_, err := keys.Get("/smuggled", false, false)
		return err == nil
	}
	for _, method := range []string{"GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"} {
		for _, version := range []string{"1.1", "1.0"} {
			for _, tt := range uncertain {
				if version == "1.0" && !strings.Contains(tt.head, "Content-Length: ") {
					continue // there is no body then, and the next line is no request
				}
				answer := send(method + " /v2/keys/a HTTP/" + version + "\r\nHost: a\r\nConnection: keep-alive\r\n" + tt.head + "\r\n\r\n" + tt.body + hidden)
				if !strings.HasPrefix(answer, "HTTP/1.") {
					t.Errorf("%s, HTTP/%s, %s: no answer, but %q", method, version, tt.name, answer)
				}
				if wasSmuggled() {
					t.Fatalf("%s, HTTP/%s, %s: the hidden request was carried out:\n%s", method, version, tt.name, answer)
				}
			}
		}
	}
	// It works where it is no secret.
	if answer := send("GET /v2/keys/a HTTP/1.1\r\nHost: a\r\n\r\n" + hidden); !wasSmuggled() {
		t.Errorf("two requests on one connection:\n%s", answer)
	}
}

// Nothing is understood in one way here and in another way by somebody in front, so that a request
// could hide in another: not by the loop for plain requests, nor by net/http.
func TestSmuggling(t *testing.T) {
	for name, only := range map[string]bool{"plain": false, "net-http": true} {
		t.Run(name, func(t *testing.T) {
			r := start(t, httpd.Options{OnlyNetHTTP: only})
			smuggle(t, r.addr, r.member.Tree())
		})
	}
}

// Nor by a proxy in front of a member, whatever it makes of a request that it forwards.
func TestSmugglingThroughAProxy(t *testing.T) {
	r := start(t, httpd.Options{})
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `[{"id":1,"peerURLs":["http://127.0.0.1:1"],"clientURLs":["http://%s"]}]`, r.addr)
	}))
	defer peer.Close()
	transport := proxy.NewTransport(proxy.TransportOptions{})
	defer transport.CloseIdleConnections()
	p := proxy.New(proxy.Options{PeerURLs: []string{peer.URL}, Transport: transport})
	if err := p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(p)
	defer front.Close()
	smuggle(t, front.Listener.Addr().String(), r.member.Tree())
}

// Who is asked to fetch something from elsewhere refuses, or takes the path of the URL for its own.
func TestProxyForwardsNowhereElse(t *testing.T) {
	var mu sync.Mutex
	var asked []string // guarded by mu
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.RequestURI)
	}))
	defer elsewhere.Close()
	host := elsewhere.Listener.Addr().String()
	r := start(t, httpd.Options{})
	// A member list that sends us away is no member list.
	away := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer away.Close()
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `[{"id":1,"peerURLs":["http://127.0.0.1:1"],"clientURLs":["http://%s"]}]`, r.addr)
	}))
	defer peer.Close()
	transport := proxy.NewTransport(proxy.TransportOptions{})
	defer transport.CloseIdleConnections()
	p := proxy.New(proxy.Options{PeerURLs: []string{away.URL, peer.URL}, Transport: transport})
	if err := p.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(p)
	defer front.Close()
	for _, addr := range []string{r.addr, front.Listener.Addr().String()} {
		for _, line := range []string{
			"GET http://" + host + "/v2/keys/a", "PUT http://" + host + "/x", "CONNECT " + host, "GET //" + host + "/", "GET /" + host + "/",
			"GET http://" + host + "@127.0.0.1/", "GET /v2/keys/a?url=http://" + host + "/", "GET /new?size=1&url=http://" + host,
		} {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, line+" HTTP/1.1\r\nHost: "+host+"\r\nX-Forwarded-Host: "+host+"\r\nConnection: close\r\n\r\n")
			answer, err := io.ReadAll(conn)
			conn.Close()
			if err != nil || strings.Contains(string(answer), "Location: http") {
				t.Errorf("%s: %v\n%s", line, err, answer)
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) > 0 {
		t.Errorf("somebody else was asked: %q", asked)
	}
}
