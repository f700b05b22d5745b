package httpd_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/httpdtest"
)

// scriptConn is a connection to a client that has sent all its bytes beforehand and then closed its
// side. It has no time-outs and loses nothing, whatever the server does.
type scriptConn struct {
	mu      sync.Mutex
	in      []byte // guarded by mu
	segment int    // what a read returns at most
	out     []byte // guarded by mu
	closed  chan struct{}
	once    sync.Once
}

func (c *scriptConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in[:min(c.segment, len(c.in))])
	c.in = c.in[n:]
	return n, nil
}

func (c *scriptConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = append(c.out, b...)
	return len(b), nil
}

func (c *scriptConn) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *scriptConn) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (c *scriptConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

// scripts is a listener for such connections.
type scripts struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *scripts) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *scripts) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *scripts) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// play serves a new member to clients that send the given bytes, one after the other, and returns all
// that was answered.
func play(t testing.TB, opts httpd.Options, segment int, inputs ...[]byte) []byte {
	t.Helper()
	member := httpdtest.New(1000)
	defer member.Close()
	server := httpd.NewServer(opts, member)
	l := &scripts{conns: make(chan net.Conn), closed: make(chan struct{})}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var out []byte
	for _, in := range inputs {
		c := &scriptConn{in: in, segment: segment, closed: make(chan struct{})}
		l.conns <- c
		// A watch with a request behind it does not notice the end of the input. The fuzzer finds that
		// all the time.
		wait := patience
		if fuzzing := flag.Lookup("test.fuzzworker"); fuzzing != nil && fuzzing.Value.String() == "true" {
			wait = 200 * time.Millisecond
		}
		select {
		case <-c.closed:
		case <-time.After(wait):
		}
		c.mu.Lock()
		out = append(out, c.out...)
		c.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	return out
}

// doorkeeper lets nobody see what is secret without a password.
type doorkeeper struct{}

func (doorkeeper) Authorize(r *http.Request, a httpd.Access) error {
	if name, password, ok := r.BasicAuth(); strings.Contains(a.Key, "secret") && (!ok || name != "u" || password != "p" || a.Kind == httpd.Write) {
		return errors.New("may not")
	}
	return nil
}

// A listing that is sent in pieces is the one that net/http sends.
func TestLargeListing(t *testing.T) {
	var in strings.Builder
	const keys = 3000
	for i := range keys {
		in.WriteString(plainRequest("PUT", fmt.Sprintf("/v2/keys/d%d/%d", i/100, i), "value="+strings.Repeat("v", 100)))
	}
	list := plainRequest("GET", "/v2/keys?recursive=true&sorted=true", "")
	in.WriteString(list + list)
	got := readable(play(t, httpd.Options{}, 1<<20, []byte(in.String())))
	want := readable(play(t, httpd.Options{OnlyNetHTTP: true}, 1<<20, []byte(in.String())))
	if got != want {
		t.Error("package plain and net/http differ")
	}
	if n := strings.Count(got, `"value":`); n != 3*keys {
		t.Errorf("%d values, want each in one answer to a write and in two listings", n)
	}
}

var times = regexp.MustCompile(`(,"expiration":"[^"]*")?(,"ttl":\d+)?`)

// readable makes answers comparable: without what may differ, which is the date, how the end of a body
// is found, the order of headers, and expiry to the second.
func readable(out []byte) string {
	var b strings.Builder
	br := bufio.NewReader(bytes.NewReader(out))
	for {
		if _, err := br.Peek(1); err != nil {
			return b.String()
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			return b.String()
		}
		fmt.Fprintf(&b, "%s %s close=%v\n", resp.Proto, resp.Status, resp.Close)
		resp.Header.Del("Date")
		resp.Header.Del("Content-Length")
		var names []string
		for name := range resp.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			fmt.Fprintf(&b, "%s: %q\n", name, resp.Header[name])
		}
		body, err := io.ReadAll(resp.Body)
		fmt.Fprintf(&b, "%s\n%v\n", times.ReplaceAll(body, nil), err)
	}
}

func plainRequest(method, target, form string, headers ...string) string {
	text := method + " " + target + " HTTP/1.1\r\nHost: a\r\n"
	for _, h := range headers {
		text += h + "\r\n"
	}
	if form != "" {
		text += "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: " + itoa(len(form)) + "\r\n"
	}
	return text + "\r\n" + form
}

// conversations are what clients send, ordinary and otherwise.
var conversations = []struct{ name, text string }{
	{"set and get", plainRequest("PUT", "/v2/keys/a/b", "value=1") + plainRequest("GET", "/v2/keys/a/b", "") +
		plainRequest("GET", "/v2/keys?recursive=true&sorted=true", "") + plainRequest("GET", "/v2/keys/a/b/", "")},
	{"all writes", plainRequest("PUT", "/v2/keys/k?prevExist=false", "value=1&ttl=100") + plainRequest("PUT", "/v2/keys/k", "value=2&prevValue=1") +
		plainRequest("PUT", "/v2/keys/k?prevExist=true", "value=%33+%2b") + plainRequest("POST", "/v2/keys/q", "value=x") +
		plainRequest("PUT", "/v2/keys/k", "refresh=true&ttl=100&prevExist=true") + plainRequest("PUT", "/v2/keys/d", "dir=true") +
		plainRequest("DELETE", "/v2/keys/d?dir=true", "") + plainRequest("DELETE", "/v2/keys/k?prevIndex=99", "") +
		plainRequest("DELETE", "/v2/keys/k?prevValue=%33%20%2b", "") + plainRequest("PUT", "/v2/keys/n?noValueOnSuccess=true", "value=1")},
	{"refusals", plainRequest("GET", "/v2/keys/none", "") + plainRequest("PUT", "/v2/keys", "value=1") + plainRequest("DELETE", "/v2/keys/none?recursive=true", "") +
		plainRequest("GET", "/v2/keys/k?ttl=x", "") + plainRequest("PUT", "/v2/keys/k?wait=true", "value=1") + plainRequest("PUT", "/v2/keys/k?prevValue=", "value=1")},
	{"malformed forms", plainRequest("PUT", "/v2/keys/k?a=%zz", "value=1") + plainRequest("PUT", "/v2/keys/k", "value=%") + plainRequest("GET", "/v2/keys/k?a;b", "") +
		plainRequest("PUT", "/v2/keys/k", "a;b")},
	{"quorum", plainRequest("GET", "/v2/keys/?quorum=true", "") + plainRequest("GET", "/v2/keys/?quorum=true&wait=true", "") + plainRequest("GET", "/v2/keys?quorum=1&recursive=1", "")},
	{"odd keys", plainRequest("PUT", "/v2/keys/%00%3f%23%25%C3%A9?value=q", "") + plainRequest("GET", "/v2/keys?recursive=true", "") +
		plainRequest("PUT", "/v2/keys/a+b%20c", "value=<&>\"\\") + plainRequest("GET", "/v2/keys/a+b%20c", "") + plainRequest("GET", "/v2/keys/...", "")},
	{"unclean path", plainRequest("GET", "/v2/keys/a//b", "") + plainRequest("GET", "/v2/keys", "")},
	{"dots", plainRequest("PUT", "/v2/keys/a/%2e%2e/b?x=y", "value=1")},
	{"out of the keys", plainRequest("GET", "/v2/keys/../stats/self", "")},
	{"bad escape", plainRequest("GET", "/v2/keys/%zz", "")},
	{"escaped slash", plainRequest("GET", "/v2/keys%2Fa", "")},
	{"question mark at the end", plainRequest("GET", "/v2/keys?", "") + plainRequest("GET", "/v2/keys/??", "") + plainRequest("GET", "/v2/keys/#a?#", "")},
	{"large value", plainRequest("PUT", "/v2/keys/k", "value="+strings.Repeat("x", 5000)) + plainRequest("GET", "/v2/keys/k", "")},
	{"larger value", plainRequest("PUT", "/v2/keys/k?noValueOnSuccess=true", "value="+strings.Repeat("x", 70_000)) + plainRequest("GET", "/v2/keys/k", "")},
	{"too large a value", plainRequest("PUT", "/v2/keys/k", "value="+strings.Repeat("x", 100_000)) + plainRequest("GET", "/v2/keys/k", "")},
	{"other types", plainRequest("PUT", "/v2/keys/k", "", "Content-Type: text/plain", "Content-Length: 0") +
		"PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nvalue=1" +
		"PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: Application/X-WWW-Form-Urlencoded; charset=utf-8\r\nContent-Length: 7\r\n\r\nvalue=2" +
		"PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/\r\nContent-Length: 7\r\n\r\nvalue=3" +
		"PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded; x\r\nContent-Length: 7\r\n\r\nvalue=4" +
		"PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type:\r\nContent-Length: 7\r\n\r\nvalue=5" +
		plainRequest("GET", "/v2/keys/k", "")},
	{"body that means nothing", plainRequest("GET", "/v2/keys", "wait=true") + plainRequest("DELETE", "/v2/keys/k", "prevValue=1") + plainRequest("GET", "/v2/keys", "")},
	{"origins", plainRequest("GET", "/v2/keys", "", "Origin: http://good") + plainRequest("GET", "/v2/keys", "", "Origin: http://bad") + plainRequest("GET", "/v2/keys", "", "Origin:")},
	{"credentials", plainRequest("GET", "/v2/keys/secret", "") + plainRequest("GET", "/v2/keys/secret", "", "Authorization: Basic dTpw") +
		plainRequest("PUT", "/v2/keys/secret", "value=1", "authorization: Basic dTpw") + plainRequest("GET", "/v2/keys/secret?recursive=x", "")},
	{"last request", plainRequest("GET", "/v2/keys", "", "Connection: close") + plainRequest("GET", "/v2/keys", "")},
	{"keep alive", plainRequest("GET", "/v2/keys", "", "Connection: Keep-Alive", "Keep-Alive: 300") + plainRequest("GET", "/v2/keys", "")},
	{"watch in the past", plainRequest("PUT", "/v2/keys/k", "value=1") + plainRequest("GET", "/v2/keys/k?wait=true&waitIndex=4", "") + plainRequest("GET", "/v2/keys/k", "")},
	{"watch behind a read", plainRequest("GET", "/v2/keys", "") + plainRequest("GET", "/v2/keys/k?wait=true&waitIndex=1", "")},
	{"watch without end", plainRequest("GET", "/v2/keys/k?wait=true&stream=true", "")},
	{"HEAD", plainRequest("HEAD", "/v2/keys", "")},
	{"OPTIONS", plainRequest("OPTIONS", "/v2/keys", "") + plainRequest("GET", "/v2/keys", "")},
	{"unknown method", plainRequest("PATCH", "/v2/keys", "") + plainRequest("get", "/v2/keys", "") + plainRequest("GET", "/v2/keys", "")},
	{"other endpoints", plainRequest("GET", "/version", "") + plainRequest("GET", "/v2/keys", "") + plainRequest("GET", "/v2/keysfoo", "")},
	{"HTTP/1.0", "GET /v2/keys HTTP/1.0\r\nHost: a\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"HTTP/1.0, no Host", "GET /v2/keys HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{"lower-case version", "GET /v2/keys http/1.1\r\nHost: a\r\n\r\n"},
	{"absolute form", "GET http://b/v2/keys HTTP/1.1\r\nHost: a\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"asterisk", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"no Host", "GET /v2/keys HTTP/1.1\r\n\r\n"},
	{"two Hosts", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
	{"odd Host", "GET /v2/keys HTTP/1.1\r\nHost: a b\r\n\r\n"},
	{"line ends behind a POST", plainRequest("POST", "/v2/keys/q", "value=1") + "\r\n" + plainRequest("GET", "/v2/keys", "") + "\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"many line ends behind a POST", plainRequest("POST", "/v2/keys/q", "value=1") + "\r\n\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"line end behind a PUT", plainRequest("PUT", "/v2/keys/q", "value=1") + "\r\n" + plainRequest("GET", "/v2/keys", "")},
	// Two readers of these could see different requests.
	{"length and chunks", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"chunks and length", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 100\r\n\r\n0\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"chunks, hidden by a space", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"chunks, hidden by a tab", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"odd encoding", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"two encodings", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"two lengths", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"two equal lengths", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nContent-Length: 7\r\n\r\nvalue=1" + plainRequest("GET", "/v2/keys", "")},
	{"a list of lengths", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 7, 7\r\n\r\nvalue=1" + plainRequest("GET", "/v2/keys", "")},
	{"signed length", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: +7\r\n\r\nvalue=1" + plainRequest("GET", "/v2/keys", "")},
	{"huge length", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551623\r\n\r\nvalue=1" + plainRequest("GET", "/v2/keys", "")},
	{"large length", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 9223372036854775807\r\n\r\nvalue=1"},
	{"folded header", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nA: b\r\n Content-Length: 40\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"folded length", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 7\r\n\r\nvalue=1" + plainRequest("GET", "/v2/keys", "")},
	{"bare LF", "GET /v2/keys HTTP/1.1\nHost: a\n\nGET /v2/keys/b HTTP/1.1\nHost: a\n\n"},
	{"bare CR", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: b\rContent-Length: 5\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"NUL in a header", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: \x00\r\n\r\n" + plainRequest("GET", "/v2/keys", "")},
	{"NUL in the target", "GET /v2/keys/\x00 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"space in the target", "GET /v2/keys/a HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"two spaces", "GET  /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"no colon", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nabc\r\n\r\n"},
	{"expectation", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\nvalue=1"},
	{"unknown expectation", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nExpect: much\r\n\r\nvalue=1"},
	{"upgrade", plainRequest("GET", "/v2/keys", "", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")},
	{"broken off in the line", "GET /v2/ke"},
	{"broken off in the head", "GET /v2/keys HTTP/1.1\r\nHost: a\r\n"},
	{"broken off in a form", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue=1"},
	{"broken off in another body", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nvalue=1"},
	{"broken off in a body that means nothing", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nvalue=1"},
	{"long head", plainRequest("GET", "/v2/keys", "", "A: "+strings.Repeat("a", 10_000)) + plainRequest("GET", "/v2/keys", "")},
	{"few bytes behind a request", plainRequest("GET", "/v2/keys", "") + "G\n"},
	{"few bytes", "G\n"},
	{"nothing", ""},
}

// optionsOf returns one of several configurations.
func optionsOf(choice uint8) httpd.Options {
	opts := httpd.Options{MaxRequestBytes: 80_000}
	if choice&1 != 0 {
		opts.CORS = []string{"http://good", "http://fine"}
	}
	if choice&2 != 0 {
		opts.Authorizer = doorkeeper{}
	}
	if choice&4 != 0 {
		opts.MaxRequestBytes = 20
	}
	return opts
}

// Whatever clients send, the answers with and without package plain are the same.
func FuzzPlainAgainstNetHTTP(f *testing.F) {
	for i, c := range conversations {
		f.Add([]byte(c.text), uint8(i), uint16(1<<15))
		f.Add([]byte(c.text), uint8(i+3), uint16(i*i%50+1))
	}
	f.Fuzz(func(t *testing.T, input []byte, choice uint8, segment uint16) {
		if bytes.Contains(bytes.ReplaceAll(input, []byte("ttl=100"), nil), []byte("ttl=")) {
			t.Skip("what expires during the test makes a difference")
		}
		opts := optionsOf(choice)
		size := max(int(segment), 1)
		got := play(t, opts, size, input)
		opts.OnlyNetHTTP = true
		want := play(t, opts, size, input)
		if g, w := readable(got), readable(want); g != w {
			t.Errorf("%q is answered by package plain with\n%s\nand by net/http with\n%s", input, g, w)
		}
	})
}

// Both ways of serving count the same and log the same.
func TestPlainAccounts(t *testing.T) {
	accounts := func(only bool) (metrics, log string) {
		var out bytes.Buffer
		registry := prometheus.NewRegistry()
		opts := httpd.Options{OnlyNetHTTP: only, Authorizer: doorkeeper{}, Registry: registry,
			Logger: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Debug, DisableTime: true})}
		var inputs [][]byte
		for _, c := range conversations {
			inputs = append(inputs, []byte(c.text))
		}
		play(t, opts, 1<<15, inputs...)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if !strings.HasPrefix(f.GetName(), "etcd_") {
					continue
				}
				metrics += f.GetName()
				for _, l := range m.GetLabel() {
					metrics += " " + l.GetName() + "=" + l.GetValue()
				}
				metrics += fmt.Sprintln("", m.GetCounter().GetValue(), m.GetGauge().GetValue(), m.GetHistogram().GetSampleCount())
			}
		}
		return metrics, regexp.MustCompile(`elapsed=\S*`).ReplaceAllString(out.String(), "")
	}
	metrics, log := accounts(false)
	wantMetrics, wantLog := accounts(true)
	if metrics != wantMetrics || !strings.Contains(metrics, "etcd_http_received_total method=QGET 3 0 0") {
		t.Errorf("metrics: got\n%s\nwant\n%s", metrics, wantMetrics)
	}
	if log != wantLog || !strings.Contains(log, "[DEBUG] request: method=PUT path=\"/v2/keys/a/b\" status=201") {
		t.Errorf("log: got\n%s\nwant\n%s", log, wantLog)
	}
}

// gate is an Authorizer that refuses all while it is in force.
type gate struct {
	on    atomic.Bool
	asked atomic.Int64
}

func (g *gate) Enabled() bool { return g.on.Load() }

func (g *gate) Authorize(*http.Request, httpd.Access) error {
	g.asked.Add(1)
	return errors.New("may not")
}

// Nobody is asked while nothing can be refused.
func TestAuthorizerNotInForce(t *testing.T) {
	for _, only := range []bool{false, true} {
		g := &gate{}
		r := start(t, httpd.Options{Authorizer: g, OnlyNetHTTP: only})
		for range 2 {
			r.do("PUT", "/v2/keys/k", "value=1")
			if resp, _ := r.do("GET", "/v2/keys/k", ""); resp.StatusCode != 200 || g.asked.Load() != 0 {
				t.Errorf("OnlyNetHTTP %v: %d, asked %d times", only, resp.StatusCode, g.asked.Load())
			}
		}
		g.on.Store(true)
		if resp, _ := r.do("GET", "/v2/keys/k", ""); resp.StatusCode != 401 || g.asked.Load() != 1 {
			t.Errorf("OnlyNetHTTP %v, in force: %d, asked %d times", only, resp.StatusCode, g.asked.Load())
		}
	}
}
