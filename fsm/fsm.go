// Package fsm is what the members agree on: the key tree, users and roles, who belongs to the cluster,
// and which requests have been applied. It is driven by the entries of the raft log and nothing else, so two
// members at one raft index hold the same state.
//
// An entry holds many commands and one time, the leader's. The state machine never reads a clock.
package fsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/fsm/tree"
)

// Result is the outcome of one command, to the member that asked for it.
type Result struct {
	// Event is what a write did; nil for a refusal and for other kinds of commands.
	Event *tree.Event
	// Auth is what became of a user or role; nil for other kinds of commands.
	Auth *auth.Outcome
	// Err is the refusal, an *api.Error or *api.StatusError. A refusal is an outcome like any other.
	Err error
}

// Delivery is a Result with the request it belongs to.
type Delivery struct {
	ID     RequestID
	Result Result
}

// Hooks are called by the state machine, one at a time, from the goroutine that applies entries.
// They must return quickly and must not call the state machine's raft.FSM methods.
type Hooks struct {
	// Deliver gets the results of commands whose RequestID names this member.
	Deliver func([]Delivery)
	// MembersChanged is told after the membership changed, by a command or a snapshot.
	MembersChanged func(before, now *Membership)
	// Committed is told the last entry of every step before the step: it has been committed. May be nil.
	Committed func(index, term uint64)
	// Applied is told the last entry of every step.
	Applied func(index, term uint64)
	// Fatal is told once when an entry cannot be understood. From then on nothing is applied:
	// a member that skipped an entry would no longer agree with the others.
	Fatal func(error)
}

// FSM is the replicated state machine. It implements raft.FSM and raft.BatchingFSM; those methods
// are raft's to call, all others may be called from any goroutine.
type FSM struct {
	self  uint64
	tree  *tree.Tree
	hooks Hooks

	// step is held while the state changes, and to take all of it at once.
	step     sync.Mutex
	requests requests // guarded by step
	broken   bool     // guarded by step

	membership atomic.Pointer[Membership]
	auth       atomic.Pointer[auth.State]
	applied    atomic.Uint64
	volume     atomic.Pointer[Volume]

	mu      sync.Mutex
	waiters []waiter // guarded by mu
}

// Volume is how much has been applied since this process started.
type Volume struct {
	Entries, Commands, Bytes uint64
}

type waiter struct {
	index uint64
	done  chan struct{}
}

// New returns the state machine of member self, with an empty tree that keeps the given number of
// events for watches.
func New(self uint64, eventHistory int, hooks Hooks) *FSM {
	f := &FSM{self: self, tree: tree.New(eventHistory), hooks: hooks, requests: make(requests)}
	f.membership.Store(&Membership{})
	f.auth.Store(&auth.State{})
	f.volume.Store(&Volume{})
	return f
}

// Tree returns the key tree, for reads and watches.
func (f *FSM) Tree() *tree.Tree { return f.tree }

// Membership returns who belongs to the cluster now.
func (f *FSM) Membership() *Membership { return f.membership.Load() }

// Auth returns the users and roles as they are now.
func (f *FSM) Auth() *auth.State { return f.auth.Load() }

// Applied returns the raft index of the last entry that was applied here.
func (f *FSM) Applied() uint64 { return f.applied.Load() }

// Volume returns how much has been applied since this process started.
func (f *FSM) Volume() Volume { return *f.volume.Load() }

// WaitApplied returns once the entry at the raft index has been applied here, or with ctx's error.
func (f *FSM) WaitApplied(ctx context.Context, index uint64) error {
	if f.applied.Load() >= index {
		return nil
	}
	done := make(chan struct{})
	f.mu.Lock()
	if f.applied.Load() >= index {
		f.mu.Unlock()
		return nil
	}
	f.waiters = append(f.waiters, waiter{index: index, done: done})
	f.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		f.mu.Lock()
		for i := range f.waiters {
			if f.waiters[i].done == done {
				f.waiters[i] = f.waiters[len(f.waiters)-1]
				f.waiters = f.waiters[:len(f.waiters)-1]
				break
			}
		}
		f.mu.Unlock()
		return ctx.Err()
	}
}

func (f *FSM) setApplied(index uint64) {
	f.mu.Lock()
	f.applied.Store(index)
	kept := f.waiters[:0]
	for _, w := range f.waiters {
		if w.index <= index {
			close(w.done)
		} else {
			kept = append(kept, w)
		}
	}
	clear(f.waiters[len(kept):])
	f.waiters = kept
	f.mu.Unlock()
}

// Apply implements raft.FSM.
func (f *FSM) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

