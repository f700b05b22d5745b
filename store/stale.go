package store

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/store/peer"
)

// acknowledgements are the entries that members have said they hold, in one term of this leader.
type acknowledgements struct {
	mu   sync.Mutex
	term uint64                   // guarded by mu
	last map[raft.ServerID]uint64 // guarded by mu
	// untold has the members that lost an entry and could not be told so yet. Guarded by mu.
	untold map[raft.ServerID]uint64
}

// see notes an answer to AppendEntries. It returns the entry that the member had acknowledged when
// the answer says that its log ends before: the member runs on an old copy of its data, or its disk
// has lost what it had confirmed (spec bootstrap 7.6). Answers of one member come in order.
func (a *acknowledgements) see(from raft.ServerID, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) (lost uint64) {
	if response.Term > request.Term || (response.Success && len(request.Entries) == 0) {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if request.Term != a.term {
		if request.Term < a.term {
			return 0
		}
		a.term, a.last = request.Term, make(map[raft.ServerID]uint64)
	}
	if response.Success {
		a.last[from] = max(a.last[from], request.Entries[len(request.Entries)-1].Index)
		return 0
	}
	if last := a.last[from]; request.PrevLogEntry > 0 && response.LastLog < last {
		return last
	}
	return 0
}

// keep remembers a member that has yet to be told which entry it lost.
func (a *acknowledgements) keep(from raft.ServerID, lost uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.untold == nil {
		a.untold = make(map[raft.ServerID]uint64)
	}
	a.untold[from] = lost
}

// kept returns what keep has remembered, and forgets it.
func (a *acknowledgements) kept(from raft.ServerID) (lost uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	lost = a.untold[from]
	delete(a.untold, from)
	return lost
}

// onAppend looks at an answer to AppendEntries before raft does.
func (s *Store) onAppend(from raft.ServerID, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) {
	lost := s.acks.see(from, request, response)
	if lost > 0 {
		s.log.Error("member has lost entries that it had acknowledged, it is told to stop", "member", from, "acknowledged", lost, "lastIndex", response.LastLog)
	} else if lost = s.acks.kept(from); lost == 0 {
		return
	}
	id, err := parseServerID(from)
	if err != nil {
		return
	}
	payload := binary.LittleEndian.AppendUint64(nil, lost)
	if err := s.peers.Send(id, kindStale, payload); err != nil {
		// It has just started, and raft's connection was there before ours. Its next answer, to a
		// heartbeat at the latest, is the next occasion.
		s.log.Debug("member not told yet that its data is old", "member", from, "error", err)
		s.acks.keep(from, lost)
	}
}

// stale stops this member because its leader has acknowledgements of entries that it does not have.
func (s *Store) stale(payload []byte) error {
	if len(payload) != 8 {
		return errBadFrame
	}
	r := s.raft.Load()
	s.stop(fmt.Errorf("this member's data is an old copy: it has acknowledged entry %d, and its log ended before it (now at %d). Its vote and its acknowledgements cannot be relied upon. Remove the member (quorate member remove %s), add it again, and start it with --initial-cluster-state existing and an empty data directory",
		binary.LittleEndian.Uint64(payload), r.LastIndex(), formatID(s.self)))
	return nil
}

// kindStale tells a member that it has lost entries it had acknowledged; there is no answer.
const kindStale peer.Kind = 7
