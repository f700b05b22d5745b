package limit

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// refusedTime is how long a connection that is refused may take, from the first byte of its request to the
// last of the answer.
const refusedTime = 5 * time.Second

const (
	// acceptPause is how long a listener waits when it cannot accept for want of a resource.
	acceptPause = 100 * time.Millisecond
	// acceptQuiet is how long it then says nothing more about it.
	acceptQuiet = 10 * time.Second
)

// Listener returns a listener whose connections are counted. It owns inner from now on. A lack of file
// descriptors or memory is survived: it is logged now and then, and accepting goes on when it is over.
func (l *Limits) Listener(inner net.Listener) net.Listener {
	return &listener{Patient(inner, l.log.Warn, l.acceptErrors.Inc), l}
}

type listener struct {
	net.Listener
	limits *Limits
}

// Accept returns the next connection: a *Conn.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := addressOf(c)
		refusal := l.limits.connections.take(client)
		if refusal == nil {
			return &Conn{Conn: c, limits: l.limits, client: client}, nil
		}
		l.limits.CountRefused(refusal.Limit)
		select {
		case l.limits.refusing <- struct{}{}:
			return &Conn{Conn: c, limits: l.limits, refusal: refusal, until: time.Now().Add(refusedTime)}, nil
		default:
			_ = c.Close()
		}
	}
}

// Conn is a connection that is counted, or is to be refused.
type Conn struct {
	net.Conn
	limits  *Limits
	client  netip.Addr
	refusal *Refusal
	until   time.Time // no time limit is later than this, for one that is refused
	closed  atomic.Bool
}

// Close also gives the connection's place back.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	if c.closed.CompareAndSwap(false, true) {
		if c.refusal != nil {
			<-c.limits.refusing
		} else {
			c.limits.connections.give(c.client)
		}
	}
	return err
}

// CloseWrite lets a server end an answer before it closes a connection that still has input.
func (c *Conn) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// bounded returns the time limit t, or the last possible one.
func (c *Conn) bounded(t time.Time) time.Time {
	if c.refusal != nil && (t.IsZero() || t.After(c.until)) {
		return c.until
	}
	return t
}

// SetDeadline implements net.Conn; so do the other two.
func (c *Conn) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.bounded(t)) }
func (c *Conn) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.bounded(t)) }
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.bounded(t)) }

// RefusalOf returns why a connection is to be refused, and nil for one that is not. It looks through
// wrappers that have a method NetConn, as *tls.Conn does.
func RefusalOf(c net.Conn) *Refusal {
	for c != nil {
		if counted, ok := c.(*Conn); ok {
			return counted.refusal
		}
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		c = wrapper.NetConn()
	}
	return nil
}

type contextKey struct{}

// ConnContext is a value for http.Server.ConnContext, after which Refuse knows which requests came on
// connections that are to be refused.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if refusal := RefusalOf(c); refusal != nil {
		return context.WithValue(ctx, contextKey{}, refusal)
	}
	return ctx
}

// Patient returns a listener that outlives a lack of file descriptors or memory: it tries again a moment
// later, tells warn at most every 10 s, and failed (which may be nil) every time. It owns inner.
func Patient(inner net.Listener, warn func(string, ...any), failed func()) net.Listener {
	return &patient{Listener: inner, warn: warn, failed: failed, closed: make(chan struct{})}
}

type patient struct {
	net.Listener
	warn    func(string, ...any)
	failed  func()
	warned  time.Time // used by Accept only
	closed  chan struct{}
	closing atomic.Bool
}

func (l *patient) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err == nil || !scarce(err) {
			return c, err
		}
		if l.failed != nil {
			l.failed()
		}
		if now := time.Now(); now.Sub(l.warned) > acceptQuiet {
			l.warned = now
			l.warn("connections cannot be accepted at the moment; those that are open go on", "address", l.Addr().String(), "error", err)
		}
		select {
		case <-time.After(acceptPause):
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

func (l *patient) Close() error {
	if l.closing.CompareAndSwap(false, true) {
		close(l.closed)
	}
	return l.Listener.Close()
}

// scarce says whether an error of Accept is about a resource that may be there again later, or about a
// client that has gone while it waited.
func scarce(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
