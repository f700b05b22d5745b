package peer

import (
	"bufio"
	"net"
	"sync"
	"sync/atomic"
)

// conn is an upgraded connection.
type conn struct {
	net.Conn
	peers *Peers
	peer  uint64
	// feeds says that raft reads from it what the other member sends.
	feeds atomic.Bool
	ahead []byte // read together with the handshake, belongs to one reader
	once  sync.Once
}

// track makes a conn of a network connection after its handshake. r holds what was read ahead. When
// the peers are closed, or Drop was called for the peer since drops was taken, raw is closed.
func (p *Peers) track(raw net.Conn, r *bufio.Reader, peer, drops uint64) (*conn, error) {
	giveUpLost(raw)
	c := &conn{Conn: raw, peers: p, peer: peer}
	if n := r.Buffered(); n > 0 {
		b, err := r.Peek(n)
		if err != nil {
			raw.Close()
			return nil, err
		}
		c.ahead = append(c.ahead, b...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.drops[peer] != drops {
		raw.Close()
		return nil, net.ErrClosed
	}
	p.conns[c] = struct{}{}
	return c, nil
}

func (c *conn) Read(b []byte) (n int, err error) {
	if len(c.ahead) > 0 {
		n = copy(b, c.ahead)
		c.ahead = c.ahead[n:]
	} else {
		n, err = c.Conn.Read(b)
	}
	if n > 0 && c.peers.cfg.Metrics.Received != nil {
		c.peers.cfg.Metrics.Received(c.peer, n)
	}
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n > 0 && c.peers.cfg.Metrics.Sent != nil {
		c.peers.cfg.Metrics.Sent(c.peer, n)
	}
	return n, err
}

func (c *conn) Close() error {
	var err error
	c.once.Do(func() {
		c.peers.mu.Lock()
		delete(c.peers.conns, c)
		c.peers.mu.Unlock()
		err = c.Conn.Close()
	})
	return err
}
