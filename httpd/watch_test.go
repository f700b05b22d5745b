package httpd_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd"
)

// watch begins a watch and returns when the head of the answer is there.
func (r *run) watch(target string) (*http.Response, *bufio.Reader) {
	r.t.Helper()
	conn, reader := r.dial()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", target)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		r.t.Fatalf("GET %s: %v", target, err)
	}
	return resp, bufio.NewReader(resp.Body)
}

func wantLine(t *testing.T, r *bufio.Reader, want string) {
	t.Helper()
	line, err := r.ReadString('\n')
	if err != nil || line != want+"\n" {
		t.Fatalf("read %q and %v, want %s", line, err, want)
	}
}

func wantEnd(t *testing.T, r io.Reader, want error) {
	t.Helper()
	rest, err := io.ReadAll(r)
	if len(rest) > 0 || !errors.Is(err, want) {
		t.Errorf("the body ends with %q and %v, want %v", rest, err, want)
	}
}

// The head leaves at once; after one event the answer is complete and the connection usable.
func TestWatchOneShot(t *testing.T) {
	r := start(t, httpd.Options{})
	conn, reader := r.dial()
	io.WriteString(conn, "GET /v2/keys/w?wait=true HTTP/1.1\r\nHost: test\r\n\r\n")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := resp.Header
	if resp.StatusCode != 200 || h.Get("X-Etcd-Index") != "3" || h.Get("X-Raft-Index") != "4" || h.Get("X-Raft-Term") != "2" ||
		h.Get("Content-Type") != "application/json" || len(resp.TransferEncoding) != 1 {
		t.Errorf("%d %v, transfer encoding %v", resp.StatusCode, h, resp.TransferEncoding)
	}
	r.set("/other", "x")
	r.set("/w", "1")
	body, err := io.ReadAll(resp.Body)
	const want = `{"action":"set","node":{"key":"/w","value":"1","modifiedIndex":5,"createdIndex":5}}` + "\n"
	if err != nil || string(body) != want {
		t.Errorf("body %q and %v, want %s", body, err, want)
	}

	io.WriteString(conn, "GET /v2/keys/w?wait=true&waitIndex=4 HTTP/1.1\r\nHost: test\r\n\r\n")
	if resp, err = http.ReadResponse(reader, nil); err != nil {
		t.Fatalf("the connection is not usable after a watch: %v", err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want || resp.Header.Get("X-Etcd-Index") != "5" {
		t.Errorf("from history: %q and %v, headers %v", body, err, resp.Header)
	}
}

func TestWatchHTTP10(t *testing.T) {
	r := start(t, httpd.Options{})
	conn, reader := r.dial()
	io.WriteString(conn, "GET /v2/keys/w?wait=true HTTP/1.0\r\n\r\n")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.set("/w", "1")
	body, err := io.ReadAll(resp.Body)
	if err != nil || len(resp.TransferEncoding) > 0 || !strings.HasPrefix(string(body), `{"action":"set"`) {
		t.Errorf("body %q and %v, transfer encoding %v", body, err, resp.TransferEncoding)
	}
}

func TestWatchCleared(t *testing.T) {
	r := start(t, httpd.Options{})
	r.set("/a", "1")
	r.member.Skip(1213)
	const want = `{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [218/217]","index":1217}` + "\n"
	for _, stream := range []string{"", "&stream=true"} {
		resp := r.want("GET", "/v2/keys/a?wait=true&waitIndex=217"+stream, "", 400, want)
		if h := resp.Header; h.Get("X-Etcd-Index") != "1217" || has(h, "X-Raft-Index") || !has(h, "X-Etcd-Cluster-Id") {
			t.Errorf("headers %v", h)
		}
	}
}

// etcd sends a stream on a key that goes the event twice; once is enough.
func TestStreamGetsRemovalOnce(t *testing.T) {
	r := start(t, httpd.Options{})
	for _, tt := range []struct{ key, del string }{{"/f", "/f"}, {"/d/x", "/d?recursive=true"}} {
		r.set(tt.key, "1")
		dir, _, _ := strings.Cut(tt.del, "?")
		_, events := r.watch("/v2/keys" + dir + "?wait=true&stream=true")
		_, deleted := r.do("DELETE", "/v2/keys"+tt.del, "")
		wantLine(t, events, strings.TrimSuffix(deleted, "\n"))
		wantLine(t, events, strings.TrimSuffix(string(r.set(dir, "2").JSON()), "\n"))
	}
}

// etcd sends one past event and then nothing, ever.
func TestStreamFromHistoryGoesOn(t *testing.T) {
	r := start(t, httpd.Options{})
	var want []*tree.Event
	for i := range 3 {
		want = append(want, r.set("/s/k", itoa(i)))
		r.set("/other", "x")
	}
	resp, events := r.watch("/v2/keys/s?wait=true&stream=true&recursive=true&waitIndex=4")
	if got := resp.Header.Get("X-Etcd-Index"); got != "9" {
		t.Errorf("X-Etcd-Index = %s, want 9", got)
	}
	want = append(want, r.set("/s/l", "live"))
	for _, e := range want {
		wantLine(t, events, strings.TrimSuffix(string(e.JSON()), "\n"))
	}
}

// In etcd the deletion of /d in the history wakes a watch on /dd.
func TestHistoryKeepsNamesApart(t *testing.T) {
	r := start(t, httpd.Options{})
	r.set("/d/x", "1")
	r.do("DELETE", "/v2/keys/d?recursive=true", "")
	_, below := r.watch("/v2/keys/d/never?wait=true&waitIndex=5")
	wantLine(t, below, `{"action":"delete","node":{"key":"/d","dir":true,"modifiedIndex":5,"createdIndex":4},"prevNode":{"key":"/d","dir":true,"modifiedIndex":4,"createdIndex":4}}`)
	_, beside := r.watch("/v2/keys/dd?wait=true&waitIndex=5")
	wantLine(t, beside, strings.TrimSuffix(string(r.set("/dd", "1").JSON()), "\n"))
}

func TestWatchEndsWithItsClient(t *testing.T) {
	r := start(t, httpd.Options{})
	conn, reader := r.dial()
	io.WriteString(conn, "GET /v2/keys/w?wait=true&stream=true HTTP/1.1\r\nHost: test\r\n\r\n")
	if _, err := http.ReadResponse(reader, nil); err != nil {
		t.Fatal(err)
	}
	if n := r.member.Tree().Stats().Watchers; n != 1 {
		t.Fatalf("%d watchers, want 1", n)
	}
	conn.Close()
	await(t, "the watcher is gone", func() bool { return r.member.Tree().Stats().Watchers == 0 })
}

// A stream whose client does not read gets what does not fit into its queue from the history. Writers
// never wait for it.
func TestSlowStreamReadsOn(t *testing.T) {
	r := start(t, httpd.Options{})
	conn, reader := r.dial()
	conn.(*net.TCPConn).SetReadBuffer(256 << 10)
	io.WriteString(conn, "GET /v2/keys/s?wait=true&stream=true HTTP/1.1\r\nHost: test\r\n\r\n")
	resp, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Far more than the queue of 100 and all socket buffers hold.
	const writes = 300
	value := strings.Repeat("v", 128<<10)
	for range writes {
		r.set("/s", value)
	}
	if n := r.member.Tree().Stats().Watchers; n != 0 {
		t.Errorf("%d watchers are told of events, want none that is behind", n)
	}
	events := bufio.NewReader(resp.Body)
	for n := range writes {
		line, err := events.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf(`"modifiedIndex":%d,`, 4+n); !strings.Contains(line, want) {
			t.Fatalf("event %d is not at %s", n, want)
		}
	}
}

// A server that stops closes the connections of watches without the final chunk (spec watch 6).
func TestShutdownEndsWatches(t *testing.T) {
	r := start(t, httpd.Options{})
	_, one := r.watch("/v2/keys/w?wait=true")
	_, stream := r.watch("/v2/keys/w?wait=true&stream=true&recursive=true")
	r.dial() // never asks for anything
	event := r.set("/w/x", "1")
	wantLine(t, stream, strings.TrimSuffix(string(event.JSON()), "\n"))

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	wantEnd(t, one, io.ErrUnexpectedEOF)
	wantEnd(t, stream, io.ErrUnexpectedEOF)
	if n := r.member.Tree().Stats().Watchers; n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

// A request in the works when the server stops gets its answer.
func TestShutdownWaitsForRequests(t *testing.T) {
	r := start(t, httpd.Options{})
	began, finish := make(chan struct{}), make(chan struct{})
	r.member.Fail = func(context.Context) error {
		close(began)
		<-finish
		return nil
	}
	conn, reader := r.dial()
	io.WriteString(conn, "PUT /v2/keys/k?value=x HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
	<-began
	done := make(chan error)
	go func() { done <- r.Shutdown(context.Background()) }()
	await(t, "the listener is closed", func() bool {
		conn, err := net.Dial("tcp", r.addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	close(finish)
	resp, err := http.ReadResponse(reader, nil)
	if err != nil || resp.StatusCode != 201 {
		t.Errorf("answer %v and %v, want 201", resp, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Once the server stops every answer says that its connection ends. (Package plain has its own test.)
func TestLastAnswerSaysSo(t *testing.T) {
	r := start(t, httpd.Options{})
	answer := func() http.Header {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest("GET", "/version", nil))
		return w.Result().Header
	}
	if got := answer().Get("Connection"); got != "" {
		t.Errorf("while it serves: Connection: %s, want none", got)
	}
	if err := r.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if got := answer().Get("Connection"); got != "close" {
		t.Errorf("while it stops: Connection: %q, want close", got)
	}
}

// Watches outlive the time limits of requests.
func TestWatchHasNoTimeLimit(t *testing.T) {
	t.Parallel()
	r := start(t, httpd.Options{HeaderTimeout: 2 * time.Second, ReadTimeout: 2 * time.Second})
	_, first := r.watch("/v2/keys/w?wait=true&stream=true")
	// A second connection is closed by the time limit that the first one got at the same time or
	// earlier, and must not obey.
	idle, _ := r.dial()
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("an idle connection ends with %v, want EOF", err)
	}
	wantLine(t, first, strings.TrimSuffix(string(r.set("/w", "1").JSON()), "\n"))
}

func TestWatchHTTP2(t *testing.T) {
	// For its certificate only.
	certified := httptest.NewUnstartedServer(http.NotFoundHandler())
	certified.EnableHTTP2 = true
	certified.StartTLS()
	defer certified.Close()

	r := start(t, httpd.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go r.Serve(tls.NewListener(l, &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}))
	client := certified.Client()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "https://"+l.Addr().String()+"/v2/keys/w?wait=true&stream=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ProtoMajor != 2 {
		t.Fatalf("spoke %s, want HTTP/2", resp.Proto)
	}
	events := bufio.NewReader(resp.Body)
	wantLine(t, events, strings.TrimSuffix(string(r.set("/w", "1").JSON()), "\n"))
	if err := r.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(events); err == nil {
		t.Errorf("the stream ends properly after %q, want an error", rest)
	}
}
