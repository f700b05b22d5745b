package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/quorate/quorate/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testCluster = 0x63bcf61ee1e1aa41
	patience    = 30 * time.Second // until a test is given up
)

// directory is a Directory in memory.
type directory struct {
	mu      sync.Mutex
	urls    map[uint64][]string
	removed map[uint64]bool
	members []api.Member
}

func newDirectory() *directory {
	return &directory{urls: make(map[uint64][]string), removed: make(map[uint64]bool)}
}

func (d *directory) set(id uint64, urls ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.urls[id] = urls
}

func (d *directory) remove(id uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.urls, id)
	d.removed[id] = true
}

func (d *directory) PeerURLs(id uint64) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.urls[id]
}

func (d *directory) Removed(id uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.removed[id]
}

func (d *directory) Members() []api.Member  { return d.members }
func (d *directory) ClusterVersion() string { return "3.4.0" }

// handler is a Handler that is a function.
type handler func(ctx context.Context, from uint64, kind Kind, payload []byte) ([]byte, error)

func (h handler) Call(ctx context.Context, from uint64, kind Kind, payload []byte) ([]byte, error) {
	return h(ctx, from, kind, payload)
}

// echo answers with who has called whom, and what was said.
func echo(self uint64) handler {
	return func(_ context.Context, from uint64, kind Kind, payload []byte) ([]byte, error) {
		return fmt.Appendf(nil, "%x to %x: %d %s", from, self, kind, payload), nil
	}
}

// testPeer is a member of a test, listening on a port of its own.
type testPeer struct {
	*Peers
	id  uint64
	dir *directory
	url string
}

// open starts a member and closes it when the test ends. It enters itself in its directory only.
func open(t testing.TB, cfg Config) *testPeer {
	t.Helper()
	l, err := Listen("http://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return openOn(t, cfg, l, "http")
}

func openOn(t testing.TB, cfg Config, l net.Listener, scheme string) *testPeer {
	t.Helper()
	if cfg.Cluster == 0 {
		cfg.Cluster = testCluster
	}
	if cfg.Directory == nil {
		cfg.Directory = newDirectory()
	}
	if cfg.Handler == nil {
		cfg.Handler = echo(cfg.Self)
	}
	cfg.Version = "3.4.23"
	p := &testPeer{Peers: New(cfg), id: cfg.Self, dir: cfg.Directory.(*directory), url: scheme + "://" + l.Addr().String()}
	p.dir.set(p.id, p.url)
	p.Ready(true)
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("Close of %x: %v", p.id, err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve of %x: %v", p.id, err)
		}
	})
	return p
}

// knows enters others in the directory of p.
func (p *testPeer) knows(others ...*testPeer) {
	for _, o := range others {
		p.dir.set(o.id, o.url)
	}
}

