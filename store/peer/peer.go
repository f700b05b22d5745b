// Package peer is what the members of a cluster say to each other.
//
// A member has one peer URL (or several), and there an ordinary HTTP server answers, as etcd's does:
// /members, /version, /health and /raft/probing. One more path, /quorate/peer, upgrades the
// connection. The handshake names the cluster, both members, the recovery epoch, the version of the
// protocol and the kind of the connection, and is refused with a status that says why, so that
// clusters never mix and a removed member learns that it is removed.
//
// After the handshake a connection of kind raft belongs to raft (StreamLayer, Transport), one of kind
// append carries what a leader sends to a follower in step (pipeline), and one of kind rpc carries frames: calls, replies and one-way messages, many at a time, in both directions.
// It does not matter which side has dialed: two members can call each other as soon as one of them
// reaches the other.
//
// A member is addressed by its ID everywhere, also in raft's configuration. Where that member is
// to be found now is looked up in the Directory, and its name resolved, at every single dial.
//
// The package knows no raft state and no keys, and decides nothing about membership.
package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
)

// Kind says what an rpc message is about. The kinds are the store's.
type Kind uint8

// Directory knows the members. Its methods are called from many goroutines and must not block.
type Directory interface {
	// PeerURLs returns where a member listens now; nil when it is not known.
	PeerURLs(id uint64) []string
	// Removed says whether a member was removed, which is for ever.
	Removed(id uint64) bool
	// Members returns all members sorted by ID, for GET /members.
	Members() []api.Member
	// ClusterVersion is the second half of GET /version, such as 3.4.0.
	ClusterVersion() string
}

// Handler answers what other members send.
type Handler interface {
	// Call answers a call, on a goroutine of its own, or takes a one-way message. One-way messages
	// of a connection come one after the other and in order, on the goroutine that reads the
	// connection: taking one must not block. What it returns then is dropped.
	//
	// ctx ends with the connection. payload belongs to the handler. An error that is a *CallError
	// reaches the caller as it is, any other as CodeInternal with its text.
	Call(ctx context.Context, from uint64, kind Kind, payload []byte) ([]byte, error)
}

// Config says who this member is.
type Config struct {
	Self    uint64 // member ID
	Cluster uint64 // cluster ID
	// Epoch is the recovery epoch: 0, until the cluster was rebuilt from the data of one member.
	// Members of different epochs do not speak to each other.
	Epoch     uint64
	Version   string // of this server, for GET /version
	Directory Directory
	Handler   Handler // nil answers every call with CodeUnknownKind
	// TLS is asked for what to dial https URLs with, each time, as certificates are replaced now and
	// then. Nil means the system's roots and no certificate of our own. Listeners bring their own.
	TLS func() *tls.Config
	// Logger may be nil.
	Logger hclog.Logger
	// Health decides GET /health; nil means what Ready was told last.
	Health func(context.Context) bool
	// OnRefused is told when another member refused our handshake, each time. A refusal with status
	// 410 means that this member was removed. It must neither block nor call Close.
	OnRefused func(peer uint64, refusal *RefusedError)
	// OnUnreachable is told each time when dialing a member for rpc has failed without an answer of
	// that member. A connection that has lasted is dialed again at once when it is lost, so that
	// the end of a process is known as soon as its kernel tells; see Gone. It must neither block nor
	// call Close.
	OnUnreachable func(peer uint64, err error)
	Metrics       Metrics
}

// Metrics are optional; they are called from many goroutines.
type Metrics struct {
	Sent     func(to uint64, bytes int)   // written to an upgraded connection
	Received func(from uint64, bytes int) // read from an upgraded connection
}

// Peers are the other members as this one sees them, and its own peer endpoint.
type Peers struct {
	cfg     Config
	log     hclog.Logger
	quiet   throttle
	server  *http.Server
	handler http.Handler
	ready   atomic.Bool

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // everything that runs

	mu     sync.RWMutex // guards what follows
	closed bool
	links  map[uint64]*link
	layer  *Layer
	conns  map[*conn]struct{} // all upgraded connections
	drops  map[uint64]uint64  // how often Drop was called for a member
}

// New returns the peers of a member. It listens nowhere and dials nobody until asked, but it must be
// closed.
func New(cfg Config) *Peers {
	p := &Peers{
		cfg:   cfg,
		log:   cfg.Logger,
		links: make(map[uint64]*link),
		conns: make(map[*conn]struct{}),
		drops: make(map[uint64]uint64),
	}
	if p.log == nil {
		p.log = hclog.NewNullLogger()
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.handler = p.routes()
	p.server = &http.Server{
		Handler:           p.handler,
		ReadHeaderTimeout: handshakeTimeout,
		ReadTimeout:       2 * handshakeTimeout,
		WriteTimeout:      2 * handshakeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(p.log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}), "", 0),
		// An upgraded connection is HTTP/1.1.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	p.wg.Go(p.watchLinks)
	return p
}

// tlsConfig returns what to dial with now; nil is Go's default.
func (p *Peers) tlsConfig() *tls.Config {
	if p.cfg.TLS == nil {
		return nil
	}
	return p.cfg.TLS()
}

// Listen opens the listener of an http peer URL. The listener of an https URL needs a certificate
// and is made by the caller.
func Listen(rawURL string) (net.Listener, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" {
		return nil, fmt.Errorf("listen on %s: scheme must be http", rawURL)
	}
	return net.Listen("tcp", u.Host)
}

// Handler returns the endpoint, for servers that are not started by Serve.
func (p *Peers) Handler() http.Handler { return p.handler }

// Serve answers on a listener until Close, which also closes the listener. It may be called for
// several listeners. After Close it returns nil.
func (p *Peers) Serve(l net.Listener) error {
	if err := p.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Ready says whether this member takes part. Until it was told so, handshakes are answered 503.
func (p *Peers) Ready(ready bool) { p.ready.Store(ready) }

// StreamLayer returns what raft dials and accepts through. Its addresses are member IDs in hex. At
// most one exists at a time: a new one closes the one before. Closing it closes raft's connections
// and nothing else, so that raft can be started again in the same process.
func (p *Peers) StreamLayer() *Layer {
	l := newLayer(p)
	p.mu.Lock()
	old := p.layer
	p.layer = l
	closed := p.closed
	p.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if closed {
		l.Close()
	}
	return l
}

// Connect keeps an rpc connection to a member from now on, as the first Call or Send does. It ends
// by itself when the member was removed.
func (p *Peers) Connect(id uint64) {
	if id != p.cfg.Self {
		p.link(id, true)
	}
}

// Call sends a request and waits for the answer. The payload may be reused when it returns.
//
// The error is a *CallError when the other member answered with one; ErrNotConnected or ErrBusy
// when nothing was sent; ErrConnectionLost or the context's when it is not known whether the other
// member has done what it was asked. Only the very first call to a member waits for a connection.
func (p *Peers) Call(ctx context.Context, to uint64, kind Kind, payload []byte) ([]byte, error) {
	l, c, err := p.usable(to)
	if err != nil {
		return nil, err
	}
	if c == nil {
		if c, err = l.wait(ctx); err != nil {
			return nil, err
		}
	}
	return c.call(ctx, kind, payload)
}

// Send sends a message that has no answer. A nil error means that it was queued, no more. It never
// blocks. The payload may be reused when it returns.
func (p *Peers) Send(to uint64, kind Kind, payload []byte) error {
	l, c, err := p.usable(to)
	if err != nil {
		return err
	}
	if c == nil {
		return l.notConnected()
	}
	return c.send(frame{kind: kind, typ: frameSend}, payload)
}

// Active says whether an rpc connection to a member is alive now, in either direction, and since
// when there has been one without a gap. A connection that says nothing for about 5 s is closed.
func (p *Peers) Active(id uint64) (since time.Time, ok bool) {
	p.mu.RLock()
	l := p.links[id]
	p.mu.RUnlock()
	if l == nil {
		return time.Time{}, false
	}
	return l.active()
}

// Gone says whether a member's process has ended, as far as can be told from here: it was the other
// side that ended the last rpc connection, every URL of the member has refused the next one
// (ECONNREFUSED, which the kernel of a machine says for a port on which nobody listens), and raft has
// read what the member had sent to the end. Silence is no sign, nor is a dial without an answer.
func (p *Peers) Gone(id uint64) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	l := p.links[id]
	if l == nil || !l.refused() {
		return false
	}
	for c := range p.conns {
		if c.peer == id && c.feeds.Load() {
			return false
		}
	}
	return true
}

// Drop closes all connections to and from a member, raft's too: it has another URL now, or was
// removed. Unless it was removed, it is dialed again at once.
func (p *Peers) Drop(id uint64) {
	p.mu.Lock()
	p.drops[id]++ // ends handshakes under way
	var conns []*conn
	for c := range p.conns {
		if c.peer == id {
			conns = append(conns, c)
		}
	}
	l := p.links[id]
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	if l != nil {
		l.drop()
	}
}

// Close closes the listeners and all connections, and returns when everything that was started here
// has ended. Handlers are told by their context.
func (p *Peers) Close() error {
	p.mu.Lock()
	p.closed = true
	l := p.layer
	conns := make([]*conn, 0, len(p.conns))
	for c := range p.conns {
		conns = append(conns, c)
	}
	p.mu.Unlock()

	p.cancel()
	err := p.server.Close()
	if l != nil {
		l.Close()
	}
	for _, c := range conns {
		c.Close()
	}
	p.wg.Wait()
	return err
}

// dropped counts the calls of Drop. Whoever is about to look into the directory for a handshake
// takes the number first, see track.
func (p *Peers) dropped(id uint64) uint64 {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.drops[id]
}

// start runs f unless the peers are closed, and says so.
func (p *Peers) start(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.startLocked(f)
}

func (p *Peers) startLocked(f func()) bool {
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}
