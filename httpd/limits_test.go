package httpd_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/httpdtest"
	"github.com/quorate/quorate/httpd/limit"
)

// startLimited serves a member on a listener whose connections are counted, with TLS if it is configured.
func startLimited(t *testing.T, opts httpd.Options, limits limit.Options, config *tls.Config) *run {
	t.Helper()
	opts.Limits = limit.New(limits)
	member := httpdtest.New(1000)
	t.Cleanup(member.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l = opts.Limits.Listener(l)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	r := serveOn(t, httpd.NewServer(opts, member), l)
	r.member = member
	return r
}

// ask sends a request on a connection and returns the answer and its body.
func ask(t *testing.T, conn net.Conn, br *bufio.Reader, request string) (*http.Response, string) {
	t.Helper()
	io.WriteString(conn, request)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%.60q: %v", request, err)
	}
	return resp, string(body)
}

const getRoot = "GET /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"

// A connection too many gets an answer with the reason, whichever way requests take, and harms none of
// those that are open.
func TestTooManyConnections(t *testing.T) {
	issuer := httptest.NewTLSServer(nil)
	defer issuer.Close()
	config := &tls.Config{Certificates: issuer.TLS.Certificates}
	for _, tt := range []struct {
		name   string
		opts   httpd.Options
		limits limit.Options
		tls    *tls.Config
		status int
		text   string
	}{
		{"in all", httpd.Options{}, limit.Options{Connections: 2, ConnectionsPerAddress: 2}, nil, 503, "this server has 2 connections, as many as it may (--max-connections): try another member, or again later"},
		{"per address", httpd.Options{}, limit.Options{Connections: 10, ConnectionsPerAddress: 2}, nil, 429, "127.0.0.1 has 2 connections, as many as one address may (--max-connections-per-address): close some, or try again later"},
		{"net/http alone", httpd.Options{OnlyNetHTTP: true}, limit.Options{Connections: 2, ConnectionsPerAddress: 2}, nil, 503, "this server has 2 connections, as many as it may (--max-connections): try another member, or again later"},
		{"TLS", httpd.Options{}, limit.Options{Connections: 2, ConnectionsPerAddress: 2}, config, 503, "this server has 2 connections, as many as it may (--max-connections): try another member, or again later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startLimited(t, tt.opts, tt.limits, tt.tls)
			dial := func() (net.Conn, *bufio.Reader) {
				conn, br := r.dial()
				if tt.tls != nil {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
					br = bufio.NewReader(conn)
				}
				return conn, br
			}
			first, firstReader := dial()
			second, secondReader := dial()
			for _, c := range []struct {
				net.Conn
				*bufio.Reader
			}{{first, firstReader}, {second, secondReader}} {
				if resp, body := ask(t, c.Conn, c.Reader, getRoot); resp.StatusCode != 200 {
					t.Fatalf("within the limit: %d %s", resp.StatusCode, body)
				}
			}
			for _, request := range []string{getRoot, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nvalue=x"} {
				conn, br := dial()
				resp, body := ask(t, conn, br, request)
				if resp.StatusCode != tt.status || body != `{"message":"`+tt.text+`"}` || !resp.Close ||
					resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Retry-After") != "1" {
					t.Errorf("%.20q: %d %s %v", request, resp.StatusCode, body, resp.Header)
				}
				conn.Close()
			}
			if _, err := r.member.Tree().Get("/k", false, false); err == nil {
				t.Error("a refused request was carried out")
			}
			if resp, body := ask(t, first, firstReader, getRoot); resp.StatusCode != 200 {
				t.Errorf("an open connection: %d %s", resp.StatusCode, body)
			}
			if got := r.metric(t, second, secondReader, `quorate_refused_total{limit="`); !strings.Contains(got, " 3\n") {
				t.Errorf("metrics say %s", got)
			}
			second.Close()
			await(t, "a place is free", func() bool {
				conn, br := dial()
				defer conn.Close()
				resp, _ := ask(t, conn, br, getRoot)
				return resp.StatusCode == 200
			})
		})
	}
}

// metric returns the lines of /metrics that begin so.
func (r *run) metric(t *testing.T, conn net.Conn, br *bufio.Reader, prefix string) string {
	t.Helper()
	_, body := ask(t, conn, br, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
	var lines string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, prefix) {
			lines += line
		}
	}
	return lines
}

