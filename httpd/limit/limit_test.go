package limit

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a listener that returns what a test puts into it.
type queue struct {
	next   chan any // a net.Conn or an error
	closed chan struct{}
}

func newQueue() *queue { return &queue{make(chan any, 100), make(chan struct{})} }

func (q *queue) Accept() (net.Conn, error) {
	select {
	case v := <-q.next:
		if err, ok := v.(error); ok {
			return nil, err
		}
		return v.(net.Conn), nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error   { close(q.closed); return nil }
func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// from is a connection from an address.
type from struct {
	net.Conn
	address string
	closed  int
	limit   time.Time
}

func (c *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.address), 1))
}
func (c *from) Close() error                  { c.closed++; return nil }
func (c *from) SetDeadline(t time.Time) error { c.limit = t; return nil }

func accept(t *testing.T, l net.Listener, q *queue, address string) (*Conn, *from) {
	t.Helper()
	raw := &from{address: address}
	q.next <- raw
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return c.(*Conn), raw
}

func TestConnections(t *testing.T) {
	limits := New(Options{Connections: 4, ConnectionsPerAddress: 2})
	q := newQueue()
	l := limits.Listener(q)
	defer l.Close()
	var open []*Conn
	for _, tt := range []struct {
		address string
		status  int
		text    string // contained
	}{
		{"10.0.0.1", 0, ""},
		{"::ffff:10.0.0.1", 0, ""}, // the same
		{"10.0.0.1", 429, "10.0.0.1 has 2 connections, as many as one address may (--max-connections-per-address)"},
		{"2001:db8::1", 0, ""},
		{"2001:db8::ffff:1", 0, ""}, // the same /64
		{"2001:db8:0:0:1::1", 503, "this server has 4 connections, as many as it may (--max-connections)"},
	} {
		c, raw := accept(t, l, q, tt.address)
		switch refusal := RefusalOf(c); {
		case tt.status == 0 && refusal != nil, tt.status != 0 && (refusal == nil || refusal.Status != tt.status || !strings.Contains(refusal.Text, tt.text)):
			t.Errorf("%s: refusal %+v, want %d %s", tt.address, refusal, tt.status, tt.text)
		}
		far := time.Now().Add(time.Hour)
		if c.SetDeadline(far); raw.limit.Equal(far) != (tt.status == 0) {
			t.Errorf("%s: time limit %v", tt.address, raw.limit)
		}
		if tt.status == 0 {
			open = append(open, c)
			continue
		}
		if c.SetDeadline(time.Time{}); raw.limit.IsZero() {
			t.Errorf("%s: a refused connection has no time limit", tt.address)
		}
		c.Close()
	}
	for range 2 { // gives its place back only once
		open[0].Close()
	}
	if n := limits.connections.inUse(); n != 3 {
		t.Errorf("%d connections in use, want 3", n)
	}
	if c, _ := accept(t, l, q, "10.0.0.1"); RefusalOf(c) != nil {
		t.Errorf("refused with a place free: %+v", RefusalOf(c))
	}
	if c, _ := accept(t, l, q, "10.0.0.2"); RefusalOf(c) == nil {
		t.Error("accepted beyond the limit")
	}
}

// Of those beyond the limit only so many are told why, and no more files are open for them.
func TestManyRefused(t *testing.T) {
	limits := New(Options{Connections: 1, ConnectionsPerAddress: 1})
	q := newQueue()
	l := limits.Listener(q)
	defer l.Close()
	first, _ := accept(t, l, q, "10.0.0.1")
	var refused []*Conn
	for range MaxRefusing {
		c, _ := accept(t, l, q, "10.0.0.2")
		refused = append(refused, c)
	}
	dropped := &from{address: "10.0.0.2"}
	q.next <- dropped
	q.next <- io.ErrNoProgress // what Accept returns once it has dropped that one
	if _, err := l.Accept(); err != io.ErrNoProgress || dropped.closed != 1 {
		t.Errorf("Accept: %v, closed %d times; want it to close one and go on", err, dropped.closed)
	}
	for _, c := range append(refused, first) {
		c.Close()
	}
	if c, _ := accept(t, l, q, "10.0.0.3"); RefusalOf(c) != nil {
		t.Error("refused though all are gone")
	}
}

