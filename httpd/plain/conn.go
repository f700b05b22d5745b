package plain

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The states of a connection.
const (
	fresh  uint32 = iota // nothing was ever asked
	idle                 // waiting for the next request
	active               // a request is under way
	over                 // closed by the server
)

// conn is a connection, served by one goroutine.
type conn struct {
	net.Conn
	listener *listener
	server   *Server
	tls      *tls.ConnectionState
	state    atomic.Uint32

	// Input is buf[from:to]. While the connection is idle buf is small.
	buf      []byte
	from, to int
	small    [1 << 10]byte

	read, write deadline
	// newlines is how many more line ends may come before a request.
	newlines int
	request  Request
}

func newConn(l *listener, c net.Conn) *conn {
	cn := &conn{Conn: c, listener: l, server: l.server}
	cn.buf = cn.small[:]
	cn.request.conn = cn
	return cn
}

// serve answers requests until the connection ends or is handed over.
func (c *conn) serve() {
	if !c.server.add(c) {
		c.Conn.Close()
		return
	}
	handed := false
	defer func() {
		if err := recover(); err != nil {
			stack := make([]byte, 64<<10)
			stack = stack[:runtime.Stack(stack, false)]
			c.server.cfg.ErrorLog.Printf("plain: panic serving %v: %v\n%s", c.RemoteAddr(), err, stack)
		}
		c.server.remove(c)
		if !handed {
			c.Conn.Close()
		}
	}()
	handed = c.loop()
}

// loop returns whether net/http has the connection now.
func (c *conn) loop() (handed bool) {
	cfg := &c.server.cfg
	begin := time.Now()
	c.read.want = begin.Add(cfg.HeaderTimeout)
	if t, ok := c.Conn.(*tls.Conn); ok && !c.handshake(t, begin) {
		return c.listener.put(accepted{conn: t})
	}
	if cfg.Leave != nil && cfg.Leave(c.Conn) {
		return c.handOver(nil)
	}
	begun := true // the time for a head runs, for the first one from the beginning
	for {
		n, v := c.parse()
		for v == more {
			if !begun && c.from < c.to {
				begun = true
				c.read.want = time.Now().Add(cfg.HeaderTimeout)
			}
			if err := c.fill(); err != nil {
				return c.end(err)
			}
			n, v = c.parse()
		}
		if v == doubtful {
			return c.handOver(nil)
		}

		r := &c.request
		if state := c.state.Load(); state == over || !c.state.CompareAndSwap(state, active) {
			return false
		}
		if c.to-c.from < n+r.length {
			var err error
			// The time for the whole request has begun with that for the head.
			if begun {
				c.read.want = c.read.want.Add(cfg.ReadTimeout - cfg.HeaderTimeout)
			} else {
				c.read.want = time.Now().Add(cfg.ReadTimeout)
			}
			if n, err = c.fillBody(n); err != nil {
				return c.end(err)
			}
		}
		r.Body = c.buf[c.from+n : c.from+n+r.length]
		served, ok := c.answer(r)
		if !served {
			return c.handOver(nil)
		}
		if !ok {
			return false
		}
		c.newlines = 0
		if r.Method == "POST" {
			c.newlines = 4 // so many net/http forgives old clients
		}
		c.consume(n + r.length)
		c.state.Store(idle)
		if c.server.draining.Load() {
			return false
		}
		begun = false
		c.read.want = time.Now().Add(cfg.IdleTimeout)
	}
}

// answer has the handler answer a request and sends the answer. It returns whether the handler did,
// and whether the connection can be used for another request.
func (c *conn) answer(r *Request) (served, ok bool) {
	w := responses.Get().(*Response)
	defer w.release()
	w.closing, w.lastCall, w.conn = r.closing, &c.server.lastCall, c
	if !c.server.cfg.Handler.ServePlain(w, r) {
		return false, false
	}
	if w.err != nil {
		return true, false
	}
	err := c.send(w.bytes())
	return true, err == nil && !w.closing
}

// parse looks for the head of a request in the input.
func (c *conn) parse() (int, verdict) {
	for c.newlines > 0 && c.from < c.to && (c.buf[c.from] == '\r' || c.buf[c.from] == '\n') {
		c.newlines--
		c.consume(1)
	}
	if n := c.to - c.from; n == 0 || n < 4 && c.state.Load() == idle {
		return 0, more // so few do not count, for net/http
	}
	c.newlines = 0
	return c.request.parse(c.buf[c.from:c.to], &c.server.cfg)
}

// consume drops n bytes of input, and the large buffer with the last one.
func (c *conn) consume(n int) {
	c.from += n
	if c.from == c.to {
		c.from, c.to = 0, 0
		if len(c.buf) > len(c.small) {
			releaseInput(c.buf)
			c.buf = c.small[:]
		}
	}
}

