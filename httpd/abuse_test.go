package httpd_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/httpd"
)

// alive fails the test unless the server still answers a well-formed request at once.
func (r *run) alive() {
	r.t.Helper()
	if resp, body := r.do("GET", "/livez", ""); resp.StatusCode != 200 {
		r.t.Errorf("/livez: %d %s", resp.StatusCode, body)
	}
}

// A request that breaks off changes nothing, and is answered if the client still listens.
func TestTruncatedRequests(t *testing.T) {
	tests := []struct {
		name, sent string
		want       string // how the answer begins
	}{
		{"nothing", "", ""},
		{"half a request line", "PUT /v2/ke", "HTTP/1.1 400"},
		{"half a head", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nConte", "HTTP/1.1 400"},
		{"half a body", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue=x",
			"HTTP/1.1 400"},
		{"half a chunk", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nvalue=x",
			"HTTP/1.1 400"},
		{"half a member", "POST /v2/members HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"peerURLs\":[\"http://a:1\"]}",
			"HTTP/1.1 400"},
		{"garbage", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "HTTP/1.1 400"},
		{"bad chunk", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "HTTP/1.1 400"},
		{"two lengths", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400"},
		{"negative length", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 400"},
		{"no host", "GET /v2/keys HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request: missing required Host header"},
	}
	r := start(t, httpd.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conn, _ := r.dial()
			io.WriteString(conn, tt.sent)
			conn.(*net.TCPConn).CloseWrite()
			answer, _ := io.ReadAll(conn) // a reset is fine
			if !strings.HasPrefix(string(answer), tt.want) {
				t.Errorf("got %q, want %s", answer, tt.want)
			}
		})
	}
	r.want("GET", "/v2/keys", "", 200, `{"action":"get","node":{"dir":true}}`+"\n")
	r.want("GET", "/v2/members", "", 200, `{"members":[`+self+`]}`+"\n")
}

func TestTooLongForms(t *testing.T) {
	const tooLarge = `{"errorCode":210,"message":"Invalid POST form","cause":"http: POST too large","index":0}` + "\n"
	r := start(t, httpd.Options{})
	for _, method := range []string{"PUT", "POST"} {
		for _, chunked := range []bool{false, true} {
			conn, reader := r.dial()
			form := "value=" + strings.Repeat("x", 11<<20)
			head := method + " /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
			go func() {
				if chunked {
					fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(form), form)
				} else {
					fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(form), form)
				}
			}()
			resp, err := http.ReadResponse(reader, nil)
			if err != nil {
				t.Fatalf("%s: %v", method, err)
			}
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != 400 || string(body) != tooLarge || resp.Header.Get("X-Etcd-Index") != "0" {
				t.Errorf("%s, chunked %v: %d %s", method, chunked, resp.StatusCode, body)
			}
			conn.Close()
		}
	}
	// The limit itself is fine, and can be set.
	if resp, body := r.do("PUT", "/v2/keys/k?noValueOnSuccess=true", "value="+strings.Repeat("x", 10<<20-6)); resp.StatusCode != 201 {
		t.Errorf("10 MiB: %d %s", resp.StatusCode, body)
	}
	small := start(t, httpd.Options{MaxRequestBytes: 20})
	small.want("PUT", "/v2/keys/k", "value="+strings.Repeat("x", 15), 400, tooLarge)
	small.want("PUT", "/v2/keys/k?noValueOnSuccess=1", "value="+strings.Repeat("x", 14), 201, `{"action":"set"}`+"\n")
	// What is no form is not read at all.
	req, err := http.NewRequest("PUT", "http://"+small.addr+"/v2/keys/k?noValueOnSuccess=1", strings.NewReader(strings.Repeat("x", 1000)))
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := small.send(req); resp.StatusCode != 200 {
		t.Errorf("text of 1000 bytes: %d %s", resp.StatusCode, body)
	}
}

func TestBadEscapes(t *testing.T) {
	r := start(t, httpd.Options{})
	for _, tt := range []struct{ target, form, cause string }{
		{"/v2/keys/k?a=%zz", "value=x", `invalid URL escape \"%zz\"`},
		{"/v2/keys/k?%", "value=x", `invalid URL escape \"%\"`},
		{"/v2/keys/k", "value=%f", `invalid URL escape \"%f\"`},
		{"/v2/keys/k?a=%yy", "%xx=1", `invalid URL escape \"%xx\"`},
		{"/v2/keys/k?a;b", "value=x", `invalid semicolon separator in query`},
	} {
		want := `{"errorCode":210,"message":"Invalid POST form","cause":"` + tt.cause + `","index":0}` + "\n"
		if got := r.raw("PUT " + tt.target + " HTTP/1.1\n\n" + tt.form); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\n") || !strings.HasSuffix(got, "\n\n"+want) {
			t.Errorf("%s %s: %s", tt.target, tt.form, got)
		}
	}
	for _, target := range []string{"/v2/keys/%", "/v2/keys/%4", "/%zz", "/v2/keys/%%30"} {
		if got := r.raw("GET " + target + " HTTP/1.1"); !strings.HasPrefix(got, "HTTP/1.1 400 Bad Request\n") || !strings.HasSuffix(got, "\n\n400 Bad Request") {
			t.Errorf("%s: %s", target, got)
		}
	}
}

