package httpd_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/httpdtest"
)

// patience is how long a test waits for what must happen before it fails.
const patience = 20 * time.Second

// run is a server on a port of its own, and the member behind it.
type run struct {
	*httpd.Server
	t      testing.TB
	member *httpdtest.Member
	addr   string
}

// start serves a new member with the history of etcd until the test ends.
func start(t testing.TB, opts httpd.Options) *run {
	t.Helper()
	member := httpdtest.New(1000)
	t.Cleanup(member.Close)
	r := serve(t, httpd.NewServer(opts, member))
	r.member = member
	return r
}

func serve(t testing.TB, server *httpd.Server) *run {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, server, l)
}

func serveOn(t testing.TB, server *httpd.Server, l net.Listener) *run {
	t.Helper()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &run{Server: server, t: t, addr: l.Addr().String()}
}

// dial opens a connection that is closed with the test.
func (r *run) dial() (net.Conn, *bufio.Reader) {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn, bufio.NewReader(conn)
}

// raw sends a request on a connection of its own and returns all bytes of the answer but the date.
// The request is a start line, and headers and a body if wanted; a "\n" in it is a line end.
func (r *run) raw(request string) string {
	r.t.Helper()
	conn, _ := r.dial()
	head, body, _ := strings.Cut(request, "\n\n")
	head = strings.ReplaceAll(head, "\n", "\r\n")
	if body != "" && !strings.Contains(head, "Transfer-Encoding") {
		head += "\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: " + itoa(len(body))
	}
	io.WriteString(conn, head+"\r\nHost: test\r\nConnection: close\r\n\r\n"+body)
	answer, err := io.ReadAll(conn)
	if err != nil {
		r.t.Fatalf("%s: %v", request, err)
	}
	return dateLine.ReplaceAllString(strings.ReplaceAll(string(answer), "\r\n", "\n"), "")
}

var dateLine = regexp.MustCompile(`(?m)^Date: .*\n`)

// do sends a request with an urlencoded form, if there is any, and returns the answer read.
func (r *run) do(method, target, form string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.addr+target, strings.NewReader(form))
	if err != nil {
		r.t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r.send(req)
}

func (r *run) send(req *http.Request) (*http.Response, string) {
	r.t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return resp, string(body)
}

// want fails the test unless the answer has the given status and body.
func (r *run) want(method, target, form string, status int, body string) *http.Response {
	r.t.Helper()
	resp, got := r.do(method, target, form)
	if resp.StatusCode != status || got != body {
		r.t.Errorf("%s %s %s\n got %d %s\nwant %d %s", method, target, form, resp.StatusCode, got, status, body)
	}
	return resp
}

func has(h http.Header, name string) bool { return len(h.Values(name)) > 0 }

// set writes a key without going through HTTP.
func (r *run) set(key, value string) *tree.Event {
	r.t.Helper()
	event, err := r.member.Do(context.Background(), tree.Write{Op: tree.Op{Action: tree.Set, Path: key, Value: value}})
	if err != nil {
		r.t.Fatal(err)
	}
	return event
}

// await waits until the condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}
