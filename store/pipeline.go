package store

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
)

// maxEntry bounds a raft entry that holds several commands, in bytes. A command that is larger
// travels alone.
const maxEntry = 512 << 10

// pipeline brings the writes that this member was asked for into the raft log, and their results
// back. It fills one entry while the one before is on its way:
//
//	propose ─► queue ─► leading:   one raft.Apply of many commands at a time
//	                └─► following: one frame of many commands to the leader
//
// The result of a command is what this member's own state machine made of it. Until then the
// request stays open, and is sent again when the leader changes or a message may have been lost:
// the state machine applies it once (fsm.RequestID). Once its caller has been answered nothing of
// it is sent any more, and no leader takes it from a message that was under way too long.
type pipeline struct {
	store *Store

	mu    sync.Mutex
	route route      // guarded by mu, as all below
	next  uint64     // the sequence of the next request
	open  []*request // by sequence; those in front are not over
	queue []chunk
	bytes int // in queue

	kick chan struct{} // has one value when the queue may have become sendable
	done chan struct{}
}

// route says where commands go now.
type route struct {
	// leader is the member to send to, 0 while none is known.
	leader uint64
	// open says that commands may be sent: this member leads and has begun its term, or the
	// leader has told its clock.
	open bool
	// boot is the leader's run, and clock the difference of its clock to ours: deadlines are
	// sent as readings of the leader's clock, so that no time of day is trusted.
	boot  uint64
	clock time.Duration
	// generation tells one stay on a route from the next.
	generation uint64
}

// request is one command of this member whose outcome is awaited.
type request struct {
	sequence uint64
	command  []byte
	deadline time.Time
	sent     time.Time
	result   chan fsm.Result // has room for one
	over     bool
}

// chunk is a command in the queue: of this member's own request, or of another member.
type chunk struct {
	command  []byte
	deadline time.Time
	request  *request // nil for another member's
}

func newPipeline(s *Store) *pipeline {
	return &pipeline{store: s, next: 1, kick: make(chan struct{}, 1), done: make(chan struct{})}
}

// propose brings a command into the log and returns what came of it here. Its ID is filled in.
// The errors are api's of code 300.
func (p *pipeline) propose(ctx context.Context, c *fsm.Command) (fsm.Result, error) {
	r, err := p.add(ctx, c)
	if err != nil {
		return fsm.Result{}, err
	}
	select {
	case result := <-r.result:
		return result, nil
	case <-ctx.Done():
	case <-p.store.stopping:
	}
	if result, ok := p.abandon(r); ok {
		return result, nil
	}
	p.store.metrics.failed.Inc()
	return fsm.Result{}, p.store.unknown(ctx)
}

func (p *pipeline) add(ctx context.Context, c *fsm.Command) (*request, error) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(p.store.requestTimeout())
	}
	r := &request{deadline: deadline, result: make(chan fsm.Result, 1)}
	p.mu.Lock()
	r.sequence = p.next
	p.next++
	p.open = append(p.open, r)
	c.ID = fsm.RequestID{Member: p.store.self, Boot: p.store.boot, Sequence: r.sequence, Lowest: p.open[0].sequence}
	p.mu.Unlock()

	// Encoding needs no lock, and until it is done the request is in no queue.
	command, err := fsm.AppendCommand(make([]byte, 0, 64+len(c.Write.Path)+len(c.Write.Value)+len(c.Write.PrevValue)), c)
	if err != nil {
		p.abandon(r)
		return nil, err
	}
	p.mu.Lock()
	r.command = command
	p.enqueue(r)
	p.mu.Unlock()
	p.wake()
	return r, nil
}

// enqueue puts a request into the queue if there is anywhere to send it. p.mu is held.
func (p *pipeline) enqueue(r *request) {
	if !p.route.open || r.over || r.command == nil {
		return
	}
	p.queue = append(p.queue, chunk{command: r.command, deadline: r.deadline, request: r})
	p.bytes += len(r.command)
}

// abandon ends a request whose caller waits no longer, and returns its result if it has just come.
func (p *pipeline) abandon(r *request) (fsm.Result, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case result := <-r.result:
		return result, true
	default:
	}
	r.over = true
	p.trim()
	return fsm.Result{}, false
}

