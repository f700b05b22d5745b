package peer

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// layer carries raft's connections: a listener, on which the handshake puts them, and a dialer.
type layer struct {
	peers  *Peers
	queue  chan *conn
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[*conn]struct{}
}

func newLayer(p *Peers) *layer {
	l := &layer{peers: p, queue: make(chan *conn), conns: make(map[*conn]struct{})}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	return l
}

// layerConn is a connection that its layer forgets when it is closed.
type layerConn struct {
	*conn
	layer *layer
}

func (c *layerConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c.conn)
	c.layer.mu.Unlock()
	return c.conn.Close()
}

// adopt makes c a connection of this layer, or closes it when the layer is closed.
func (l *layer) adopt(c *conn) (net.Conn, error) {
	l.mu.Lock()
	if !l.closed {
		l.conns[c] = struct{}{}
		l.mu.Unlock()
		return &layerConn{c, l}, nil
	}
	l.mu.Unlock()
	c.Close()
	return nil, net.ErrClosed
}

func (l *layer) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// deliver waits until raft accepts the connection.
func (l *layer) deliver(c *conn) {
	timer := time.NewTimer(handshakeTimeout)
	defer timer.Stop()
	select {
	case l.queue <- c:
	case <-l.ctx.Done():
		c.Close()
	case <-timer.C:
		c.Close()
	}
}

func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		c.feeds.Store(true)
		return l.adopt(c)
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close closes the connections of this layer. The listeners of the member stay open.
func (l *layer) Close() error {
	l.cancel()
	l.mu.Lock()
	l.closed = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		c.Close()
	}
	return nil
}

func (l *layer) Addr() net.Addr { return address(l.peers.cfg.Self) }

// Dial opens a connection to the member whose ID in hex is the address.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	id, err := api.ParseID(string(to))
	if err != nil {
		return nil, fmt.Errorf("address %q is not a member ID: %w", to, err)
	}
	ctx := l.ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	c, err := l.peers.dial(ctx, id, kindRaft)
	if err != nil {
		return nil, err
	}
	return l.adopt(c)
}

// address is the address of a member: its ID.
type address uint64

func (a address) Network() string { return "quorate" }
func (a address) String() string  { return api.FormatID(uint64(a)) }
