package peer

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// nudger tells one follower what is committed.
type nudger struct {
	mu      sync.Mutex // guards what follows
	term    uint64     // of this member as leader, when it sent what was acknowledged
	acked   uint64     // the follower holds the leader's log of that term up to here
	waiting nudge      // not sent yet; index 0 for none
}

// nudge says that the entry at index, of the given term, is committed. As a message of the leader of
// leaderTerm it is an AppendEntries without entries, which vouches for the log up to index and for
// nothing behind it.
type nudge struct{ index, term, leaderTerm uint64 }

const nudgeSize = 3 * 8

func (n nudge) encode() []byte {
	b := make([]byte, 0, nudgeSize)
	b = binary.LittleEndian.AppendUint64(b, n.index)
	b = binary.LittleEndian.AppendUint64(b, n.term)
	return binary.LittleEndian.AppendUint64(b, n.leaderTerm)
}

// Nudge tells a follower that the entry at index, of the given term, is committed. Only the leader
// of leaderTerm may call it, and only after the entry was committed.
//
// Otherwise a follower learns that with the next entry or, when there is none, up to CommitTimeout
// later. It travels on the rpc connection, so that it never waits behind a large entry, and there is
// no answer: one that is lost costs no more than that time. A follower that has not acknowledged the
// entry yet is told when it has. Of several nudges to one follower the last one counts. Nudge never
// blocks.
func (t *Transport) Nudge(to raft.ServerID, index, term, leaderTerm uint64) {
	n := t.nudger(to)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.waiting = nudge{index, term, leaderTerm}
	t.sendNudge(to, n)
}

// acked notes what a follower has acknowledged, and sends the nudge that has waited for it.
func (t *Transport) acked(to raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
	if !resp.Success || req.PrevLogEntry == 0 && len(req.Entries) == 0 {
		return
	}
	index := req.PrevLogEntry + uint64(len(req.Entries))
	n := t.nudger(to)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case req.Term > n.term:
		n.term, n.acked = req.Term, index
	case req.Term == n.term:
		n.acked = max(n.acked, index)
	}
	t.sendNudge(to, n)
}

func (t *Transport) nudger(to raft.ServerID) *nudger {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.followers[to]
	if n == nil {
		n = &nudger{}
		t.followers[to] = n
	}
	return n
}

// sendNudge sends the waiting nudge if its time has come. n is locked.
func (t *Transport) sendNudge(to raft.ServerID, n *nudger) {
	w := n.waiting
	if w.index == 0 || w.leaderTerm != n.term || w.index > n.acked || t.cfg.SendNudge == nil {
		return
	}
	n.waiting = nudge{}
	if err := t.cfg.SendNudge(to, w.encode()); err != nil {
		t.cfg.Logger.Debug("member not told what is committed", "member", to, "error", err)
	}
}

// nudged is the nudge that raft has not taken yet.
type nudged struct {
	mu         sync.Mutex // guards what follows
	from       uint64
	waiting    nudge // index 0 for none
	delivering bool  // a goroutine is waiting for raft
}

// Nudged hands a nudge that another member has sent to raft. It does not wait for raft: of several the
// last one of the highest term counts.
func (t *Transport) Nudged(from uint64, payload []byte) error {
	if len(payload) != nudgeSize {
		return fmt.Errorf("a nudge of %d bytes, not %d", len(payload), nudgeSize)
	}
	w := nudge{binary.LittleEndian.Uint64(payload), binary.LittleEndian.Uint64(payload[8:]), binary.LittleEndian.Uint64(payload[16:])}
	n := &t.nudged
	n.mu.Lock()
	defer n.mu.Unlock()
	if w.index == 0 || w.leaderTerm < n.waiting.leaderTerm {
		return nil
	}
	if !n.delivering {
		select {
		case t.consumer <- w.rpc(from):
			return nil
		default: // raft is busy
		}
		n.delivering = t.start(t.deliverNudges)
	}
	n.from, n.waiting = from, w
	return nil
}

// deliverNudges hands nudges to raft as long as there are any.
func (t *Transport) deliverNudges() {
	n := &t.nudged
	for delivered := true; ; {
		n.mu.Lock()
		from, w := n.from, n.waiting
		if w.index == 0 || !delivered {
			n.delivering = false
			n.mu.Unlock()
			return
		}
		n.waiting = nudge{}
		n.mu.Unlock()

		delivered = t.deliver(w.rpc(from))
	}
}

// rpc is the nudge as a message of a leader. Nobody looks at the answer.
func (n nudge) rpc(leader uint64) raft.RPC {
	id := []byte(api.FormatID(leader))
	return raft.RPC{
		Command: &raft.AppendEntriesRequest{
			RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: id, Addr: id},
			Term:              n.leaderTerm,
			Leader:            id,
			PrevLogEntry:      n.index,
			PrevLogTerm:       n.term,
			LeaderCommitIndex: n.index,
		},
		RespChan: make(chan raft.RPCResponse, 1),
	}
}
