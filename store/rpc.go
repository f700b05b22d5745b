package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/quorate/quorate/store/peer"
)

// What members say to each other, besides raft.
const (
	// kindPropose brings commands to the leader; there is no answer. See pipeline.
	kindPropose peer.Kind = 1
	// kindRefuse says that commands were not taken: the sender is not leading.
	kindRefuse peer.Kind = 2
	// kindClock asks for the number of the member's run, how long it has run, and the time of the
	// cluster, which is 0 while the member does not know it.
	kindClock peer.Kind = 3
	// kindConfirm asks for the member's current term.
	kindConfirm peer.Kind = 4
	// kindReadIndex asks the leader for an index for a linearizable read.
	kindReadIndex peer.Kind = 5
	// kindStatus asks how far the member is: a peerStatus in JSON.
	kindStatus peer.Kind = 6
	// kindMoved asks a member to have the sender's new peer URLs recorded: a fsm.Change in JSON.
	kindMoved peer.Kind = 8
	// kindNudge tells what is committed; there is no answer. See peer.Transport.
	kindNudge peer.Kind = 11
)

// peerStatus is what a member tells another: the leader, which promotes it when it has caught up, and
// whoever has to know of free space (space.go).
type peerStatus struct {
	Applied   uint64 `json:"applied"`
	LastIndex uint64 `json:"lastIndex"`
	// Leaving says that the member is about to stop, so that leadership is not handed over to it.
	Leaving bool `json:"leaving,omitempty"`
	// Short says that the member's disk has too little space, Refused why a leader refuses writes.
	Short   *shortage `json:"short,omitempty"`
	Refused *shortage `json:"refused,omitempty"`
}

// nearlyHas says whether the member has applied nearly all up to an entry.
func (p *peerStatus) nearlyHas(index uint64) bool { return p.Applied > 0 && p.Applied+maxLag >= index }

var errStarting = errors.New("this member is starting")

// Call implements peer.Handler.
func (s *Store) Call(ctx context.Context, from uint64, kind peer.Kind, payload []byte) ([]byte, error) {
	r := s.raft.Load()
	if r == nil {
		return nil, errStarting // we may have dialed already, and who is dialed can call
	}
	switch kind {
	case kindPropose:
		boot, chunks, err := decodeFrame(payload, s.started)
		if err != nil {
			s.log.Error("commands from a member are not understood", "member", formatID(from), "error", err)
			return nil, err
		}
		if boot != s.boot || !s.pipeline.accept(chunks) {
			if err := s.peers.Send(from, kindRefuse, nil); err != nil {
				s.log.Debug("member not told that its commands were refused", "member", formatID(from), "error", err)
			}
		}
		return nil, nil
	case kindRefuse:
		if r := s.pipeline.currentRoute(); r.leader == from {
			s.pipeline.retryLater(r)
		}
		return nil, nil
	case kindClock:
		b := binary.LittleEndian.AppendUint64(nil, s.boot)
		b = binary.LittleEndian.AppendUint64(b, uint64(time.Since(s.started)))
		return binary.LittleEndian.AppendUint64(b, uint64(s.clock.now())), nil
	case kindConfirm:
		// While raft is started anew within this process the term is 0, which confirms nothing: the
		// raft that was stopped does not know of a vote that the new one gives.
		return binary.LittleEndian.AppendUint64(nil, s.currentTerm()), nil
	case kindReadIndex:
		index, err := s.confirms.ask(ctx)
		if err != nil {
			return nil, err
		}
		return binary.LittleEndian.AppendUint64(nil, index), nil
	case kindNudge:
		return nil, r.transport.Nudged(from, payload)
	case kindMoved:
		return nil, s.moved(ctx, from, payload)
	case kindStale:
		return nil, s.stale(payload)
	case kindTransfer:
		if len(payload) != 8 {
			return nil, errBadFrame
		}
		return nil, s.giveUpLeadership(binary.LittleEndian.Uint64(payload))
	case kindSucceed:
		yes, err := s.agrees(from, payload)
		if err != nil {
			return nil, err
		}
		if yes {
			return []byte{1}, nil
		}
		return []byte{0}, nil
	case kindStatus:
		return json.Marshal(peerStatus{
			Applied: s.fsm.Applied(), LastIndex: r.LastIndex(), Leaving: s.leaving.Load(),
			Short: s.space.own.Load(), Refused: s.space.refused.Load(),
		})
	}
	return nil, fmt.Errorf("call of kind %d is not known to this version of quorate", kind)
}

// clockReading reads an answer to kindClock: the leader's run, how long it has run, and the time of the
// cluster. A leader that does not know that time yet has not begun its term: it is asked again, for a
// member that did not learn the time would take its own clock for it when it leads next.
func clockReading(answer []byte) (boot uint64, running time.Duration, now int64, ok bool) {
	if len(answer) != 24 {
		return 0, 0, 0, false
	}
	now = int64(binary.LittleEndian.Uint64(answer[16:]))
	return binary.LittleEndian.Uint64(answer), time.Duration(binary.LittleEndian.Uint64(answer[8:])), now, now != 0
}

// followClock learns the clock of a leader that was just found, so that commands can be sent to it,
// and keeps in touch with it until the route changes.
func (s *Store) followClock(ctx context.Context, r route) {
	for {
		pause := 10 * time.Second
		callCtx, done := context.WithTimeout(ctx, s.electionTimeout())
		answer, err := s.peers.Call(callCtx, r.leader, kindClock, nil)
		done()
		boot, theirs, now, ok := clockReading(answer)
		if err == nil && ok {
			s.clock.hear(now)
			// The answer took a while, so their clock shows this or more by now: deadlines
			// err to the early side.
			s.pipeline.openRoute(r.generation, boot, theirs-time.Since(s.started))
		} else {
			pause = 20 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return
		case <-s.stopping:
			return
		case <-time.After(pause):
		}
	}
}