// introduce makes all members know each other.
func introduce(peers ...*testPeer) {
	for _, p := range peers {
		p.knows(peers...)
	}
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for something that no channel announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// wantCall calls until the call is answered: the connection may still be missing.
func wantCall(t testing.TB, from *testPeer, to uint64, want string) {
	t.Helper()
	ctx := testContext(t)
	var got []byte
	eventually(t, fmt.Sprintf("%x can call %x", from.id, to), func() bool {
		var err error
		got, err = from.Call(ctx, to, 7, []byte("hi"))
		if err != nil && !errors.Is(err, ErrNotConnected) && !errors.Is(err, ErrConnectionLost) {
			t.Fatalf("Call: %v", err)
		}
		return err == nil
	})
	if string(got) != want {
		t.Fatalf("Call(%x) = %q, want %q", to, got, want)
	}
}

func TestCallBothDirections(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	ctx := testContext(t)
	// The first call waits for the connection.
	if got, err := a.Call(ctx, 0xb, 1, []byte("x")); err != nil || string(got) != "a to b: 1 x" {
		t.Fatalf("Call = %q, %v", got, err)
	}
	if got, err := b.Call(ctx, 0xa, 2, nil); err != nil || string(got) != "b to a: 2 " {
		t.Fatalf("Call = %q, %v", got, err)
	}
}

// Only a knows where the other one listens. That is enough for both.
func TestCallOverAcceptedConnection(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	a.knows(b)
	a.Connect(0xb)
	wantCall(t, b, 0xa, "b to a: 7 hi")
	wantCall(t, a, 0xb, "a to b: 7 hi")
	if _, ok := b.Active(0xa); !ok {
		t.Error("Active(a) = false on b, want true")
	}
}

func TestCallErrors(t *testing.T) {
	refuse := &CallError{Code: 123, Text: "not the leader"}
	entered, left := make(chan struct{}), make(chan struct{}, 2)
	a := open(t, Config{Self: 0xa})
	b := open(t, Config{Self: 0xb, Handler: handler(func(ctx context.Context, _ uint64, kind Kind, _ []byte) ([]byte, error) {
		switch kind {
		case 1:
			return nil, fmt.Errorf("wrapped: %w", refuse)
		case 2:
			return nil, errors.New("disk on fire")
		case 3:
			entered <- struct{}{}
			<-ctx.Done()
			left <- struct{}{}
			return nil, ctx.Err()
		}
		return nil, ErrUnknownKind
	})})
	introduce(a, b)
	ctx := testContext(t)

	_, err := a.Call(ctx, 0xb, 1, nil)
	if e, ok := errors.AsType[*CallError](err); !ok || *e != *refuse {
		t.Errorf("a CallError arrives as %#v, want %#v", err, refuse)
	}
	if _, err = a.Call(ctx, 0xb, 2, nil); !errors.Is(err, &CallError{Code: CodeInternal}) || err.Error() != "disk on fire" {
		t.Errorf("another error arrives as %#v", err)
	}
	if _, err = a.Call(ctx, 0xb, 99, nil); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("unknown kind: %v, want %v", err, ErrUnknownKind)
	}
	if _, err = a.Call(ctx, 0xb, 1, make([]byte, MaxPayload+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v, want %v", err, ErrTooLarge)
	}
	if _, err = a.Call(ctx, 0xa, 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("to oneself: %v, want %v", err, ErrNotConnected)
	}
	if _, err = a.Call(ctx, 0xc, 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("to a stranger: %v, want %v", err, ErrNotConnected)
	}
	if err = a.Send(0xd, 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("send to a stranger: %v, want %v", err, ErrNotConnected)
	}

	// Two calls that are never answered: one is canceled, one loses its connection.
	pending := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := a.Call(ctx, 0xb, 3, nil)
			done <- err
		}()
		<-entered
		return done
	}
	short, cancel := context.WithCancel(ctx)
	canceled := pending(short)
	cancel()
	if err := <-canceled; !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v, want %v", err, context.Canceled)
	}
	lost := pending(ctx)
	a.Drop(0xb)
	if err := <-lost; !errors.Is(err, ErrConnectionLost) {
		t.Errorf("connection lost: %v, want %v", err, ErrConnectionLost)
	}
	for range 2 { // the handlers end with the connection
		select {
		case <-left:
		case <-ctx.Done():
			t.Fatal("a handler's context did not end with the connection")
		}
	}
}

