package plain

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pipes is a listener whose connections are in memory, so that a test can be in time of its own.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

func (p *pipes) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	client, server := net.Pipe()
	p.conns <- server
	t.Cleanup(func() { client.Close() })
	return client, bufio.NewReader(client)
}

// echo answers with what was asked; not for paths with "other".
type echo struct{ hold chan struct{} }

func (e echo) ServePlain(w *Response, r *Request) bool {
	switch target := string(r.Target); {
	case strings.Contains(target, "other"):
		return false
	case strings.Contains(target, "panic"):
		panic("as the client wished")
	case strings.Contains(target, "hold"):
		<-e.hold
	case strings.Contains(target, "stream"):
		w.Status(http.StatusOK)
		w.Stream(func(b []byte, send func([]byte) []byte) []byte {
			for _, piece := range streamed {
				b = send(append(b, piece...))
			}
			return append(b, r.Body...)
		})
		return true
	case strings.Contains(target, "large"):
		w.Status(http.StatusOK)
		w.Body(func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		return true
	}
	w.Status(http.StatusCreated)
	w.Header("X-Text", "text")
	w.HeaderUint("X-Number", 42)
	w.Body(func(b []byte) []byte { return fmt.Appendf(b, "%s %s %s", r.Method, r.Target, r.Body) })
	return true
}

// run is a server, and the one of net/http behind it.
type run struct {
	*Server
	*pipes
	hold   chan struct{}
	behind *http.Server
	log    strings.Builder
	served chan error
}

const (
	headerTimeout = 30 * time.Second
	readTimeout   = 90 * time.Second
	writeTimeout  = time.Minute
	idleTimeout   = 5 * time.Minute
)

// start runs a server, or only net/http to compare with.
func start(t *testing.T, onlyNetHTTP bool) *run {
	r := &run{pipes: newPipes(), hold: make(chan struct{}), served: make(chan error, 1)}
	r.Server = New(Config{
		Prefix: "/v2/keys", Handler: echo{r.hold}, MaxBody: 10_000,
		HeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: log.New(&r.log, "", 0),
	})
	r.behind = &http.Server{
		ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ErrorLog: log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
			}
			if strings.Contains(r.RequestURI, "large") {
				w.Write(make([]byte, 1<<20))
				return
			}
			fmt.Fprintf(w, "net/http: %s %s %s", r.Method, r.RequestURI, body)
		}),
	}
	var l net.Listener = r.pipes
	if !onlyNetHTTP {
		l = r.Server.Listener(l)
	}
	go func() { r.served <- r.behind.Serve(l) }()
	t.Cleanup(func() {
		r.Server.Close()
		r.behind.Close()
		if err := <-r.served; err != http.ErrServerClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// answer reads an answer and returns its status and body.
func answer(t *testing.T, br *bufio.Reader) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func wantAnswer(t *testing.T, br *bufio.Reader, status int, body string) {
	t.Helper()
	if s, b := answer(t, br); s != status || b != body {
		t.Errorf("got %d %q, want %d %q", s, b, status, body)
	}
}

const get = "GET /v2/keys/k HTTP/1.1\r\nHost: a\r\n\r\n"

func TestBytes(t *testing.T) {
	r := start(t, false)
	for _, closing := range []bool{false, true} {
		conn, _ := r.dial(t)
		request := get
		want := "HTTP/1.1 201 Created\r\nX-Text: text\r\nX-Number: 42\r\nDate: D\r\nContent-Length: 19\r\n\r\nGET /v2/keys/k "
		if closing {
			request = strings.Replace(get, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
			want = strings.Replace(want, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
		}
		want = strings.Replace(want, "19", "15", 1)
		io.WriteString(conn, request)
		// One write of the server is one read of a pipe.
		b := make([]byte, 1000)
		n, err := conn.Read(b)
		got := regexp.MustCompile(`Date: [^\r]*`).ReplaceAllString(string(b[:n]), "Date: D")
		if got != want || err != nil {
			t.Errorf("got %q and %v, want %q", got, err, want)
		}
		if closing {
			if n, err := conn.Read(b); n > 0 || err != io.EOF {
				t.Errorf("got %q and %v behind the last answer", b[:n], err)
			}
		}
	}
}

// streamed are the pieces of a streamed answer.
var streamed = []string{"one", strings.Repeat("2", 100_000), strings.Repeat("3", 16)}

func TestStream(t *testing.T) {
	r := start(t, false)
	conn, br := r.dial(t)
	want := strings.Join(streamed, "")
	for _, rest := range []string{"", "rest"} {
		go fmt.Fprintf(conn, "PUT /v2/keys/stream HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(rest), rest)
		wantAnswer(t, br, 200, want+rest)
	}
	go io.WriteString(conn, "GET /v2/keys/stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	wantAnswer(t, br, 200, want)
	if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
		t.Errorf("behind the last answer come %q and %v", rest, err)
	}

	// A client that goes away in the middle is let go.
	conn, br = r.dial(t)
	go io.WriteString(conn, "GET /v2/keys/stream HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := br.Discard(1000); err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

// However the bytes of requests arrive, the answers are the same.
func TestSegments(t *testing.T) {
	put := func(size int) string {
		return fmt.Sprintf("PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
	}
	requests := get + put(3) + get + put(5000) + put(0) + get + put(9000) + put(900) +
		strings.Replace(get, "\r\n\r\n", "\r\nA: "+strings.Repeat("a", 3000)+"\r\n\r\n", 1) + get
	requests += "GET /v2/keys/other HTTP/1.1\r\nHost: a\r\n\r\n" + get
	var want []string
	for _, size := range []int{-1, 3, -1, 5000, 0, -1, 9000, 900, -1, -1} {
		if size < 0 {
			want = append(want, "GET /v2/keys/k ")
		} else {
			want = append(want, "PUT /v2/keys/k "+strings.Repeat("x", size))
		}
	}
	want = append(want, "net/http: GET /v2/keys/other ", "net/http: GET /v2/keys/k ")
	for _, step := range []int{1, 7, 100, 1023, 1024, 1025, 4000, len(requests)} {
		t.Run(fmt.Sprint("step=", step), func(t *testing.T) {
			r := start(t, false)
			conn, br := r.dial(t)
			go func() {
				for rest := requests; rest != ""; {
					n := min(step, len(rest))
					if _, err := io.WriteString(conn, rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}()
			for i, w := range want {
				if _, got := answer(t, br); got != w {
					t.Fatalf("answer %d: got %.100q, want %.100q", i, got, w)
				}
			}
		})
	}
}

func TestHandOver(t *testing.T) {
	r := start(t, false)
	for _, tt := range []struct{ name, request, want string }{
		{"the handler declines", "GET /v2/keys/other HTTP/1.1\r\nHost: a\r\n\r\n", "net/http: GET /v2/keys/other "},
		{"with a body", "PUT /v2/keys/other HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "net/http: PUT /v2/keys/other abc"},
		{"another path", "GET /version HTTP/1.1\r\nHost: a\r\n\r\n", "net/http: GET /version "},
		{"chunks", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "net/http: PUT /v2/keys/k abc"},
		{"a large body", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 10001\r\n\r\n" + strings.Repeat("x", 10001), "net/http: PUT /v2/keys/k " + strings.Repeat("x", 10001)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, br := r.dial(t)
			for _, want := range []string{"GET /v2/keys/k ", tt.want, "net/http: GET /v2/keys/k "} {
				request := get
				if want == tt.want {
					request = tt.request
				}
				go io.WriteString(conn, request)
				if _, got := answer(t, br); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	if all, busy := r.Count(); all != 0 || busy != 0 {
		t.Errorf("%d connections, %d busy; want none", all, busy)
	}
}

// Old clients send a line end behind the body of a POST, and net/http forgives it.
func TestLineEndsBehindPost(t *testing.T) {
	const post = "POST /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
	for _, tt := range []struct {
		between string
		want    int
	}{{"", 201}, {"\r\n", 201}, {"\r\n\r\n", 201}, {"\n", 201}, {"\r\n\r\n\r\n", 400}} {
		r := start(t, false)
		conn, br := r.dial(t)
		go io.WriteString(conn, post+tt.between+get+tt.between+get)
		wantAnswer(t, br, 201, "POST /v2/keys/k ")
		if status, _ := answer(t, br); status != tt.want {
			t.Errorf("%q: %d, want %d", tt.between, status, tt.want)
		}
	}
}

// A connection ends at the moment at which net/http would end it.
func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		name string
		// use uses a connection, and returns when it has got to the point from which the limit counts.
		use  func(*testing.T, net.Conn, *bufio.Reader)
		want time.Duration
	}{
		{"silent", func(*testing.T, net.Conn, *bufio.Reader) {}, headerTimeout},
		{"half a head", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get[:20])
		}, headerTimeout},
		{"half a head, slowly", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get[:20])
			go func() {
				for _, b := range get[20:25] {
					time.Sleep(5 * time.Second)
					c.Write([]byte{byte(b)})
				}
			}()
		}, headerTimeout},
		{"idle", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get)
			answer(t, br)
		}, idleTimeout},
		{"idle again", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			for range 10 {
				io.WriteString(c, get)
				answer(t, br)
				time.Sleep(idleTimeout - time.Second)
			}
			io.WriteString(c, get)
			answer(t, br)
		}, idleTimeout},
		{"half a second head", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get)
			answer(t, br)
			time.Sleep(time.Minute)
			io.WriteString(c, get[:20])
		}, headerTimeout},
		{"half a second head behind the first", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get+get[:20])
			answer(t, br)
		}, headerTimeout},
		{"idle after a slow head", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get[:20])
			time.Sleep(20 * time.Second)
			io.WriteString(c, get[20:])
			answer(t, br)
		}, idleTimeout},
		{"half a body", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
		}, readTimeout},
		{"half a body after a slow head", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, get)
			answer(t, br)
			time.Sleep(time.Minute)
			io.WriteString(c, "PUT /v2/keys/k HTTP/1.1\r\n")
			time.Sleep(20 * time.Second)
			io.WriteString(c, "Host: a\r\nContent-Length: 3\r\n\r\na")
		}, readTimeout - 20*time.Second},
		{"half a first body after silence", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			time.Sleep(20 * time.Second)
			io.WriteString(c, "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na")
		}, readTimeout - 20*time.Second},
		{"an answer that is not taken", func(t *testing.T, c net.Conn, br *bufio.Reader) {
			io.WriteString(c, "GET /v2/keys/large HTTP/1.1\r\nHost: a\r\n\r\n")
			time.Sleep(writeTimeout + time.Second) // the reading below would be a sign of life
			br.ReadByte()
		}, time.Second},
	} {
		for _, onlyNetHTTP := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/net-http=%v", tt.name, onlyNetHTTP), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := start(t, onlyNetHTTP)
					conn, br := r.dial(t)
					tt.use(t, conn, br)
					from := time.Now()
					if tt.want == time.Second {
						from = from.Add(-time.Second)
					}
					io.Copy(io.Discard, br)
					if got := time.Since(from); got != tt.want {
						t.Errorf("the connection ended after %v, want %v", got, tt.want)
					}
				})
			})
		}
	}
}

