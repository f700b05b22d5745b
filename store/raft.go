package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/store/disk"
	"github.com/quorate/quorate/store/peer"
)

// trailingBytes is how much of the log stays behind a snapshot for members that are a little
// behind, and trailingEntries bounds the number of entries that are.
const (
	trailingBytes      = 64 << 20
	minTrailingEntries = 1000
	maxTrailingEntries = 10_000
	// With a --snapshot-count below 1000 no more than 10 times as many entries stay, but 100 at least.
	shortLog    = 10
	minShortLog = 100
	// snapshotBytes is how many bytes of commands are applied before a snapshot is taken, even if
	// they are few commands.
	snapshotBytes = 64 << 20
	// snapshotPause is how long nobody tries again after a snapshot could not be taken.
	snapshotPause = 10 * time.Second
)

// raftConfig returns the settings of raft. Why each is as it is: docs/decisions/0007.
func (s *Store) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = serverID(s.self)
	// A follower looks for a missing leader at random moments, at worst three time-outs apart.
	c.HeartbeatTimeout = s.options.ElectionTimeout * 3 / 4
	c.ElectionTimeout = s.options.ElectionTimeout
	c.LeaderLeaseTimeout = c.HeartbeatTimeout
	// A nudge tells followers of a commit: what raft sends every CommitTimeout is for those that got
	// none, and would keep an idle cluster busy.
	c.CommitTimeout = min(250*time.Millisecond, s.options.ElectionTimeout/4)
	// Raft counts entries, of which one holds many commands: snapshots are taken by takeSnapshots.
	c.SnapshotThreshold = 1 << 40
	c.SnapshotInterval = 24 * time.Hour
	c.TrailingLogs = maxTrailingEntries
	c.NoLegacyTelemetry = true
	c.NoSnapshotRestoreOnStart = true // replay has done it
	c.ShutdownOnRemove = true
	c.Logger = newRaftLog(s.log.Named("raft"))
	return c
}

// runningRaft is raft from one start to the next stop within this process.
type runningRaft struct {
	*raft.Raft
	transport *peer.Transport
	logs      *parallelLog
	down      chan struct{} // closed once raft has been shut down
}

// wait returns the error of a future. Raft forgets some futures when it is shut down, those of
// entries on their way to the state machine: they end here with raft.ErrRaftShutdown, which means
// that the outcome is unknown.
func (r *runningRaft) wait(f raft.Future) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	select {
	case err := <-done:
		return err
	case <-r.down:
		return raft.ErrRaftShutdown
	}
}

// startRaft starts raft on what is on disk. On the first start of a new cluster every member
// writes the same first configuration.
func (s *Store) startRaft() error {
	s.raftMu.Lock()
	defer s.raftMu.Unlock()
	select {
	case <-s.stopping:
		return errStopping // Close may have stopped raft already, and would not do so again
	default:
	}
	config := s.raftConfig()
	logs, stable, snapshots := s.dir.LogStore(), s.dir.StableStore(), s.dir.Snapshots()

	onDisk := diskLog(logs)
	if s.options.wrapLog != nil {
		onDisk = s.options.wrapLog(onDisk)
	}
	parallel, err := newParallelLog(onDisk, s.leadsOthers, func(err error) { s.fail(explain(fmt.Errorf("write the log: %w", err), s.options.DataDir)) })
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	transport := peer.NewTransport(s.peers.StreamLayer(), peer.TransportConfig{
		Self:             s.self,
		HeartbeatTimeout: config.HeartbeatTimeout,
		CurrentTerm:      s.currentTerm,
		CheckSnapshot:    s.checkInstall,
		OnAppend: func(ctx context.Context, to raft.ServerID, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) {
			s.onAppend(to, request, response)
			parallel.hold(ctx, request, response)
		},
		SendNudge: s.sendNudge,
		Stats:     s.stats,
		Logger:    config.Logger,
	})
	if err := s.bootstrap(config, parallel, stable, snapshots, transport); err != nil {
		parallel.close()
		return errors.Join(fmt.Errorf("bootstrap raft: %w", err), transport.Close())
	}
	r, err := s.newRaft(config, parallel, stable, snapshots, transport)
	if err != nil {
		parallel.close()
		return errors.Join(fmt.Errorf("start raft: %w", err), transport.Close())
	}
	r.RegisterObserver(raft.NewObserver(s.raftEvents, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		}
		return false
	}))
	s.raft.Store(&runningRaft{Raft: r, transport: transport, logs: parallel, down: make(chan struct{})})
	if r.LastIndex() > 0 {
		s.log.Info("log on disk", "lastIndex", r.LastIndex(), "term", r.CurrentTerm(), "applied", r.AppliedIndex())
	}
	// A member that is alone need not wait to hear of a leader.
	if configuration := r.GetConfiguration().Configuration(); len(configuration.Servers) == 1 && configuration.Servers[0].ID == config.LocalID {
		go func() {
			if err := transport.InjectTimeoutNow(context.Background()); err != nil {
				s.log.Debug("this member waits for its election time-out", "error", err)
			}
		}()
	}
	return nil
}

