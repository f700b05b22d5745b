package store

import (
	"cmp"
	"context"
	"encoding/binary"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/store/peer"
)

// A follower whose leader's process has ended need not wait for its election time-out: the kernel of
// the leader's machine has closed the connections and refuses new ones (peer.Peers.Gone). What one
// follower sees may be its own trouble, though, so it asks the other voters first, as in raft's
// pre-vote, and changes nothing until then:
//
//   - A voter agrees when it sees the same of the same leader in the same term, and does not come
//     before the one that asks. Whoever still hears the leader does not agree.
//   - The member stands for election when a majority of the voters agree, itself included, and none
//     of the others has said no. All have an order, by the end of their logs and then by ID, so of
//     those that see each other one goes first.
//
// The election is raft's own, by the message with which leadership is handed over, so nothing
// depends on any of this being right but whether there is an election. Whenever it does not work out,
// the election time-out decides as ever.

// Not all members notice at the same moment, so a follower asks several times, in pauses of which each
// is twice as long as the one before. After that the next dial that fails begins anew.
const (
	successionPause    = time.Millisecond
	successionAttempts = 8
)

// bid is what a follower says when it asks to succeed the leader.
type bid struct {
	term, leader        uint64
	lastTerm, lastIndex uint64 // of its log
}

// onUnreachable hears that a member cannot be reached.
func (s *Store) onUnreachable(id uint64, _ error) {
	if !s.options.FastFailover || s.raft.Load() == nil || id != s.leaderID() || !s.succeeding.CompareAndSwap(false, true) {
		return
	}
	s.goDo(func() {
		defer s.succeeding.Store(false)
		s.succeed(id)
	})
}

// succeed stands for election if leader has ended and the others agree.
func (s *Store) succeed(leader uint64) {
	for i := range successionAttempts {
		select {
		case <-s.stopping:
			return
		case <-time.After(successionPause << i):
		}
		r := s.raft.Load()
		b, ok := s.bid(r, leader)
		if !ok {
			return
		}
		if !s.peers.Gone(leader) || !s.canvass(r, b) {
			continue
		}
		if now, ok := s.bid(r, leader); !ok || now != b {
			continue
		}
		s.log.Info("the leader has ended, standing for election at once", "leader", formatID(leader), "term", b.term)
		ctx, cancel := context.WithTimeout(context.Background(), s.options.ElectionTimeout)
		defer cancel()
		if err := r.transport.InjectTimeoutNow(ctx); err != nil {
			s.log.Debug("this member waits for its election time-out", "error", err)
		}
		return
	}
}

// bid returns what this member would say now, if it is a voter that follows the given leader.
func (s *Store) bid(r *runningRaft, leader uint64) (bid, bool) {
	b := bid{term: r.CurrentTerm(), leader: leader}
	b.lastTerm, b.lastIndex = lastEntry(r)
	return b, r.State() == raft.Follower && s.leaderID() == leader && votes(r, s.self)
}

// canvass asks the other voters, and says whether to go on.
func (s *Store) canvass(r *runningRaft, b bid) bool {
	var others []uint64
	needed := voters(r)/2 + 1 - 1 // this member agrees
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if id, err := parseServerID(server.ID); err == nil && server.Suffrage == raft.Voter && id != s.self && id != b.leader {
			others = append(others, id)
		}
	}
	// Who does not answer in a small part of the time that all this saves has no say.
	ctx, cancel := context.WithTimeout(context.Background(), s.options.ElectionTimeout/10)
	defer cancel()
	const yes, no, silent = 1, 0, -1
	answers := make(chan int, len(others))
	payload := b.append(nil)
	for _, id := range others {
		go func() {
			answer, err := s.peers.Call(ctx, id, kindSucceed, payload)
			switch {
			case err != nil || len(answer) != 1:
				answers <- silent
			case answer[0] == yes:
				answers <- yes
			default:
				answers <- no
			}
		}()
	}
	for range others {
		switch <-answers {
		case yes:
			needed--
		case no:
			return false
		}
	}
	return needed <= 0
}

// agrees says whether this member agrees that another one succeeds the leader.
func (s *Store) agrees(from uint64, payload []byte) (bool, error) {
	if !s.options.FastFailover {
		return false, peer.ErrUnknownKind // as members say that are older than this
	}
	b, err := parseBid(payload)
	if err != nil {
		return false, err
	}
	r := s.raft.Load()
	if r.State() == raft.Leader || r.CurrentTerm() != b.term || !s.peers.Gone(b.leader) {
		return false, nil
	}
	if leader := s.leaderID(); leader != 0 && leader != b.leader {
		return false, nil
	}
	own := bid{}
	own.lastTerm, own.lastIndex = lastEntry(r)
	return !votes(r, s.self) || before(b, from, own, s.self), nil
}

// before says whether one member comes before another as the successor of a leader.
func before(a bid, idA uint64, b bid, idB uint64) bool {
	// The longer log first, or it would not be elected. Between equals any order will do.
	return cmp.Or(cmp.Compare(b.lastTerm, a.lastTerm), cmp.Compare(b.lastIndex, a.lastIndex), cmp.Compare(idA, idB)) < 0
}

func (b bid) append(out []byte) []byte {
	for _, v := range []uint64{b.term, b.leader, b.lastTerm, b.lastIndex} {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	return out
}

func parseBid(payload []byte) (b bid, err error) {
	if len(payload) != 32 {
		return b, errBadFrame
	}
	for i, v := range []*uint64{&b.term, &b.leader, &b.lastTerm, &b.lastIndex} {
		*v = binary.LittleEndian.Uint64(payload[8*i:])
	}
	return b, nil
}

// lastEntry returns term and index of the end of a member's log, as raft compares it in elections.
func lastEntry(r *runningRaft) (term, index uint64) {
	stats := r.Stats()
	number := func(key string) uint64 {
		n, _ := strconv.ParseUint(stats[key], 10, 64) // raft has made it from one
		return n
	}
	term, index = number("last_log_term"), number("last_log_index")
	if snapshot := number("last_snapshot_index"); snapshot > index {
		term, index = number("last_snapshot_term"), snapshot
	}
	return term, index
}

// votes says whether a member has a vote.
func votes(r *runningRaft, id uint64) bool {
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.ID == serverID(id) {
			return server.Suffrage == raft.Voter
		}
	}
	return false
}

// kindSucceed asks whether the sender may succeed the leader, with a bid; the answer is one byte, 1
// for yes.
const kindSucceed peer.Kind = 9