func TestTooManyWatchers(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits limit.Options
		status int
		text   string
	}{
		{"in all", limit.Options{Watchers: 2, WatchersPerAddress: 2}, 503, "this server has 2 watchers, as many as it may (--max-watchers): try another member, or again later"},
		{"per address", limit.Options{Watchers: 10, WatchersPerAddress: 2}, 429, "127.0.0.1 has 2 watchers, as many as one address may (--max-watchers-per-address): close some, or try again later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := startLimited(t, httpd.Options{}, tt.limits, nil)
			const watch = "GET /v2/keys/k?wait=true HTTP/1.1\r\nHost: a\r\n\r\n"
			var conns []net.Conn
			for range 2 {
				conn, br := r.dial()
				io.WriteString(conn, watch)
				if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
					t.Fatalf("within the limit: %v %v", resp, err)
				}
				conns = append(conns, conn)
			}
			conn, br := r.dial()
			resp, body := ask(t, conn, br, watch)
			if resp.StatusCode != tt.status || body != `{"message":"`+tt.text+`"}` {
				t.Errorf("%d %s", resp.StatusCode, body)
			}
			// Whatever is no watch goes on, on this connection too.
			if resp, body := ask(t, conn, br, getRoot); resp.StatusCode != 200 {
				t.Errorf("a read after the refusal: %d %s", resp.StatusCode, body)
			}
			conns[0].Close()
			await(t, "there is room for a watcher", func() bool {
				conn, br := r.dial()
				defer conn.Close()
				io.WriteString(conn, watch)
				resp, err := http.ReadResponse(br, nil)
				return err == nil && resp.StatusCode == 200
			})
		})
	}
}

// A head that is too long gets its reason in JSON, whether it comes with a plain request or another.
func TestHeaderLimit(t *testing.T) {
	r := start(t, httpd.Options{MaxHeaderBytes: 8 << 10})
	long := strings.Repeat("x", 16<<10)
	for _, request := range []string{
		"GET /v2/keys/k HTTP/1.1\r\nHost: a\r\nX-Long: " + long + "\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: a\r\nX-Long: " + long + "\r\n\r\n",
		"GET /v2/keys/" + long + " HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		conn, br := r.dial()
		resp, body := ask(t, conn, br, request)
		if resp.StatusCode != 431 || body != `{"message":"the head of the request is larger than 8192 bytes (--max-header-bytes)"}` || resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%.40q: %d %s", request, resp.StatusCode, body)
		}
	}
	conn, br := r.dial()
	if got, want := r.metric(t, conn, br, `quorate_refused_total{limit="header"}`), "quorate_refused_total{limit=\"header\"} 3\n"; got != want {
		t.Errorf("metrics say %q, want %q", got, want)
	}
	r.want("GET", "/v2/keys/"+strings.Repeat("k/", 3000)+"k", "", 404, `{"errorCode":100,"message":"Key not found","cause":"/k","index":3}`+"\n")
}

// Bodies that are no forms under /v2/keys are refused with 413.
func TestBodyLimit(t *testing.T) {
	r := start(t, httpd.Options{MaxRequestBytes: 100})
	body := `{"peerURLs":["http://` + strings.Repeat("a", 100) + `:1"]}`
	resp, got := r.sendJSON("POST", "/v2/members", body)
	if resp.StatusCode != 413 || got != `{"message":"the body of the request is larger than 100 bytes (--max-request-bytes)"}` {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	r.do("PUT", "/v2/keys/k", "value="+strings.Repeat("x", 100))
	conn, br := r.dial()
	if got, want := r.metric(t, conn, br, `quorate_refused_total{limit="body"}`), "quorate_refused_total{limit=\"body\"} 2\n"; got != want {
		t.Errorf("metrics say %q, want %q", got, want)
	}
}

func (r *run) sendJSON(method, target, body string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, fmt.Sprintf("http://%s%s", r.addr, target), strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return r.send(req)
}

// A stream whose client has stopped reading is cut off, like any other answer that is not taken, and holds
// no memory of the member for longer.
func TestDeadStream(t *testing.T) {
	t.Parallel()
	r := start(t, httpd.Options{WriteTimeout: 300 * time.Millisecond})
	conn, br := r.dial()
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	io.WriteString(conn, "GET /v2/keys/s?wait=true&stream=true HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp, err := http.ReadResponse(br, nil); err != nil || resp.StatusCode != 200 {
		t.Fatal(resp, err)
	}
	// More than all socket buffers hold.
	for range 40 {
		r.set("/s", strings.Repeat("x", 1<<20))
	}
	watch, watchReader := r.dial()
	await(t, "the stream is cut off", func() bool {
		return strings.Contains(r.metric(t, watch, watchReader, "quorate_client_watchers"), "quorate_client_watchers 0")
	})
	r.alive()
}