// bootstrap writes the first entry of the log, unless there is a log, or this member gets it from the
// others.
func (s *Store) bootstrap(config *raft.Config, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore, transport raft.Transport) error {
	if s.identity.Joined {
		return nil
	}
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil || last > 0 || len(list) > 0 {
		return err
	}
	exists, err := raft.HasExistingState(logs, stable, snapshots)
	if err != nil {
		return err
	}
	if !exists {
		return raft.BootstrapCluster(config, logs, stable, snapshots, transport, initialConfiguration(s.identity))
	}
	// There is a term and nothing else: the process ended when raft had done the half of it. Raft
	// would never do the rest. The entry is that of all members.
	return logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(initialConfiguration(s.identity))})
}

// newRaft is raft.NewRaft, which does not come back when the log cannot be used (diskFailed).
func (s *Store) newRaft(config *raft.Config, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore, transport raft.Transport) (*raft.Raft, error) {
	s.raftStarted.Store(true)
	type outcome struct {
		r   *raft.Raft
		err error
	}
	started := make(chan outcome, 1)
	go func() {
		r, err := raft.NewRaft(config, s.fsm, logs, stable, snapshots, transport)
		started <- outcome{r, err}
	}()
	select {
	case o := <-started:
		return o.r, o.err
	case <-s.failed:
		return nil, s.Err()
	}
}

// initialConfiguration lets all members that a cluster begins with vote.
func initialConfiguration(identity disk.Identity) raft.Configuration {
	var c raft.Configuration
	for _, m := range identity.Initial {
		c.Servers = append(c.Servers, raft.Server{ID: serverID(m.ID), Address: raft.ServerAddress(serverID(m.ID)), Suffrage: raft.Voter})
	}
	slices.SortFunc(c.Servers, func(a, b raft.Server) int { return cmp.Compare(a.ID, b.ID) })
	return c
}

func (s *Store) stopRaft() error {
	s.raftMu.Lock()
	defer s.raftMu.Unlock()
	r := s.raft.Load()
	if r == nil {
		return nil
	}
	select {
	case <-r.down:
		return nil // it was stopped before, and not started again
	default:
	}
	// Without the transport raft need not wait for members that do not answer.
	err := r.transport.Close()
	err = errors.Join(err, r.Shutdown().Error())
	r.logs.close()
	close(r.down)
	return err
}

// restartRaft stops raft, lets change alter what is on disk, and starts raft again in this process,
// unless r, which gave the reason, has been replaced before.
func (s *Store) restartRaft(r *runningRaft, why string, change func() error) {
	s.restarting.Lock()
	defer s.restarting.Unlock()
	if s.raft.Load() != r {
		return
	}
	s.log.Warn("restarting raft within this process", "reason", why)
	if err := s.stopRaft(); err != nil {
		s.stop(fmt.Errorf("stop raft: %w", err))
		return
	}
	if err := change(); err != nil {
		s.stop(err)
		return
	}
	if err := s.startRaft(); err != nil && !errors.Is(err, errStopping) {
		s.stop(err)
	}
}

var errStopping = errors.New("this member is stopping")

// currentTerm returns raft's current term, and 0 while raft does not run.
func (s *Store) currentTerm() uint64 {
	if r := s.raft.Load(); r != nil && r.State() != raft.Shutdown {
		return r.CurrentTerm()
	}
	return 0
}

var errRestarting = errors.New("this member is restarting raft to drop entries that were never committed")

// checkInstall looks at a snapshot that the leader is about to send. Raft would keep entries behind
// it that another term has overruled, and could then never agree with the leader again
// (hashicorp/raft#697): such entries are dropped first, with raft stopped.
func (s *Store) checkInstall(request *raft.InstallSnapshotRequest) error {
	r := s.raft.Load()
	if r == nil || request.Term < r.CurrentTerm() {
		return nil
	}
	if last, err := overruled(r.logs, request); err != nil || last == 0 {
		return err
	}
	go s.restartRaft(r, "a snapshot overrules entries of this member's log", func() error {
		// Raft went on until it was stopped: it may have added entries, or have replaced them by
		// those of the leader, which it has acknowledged then.
		logs := s.dir.LogStore()
		last, err := overruled(logs, request)
		if err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		if last == 0 {
			return nil
		}
		if err := logs.DeleteRange(request.LastLogIndex, last); err != nil {
			return fmt.Errorf("drop overruled log entries: %w", err)
		}
		return nil
	})
	return errRestarting
}

