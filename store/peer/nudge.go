package peer

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// After a nudge that has failed there is none for this time: raft itself is about to find out that
// the member is not there.
const nudgePause = 250 * time.Millisecond

// nudger tells one follower what is committed.
type nudger struct {
	mu      sync.Mutex // guards what follows
	term    uint64     // of this member as leader, when it sent what was acknowledged
	acked   uint64     // the follower holds the leader's log of that term up to here
	waiting nudge      // not sent yet; index 0 for none
	running bool       // a goroutine is sending
	pause   time.Time  // no nudge before
}

type nudge struct{ index, term, leaderTerm uint64 }

// Nudge tells a follower that the entry at index, of the given term, is committed. Only the leader
// of leaderTerm may call it, and only after the entry was committed.
//
// Otherwise a follower learns that with the next entry or, when there is none, up to CommitTimeout
// later. The message is an AppendEntries without entries that vouches for the log up to index and
// for nothing behind it; the answer is not looked at. It travels on a connection of its own, so that
// it never waits behind a large entry. A follower that has not acknowledged the entry yet is told
// when it has. Of several nudges to one follower the last one counts. Nudge never blocks.
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

// sendNudge starts sending the waiting nudge if its time has come. n is locked.
func (t *Transport) sendNudge(to raft.ServerID, n *nudger) {
	if n.running || !n.due() {
		return
	}
	n.running = t.start(func() { t.runNudges(to, n) })
}

// due says whether the waiting nudge can be sent. n is locked.
func (n *nudger) due() bool {
	return n.waiting.index > 0 && n.waiting.leaderTerm == n.term && n.waiting.index <= n.acked &&
		(n.pause.IsZero() || time.Now().After(n.pause))
}

// runNudges sends nudges as long as there are any.
func (t *Transport) runNudges(to raft.ServerID, n *nudger) {
	for {
		n.mu.Lock()
		if !n.due() {
			n.running = false
			n.mu.Unlock()
			return
		}
		w := n.waiting
		n.waiting = nudge{}
		n.mu.Unlock()

		req := &raft.AppendEntriesRequest{
			RPCHeader:         t.header(),
			Term:              w.leaderTerm,
			Leader:            []byte(t.addr),
			PrevLogEntry:      w.index,
			PrevLogTerm:       w.term,
			LeaderCommitIndex: w.index,
		}
		err := t.NetworkTransport.AppendEntries(to, raft.ServerAddress(to), req, new(raft.AppendEntriesResponse))

		n.mu.Lock()
		n.pause = time.Time{}
		if err != nil {
			n.pause = time.Now().Add(nudgePause)
		}
		n.mu.Unlock()
	}
}
