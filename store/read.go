package store

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// errNotLeading says that a round of confirmation did not find this member leading.
var errNotLeading = errors.New("this member does not lead")

// Linearizable returns once this member's state is at least as new as anything that was
// acknowledged anywhere before the call. Reads that follow are linearizable. The error is api's of
// code 300. No entry is written, and no clock is trusted (ReadIndex in Raft's dissertation, 6.4).
func (s *Store) Linearizable(ctx context.Context) error {
	for {
		index, err := s.readIndex.ask(ctx)
		if err == nil {
			if err = s.fsm.WaitApplied(ctx, index); err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return s.unknown(ctx)
		case <-s.stopping:
			return s.unknown(ctx)
		case <-time.After(20 * time.Millisecond): // an election may be going on
		}
	}
}

// round asks for one index on behalf of all who were waiting when it began.
func (s *Store) round(ctx context.Context) (uint64, error) {
	leader := s.leaderID()
	switch leader {
	case 0:
		return 0, errNotLeading
	case s.self:
		return s.confirms.ask(ctx)
	}
	answer, err := s.peers.Call(ctx, leader, kindReadIndex, nil)
	if err != nil {
		return 0, err
	}
	if len(answer) != 8 {
		return 0, errBadFrame
	}
	return binary.LittleEndian.Uint64(answer), nil
}

// confirm returns the commit index of a moment after which this member certainly led.
//
// The index is noted first; then every voter tells its current term, and a majority must be in
// ours. A later leader needs votes of a majority, and a voter moves to the later term before it
// votes, so one of those that answered would have told it. raft.VerifyLeader is not used: it counts
// acknowledgements that were sent before the call.
func (s *Store) confirm(ctx context.Context) (uint64, error) {
	r := s.raft.Load()
	term := r.CurrentTerm()
	if r.State() != raft.Leader || s.readyTerm.Load() != term {
		return 0, errNotLeading
	}
	index := r.CommitIndex()
	var others []uint64
	voters, self := 0, false
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if id, err := parseServerID(server.ID); err == nil && id != s.self {
			others = append(others, id)
		} else if err == nil {
			self = true
		}
	}
	needed := voters/2 + 1
	if self {
		needed--
	}
	if needed > 0 {
		ctx, cancel := context.WithTimeout(ctx, s.electionTimeout())
		defer cancel()
		answers := make(chan bool, len(others))
		for _, id := range others {
			go func() {
				b, err := s.peers.Call(ctx, id, kindConfirm, nil)
				answers <- err == nil && len(b) == 8 && binary.LittleEndian.Uint64(b) == term
			}()
		}
		for left := len(others); needed > 0; left-- {
			if left < needed {
				return 0, errNotLeading
			}
			if <-answers {
				needed--
			}
		}
	}
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return 0, errNotLeading
	}
	return index, nil
}

// sharedRound lets callers share rounds: those that come while rounds are under way wait for the
// next one, which begins as soon as a place is free.
type sharedRound struct {
	do func(context.Context) (uint64, error)

	mu      sync.Mutex
	running int        // guarded by mu
	waiting *roundWait // guarded by mu; nil when nobody waits
}

// roundWait is the outcome that everybody of one round waits for.
type roundWait struct {
	done  chan struct{}
	index uint64
	err   error
}

// maxRounds is how many rounds go on at once: the next need not wait for a slow one.
const maxRounds = 2

// ask returns what a round that began after the call found.
func (r *sharedRound) ask(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.waiting == nil {
		r.waiting = &roundWait{done: make(chan struct{})}
	}
	w := r.waiting
	if r.running < maxRounds {
		r.running++
		r.waiting = nil
		go r.run(w)
	}
	r.mu.Unlock()
	select {
	case <-w.done:
		return w.index, w.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (r *sharedRound) run(w *roundWait) {
	for w != nil {
		// The round is not one caller's, so it has a time of its own.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		w.index, w.err = r.do(ctx)
		cancel()
		close(w.done)
		r.mu.Lock()
		w = r.waiting
		r.waiting = nil
		if w == nil {
			r.running--
		}
		r.mu.Unlock()
	}
}