// overruled returns the last entry of a log that goes on behind a snapshot which contradicts it, and
// 0 when there is none.
func overruled(logs raft.LogStore, request *raft.InstallSnapshotRequest) (last uint64, err error) {
	last, err = logs.LastIndex()
	if err != nil || last <= request.LastLogIndex {
		return 0, err
	}
	var entry raft.Log
	err = logs.GetLog(request.LastLogIndex, &entry)
	switch {
	case errors.Is(err, raft.ErrLogNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case entry.Term == request.LastLogTerm:
		return 0, nil
	}
	return last, nil
}

// apply writes one entry to the log and returns once it is applied here.
func (s *Store) apply(entry []byte) error {
	r := s.raft.Load()
	future := r.Apply(entry, 0)
	if err := r.wait(future); err != nil {
		s.noteTransfer(err, time.Now())
		return err
	}
	s.transferSince.Store(0)
	if response := future.Response(); response != nil {
		return response.(error)
	}
	return nil
}

// noteTransfer looks at an error of apply. A transfer of leadership that was interrupted can leave
// raft refusing entries for ever (hashicorp/raft#696): when that has lasted for longer than any
// transfer does, raft is started anew.
func (s *Store) noteTransfer(err error, now time.Time) {
	if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		s.transferSince.Store(0)
		return
	}
	if s.transferSince.CompareAndSwap(0, now.UnixNano()) {
		return
	}
	since := s.transferSince.Load()
	if now.Sub(time.Unix(0, since)) > 2*s.options.ElectionTimeout && s.transferSince.CompareAndSwap(since, 0) {
		go s.restartRaft(s.raft.Load(), "a transfer of leadership has not come to an end", func() error { return nil })
	}
}

// onCommitted is called by the state machine before it applies entries. As the leader this member tells
// its followers, which can apply them at the same time: otherwise they would learn of the commit with
// the next entry, or else up to CommitTimeout late, and so would their clients. Also when the next entry
// is about to follow: it waits for the clients of followers, too (pipeline.gather).
func (s *Store) onCommitted(index, term uint64) {
	r := s.raft.Load()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return
	}
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if id, err := parseServerID(server.ID); err == nil && id != s.self {
			r.transport.Nudge(server.ID, index, term, term)
		}
	}
}

func (s *Store) sendNudge(to raft.ServerID, nudge []byte) error {
	id, err := parseServerID(to)
	if err != nil {
		return err
	}
	return s.peers.Send(id, kindNudge, nudge)
}

// leadsOthers says whether this member leads a cluster of two voters or more.
func (s *Store) leadsOthers() bool {
	r := s.raft.Load()
	return r != nil && r.State() == raft.Leader && voters(r) >= 2
}

func voters(r *runningRaft) int {
	n := 0
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

// takeSnapshots takes a snapshot whenever enough has been applied since the last, or the last is damaged: a
// member that needs it could not be helped otherwise.
func (s *Store) takeSnapshots() {
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	var last fsm.Volume
	var notBefore time.Time // after a failure: an attempt may write for long until it fails
	lost := false           // the last one is of no use
	for {
		select {
		case <-s.stopping:
			return
		case <-s.snapshotLost:
			lost = true
		case <-ticker.C:
		}
		now := s.fsm.Volume()
		enough := now.Commands-last.Commands > s.options.SnapshotCount || now.Bytes-last.Bytes > snapshotBytes
		if !enough && !lost || time.Now().Before(notBefore) {
			continue
		}
		r := s.raft.Load()
		reload := r.ReloadableConfig()
		reload.TrailingLogs = trailing(now, s.options.SnapshotCount)
		if err := r.ReloadConfig(reload); err != nil {
			s.log.Error("the length of log to keep was not set", "error", err)
		}
		start := time.Now()
		if err := r.wait(r.Snapshot()); err != nil {
			if !errors.Is(err, raft.ErrNothingNewToSnapshot) && !errors.Is(err, raft.ErrRaftShutdown) {
				s.log.Warn("no snapshot was taken, trying again later", "error", err)
				notBefore = time.Now().Add(snapshotPause)
			}
			continue
		}
		last, lost = now, false
		s.log.Info("saved snapshot", "index", s.fsm.Applied(), "elapsed", time.Since(start))
	}
}

// trailing returns how many entries to keep behind a snapshot. Whoever wants snapshots very often
// wants a short log, too.
func trailing(v fsm.Volume, snapshotCount uint64) uint64 {
	limit := uint64(maxTrailingEntries)
	if snapshotCount < limit/shortLog {
		limit = max(shortLog*snapshotCount, minShortLog)
	}
	if v.Entries == 0 {
		return limit
	}
	average := max(v.Bytes/v.Entries, 1)
	return min(max(trailingBytes/average, minTrailingEntries), limit)
}
