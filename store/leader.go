package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/wallclock"
)

// leaderID returns the member that leads as far as this one knows, 0 if none.
func (s *Store) leaderID() uint64 {
	r := s.raft.Load()
	_, id := r.LeaderWithID()
	leader, err := parseServerID(id)
	if err != nil {
		return 0
	}
	if leader == s.self && r.State() != raft.Leader {
		return 0
	}
	return leader
}

// watchLeadership follows who leads, and begins and ends this member's own terms.
func (s *Store) watchLeadership() {
	endStay := func() {}
	defer func() { endStay() }()
	// Observations can be dropped when many come at once; looking now and then finds what they said.
	ticker := time.NewTicker(s.options.ElectionTimeout / 4)
	defer ticker.Stop()
	var leader, term uint64
	for {
		select {
		case <-s.stopping:
			return
		case <-s.raftEvents:
		case <-ticker.C:
		}
		nowTerm := s.currentTerm()
		now := s.leaderID()
		if now == leader && (nowTerm == term || now == 0) {
			continue
		}
		s.noteLeader(leader, now, nowTerm)
		leader, term = now, nowTerm
		endStay()
		ctx, cancel := context.WithCancel(context.Background())
		endStay = cancel
		s.pipeline.setRoute(route{leader: leader})
		r := s.pipeline.currentRoute()
		switch leader {
		case 0:
		case s.self:
			s.goDo(func() { s.lead(ctx, term, r) })
		default:
			s.goDo(func() { s.followClock(ctx, r) })
		}
	}
}

func (s *Store) noteLeader(before, now, term uint64) {
	s.leaderMu.Lock()
	if now != 0 && now != s.leader {
		s.leader, s.leaderSince = now, time.Now()
		s.metrics.leaderChanges.Inc()
	}
	s.leaderMu.Unlock()
	switch {
	case now == s.self:
		s.log.Info("became leader at term", "term", term)
	case now != 0:
		s.log.Info("elected leader", "leader", formatID(now), "term", term)
	case before != 0:
		s.log.Info("lost leader", "leader", formatID(before), "term", term)
	}
}

// lead is what a leader does until its term ends: it begins the term, lets keys expire, and keeps
// raft's configuration in step with the membership.
func (s *Store) lead(ctx context.Context, term uint64, r route) {
	if !s.beginTerm(ctx, term) {
		return
	}
	s.pipeline.openRoute(r.generation, s.boot, 0)

	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	var reconciled time.Time
	day := watchDay(s.fsm.Tree())
	for {
		changed := false
		select {
		case <-ctx.Done():
			return
		case <-s.stopping:
			return
		case <-s.membersChanged:
			changed = true
		case <-ticker.C:
		}
		if due, ok := s.fsm.Tree().NextExpiry(); ok && due <= s.clock.now() {
			if err := s.command(&fsm.Command{Kind: fsm.KindTick}); err != nil {
				s.log.Debug("keys were not expired", "error", err)
			}
		}
		if offset, ok := day.look(wallclock.Now().UnixNano() - s.clock.now()); ok {
			s.log.Info("the time of day has moved, keys are to show it", "offset", time.Duration(offset).Round(time.Second))
			if err := s.command(&fsm.Command{Kind: fsm.KindOffset, Offset: offset}); err != nil {
				s.log.Debug("the time of day was not written", "error", err)
			}
		}
		if changed || time.Since(reconciled) > 250*time.Millisecond {
			s.reconcile()
			reconciled = time.Now()
		}
	}
}

// beginTerm writes what comes first in every term, and before any client's command: a tick, so that
// the state machine has seen an entry of this term; and, in a new or recovered cluster, who belongs
// to it. It says whether this member still leads.
func (s *Store) beginTerm(ctx context.Context, term uint64) bool {
	for {
		err := s.writeBeginning()
		if err == nil {
			s.readyTerm.Store(term)
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-s.stopping:
			return false
		case <-time.After(20 * time.Millisecond):
			s.log.Debug("the term has not begun", "term", term, "error", err)
		}
	}
}

