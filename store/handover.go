package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/store/peer"
)

var (
	errNoSuccessor  = errors.New("no other voter is there, or all of them are stopping, too")
	errTransferTime = errors.New("it has taken longer than an election would")
	errGone         = errors.New("that member has ended")
)

// HandOver moves leadership to another member, if this one leads, so that the cluster need not notice
// first that its leader is gone. Call it before Close as long as there are requests under way: they
// are sent to the new leader, and this member goes on answering them.
func (s *Store) HandOver() {
	s.leaving.Store(true) // before anybody is asked: of two that stop, neither chooses the other
	r := s.raft.Load()
	if r == nil || r.State() != raft.Leader || voters(r) < 2 {
		return
	}
	start := time.Now()
	to, err := s.successor(r)
	if err == nil {
		s.log.Info("handing over leadership", "to", formatID(to))
		err = s.transfer(r, to)
	}
	if err != nil {
		s.log.Warn("leadership was not handed over, the others will elect", "error", err)
		return
	}
	s.log.Info("handed over leadership", "to", formatID(to), "elapsed", time.Since(start))
}

// successor chooses the voter that is to lead next: of those that answer and are not about to stop,
// one with enough free space if there is one, and of those the one with the longest log.
func (s *Store) successor(r *runningRaft) (uint64, error) {
	type found struct {
		id     uint64
		status peerStatus
		ok     bool
	}
	var asked int
	answers := make(chan found)
	for _, server := range r.GetConfiguration().Configuration().Servers {
		id, err := parseServerID(server.ID)
		if err != nil || id == s.self || server.Suffrage != raft.Voter {
			continue
		}
		asked++
		go func() {
			status, ok := s.askStatus(id)
			answers <- found{id, status, ok && !status.Leaving}
		}()
	}
	var best found
	for range asked {
		f := <-answers
		roomier := f.status.Short == nil && best.status.Short != nil
		longer := f.status.LastIndex > best.status.LastIndex && (f.status.Short == nil || best.status.Short != nil)
		if f.ok && (!best.ok || roomier || longer) {
			best = f
		}
	}
	if !best.ok {
		return 0, errNoSuccessor
	}
	return best.id, nil
}

// transfer hands leadership over to a voter and returns when this member does not lead any more.
func (s *Store) transfer(r *runningRaft, to uint64) error {
	done := make(chan error, 1)
	go func() { done <- r.wait(r.LeadershipTransferToServer(serverID(to), raft.ServerAddress(serverID(to)))) }()
	deadline := time.After(s.options.ElectionTimeout)
	for {
		select {
		case err := <-done:
			return err
		case <-deadline:
			return errTransferTime
		case <-time.After(20 * time.Millisecond):
			// Raft would wait for it until the deadline.
			if _, ok := s.peers.Active(to); !ok {
				return errGone
			}
		}
	}
}

// Voters returns the members that have a vote, as this one knows them, in ascending order.
func (s *Store) Voters() []uint64 {
	var ids []uint64
	for _, server := range s.raft.Load().GetConfiguration().Configuration().Servers {
		if id, err := parseServerID(server.ID); err == nil && server.Suffrage == raft.Voter {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// TransferLeadership lets another voter lead, to unless that is 0, whichever member is asked. It
// returns the one that leads, as soon as this member follows it. The error is an *api.StatusError.
func (s *Store) TransferLeadership(ctx context.Context, to uint64) (api.Member, error) {
	refuse := func(status int, format string, args ...any) (api.Member, error) {
		return api.Member{}, &api.StatusError{Status: status, Message: fmt.Sprintf(format, args...)}
	}
	if _, ok := s.membership().Find(to); to != 0 && !ok {
		return refuse(http.StatusNotFound, "No such member: %s", formatID(to))
	}
	if to != 0 && !slices.Contains(s.Voters(), to) {
		return refuse(http.StatusConflict, "member %s does not vote yet", formatID(to))
	}
	before := s.leaderID()
	var err error
	switch before {
	case 0:
		return refuse(http.StatusServiceUnavailable, "During election")
	case to:
	case s.self:
		err = s.giveUpLeadership(to)
	default:
		_, err = s.peers.Call(ctx, before, kindTransfer, binary.LittleEndian.AppendUint64(nil, to))
	}
	if err != nil {
		return refuse(http.StatusServiceUnavailable, "leadership was not handed over: %v", err)
	}
	for {
		leader, ok := s.Leader()
		if ok && (leader.ID != formatID(before) || before == to) {
			return leader, nil
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-s.stopping:
			return refuse(http.StatusServiceUnavailable, "this member is stopping")
		case <-ctx.Done():
			return refuse(http.StatusServiceUnavailable, "leadership was handed over, but no new leader is known yet")
		}
	}
}

// giveUpLeadership hands leadership over because somebody wants it to be elsewhere.
func (s *Store) giveUpLeadership(to uint64) (err error) {
	r := s.raft.Load()
	if r.State() != raft.Leader {
		return errNotLeading
	}
	if to == 0 {
		if to, err = s.successor(r); err != nil {
			return err
		}
	}
	s.log.Info("handing over leadership as it was asked for", "to", formatID(to))
	return s.transfer(r, to)
}

// kindTransfer asks the leader to hand over to the member with the given ID, or to any if it is 0.
const kindTransfer peer.Kind = 10