// A client that takes a large answer slowly gets all of it, as long as it makes progress.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, false)
		conn, br := r.dial(t)
		for range 2 { // the second one begins with an old deadline
			io.WriteString(conn, "GET /v2/keys/large HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			for left := 1 << 20; left > 0; left -= 100 << 10 {
				time.Sleep(15 * time.Second) // a piece takes 45 s at most
				if n, err := io.CopyN(io.Discard, resp.Body, min(100<<10, int64(left))); err != nil {
					t.Fatalf("%d bytes and %v, with %d to come", n, err, left)
				}
			}
			time.Sleep(2 * time.Minute)
		}
	})
}

// A body that does not come, or a request that breaks off, is for net/http to answer.
func TestBrokenOff(t *testing.T) {
	const half = "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na"
	synctest.Test(t, func(t *testing.T) {
		r := start(t, false)
		conn, br := r.dial(t)
		io.WriteString(conn, half)
		begun := time.Now()
		wantAnswer(t, br, 400, "net/http: PUT /v2/keys/k a")
		if d := time.Since(begun); d != readTimeout {
			t.Errorf("answered after %v, want %v", d, readTimeout)
		}
	})
	for _, tt := range []struct{ sent, want string }{
		{"", ""}, {get[:20], "HTTP/1.1 400 Bad Request\r\n"}, {get + get[:20], "HTTP/1.1 201 Created\r\n"}, {half, "HTTP/1.1 400 Bad Request\r\n"},
	} {
		r := start(t, false)
		l, err := net.Listen("tcp", "127.0.0.1:0") // a pipe cannot be closed in one direction
		if err != nil {
			t.Fatal(err)
		}
		behind := r.Server.Listener(l)
		served := make(chan error, 1)
		go func() { served <- r.behind.Serve(behind) }()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, tt.sent)
		conn.(*net.TCPConn).CloseWrite()
		got, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(got), tt.want) {
			t.Errorf("%q: got %q and %v, want %q", tt.sent, got, err, tt.want)
		}
		conn.Close()
		behind.Close()
		<-served
	}
}

