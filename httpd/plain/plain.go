// Package plain answers plain HTTP/1.1 requests faster than net/http can, and leaves all others to it.
//
// Small requests with small answers are most of what a store of keys is asked. For those net/http
// spends more time on the protocol than the store on the answer: it makes a map of the headers,
// watches the connection from a second goroutine while the first one works, and sends through two
// buffers. Here one goroutine reads a request into one buffer, and sends the answer with one write.
//
// The loop is a front, not a server. It takes a request only if every byte of its head is what an
// ordinary client sends (see parse); on the first byte of doubt the connection goes to net/http for
// good, with all that was read of the request and with the error that followed, if one did. So
// net/http stays the judge of all that is unusual: other methods and paths, protocol upgrades, bodies in
// chunks or large, heads that are long, broken, or made to be read differently by two readers. What the
// loop does take, it understands as net/http does; the fuzz tests hold the two to each other.
package plain

import (
	"log"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a Server is told. All fields up to the time-outs are needed.
type Config struct {
	// Prefix is what the path of a plain request begins with. A slash, a query or nothing follows.
	Prefix string
	// Handler answers plain requests.
	Handler Handler
	// MaxBody bounds the body of a plain request, in bytes.
	MaxBody int

	// HeaderTimeout, ReadTimeout and IdleTimeout are those of http.Server. WriteTimeout is how long a
	// client may take to accept the next WritePiece of an answer.
	HeaderTimeout, ReadTimeout, WriteTimeout, IdleTimeout time.Duration

	// Leave says of a connection that net/http is to serve it from the beginning. Nil means of none.
	Leave func(net.Conn) bool
	// HeadTooLong returns what to send in place of net/http's text on a connection whose head is longer
	// than http.Server.MaxHeaderBytes. Nil leaves the text.
	HeadTooLong func() []byte

	// ErrorLog is told of panics in the handler. Nil means log.Default().
	ErrorLog *log.Logger
}

// Handler answers requests. It may be called by several connections at the same time.
type Handler interface {
	// ServePlain answers r by means of w and returns true. Or it returns false, and has not done
	// anything then: the request, and all that follow on its connection, go to net/http. Neither w nor
	// what r refers to may be used after it has returned.
	ServePlain(w *Response, r *Request) bool
}

// Server serves the connections of its listeners.
type Server struct {
	cfg      Config
	lastCall atomic.Bool // each answer is the last one of its connection
	draining atomic.Bool // no request is read any more on connections that have served one

	mu     sync.Mutex
	conns  map[*conn]struct{} // guarded by mu
	closed bool               // guarded by mu
}

// New returns a server.
func New(cfg Config) *Server {
	if cfg.ErrorLog == nil {
		cfg.ErrorLog = log.Default()
	}
	return &Server{cfg: cfg, conns: make(map[*conn]struct{})}
}

// add takes a connection into account, and says whether it may be served.
func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

// remove is called when a connection was closed or handed over.
func (s *Server) remove(c *conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// LastCall makes every answer the last one of its connection, and says so in it. Whoever sends requests
// one after the other learns from an answer that it has to go elsewhere, and not from a connection that
// ends under a request.
func (s *Server) LastCall() { s.lastCall.Store(true) }

// Drain closes the connections on which nothing is asked, and all others as soon as they have their
// answer. Those on which nothing was ever asked stay: their first request may be on its way.
func (s *Server) Drain() {
	s.lastCall.Store(true)
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.state.CompareAndSwap(idle, over) {
			c.Conn.Close()
		}
	}
}

// Count returns how many connections there are, and how many of them are busy with a request.
func (s *Server) Count() (all, busy int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.state.Load() == active {
			busy++
		}
	}
	return len(s.conns), busy
}

// Close closes all connections at once. It does not close the listeners.
func (s *Server) Close() {
	s.draining.Store(true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for c := range s.conns {
		c.state.Store(over)
		c.Conn.Close()
	}
}
