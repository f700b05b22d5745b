package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Errors of Call and Send. After the first two nothing was sent. After ErrConnectionLost the other
// member may or may not have got the message.
var (
	ErrNotConnected   = errors.New("peer: not connected")
	ErrBusy           = errors.New("peer: too much is waiting to be sent")
	ErrTooLarge       = errors.New("peer: message is too large")
	ErrConnectionLost = errors.New("peer: connection lost")
)

// Codes of CallError that this package gives. The store's own start at 100.
const (
	CodeInternal    uint16 = 1 // any error of the handler that is not a *CallError
	CodeUnknownKind uint16 = 2 // the other member does not know this kind of call
	CodeBusy        uint16 = 3 // it is working on too many calls of ours already
)

// CallError is the answer of another member to a call that it could not do.
type CallError struct {
	Code uint16
	Text string
}

func (e *CallError) Error() string { return e.Text }

// Is matches any CallError of the same code.
func (e *CallError) Is(target error) bool {
	t, ok := target.(*CallError)
	return ok && t.Code == e.Code
}

// ErrUnknownKind is what a handler returns for a kind that it does not know.
var ErrUnknownKind = &CallError{CodeUnknownKind, "unknown kind of message"}

const (
	maxErrorText = 4 << 10
	// maxHandling bounds the calls of one connection that are being answered.
	maxHandling = 4096
	// maxQueued bounds what waits to be written, in bytes.
	maxQueued = 2 * MaxPayload
	// A buffer that once was larger is not kept.
	maxKept = 1 << 20
	// writeTimeout is how long one write may take, of everything that was waiting.
	writeTimeout = 30 * time.Second
	// A connection is closed when nothing was received between this many beats in a row.
	beatInterval = time.Second
	maxSilence   = 5
)

// rpcConn is one connection of kind rpc. It reads on one goroutine and writes on another.
type rpcConn struct {
	conn    *conn
	peers   *Peers
	peer    uint64
	since   time.Time
	ctx     context.Context // of handlers, ends with the connection
	cancel  context.CancelFunc
	done    chan struct{} // closed when the connection is
	frames  atomic.Uint64 // received
	working atomic.Int32  // handlers running

	mu      sync.Mutex // guards what follows
	wake    sync.Cond  // there is something to write, or err is set
	out     []byte     // frames to write
	pending map[uint64]*pendingCall
	lastID  uint64
	err     error // why the connection is closed

	// Of beat, which one goroutine calls.
	seen   uint64
	silent int
}

// pendingCall waits for its reply.
type pendingCall struct{ done chan reply }

type reply struct {
	payload []byte
	err     error
}

var pendingCalls = sync.Pool{New: func() any { return &pendingCall{make(chan reply, 1)} }}

// newRPC starts the goroutines of a connection, unless the peers are closed.
func newRPC(c *conn) *rpcConn {
	p := c.peers
	r := &rpcConn{
		conn: c, peers: p, peer: c.peer, since: time.Now(),
		done:    make(chan struct{}),
		pending: make(map[uint64]*pendingCall),
	}
	r.wake.L = &r.mu
	r.ctx, r.cancel = context.WithCancel(p.ctx)
	if !p.start(r.read) || !p.start(r.write) {
		r.close(ErrConnectionLost)
	}
	return r
}

// close ends the connection and every call that waits on it. Only the first reason counts.
func (c *rpcConn) close(reason error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = reason
	pending := c.pending
	c.pending = nil
	c.out = nil
	c.wake.Broadcast()
	c.mu.Unlock()

	c.cancel()
	c.conn.Close()
	for _, call := range pending {
		call.done <- reply{err: ErrConnectionLost}
	}
	close(c.done)
}

func (c *rpcConn) closed() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// endedByPeer says of a closed connection that the other side has ended it, or its kernel has.
func (c *rpcConn) endedByPeer() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return endedByPeer(c.err)
}

// call sends a request and waits.
func (c *rpcConn) call(ctx context.Context, kind Kind, payload []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	call := pendingCalls.Get().(*pendingCall)
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return nil, ErrNotConnected
	}
	c.lastID++
	id := c.lastID
	if err := c.enqueueLocked(frame{typ: frameCall, kind: kind, id: id}, payload); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	c.pending[id] = call
	c.mu.Unlock()

	select {
	case r := <-call.done:
		pendingCalls.Put(call)
		return r.payload, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	_, waiting := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if !waiting {
		<-call.done // somebody has taken it and is about to answer
	}
	pendingCalls.Put(call)
	return nil, ctx.Err()
}