func (s *Store) writeBeginning() error {
	if err := s.command(&fsm.Command{Kind: fsm.KindTick}); err != nil {
		return err
	}
	// With this tick, all that came before it was applied: the clock and the offset are the latest.
	t := s.fsm.Tree()
	s.clock.begin(wallclock.Now().UnixNano()-t.Offset(), t.Clock())
	m := s.fsm.Membership()
	if len(m.Members) == 0 && len(m.Removed) == 0 {
		c := fsm.Change{ClusterID: s.identity.Cluster, Epoch: s.identity.Epoch}
		for _, i := range s.identity.Initial {
			c.Members = append(c.Members, fsm.Member{ID: i.ID, Name: i.Name, PeerURLs: i.PeerURLs})
		}
		if err := s.command(&fsm.Command{Kind: fsm.KindBootstrap, Change: c}); err != nil {
			return err
		}
		m = s.fsm.Membership()
	}
	if m.Epoch < s.identity.Epoch {
		own, ok := m.Find(s.self)
		if !ok { // the log ends before this member was added
			own.PeerURLs = slices.Sorted(slices.Values(s.options.AdvertisePeerURLs))
		}
		c := fsm.Change{ID: s.self, Epoch: s.identity.Epoch, Name: s.options.Name, PeerURLs: own.PeerURLs}
		if err := s.command(&fsm.Command{Kind: fsm.KindReset, Change: c}); err != nil {
			return err
		}
	}
	if m.Version == "" {
		return s.command(&fsm.Command{Kind: fsm.KindClusterVersion, Change: fsm.Change{Version: ClusterVersion}})
	}
	return nil
}

// command writes one of the leader's own commands, which may be repeated without harm.
func (s *Store) command(c *fsm.Command) error {
	entry, err := fsm.AppendCommand(fsm.AppendEntry(nil, s.clock.now()), c)
	if err != nil {
		return err
	}
	return s.apply(entry)
}

// reconcile brings raft's configuration in step with the membership that the state machine holds,
// by one change at a time: whoever was added gets the log, and a vote once it has caught up;
// whoever was removed loses both.
func (s *Store) reconcile() {
	r := s.raft.Load()
	m := s.fsm.Membership()
	if len(m.Members) == 0 {
		return
	}
	timeout := s.options.ElectionTimeout
	servers := make(map[uint64]raft.Server)
	for _, server := range r.GetConfiguration().Configuration().Servers {
		id, err := parseServerID(server.ID)
		if err != nil {
			s.log.Error("a member of raft has no valid ID", "id", server.ID)
			continue
		}
		servers[id] = server
	}
	for id, server := range servers {
		if _, ok := m.Find(id); ok {
			continue
		}
		if id == s.self {
			s.removeSelf(r, server)
			return
		}
		if err := r.wait(r.RemoveServer(server.ID, 0, timeout)); err != nil {
			s.log.Warn("member not removed yet", "member", formatID(id), "error", err)
			return
		}
		s.log.Info("removed member", "member", formatID(id), "cluster", formatID(s.identity.Cluster))
	}
	for _, member := range m.Members {
		server, ok := servers[member.ID]
		id := serverID(member.ID)
		switch {
		case !ok:
			if err := r.wait(r.AddNonvoter(id, raft.ServerAddress(id), 0, timeout)); err != nil {
				s.log.Warn("member not added yet", "member", formatID(member.ID), "error", err)
				return
			}
			s.log.Info("added member, it gets the log and will vote once it has caught up", "member", formatID(member.ID))
		case server.Suffrage != raft.Voter && s.caughtUp(r, member.ID):
			if err := r.wait(r.AddVoter(id, raft.ServerAddress(id), 0, timeout)); err != nil {
				s.log.Warn("member not promoted yet", "member", formatID(member.ID), "error", err)
				return
			}
			s.log.Info("promoted member, it votes from now on", "member", formatID(member.ID))
		}
	}
}

// maxLag is how many entries a member may be behind when it is given a vote.
const maxLag = 64

// caughtUp says whether a member has applied nearly all that is committed.
func (s *Store) caughtUp(r *runningRaft, id uint64) bool {
	status, ok := s.askStatus(id)
	return ok && status.nearlyHas(r.CommitIndex())
}

// removeSelf lets a leader go that was removed: another member takes the lead and removes it.
func (s *Store) removeSelf(r *runningRaft, server raft.Server) {
	err := r.wait(r.LeadershipTransfer())
	if err == nil {
		return
	}
	s.log.Warn("leadership was not handed over before this member leaves", "error", err)
	if err := r.wait(r.RemoveServer(server.ID, 0, s.options.ElectionTimeout)); err != nil && !errors.Is(err, raft.ErrNotLeader) {
		s.log.Warn("this member was not removed yet", "error", err)
	}
}