// trim drops what is over from the front of the open requests. p.mu is held.
func (p *pipeline) trim() {
	n := 0
	for n < len(p.open) && p.open[n].over {
		p.open[n] = nil
		n++
	}
	p.open = p.open[n:]
}

// deliver is called by the state machine with the results of this member's requests.
func (p *pipeline) deliver(deliveries []fsm.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, d := range deliveries {
		if d.ID.Boot != p.store.boot || len(p.open) == 0 {
			continue
		}
		i := d.ID.Sequence - p.open[0].sequence
		if d.ID.Sequence < p.open[0].sequence || i >= uint64(len(p.open)) {
			continue
		}
		if r := p.open[i]; r != nil && !r.over {
			r.over = true
			r.result <- d.Result
		}
	}
	p.trim()
}

// setRoute changes where commands go. Whatever is still open is sent there, again if need be.
func (p *pipeline) setRoute(r route) {
	p.mu.Lock()
	r.generation = p.route.generation + 1
	p.route = r
	p.requeue(func(*request) bool { return true })
	p.mu.Unlock()
	p.wake()
}

// openRoute opens the present route if it is still the one of the given generation.
func (p *pipeline) openRoute(generation uint64, boot uint64, clock time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.route.generation != generation {
		return
	}
	p.route.boot, p.route.clock = boot, clock
	if !p.route.open {
		p.route.open = true
		p.requeue(func(*request) bool { return true })
	}
	p.wake()
}

// currentRoute returns the present route.
func (p *pipeline) currentRoute() route {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.route
}

// resend sends again what was sent before the given time and has no result yet.
func (p *pipeline) resend(before time.Time) {
	p.mu.Lock()
	p.requeue(func(r *request) bool { return r.sent.Before(before) })
	p.mu.Unlock()
	p.wake()
}

// requeue makes the queue anew: of what is open, those that pick wants, and all that were never
// sent. Other members' commands are dropped, they send them again themselves. p.mu is held.
func (p *pipeline) requeue(pick func(*request) bool) {
	queued := p.queue
	p.queue, p.bytes = nil, 0
	if p.store.leads(p.route) {
		for _, c := range queued {
			if c.request == nil {
				p.queue = append(p.queue, c)
				p.bytes += len(c.command)
			}
		}
	}
	for _, r := range p.open {
		if r.sent.IsZero() || pick(r) {
			p.enqueue(r)
		}
	}
}

// accept takes commands of another member into this leader's log. It says whether it did.
func (p *pipeline) accept(chunks []chunk) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.route.open || !p.store.leads(p.route) {
		return false
	}
	for _, c := range chunks {
		p.queue = append(p.queue, c)
		p.bytes += len(c.command)
	}
	p.wake()
	return true
}

func (p *pipeline) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// take removes from the front of the queue what fits into one entry or frame.
func (p *pipeline) take(now time.Time) (chunks []chunk, size int, r route, more bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r = p.route
	if !r.open {
		return nil, 0, r, false
	}
	n := 0
	for ; n < len(p.queue); n++ {
		c := p.queue[n]
		if size > 0 && size+len(c.command) > maxEntry {
			break
		}
		p.bytes -= len(c.command)
		if c.request != nil {
			if c.request.over {
				continue
			}
			c.request.sent = now
		}
		if now.After(c.deadline) {
			continue
		}
		chunks = append(chunks, c)
		size += len(c.command)
	}
	clear(p.queue[:n])
	p.queue = p.queue[n:]
	if len(p.queue) == 0 {
		p.queue = nil
	}
	return chunks, size, r, len(p.queue) > 0
}

