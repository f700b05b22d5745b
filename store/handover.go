package store

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
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
// the one with the longest log.
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
		if f := <-answers; f.ok && (!best.ok || f.status.LastIndex > best.status.LastIndex) {
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