func TestConcurrentCalls(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 64 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		wg.Go(func() {
			for j := range 100 {
				payload := make([]byte, 10*j)
				copy(payload, fmt.Sprintf("%d/%d", i, j))
				want := fmt.Sprintf("%x to %x: %d %s", from.id, to.id, i, payload)
				got, err := from.Call(ctx, to.id, Kind(i), payload)
				if err != nil || string(got) != want {
					t.Errorf("call %d/%d = %.40q, %v, want %.40q", i, j, got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLargePayload(t *testing.T) {
	a := open(t, Config{Self: 0xa})
	b := open(t, Config{Self: 0xb, Handler: handler(func(_ context.Context, _ uint64, _ Kind, payload []byte) ([]byte, error) {
		return payload, nil
	})})
	introduce(a, b)
	payload := make([]byte, 5<<20)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	got, err := a.Call(testContext(t), 0xb, 1, payload)
	if err != nil || string(got) != string(payload) {
		t.Fatalf("%d bytes came back as %d bytes, %v", len(payload), len(got), err)
	}
}

// One-way messages arrive in order, and those queued before a call arrive before it.
func TestSendKeepsOrder(t *testing.T) {
	var got []string // written by the reader of one connection
	a := open(t, Config{Self: 0xa})
	b := open(t, Config{Self: 0xb, Handler: handler(func(_ context.Context, _ uint64, kind Kind, payload []byte) ([]byte, error) {
		if kind == 1 {
			got = append(got, string(payload))
		}
		return nil, nil
	})})
	a.knows(b)
	ctx := testContext(t)
	if _, err := a.Call(ctx, 0xb, 2, nil); err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		if err := a.Send(0xb, 1, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Call(ctx, 0xb, 2, nil); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1000 {
		t.Fatalf("%d messages arrived, want 1000", len(got))
	}
	for i, s := range got {
		if s != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, s)
		}
	}
}

// A member that comes back somewhere else is found at its new URL.
func TestRestart(t *testing.T) {
	unreachable := make(chan error, 1)
	a := open(t, Config{Self: 0xa, OnUnreachable: func(id uint64, err error) {
		if id == 0xb {
			select {
			case unreachable <- err:
			default:
			}
		}
	}})
	b := open(t, Config{Self: 0xb})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	if _, ok := a.Active(0xb); !ok {
		t.Fatal("Active = false while connected")
	}
	b.Close()
	select {
	case <-unreachable:
	case <-time.After(patience):
		t.Fatal("nobody was told that b is gone")
	}
	eventually(t, "b is not active", func() bool { _, ok := a.Active(0xb); return !ok })
	if _, err := a.Call(testContext(t), 0xb, 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Fatalf("Call = %v, want %v", err, ErrNotConnected)
	}

	again := open(t, Config{Self: 0xb})
	introduce(a, again)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	wantCall(t, again, 0xa, "b to a: 7 hi")
}

func TestDropRedials(t *testing.T) {
	a, b1, b2 := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb}),
		open(t, Config{Self: 0xb, Handler: handler(func(context.Context, uint64, Kind, []byte) ([]byte, error) {
			return []byte("the new place"), nil
		})})
	a.knows(b1)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	before, _ := a.Active(0xb)
	a.knows(b2)
	a.Drop(0xb)
	eventually(t, "a is connected to the new place", func() bool {
		since, ok := a.Active(0xb)
		return ok && since.After(before)
	})
	wantCall(t, a, 0xb, "the new place")
}

func TestRemoved(t *testing.T) {
	told := make(chan *RefusedError, 1)
	a := open(t, Config{Self: 0xa})
	b := open(t, Config{Self: 0xb, OnRefused: func(by uint64, e *RefusedError) {
		if by == 0xa && e.Status == http.StatusGone {
			select {
			case told <- e:
			default:
			}
		}
	}})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	wantCall(t, b, 0xa, "b to a: 7 hi")
	a.dir.remove(0xb)
	a.Drop(0xb)
	select {
	case e := <-told:
		if want := a.url + " refused the connection: 410 the member has been permanently removed from the cluster"; e.Error() != want {
			t.Errorf("refusal = %q, want %q", e, want)
		}
	case <-time.After(patience):
		t.Fatal("b was not told that it is removed")
	}
	if _, ok := a.Active(0xb); ok {
		t.Error("a removed member is active")
	}
}

// A silent connection is given up after five beats without a frame.
func TestBeat(t *testing.T) {
	a := open(t, Config{Self: 0xa})
	near, far := net.Pipe()
	defer far.Close()
	c := newRPC(&conn{Conn: near, peers: a.Peers, peer: 0xb})
	read := make(chan struct{})
	go func() { // takes the pings and says nothing
		defer close(read)
		for b := make([]byte, 1024); ; {
			if _, err := far.Read(b); err != nil {
				return
			}
		}
	}()
	for i := range maxSilence {
		select {
		case <-c.done:
			t.Fatalf("closed after %d beats", i)
		default:
		}
		c.beat()
	}
	<-c.done
	<-read
	if err := c.send(frame{typ: framePing}, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("send after the end: %v", err)
	}
}

// An unknown type of frame is answered with an error, so that later versions can try.
func TestUnknownFrame(t *testing.T) {
	a := open(t, Config{Self: 0xa})
	near, far := net.Pipe()
	c := newRPC(&conn{Conn: near, peers: a.Peers, peer: 0xb})
	defer func() { <-c.done }()
	defer far.Close()
	go far.Write(appendFrame(nil, frame{typ: 99, id: 5}, []byte("?")))
	far.SetReadDeadline(time.Now().Add(patience))
	f, err := readFrame(newReader(far))
	if err != nil || f.typ != frameFailure || f.id != 5 || f.code != CodeUnknownKind {
		t.Errorf("answer = %+v, %v", f, err)
	}
}

func TestThrottle(t *testing.T) {
	var q throttle
	now := time.Now()
	steps := []struct {
		what  string
		peer  uint64
		after time.Duration
		want  bool
	}{
		{"x", 1, 0, true},
		{"x", 1, 9 * time.Second, false},
		{"y", 1, 9 * time.Second, true},
		{"x", 2, 9 * time.Second, true},
		{"x", 1, 10 * time.Second, true},
	}
	for i, s := range steps {
		if got := q.allow(s.what, s.peer, now.Add(s.after)); got != s.want {
			t.Errorf("step %d: allow(%s, %d) after %v = %v", i, s.what, s.peer, s.after, got)
		}
	}
	for i := range uint64(10000) {
		q.allow("flood", i, now.Add(11*time.Second))
	}
	if len(q.last) > maxQuiet {
		t.Errorf("%d topics are remembered, want at most %d", len(q.last), maxQuiet)
	}
}

func TestListen(t *testing.T) {
	for _, u := range []string{"https://127.0.0.1:0", "127.0.0.1:0", "http://127.0.0.1"} {
		if l, err := Listen(u); err == nil {
			l.Close()
			t.Errorf("Listen(%q) succeeded", u)
		}
	}
}

// Both sides show certificates and check each other's.
func TestMutualTLS(t *testing.T) {
	ca, leaf := testCertificates(t)
	dial := func() *tls.Config { return &tls.Config{RootCAs: ca, Certificates: []tls.Certificate{leaf}} }
	serve := &tls.Config{ClientCAs: ca, ClientAuth: tls.RequireAndVerifyClientCert, Certificates: []tls.Certificate{leaf}}
	secure := func(cfg Config) *testPeer {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return openOn(t, cfg, tls.NewListener(l, serve), "https")
	}
	a, b := secure(Config{Self: 0xa, TLS: dial}), secure(Config{Self: 0xb, TLS: dial})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	wantCall(t, b, 0xa, "b to a: 7 hi")

	stranger := open(t, Config{Self: 0xc})
	stranger.knows(a)
	if _, err := stranger.Call(testContext(t), 0xa, 1, nil); !errors.Is(err, ErrNotConnected) {
		t.Errorf("call without a certificate: %v, want %v", err, ErrNotConnected)
	}
}

func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d/size=200B", callers), func(b *testing.B) {
			reply := make([]byte, 300)
			h := handler(func(context.Context, uint64, Kind, []byte) ([]byte, error) { return reply, nil })
			x, y := open(b, Config{Self: 0xa, Handler: h}), open(b, Config{Self: 0xb, Handler: h})
			introduce(x, y)
			ctx := context.Background()
			request := make([]byte, 200)
			if _, err := x.Call(ctx, 0xb, 1, request); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var calls atomic.Int64
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for calls.Add(1) <= int64(b.N) {
						if _, err := x.Call(ctx, 0xb, 1, request); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}