// fill reads more input, at least one byte.
func (c *conn) fill() error {
	if c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	if c.to == len(c.buf) {
		larger := getInput(2 * len(c.buf))
		copy(larger, c.buf)
		if len(c.buf) > len(c.small) {
			releaseInput(c.buf)
		}
		c.buf = larger
	}
	if err := c.read.arm(c.Conn.SetReadDeadline, false); err != nil {
		return err
	}
	for {
		n, err := c.Conn.Read(c.buf[c.to:])
		c.to += n
		if n > 0 {
			return nil
		}
		if !c.read.again(err) {
			return err
		}
		if err := c.read.arm(c.Conn.SetReadDeadline, true); err != nil {
			return err
		}
	}
}

// fillBody reads the rest of a body, and returns the length of the head before it.
func (c *conn) fillBody(head int) (int, error) {
	length := c.request.length
	for c.to-c.from < head+length {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	// The bytes have moved.
	head, _ = c.request.parse(c.buf[c.from:c.to], &c.server.cfg)
	return head, nil
}

// WritePiece is what of a large answer a client must accept within Config.WriteTimeout, in bytes.
const WritePiece = 256 << 10

// send writes an answer. A client that takes a large one slowly may do so for as long as it makes
// progress.
func (c *conn) send(b []byte) error {
	for len(b) > 0 {
		piece := b[:min(len(b), WritePiece)]
		c.write.want = time.Now().Add(c.server.cfg.WriteTimeout)
		// TLS cannot go on after a write that was late.
		if err := c.write.arm(c.Conn.SetWriteDeadline, c.tls != nil); err != nil {
			return err
		}
		n, err := c.Conn.Write(piece)
		for err != nil && c.tls == nil && c.write.again(err) {
			if err := c.write.arm(c.Conn.SetWriteDeadline, true); err != nil {
				return err
			}
			var m int
			m, err = c.Conn.Write(piece[n:])
			n += m
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// end leaves it to net/http what to do about a request that broke off. Between requests there is
// nothing to do.
func (c *conn) end(err error) bool {
	state := c.state.Load()
	if n := c.to - c.from; n == 0 || n < 4 && state == idle || state == over {
		return false
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) {
		return c.handOver(err)
	}
	return false
}

// handOver gives the connection to net/http with the input, and with the error that followed it.
func (c *conn) handOver(err error) bool {
	if c.state.Load() == over || c.Conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	h := handedOver{Conn: c.Conn, rest: slices.Clone(c.buf[c.from:c.to]), err: err, headTooLong: c.server.cfg.HeadTooLong}
	if c.tls != nil {
		return c.listener.put(accepted{conn: &handedOverTLS{h, c.tls}})
	}
	return c.listener.put(accepted{conn: &h})
}

// handshake says whether the connection is one for HTTP/1.1. Whatever else came of it, net/http knows
// what to do with.
func (c *conn) handshake(t *tls.Conn, begin time.Time) bool {
	t.SetDeadline(begin.Add(c.server.cfg.HeaderTimeout))
	err := t.Handshake()
	t.SetDeadline(time.Time{})
	if err != nil {
		return false
	}
	state := t.ConnectionState()
	if state.NegotiatedProtocol != "" && state.NegotiatedProtocol != "http/1.1" {
		return false
	}
	c.tls = &state
	return true
}

// deadline is a time limit of a connection. Telling the connection has a price, so it is told only
// when it must know of an earlier limit than before. When the limit that it knows has passed, it may
// learn of a later one.
type deadline struct {
	want  time.Time // the limit
	armed time.Time // what the connection knows; zero for none
}

// arm tells the connection, if it does not know of an earlier limit, or if it has to be exact.
func (d *deadline) arm(tell func(time.Time) error, exact bool) error {
	if !exact && !d.armed.IsZero() && !d.armed.After(d.want) {
		return nil
	}
	d.armed = d.want
	return tell(d.want)
}

// again says whether an error only means that the connection knew of an earlier limit.
func (d *deadline) again(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(d.want)
}

// inputSize is that of the buffers for requests which do not fit into the small one.
const inputSize = 8 << 10

var inputs = sync.Pool{New: func() any { return new([inputSize]byte) }}

// getInput returns a buffer of at least n bytes.
func getInput(n int) []byte {
	if n <= inputSize {
		return inputs.Get().(*[inputSize]byte)[:]
	}
	return make([]byte, n)
}

func releaseInput(b []byte) {
	if len(b) == inputSize {
		inputs.Put((*[inputSize]byte)(b))
	}
}