// ApplyBatch implements raft.BatchingFSM, which raft also hands the entries of configuration
// changes: with them the applied index follows the log without gaps. The responses are nil, or an
// error for an entry that was not applied.
func (f *FSM) ApplyBatch(entries []*raft.Log) []any {
	f.step.Lock()
	defer f.step.Unlock()
	responses := make([]any, len(entries))
	if f.hooks.Committed != nil && len(entries) > 0 {
		last := entries[len(entries)-1]
		f.hooks.Committed(last.Index, last.Term)
	}
	before := f.applied.Load()
	var term uint64
	for i, entry := range entries {
		if entry.Index <= f.applied.Load() {
			continue // applied before raft was restarted within this process
		}
		if f.broken {
			responses[i] = errBroken
			continue
		}
		if entry.Type == raft.LogCommand {
			if err := f.apply(entry); err != nil {
				f.broken = true
				responses[i] = errBroken
				f.hooks.Fatal(fmt.Errorf("log entry %d (term %d): %w", entry.Index, entry.Term, err))
				continue
			}
		}
		f.setApplied(entry.Index)
		term = entry.Term
	}
	if index := f.applied.Load(); index != before {
		f.hooks.Applied(index, term)
	}
	return responses
}

var errBroken = errors.New("an earlier log entry could not be applied")

func (f *FSM) apply(entry *raft.Log) error {
	now, commands, err := decodeEntry(entry.Data)
	if err != nil {
		return err
	}
	var deliveries []Delivery
	before := f.membership.Load()
	members := before

	clock := max(now, f.tree.Clock())
	batch := f.tree.Begin(clock)
	batch.Expire()
	for i := range commands {
		c := &commands[i]
		// What a member had applied is forgotten when it is removed, and copies of its requests may
		// still be under way.
		if c.ID.Member != 0 && members.IsRemoved(c.ID.Member) || !f.requests.admit(c.ID) {
			continue
		}
		var result Result
		switch c.Kind {
		case KindTick:
		case KindWrite:
			op := c.Write.Op
			if c.Write.HasTTL {
				op.Expires = expires(clock, c.Write.TTL)
			}
			result.Event, result.Err = batch.Do(op)
		case KindOffset:
			batch.SetOffset(c.Offset)
		case KindAuth:
			state, outcome, err := f.auth.Load().Apply(c.Auth)
			f.auth.Store(state)
			batch.Skip(outcome.Steps)
			result.Auth, result.Err = &outcome, err
		default:
			var steps int
			members, steps, result.Err = members.apply(c.Kind, c.Change)
			batch.Skip(steps)
		}
		if c.ID.Member == f.self {
			deliveries = append(deliveries, Delivery{ID: c.ID, Result: result})
		}
	}
	batch.End()
	v := *f.volume.Load()
	f.volume.Store(&Volume{Entries: v.Entries + 1, Commands: v.Commands + uint64(len(commands)), Bytes: v.Bytes + uint64(len(entry.Data))})

	if members != before {
		for _, removed := range members.Removed {
			delete(f.requests, removed.ID)
		}
		f.membership.Store(members)
		f.hooks.MembersChanged(before, members)
	}
	if len(deliveries) > 0 {
		f.hooks.Deliver(deliveries)
	}
	return nil
}

// expires returns the time, in Unix nanoseconds, that lies ttl seconds after now. One that does not
// fit is never: 0, which stands for a permanent node (docs/divergences.md).
func expires(now int64, ttl uint64) int64 {
	const second = 1_000_000_000
	if ttl > uint64(math.MaxInt64-now)/second {
		return 0
	}
	return now + int64(ttl)*second
}

// Snapshot implements raft.FSM. It only copies pointers; Persist does the work.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	f.step.Lock()
	defer f.step.Unlock()
	if f.broken {
		return nil, errBroken
	}
	return f.snapshot(), nil
}

// Restore implements raft.FSM. A snapshot that is older than the state is left aside: raft hands
// one over when it is restarted within this process, and readers must not see time run backwards.
func (f *FSM) Restore(r io.ReadCloser) error {
	defer r.Close()
	f.step.Lock()
	defer f.step.Unlock()
	head, err := readSnapshotHead(r)
	if err != nil {
		return err
	}
	if applied := f.applied.Load(); applied > 0 && head.Applied <= applied {
		return nil
	}
	if err := f.tree.Restore(r); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	f.requests = restoreRequests(head.Requests)
	members := head.Membership
	before := f.membership.Swap(&members)
	f.auth.Store(cmp.Or(head.Auth, &auth.State{}))
	f.setApplied(head.Applied)
	f.hooks.MembersChanged(before, &members)
	return nil
}