func TestWatchers(t *testing.T) {
	limits := New(Options{Watchers: 3})
	var done []func()
	for i, status := range []int{0, 0, 0, 503} {
		address := []string{"10.0.0.1:1", "10.0.0.1:2", "[::1]:1", "@"}[i]
		end, refusal := limits.Watch(address)
		if (status == 0) != (refusal == nil) || refusal != nil && refusal.Status != status {
			t.Errorf("watch %d of %s: %+v, want %d", i, address, refusal, status)
		}
		done = append(done, end)
	}
	done[0]()
	done[0]()
	if n := limits.watchers.inUse(); n != 2 {
		t.Errorf("%d watchers in use, want 2", n)
	}
}

// Without a limit nobody is refused, and an address may have three quarters of the limit in all.
func TestDefaults(t *testing.T) {
	none, some := newQuota("x", 0, 0), newQuota("x", 8, 0)
	for i := range 1000 {
		if none.take(unknownClient) != nil {
			t.Fatal("refused without a limit")
		}
		if refused := some.take(unknownClient) != nil; refused != (i >= 6) {
			t.Fatalf("%d of 8: refused %v", i, refused)
		}
	}
	if q := newQuota("x", 1, 0); q.take(unknownClient) != nil {
		t.Error("the only place is for nobody")
	}
}

func TestScarceResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var warnings []string
		failures := 0
		q := newQueue()
		l := Patient(q, func(text string, _ ...any) { warnings = append(warnings, text) }, func() { failures++ })
		for range 90 {
			q.next <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		q.next <- &from{address: "10.0.0.1"}
		begin := time.Now()
		if _, err := l.Accept(); err != nil || failures != 90 || len(warnings) != 1 || time.Since(begin) != 90*acceptPause {
			t.Errorf("after %v: %v, %d failures, warnings %q; want one warning", time.Since(begin), err, failures, warnings)
		}
		time.Sleep(acceptQuiet)
		q.next <- &net.OpError{Op: "accept", Err: syscall.ENFILE}
		q.next <- io.ErrNoProgress // not of this kind
		if _, err := l.Accept(); err != io.ErrNoProgress || len(warnings) != 2 {
			t.Errorf("%v, warnings %q; want the error and a second warning", err, warnings)
		}
		q.next <- syscall.EMFILE
		go func() {
			time.Sleep(acceptPause / 2)
			l.Close()
		}()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept on a closed listener: %v", err)
		}
	})
}

func TestMetrics(t *testing.T) {
	limits := New(Options{Watchers: 1})
	registry := prometheus.NewRegistry()
	if err := limits.Register(registry); err != nil {
		t.Fatal(err)
	}
	end, _ := limits.Watch("10.0.0.1:1")
	limits.Watch("10.0.0.1:1")
	limits.CountRefused(Body)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, label := range m.Label {
				name += "/" + label.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"quorate_refused_total/watchers": 1, "quorate_refused_total/body": 1, "quorate_refused_total/header": 0,
		"quorate_client_watchers": 1, "quorate_client_connections": 0, "quorate_accept_errors_total": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, want)
		}
	}
	end()
}

// What a handler answers with is JSON, and says when to come again.
func TestRefusalOf(t *testing.T) {
	refusal := &Refusal{http.StatusServiceUnavailable, "connections", "no room"}
	c := &Conn{refusal: refusal}
	for name, conn := range map[string]net.Conn{"itself": c, "wrapped": wrapper{c}, "twice": wrapper{wrapper{c}}} {
		if RefusalOf(conn) != refusal {
			t.Errorf("%s: the refusal was not found", name)
		}
	}
	for name, conn := range map[string]net.Conn{"none": nil, "other": &from{}, "wrapped other": wrapper{&from{}}} {
		if RefusalOf(conn) != nil {
			t.Errorf("%s: a refusal was found", name)
		}
	}
}

type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }
