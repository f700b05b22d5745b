package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quorate/quorate/api"
)

var errDropped = errors.New("connection was dropped")

const (
	minRedial = 20 * time.Millisecond
	maxRedial = time.Second
)

// link is the rpc connections to one member: the one that we have dialed and the one that it has.
// Either is enough.
type link struct {
	peers   *Peers
	id      uint64
	current atomic.Pointer[rpcConn] // the one to use: ours when there is one
	kicked  chan struct{}           // of capacity 1: dial again now
	tried   chan struct{}           // closed once there was a connection, or dialing has failed
	once    sync.Once               // closes tried
	running bool                    // guarded by Peers.mu: there is a goroutine that dials

	mu       sync.Mutex // guards what follows
	dialed   *rpcConn
	accepted *rpcConn
	since    time.Time // when current was set last after having been nil
	lastErr  error     // of the last dial
	outage   outage
	ended    bool // the last connection was ended by the other side, and there is none since
}

// link returns the link of a member. If there is none, or dial is set and nobody dials, that is
// started.
func (p *Peers) link(id uint64, dial bool) *link {
	p.mu.RLock()
	l := p.links[id]
	ok := l != nil && (l.running || !dial)
	p.mu.RUnlock()
	if ok {
		return l
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	l = p.links[id]
	if l == nil {
		l = &link{peers: p, id: id, kicked: make(chan struct{}, 1), tried: make(chan struct{})}
		p.links[id] = l
	}
	if dial && !l.running {
		l.running = p.startLocked(l.run)
	}
	return l
}

// usable returns the connection to use. There may be none for now.
func (p *Peers) usable(to uint64) (*link, *rpcConn, error) {
	if to == p.cfg.Self {
		return nil, nil, fmt.Errorf("%w: member %s is this one", ErrNotConnected, api.FormatID(to))
	}
	l := p.link(to, true)
	return l, l.current.Load(), nil
}

// wait returns the connection to use after the first attempt to make one.
func (l *link) wait(ctx context.Context) (*rpcConn, error) {
	select {
	case <-l.tried:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w to member %s: %w", ErrNotConnected, api.FormatID(l.id), ctx.Err())
	case <-l.peers.ctx.Done():
	}
	if c := l.current.Load(); c != nil {
		return c, nil
	}
	return nil, l.notConnected()
}

// notConnected says why there is no connection.
func (l *link) notConnected() error {
	l.mu.Lock()
	err := l.lastErr
	l.mu.Unlock()
	if err == nil {
		return fmt.Errorf("%w to member %s", ErrNotConnected, api.FormatID(l.id))
	}
	return fmt.Errorf("%w to member %s: %w", ErrNotConnected, api.FormatID(l.id), err)
}

// run keeps a connection that we dial, until the member is removed.
func (l *link) run() {
	p := l.peers
	defer func() {
		p.mu.Lock()
		l.running = false
		p.mu.Unlock()
		l.once.Do(func() { close(l.tried) })
	}()
	pause := minRedial
	for p.ctx.Err() == nil {
		if p.cfg.Directory.Removed(l.id) {
			return
		}
		started := time.Now()
		err := l.dial()
		if p.ctx.Err() != nil {
			return
		}
		if err == nil && time.Since(started) > 2*maxRedial {
			pause = minRedial
			continue // that was a connection for a while: its end is news
		}
		if err != nil {
			l.failed(err)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
			pause = min(2*pause, maxRedial)
		case <-l.kicked:
			pause = minRedial
		case <-p.ctx.Done():
		}
		timer.Stop()
	}
}

// dial makes a connection and returns nil when it has ended.
func (l *link) dial() error {
	raw, err := l.peers.dial(l.peers.ctx, l.id, kindRPC)
	if err != nil {
		return err
	}
	c := newRPC(raw)
	l.set(func() { l.dialed, l.lastErr = c, nil })
	<-c.done
	ended := c.endedByPeer()
	l.set(func() { l.dialed, l.ended = nil, ended })
	return nil
}

// refused says whether the other side has ended the last connection and refuses another one.
func (l *link) refused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended && l.current.Load() == nil && refusedEverywhere(l.lastErr)
}