func TestUnknownMethods(t *testing.T) {
	r := start(t, httpd.Options{})
	for _, method := range []string{"PATCH", "TRACE", "QGET", "SYNC", "get", "PROPFIND", "CONNECT", "X"} {
		if got := r.raw(method + " /v2/keys/k HTTP/1.1"); !strings.HasPrefix(got, "HTTP/1.1 405 ") || !strings.Contains(got, "\nAllow: HEAD,GET,PUT,POST,DELETE\n") {
			t.Errorf("%s: %s", method, got)
		}
	}
	for _, method := range []string{"", "G(T", "GET\x00"} {
		if got := r.raw(method + " /v2/keys/k HTTP/1.1"); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: %s", method, got)
		}
	}
}

func TestTooLongHead(t *testing.T) {
	r := start(t, httpd.Options{})
	conn, reader := r.dial()
	go fmt.Fprintf(conn, "GET /v2/keys/k HTTP/1.1\r\nHost: a\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 2<<20))
	if line, err := reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 431 ") {
		t.Errorf("got %q and %v, want 431", line, err)
	}
	// Far more than the 4096 bytes of etcd's plaintext listener is fine.
	r.want("GET", "/v2/keys/"+strings.Repeat("k/", 10_000)+"k", "", 404, `{"errorCode":100,"message":"Key not found","cause":"/k","index":3}`+"\n")
	r.alive()
}

// A client that sends its head byte by byte, or nothing at all, is cut off, and harms nobody.
func TestSlowHead(t *testing.T) {
	t.Parallel()
	r := start(t, httpd.Options{HeaderTimeout: 300 * time.Millisecond})
	silent, _ := r.dial()
	slow, _ := r.dial()
	stop := make(chan struct{})
	var feeding sync.WaitGroup
	feeding.Go(func() {
		io.WriteString(slow, "GET /v2/keys HTTP/1.1\r\nHost: a\r\nX-Slow: ")
		for {
			if _, err := io.WriteString(slow, "x"); err != nil {
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	for name, conn := range map[string]net.Conn{"silent": silent, "slow": slow} {
		_, err := io.ReadAll(conn)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("the %s connection is still open", name)
		}
	}
	close(stop)
	feeding.Wait()
}

// A body that does not come is not waited for. Nothing is written.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	r := start(t, httpd.Options{ReadTimeout: 500 * time.Millisecond})
	conn, reader := r.dial()
	io.WriteString(conn, "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nvalue=x")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	const want = `{"errorCode":210,"message":"Invalid POST form","cause":"the body did not arrive in time","index":0}` + "\n"
	if resp.StatusCode != 400 || string(body) != want {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, err := r.member.Tree().Get("/k", false, false); err == nil {
		t.Error("the key was written")
	}
}

// A client that asks for much and reads nothing is cut off.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	r := start(t, httpd.Options{WriteTimeout: 500 * time.Millisecond})
	for i := range 4 {
		r.set("/large/"+itoa(i), strings.Repeat("x", 8<<20))
	}
	conn, _ := r.dial()
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	io.WriteString(conn, "GET /v2/keys/large HTTP/1.1\r\nHost: a\r\n\r\n")
	// Only now and then does it look whether the connection is still there, by sending.
	await(t, "the connection is cut", func() bool {
		time.Sleep(20 * time.Millisecond)
		_, err := io.WriteString(conn, "x")
		return err != nil
	})
	r.alive()
}

// Idle connections cost memory and a descriptor each, and nothing else.
func TestIdleConnections(t *testing.T) {
	// Both ends are in this process, and other tests need descriptors too.
	n := 10_000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if most := max(int(limit.Cur)-400, 0) / 2; n > most {
		n = most
		t.Logf("%d connections instead of 10000: the limit of open files is %d", n, limit.Cur)
	}
	if raceEnabled {
		n = min(n, 2000) // the race detector does not stand more than 8128 goroutines
	}
	if testing.Short() {
		n = min(n, 500)
	}
	r := start(t, httpd.Options{})
	conns := make([]net.Conn, n)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns[i] = c
		if i%100 == 0 { // some have been used before
			fmt.Fprintf(c, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
			c.SetDeadline(time.Now().Add(patience))
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("connection %d: %v and %v", i, resp, err)
			}
		}
	}
	r.want("PUT", "/v2/keys/k", "value=1", 201, `{"action":"set","node":{"key":"/k","value":"1","modifiedIndex":4,"createdIndex":4}}`+"\n")
	r.alive()
}
