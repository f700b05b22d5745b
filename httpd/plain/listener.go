package plain

import (
	"crypto/tls"
	"net"
	"sync"
)

// Listener returns a listener for net/http: it accepts on l, answers plain requests itself, and its
// Accept returns the connections that need net/http. Closing it closes l.
//
// Of a TLS listener the connections with HTTP/1.1 are served, and all others are handed over as they
// came, so that net/http finds HTTP/2 as usual.
func (s *Server) Listener(l net.Listener) net.Listener {
	ln := &listener{Listener: l, server: s, out: make(chan accepted), closed: make(chan struct{}), done: make(chan struct{})}
	go ln.run()
	return ln
}

type listener struct {
	net.Listener
	server *Server
	out    chan accepted // for Accept
	closed chan struct{}
	once   sync.Once
	done   chan struct{} // closed when run has returned
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

// run accepts until the listener is closed. An error waits until it was taken, so that whoever calls
// Accept decides when to try again.
func (l *listener) run() {
	defer close(l.done)
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if !l.put(accepted{err: err}) {
				return
			}
			continue
		}
		go newConn(l, c).serve()
	}
}

// put has Accept return a, and says whether it will.
func (l *listener) put(a accepted) bool {
	select {
	case l.out <- a:
		return true
	case <-l.closed:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.out:
		return a.conn, a.err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close closes the underlying listener. Connections that are to be handed over from now on are closed.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	err := l.Listener.Close()
	<-l.done
	return err
}

// handedOver is a connection that net/http serves from now on: it reads again what was read of a
// request, and then the error that followed, or what else comes.
type handedOver struct {
	net.Conn
	rest []byte
	err  error

	headTooLong func() []byte // Config.HeadTooLong
}

// textTooLong is all that net/http sends when a head is too long, in one write. No answer of a handler can
// be the same: none begins with a status line.
const textTooLong = "HTTP/1.1 431 Request Header Fields Too Large\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n431 Request Header Fields Too Large"

func (c *handedOver) Write(b []byte) (int, error) {
	if len(b) != len(textTooLong) || string(b) != textTooLong || c.headTooLong == nil {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(c.headTooLong()); err != nil {
		return 0, err
	}
	return len(b), nil
}

// NetConn returns the connection below.
func (c *handedOver) NetConn() net.Conn { return c.Conn }

func (c *handedOver) Read(b []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(b, c.rest)
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			c.rest = nil
		}
		return n, nil
	}
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

// CloseWrite lets net/http end an answer before it closes a connection that still has input.
func (c *handedOver) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return nil
}

// handedOverTLS tells net/http about the TLS connection below.
type handedOverTLS struct {
	handedOver
	state *tls.ConnectionState
}

func (c *handedOverTLS) ConnectionState() tls.ConnectionState { return *c.state }