// refusedEverywhere says of the error of a dial that nobody listens at any URL of the member.
func refusedEverywhere(err error) bool {
	all, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return false
	}
	for _, e := range all.Unwrap() {
		if !errors.Is(e, syscall.ECONNREFUSED) {
			return false
		}
	}
	return true
}

// failed notes that dialing has failed.
func (l *link) failed(err error) {
	l.mu.Lock()
	l.lastErr = err
	l.mu.Unlock()
	l.once.Do(func() { close(l.tried) })
	refused, ok := errors.AsType[*RefusedError](err)
	if !ok && l.peers.cfg.OnUnreachable != nil {
		l.peers.cfg.OnUnreachable(l.id, err)
	}
	if ok && (refused.Status == http.StatusPreconditionFailed || refused.Status == http.StatusServiceUnavailable) {
		return // the first has a log line of its own, the second passes
	}
	l.mu.Lock()
	say, attempts := l.outage.failed(time.Now()), l.outage.attempts
	l.mu.Unlock()
	if say {
		l.peers.log.Warn("cannot connect to a peer", "peer", api.FormatID(l.id), "attempts", attempts, "error", err)
	}
}

// accepted takes an rpc connection that another member has dialed. A member has one at a time, so
// the one before is dead, whether we have noticed or not.
func (p *Peers) accepted(raw *conn) {
	c := newRPC(raw)
	l := p.link(raw.peer, false)
	var old *rpcConn
	l.set(func() { old, l.accepted = l.accepted, c })
	if old != nil {
		old.close(errors.New("the peer has connected again"))
	}
	l.kick()
	if !p.start(func() {
		<-c.done
		ended := c.endedByPeer()
		l.set(func() {
			if l.accepted == c {
				l.accepted, l.ended = nil, ended
				l.lastErr = nil // it is of a dial before that
			}
		})
		if l.current.Load() == nil {
			l.kick()
		}
	}) {
		c.close(ErrConnectionLost)
	}
}

// set changes the connections, and with them the one to use.
func (l *link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	use := l.dialed
	if use == nil {
		use = l.accepted
	}
	if use != nil {
		l.ended = false
		if took, ok := l.outage.over(time.Now()); ok {
			l.peers.log.Info("connected to a peer", "peer", api.FormatID(l.id), "after", took.Round(time.Millisecond))
		}
		if l.current.Load() == nil {
			l.since = time.Now()
		}
	}
	l.current.Store(use)
	if use != nil {
		l.once.Do(func() { close(l.tried) })
	}
}

func (l *link) active() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range []*rpcConn{l.dialed, l.accepted} {
		if c != nil && !c.closed() {
			return l.since, true
		}
	}
	return time.Time{}, false
}

// drop closes the connections and dials again.
func (l *link) drop() {
	l.mu.Lock()
	conns := []*rpcConn{l.dialed, l.accepted}
	l.mu.Unlock()
	for _, c := range conns {
		if c != nil {
			c.close(errDropped)
		}
	}
	l.kick()
}

// kick ends a pause between two dials.
func (l *link) kick() {
	select {
	case l.kicked <- struct{}{}:
	default:
	}
}

// watchLinks gives every rpc connection its beat.
func (p *Peers) watchLinks() {
	ticker := time.NewTicker(beatInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-p.ctx.Done():
			return
		}
		p.mu.RLock()
		var conns []*rpcConn
		for _, l := range p.links {
			l.mu.Lock()
			for _, c := range []*rpcConn{l.dialed, l.accepted} {
				if c != nil {
					conns = append(conns, c)
				}
			}
			l.mu.Unlock()
		}
		p.mu.RUnlock()
		for _, c := range conns {
			c.beat()
		}
	}
}
