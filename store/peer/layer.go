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

// Layer carries raft's connections: a listener, on which the handshake puts them, and a dialer. It is a
// raft.StreamLayer.
type Layer struct {
	peers  *Peers
	queue  chan *conn      // of kind raft, not accepted yet
	append chan *conn      // of kind append
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex // guards what follows
	closed bool
	conns  map[*conn]struct{}
}

func newLayer(p *Peers) *Layer {
	l := &Layer{peers: p, queue: make(chan *conn), append: make(chan *conn), conns: make(map[*conn]struct{})}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	return l
}

// layerConn is a connection that its layer forgets when it is closed.
type layerConn struct {
	*conn
	layer *Layer
}

func (c *layerConn) Close() error {
	c.layer.mu.Lock()
	delete(c.layer.conns, c.conn)
	c.layer.mu.Unlock()
	return c.conn.Close()
}

// adopt makes c a connection of this layer, or closes it when the layer is closed.
func (l *Layer) adopt(c *conn) (net.Conn, error) {
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

func (l *Layer) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// deliver waits until raft, or its transport, accepts the connection.
func (l *Layer) deliver(c *conn, kind string) {
	queue := l.queue
	if kind == kindAppend {
		queue = l.append
	}
	c.feeds.Store(true)
	timer := time.NewTimer(handshakeTimeout)
	defer timer.Stop()
	select {
	case queue <- c:
	case <-l.ctx.Done():
		c.Close()
	case <-timer.C:
		c.Close()
	}
}

func (l *Layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return l.adopt(c)
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// acceptAppend is Accept for connections of kind append. It also returns who has dialed.
func (l *Layer) acceptAppend() (net.Conn, uint64, error) {
	select {
	case c := <-l.append:
		adopted, err := l.adopt(c)
		return adopted, c.peer, err
	case <-l.ctx.Done():
		return nil, 0, net.ErrClosed
	}
}

// Close closes the connections of this layer. The listeners of the member stay open.
func (l *Layer) Close() error {
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

func (l *Layer) Addr() net.Addr { return address(l.peers.cfg.Self) }

// Dial opens a connection to the member whose ID in hex is the address.
func (l *Layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.dial(to, timeout, kindRaft)
}

func (l *Layer) dial(to raft.ServerAddress, timeout time.Duration, kind string) (net.Conn, error) {
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
	c, err := l.peers.dial(ctx, id, kind)
	if err != nil {
		return nil, err
	}
	return l.adopt(c)
}

// address is the address of a member: its ID.
type address uint64

func (a address) Network() string { return "quorate" }
func (a address) String() string  { return api.FormatID(uint64(a)) }
