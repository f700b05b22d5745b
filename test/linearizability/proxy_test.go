//go:build linux && faults

package linearizability

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// mesh is the network between members. In front of the peer port of each there is a proxy, which the
// others find at the member's advertised URL, and the mesh says what becomes of what passes.
//
// A link that is cut delivers nothing, and loses nothing either: what was sent arrives when the link is
// whole again, as with TCP, unless a side has given up before. That is harsher than most networks.
type mesh struct {
	mu      sync.Mutex // guards what follows
	ids     map[string]int
	rules   map[link]rule
	changed chan struct{} // closed and replaced when rules change
	pipes   map[*pipe]struct{}
	closed  bool

	wg sync.WaitGroup
}

// link is one direction between two members, by their slots.
type link struct{ from, to int }

// stranger is the sender of what does not say who sends it.
const stranger = -1

// rule says what happens on a link. The zero rule is a good network.
type rule struct {
	cut   bool
	delay time.Duration
	// loss is the share of packets that get lost. TCP sends them again after a time-out that doubles
	// each time, and what was sent later waits behind them: to both ends that is what a loss is.
	loss float64
	// rate is how many bytes pass in a second; 0 for as many as come. Each connection has its own.
	rate int
}

const (
	// retransmitAfter is Linux's shortest time-out before something is sent again.
	retransmitAfter = 200 * time.Millisecond
	// packetSize is what one loss takes away.
	packetSize = 1400
)

// takes returns how long so many bytes are under way, besides the delay of the link.
func (r rule) takes(bytes int) time.Duration {
	var d time.Duration
	if r.rate > 0 {
		d = time.Duration(bytes) * time.Second / time.Duration(r.rate)
	}
	for range 1 + bytes/packetSize {
		for wait := retransmitAfter; rand.Float64() < r.loss; wait *= 2 {
			d += wait
		}
	}
	return d
}

func newMesh() *mesh {
	return &mesh{ids: map[string]int{}, rules: map[link]rule{}, changed: make(chan struct{}), pipes: map[*pipe]struct{}{}}
}

// name says which slot the member with an ID has.
func (m *mesh) name(id string, slot int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ids[id] = slot
}

// set replaces all rules.
func (m *mesh) set(rules map[link]rule) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rules = rules
	close(m.changed)
	m.changed = make(chan struct{})
}

// reset breaks the connections of which either end is in one of the slots.
func (m *mesh) reset(slots ...int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p := range m.pipes {
		for _, s := range slots {
			if p.from == s || p.to == s {
				p.abort()
				break
			}
		}
	}
}

func (m *mesh) close() {
	m.mu.Lock()
	m.closed = true
	for p := range m.pipes {
		p.abort()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// proxy listens for one member.
type proxy struct {
	mesh     *mesh
	slot     int
	target   string
	listener net.Listener
}

// newProxy listens on the host of target, at a port of its own.
func (m *mesh) newProxy(slot int, target string) (*proxy, error) {
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	p := &proxy{mesh: m, slot: slot, target: target, listener: l}
	m.wg.Go(p.serve)
	return p, nil
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mesh.wg.Go(func() { p.forward(c.(*net.TCPConn)) })
	}
}

// pipe is one connection through a proxy.
type pipe struct {
	from, to int
	in, out  *net.TCPConn // out is nil until it is dialed
	once     sync.Once
	done     chan struct{}
}

// abort breaks the connection on both sides.
func (p *pipe) abort() { p.end(true) }

func (p *pipe) end(reset bool) {
	p.once.Do(func() {
		close(p.done)
		for _, c := range []*net.TCPConn{p.in, p.out} {
			if c == nil {
				continue
			}
			if reset {
				c.SetLinger(0)
			}
			c.Close()
		}
	})
}

// maxHead is how much of a connection is read to find out who has dialed.
const maxHead = 16 << 10

func (p *proxy) forward(in *net.TCPConn) {
	head := make([]byte, 0, 4096)
	in.SetReadDeadline(time.Now().Add(30 * time.Second))
	for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < maxHead {
		n, err := in.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil || n == 0 {
			in.Close()
			return
		}
	}
	in.SetReadDeadline(time.Time{})
	c := &pipe{from: stranger, to: p.slot, in: in, done: make(chan struct{})}
	if !p.mesh.add(c, sender(head)) {
		c.abort()
		return
	}
	defer p.mesh.drop(c)
	arrived := time.Now()
	if !p.mesh.pass(c, link{c.from, c.to}, arrived) {
		return
	}
	out, err := net.Dial("tcp", p.target)
	if err != nil {
		return // drop resets the other side, like a port on which nobody listens
	}
	p.mesh.mu.Lock()
	c.out = out.(*net.TCPConn)
	p.mesh.mu.Unlock()
	select {
	case <-c.done: // it was reset while we dialed
		out.Close()
		return
	default:
	}
	if _, err := c.out.Write(head); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.mesh.pump(c, link{c.to, c.from}, c.in, c.out) })
	both.Go(func() { p.mesh.pump(c, link{c.from, c.to}, c.out, c.in) })
	both.Wait()
	c.end(false)
}

// sender finds who has dialed in the head of a handshake (package peer).
func sender(head []byte) string {
	_, rest, ok := bytes.Cut(head, []byte("\r\nQuorate-From: "))
	if !ok {
		return ""
	}
	id, _, _ := bytes.Cut(rest, []byte("\r\n"))
	return string(id)
}

func (m *mesh) add(c *pipe, id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if slot, ok := m.ids[id]; ok {
		c.from = slot
	}
	m.pipes[c] = struct{}{}
	return !m.closed
}

func (m *mesh) drop(c *pipe) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pipes, c)
	c.abort()
}

// pass waits until something that was sent at a time may arrive. It returns false when the connection
// has ended before.
func (m *mesh) pass(c *pipe, l link, sent time.Time) bool {
	for {
		m.mu.Lock()
		r, changed := m.rules[l], m.changed
		m.mu.Unlock()
		var due <-chan time.Time
		if !r.cut {
			wait := time.Until(sent.Add(r.delay))
			if wait <= 0 {
				return true
			}
			due = time.After(wait)
		}
		select {
		case <-due:
		case <-changed:
		case <-c.done:
			return false
		}
	}
}

// trickle waits as long as so many bytes take on a link that is narrow or loses packets, or until the
// rules change. It returns false when the connection has ended before.
func (m *mesh) trickle(c *pipe, l link, bytes int) bool {
	m.mu.Lock()
	d, changed := m.rules[l].takes(bytes), m.changed
	m.mu.Unlock()
	if d == 0 {
		return true
	}
	select {
	case <-time.After(d):
	case <-changed:
	case <-c.done:
		return false
	}
	return true
}

// chunk is something on its way.
type chunk struct {
	data []byte
	err  error // the end
	sent time.Time
}

// pump carries one direction of a connection until its end.
func (m *mesh) pump(c *pipe, l link, dst, src *net.TCPConn) {
	way := make(chan chunk, 64)
	go func() {
		defer close(way)
		for {
			buf := make([]byte, 32<<10)
			n, err := src.Read(buf)
			select {
			case way <- chunk{buf[:n], err, time.Now()}:
			case <-c.done:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for piece := range way {
		if !m.pass(c, l, piece.sent) || !m.trickle(c, l, len(piece.data)) {
			return
		}
		_, err := dst.Write(piece.data)
		switch {
		case err != nil || piece.err != nil && piece.err != io.EOF:
			c.abort()
			return
		case piece.err == io.EOF:
			dst.CloseWrite()
			return
		}
	}
}