func TestPanic(t *testing.T) {
	r := start(t, false)
	conn, br := r.dial(t)
	io.WriteString(conn, "GET /v2/keys/panic HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, err := io.ReadAll(br); len(b) > 0 || err != nil {
		t.Errorf("got %q and %v, want an end", b, err)
	}
	if all, _ := r.Count(); all != 0 {
		t.Errorf("%d connections, want none", all)
	}
	if text := r.log.String(); !strings.Contains(text, "panic serving pipe: as the client wished") || !strings.Contains(text, "ServePlain") {
		t.Errorf("logged %q", text)
	}
	conn, br = r.dial(t)
	io.WriteString(conn, get)
	wantAnswer(t, br, 201, "GET /v2/keys/k ")
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, false)
		unused, unusedReader := r.dial(t)
		quiet, quietReader := r.dial(t)
		io.WriteString(quiet, get)
		answer(t, quietReader)
		busy, busyReader := r.dial(t)
		io.WriteString(busy, "GET /v2/keys/hold HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait()
		if all, n := r.Count(); all != 3 || n != 1 {
			t.Errorf("%d connections, %d busy; want 3 and 1", all, n)
		}

		r.Drain()
		if b, err := io.ReadAll(quietReader); len(b) > 0 || err != nil {
			t.Errorf("the idle connection had %q and %v, want an end", b, err)
		}
		// The busy one gets its answer, which says that it is the last.
		synctest.Wait()
		if all, n := r.Count(); all != 2 || n != 1 {
			t.Errorf("%d connections, %d busy; want 2 and 1", all, n)
		}
		close(r.hold)
		resp, err := http.ReadResponse(busyReader, nil)
		if err != nil || !resp.Close {
			t.Errorf("%+v and %v, want an answer that says close", resp, err)
		}
		if _, err := io.ReadAll(busyReader); err != nil {
			t.Error(err)
		}
		// So does the first request of a connection that was there already.
		io.WriteString(unused, get)
		if resp, err := http.ReadResponse(unusedReader, nil); err != nil || !resp.Close {
			t.Errorf("%+v and %v, want an answer that says close", resp, err)
		}
		if _, err := io.ReadAll(unusedReader); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if all, _ := r.Count(); all != 0 {
			t.Errorf("%d connections, want none", all)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, false)
		_, unused := r.dial(t)
		conn, half := r.dial(t)
		io.WriteString(conn, get[:20])
		conn, busy := r.dial(t)
		io.WriteString(conn, "GET /v2/keys/hold HTTP/1.1\r\nHost: a\r\n\r\n")
		synctest.Wait()
		r.Server.Close()
		for name, br := range map[string]*bufio.Reader{"unused": unused, "half": half, "busy": busy} {
			if b, err := io.ReadAll(br); len(b) > 0 || err != nil {
				t.Errorf("%s: got %q and %v, want an end", name, b, err)
			}
		}
		_, late := r.dial(t)
		if b, err := io.ReadAll(late); len(b) > 0 || err != nil {
			t.Errorf("late: got %q and %v, want an end", b, err)
		}
		close(r.hold)
		synctest.Wait()
		if all, _ := r.Count(); all != 0 {
			t.Errorf("%d connections, want none", all)
		}
	})
}