// send queues one frame.
func (c *rpcConn) send(f frame, payload []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return ErrNotConnected
	}
	return c.enqueueLocked(f, payload)
}

func (c *rpcConn) enqueueLocked(f frame, payload []byte) error {
	if len(payload) > MaxPayload {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(payload), MaxPayload)
	}
	if len(c.out)+len(payload) > maxQueued {
		return ErrBusy
	}
	if len(c.out) == 0 {
		c.wake.Signal()
	}
	c.out = appendFrame(c.out, f, payload)
	return nil
}

// write writes everything that is waiting in one go, again and again.
func (c *rpcConn) write() {
	var spare []byte
	for {
		c.mu.Lock()
		for len(c.out) == 0 && c.err == nil {
			c.wake.Wait()
			// Whoever is about to queue a frame, too, gets the chance to: half the cost of a call
			// with 64 callers, and nothing when nobody is.
			c.mu.Unlock()
			runtime.Gosched()
			c.mu.Lock()
		}
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		out := c.out
		c.out = spare[:0]
		c.mu.Unlock()

		c.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		if _, err := c.conn.Write(out); err != nil {
			c.close(err)
			return
		}
		spare = nil
		if cap(out) <= maxKept {
			spare = out
		}
	}
}

// read takes frames until the connection ends.
func (c *rpcConn) read() {
	r := bufio.NewReaderSize(c.conn, 64<<10)
	for {
		f, err := readFrame(r)
		if err != nil {
			c.close(err)
			return
		}
		c.frames.Add(1)
		switch f.typ {
		case frameReply:
			c.finish(f.id, reply{payload: f.payload})
		case frameFailure:
			c.finish(f.id, reply{err: &CallError{f.code, string(f.payload)}})
		case frameCall:
			c.take(f)
		case frameSend:
			if h := c.peers.cfg.Handler; h != nil {
				h.Call(c.ctx, c.peer, f.kind, f.payload)
			}
		case framePing:
		default:
			c.fail(f.id, &CallError{CodeUnknownKind, fmt.Sprintf("unknown type of frame %d", f.typ)})
		}
	}
}

// finish hands a reply to the call that waits for it, if it still does.
func (c *rpcConn) finish(id uint64, r reply) {
	c.mu.Lock()
	call := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if call != nil {
		call.done <- r
	}
}

// take starts the handler of a call.
func (c *rpcConn) take(f frame) {
	h := c.peers.cfg.Handler
	if h == nil {
		c.fail(f.id, ErrUnknownKind)
		return
	}
	if c.working.Add(1) > maxHandling {
		c.working.Add(-1)
		c.fail(f.id, &CallError{CodeBusy, "too many calls at once"})
		return
	}
	c.peers.wg.Go(func() { // which this goroutine, counted there too, keeps from being waited for
		defer c.working.Add(-1)
		out, err := h.Call(c.ctx, c.peer, f.kind, f.payload)
		if err == nil && len(out) > MaxPayload {
			err = ErrTooLarge
		}
		if err != nil {
			c.fail(f.id, err)
			return
		}
		c.answer(frame{typ: frameReply, id: f.id}, out)
	})
}

func (c *rpcConn) fail(id uint64, err error) {
	e, ok := errors.AsType[*CallError](err)
	if !ok {
		e = &CallError{CodeInternal, err.Error()}
	}
	text := e.Text
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "")
	}
	c.answer(frame{typ: frameFailure, code: e.Code, id: id}, []byte(text))
}

// answer sends a reply. One that finds no room says that the other side has stopped reading, and
// without it the call would wait for ever: the connection is given up.
func (c *rpcConn) answer(f frame, payload []byte) {
	if err := c.send(f, payload); errors.Is(err, ErrBusy) {
		c.close(err)
	}
}

// beat sends a sign of life and looks for one from the other side.
func (c *rpcConn) beat() {
	n := c.frames.Load()
	if n != c.seen {
		c.seen, c.silent = n, 0
	} else if c.silent++; c.silent >= maxSilence {
		c.close(fmt.Errorf("nothing heard for %v", maxSilence*beatInterval))
		return
	}
	c.send(frame{typ: framePing}, nil)
}