// run sends until the store stops.
func (p *pipeline) run() {
	defer close(p.done)
	retry := time.NewTicker(p.store.electionTimeout() / 2)
	defer retry.Stop()
	for {
		select {
		case <-p.store.stopping:
			return
		case <-retry.C:
			// A frame or the answer to it may have been lost with a connection.
			if r := p.currentRoute(); r.open && !p.store.leads(r) {
				p.resend(time.Now().Add(-2 * p.store.electionTimeout()))
			}
			continue
		case <-p.kick:
		}
		for {
			start := time.Now()
			chunks, size, r, more := p.take(start)
			if len(chunks) > 0 {
				if err := p.send(chunks, size, r); err != nil {
					p.store.log.Debug("commands not sent", "commands", len(chunks), "leader", r.leader, "error", err)
					p.retryLater(r)
					break
				}
				if p.store.leads(r) {
					p.gather(len(chunks), time.Since(start))
					more = true // look once more: gather may have taken the kick
				}
			}
			if !more {
				break
			}
		}
	}
}

// Writers that have just been answered come back with their next write within a moment. An entry
// that left at once would carry the few that were waiting, and all others would wait for it: two
// groups of writers would take turns, each with half of an entry. So after an entry of many commands
// the next one waits until most of its writers are back and have joined those that wait already, but
// no longer than the entry itself took.
const (
	gatherFrom = 8                    // commands in the entry before; with fewer there is no wait
	gatherMax  = 2 * time.Millisecond // the longest wait
)

// gather waits for writers to return after an entry of n commands that took so long.
func (p *pipeline) gather(n int, took time.Duration) {
	if n < gatherFrom {
		return
	}
	p.mu.Lock()
	enough := (n + len(p.queue)) * 7 / 8
	p.mu.Unlock()
	timeout := time.NewTimer(min(took, gatherMax))
	defer timeout.Stop()
	for {
		p.mu.Lock()
		full := len(p.queue) >= enough || p.bytes >= maxEntry
		p.mu.Unlock()
		if full {
			return
		}
		select {
		case <-p.kick:
		case <-timeout.C:
			return
		case <-p.store.stopping:
			return
		}
	}
}

// retryLater sends everything open again after a short pause, unless the route changes before.
func (p *pipeline) retryLater(r route) {
	time.AfterFunc(50*time.Millisecond, func() {
		if p.currentRoute().generation == r.generation {
			p.resend(time.Now())
		}
	})
}

func (p *pipeline) send(chunks []chunk, size int, r route) error {
	if p.store.leads(r) {
		entry := fsm.AppendEntry(make([]byte, 0, fsm.EntryHeadSize+size), p.store.clock.now())
		for _, c := range chunks {
			entry = append(entry, c.command...)
		}
		return p.store.apply(entry)
	}
	frame := make([]byte, 0, 8+size+10*len(chunks))
	frame = binary.LittleEndian.AppendUint64(frame, r.boot)
	for _, c := range chunks {
		// What the leader's clock will show at the deadline, or a little less.
		at := c.deadline.Sub(p.store.started) + r.clock
		frame = binary.LittleEndian.AppendUint64(frame, uint64(max(at, 0)))
		frame = append(frame, c.command...)
	}
	return p.store.peers.Send(r.leader, kindPropose, frame)
}

// pending returns how many requests have no result yet.
func (p *pipeline) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

var errBadFrame = errors.New("malformed frame of commands")

// decodeFrame reads a frame of commands that another member sent, with deadlines on this
// member's clock.
func decodeFrame(frame []byte, started time.Time) (boot uint64, chunks []chunk, err error) {
	if len(frame) < 8 {
		return 0, nil, errBadFrame
	}
	boot = binary.LittleEndian.Uint64(frame)
	frame = frame[8:]
	for len(frame) > 0 {
		if len(frame) < 12 {
			return 0, nil, errBadFrame
		}
		at := time.Duration(min(binary.LittleEndian.Uint64(frame), 1<<62))
		n := uint64(binary.LittleEndian.Uint32(frame[8:])) + 4
		if n > uint64(len(frame)-8) {
			return 0, nil, errBadFrame
		}
		command := slices.Clip(frame[8 : 8+n])
		if err := fsm.CheckCommands(command); err != nil {
			return 0, nil, err
		}
		chunks = append(chunks, chunk{command: command, deadline: started.Add(at)})
		frame = frame[8+n:]
	}
	return boot, chunks, nil
}

// notApplied says of an error of raft.Apply that the entry has not entered the log and never will.
func notApplied(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) ||
		errors.Is(err, raft.ErrEnqueueTimeout)
}