// failing is a listener whose Accept fails now and then.
type failing struct {
	*pipes
	errs chan error
}

func (f *failing) Accept() (net.Conn, error) {
	select {
	case err := <-f.errs:
		return nil, err
	case c := <-f.conns:
		return c, nil
	case <-f.closed:
		return nil, net.ErrClosed
	}
}

// Whoever calls Accept learns what went wrong, and when the listener is closed.
func TestAcceptErrors(t *testing.T) {
	f := &failing{newPipes(), make(chan error)}
	r := start(t, false)
	l := r.Server.Listener(f)
	go func() { f.errs <- io.ErrNoProgress }()
	if c, err := l.Accept(); c != nil || err != io.ErrNoProgress {
		t.Errorf("Accept: %v and %v, want %v", c, err, io.ErrNoProgress)
	}
	conn, br := f.dial(t)
	io.WriteString(conn, get)
	wantAnswer(t, br, 201, "GET /v2/keys/k ")
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if c, err := l.Accept(); c != nil || err != net.ErrClosed {
		t.Errorf("Accept: %v and %v, want %v", c, err, net.ErrClosed)
	}
	// What needs net/http now has nowhere to go.
	io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
	if b, err := io.ReadAll(br); len(b) > 0 || err != nil {
		t.Errorf("got %q and %v, want an end", b, err)
	}
}

// A server that is stopped while it serves leaves nothing behind.
func TestShutdownUnderLoad(t *testing.T) {
	r := start(t, false)
	var clients sync.WaitGroup
	for range 20 {
		conn, br := r.dial(t)
		clients.Go(func() {
			for {
				if _, err := io.WriteString(conn, get); err != nil {
					return
				}
				if resp, err := http.ReadResponse(br, nil); err != nil {
					return
				} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Errorf("half an answer: %v", err)
					return
				}
			}
		})
	}
	r.Drain()
	clients.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.behind.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// After the last call each connection gets one more answer, which says that it is the last. None ends
// without having been told.
func TestLastCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, false)
		quiet, quietReader := r.dial(t)
		io.WriteString(quiet, get)
		answer(t, quietReader)
		synctest.Wait()

		r.LastCall()
		synctest.Wait()
		if all, _ := r.Count(); all != 1 {
			t.Fatalf("%d connections after the last call, want 1", all)
		}
		io.WriteString(quiet, get)
		if resp, err := http.ReadResponse(quietReader, nil); err != nil || !resp.Close {
			t.Errorf("%+v and %v, want an answer that says close", resp, err)
		}
		if _, err := io.ReadAll(quietReader); err != nil {
			t.Error(err)
		}
	})
}
