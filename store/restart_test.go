package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A snapshot from the leader overrules entries that this member has and the majority has not
// (hashicorp/raft#697): the entries go, and the member follows again.
func TestSnapshotOverrulesEntries(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	follower := c.follower()
	for i := range 10 {
		follower.set(fmt.Sprint("/k", i), "v")
	}
	c.awaitEqual()
	s := follower.store
	before := s.raft.Load()
	last, err := s.dir.LogStore().LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		request raft.InstallSnapshotRequest
	}{
		{"of an earlier term", raft.InstallSnapshotRequest{Term: 1, LastLogIndex: last - 3, LastLogTerm: 1}},
		{"behind the log", raft.InstallSnapshotRequest{Term: before.CurrentTerm(), LastLogIndex: last + 3, LastLogTerm: before.CurrentTerm()}},
		{"in accord with the log", raft.InstallSnapshotRequest{Term: before.CurrentTerm(), LastLogIndex: last - 3, LastLogTerm: before.CurrentTerm()}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := s.checkInstall(&tt.request); err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
	// Entries that are overruled were never acknowledged to the leader that overrules them.
	leader := c.leader().store
	leader.acks.mu.Lock()
	clear(leader.acks.last)
	leader.acks.mu.Unlock()
	err = s.checkInstall(&raft.InstallSnapshotRequest{Term: before.CurrentTerm(), LastLogIndex: last - 3, LastLogTerm: before.CurrentTerm() + 7})
	if !errors.Is(err, errRestarting) {
		t.Fatalf("a snapshot that contradicts the log: %v, want %v", err, errRestarting)
	}
	await(t, "raft runs again", func() bool { return s.raft.Load() != before })
	// The leader may ask again before raft is down, and must not have it started twice.
	s.restartRaft(before, "again", func() error {
		t.Error("raft was started twice for one reason")
		return nil
	})
	// The leader fills up what was cut off, and readers never saw it missing.
	for i := range 10 {
		if got := follower.get(fmt.Sprint("/k", i)); got != "v" {
			t.Errorf("/k%d = %q", i, got)
		}
	}
	await(t, "the log is whole again", func() bool {
		now, err := s.dir.LogStore().LastIndex()
		return err == nil && now >= last
	})
	follower.set("/after", "v")
	c.awaitEqual()
}

// A transfer of leadership that never ends (hashicorp/raft#696) does not stop writes for ever.
func TestTransferThatNeverEnds(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	n := c.nodes[0]
	n.set("/a", "1")
	s := n.store
	before := s.raft.Load()
	start := time.Now()
	for _, step := range []struct {
		err   error
		after time.Duration
	}{
		{raft.ErrLeadershipTransferInProgress, 0},
		{raft.ErrLeadershipTransferInProgress, s.options.ElectionTimeout}, // such a transfer may yet end
		{raft.ErrNotLeader, 3 * s.options.ElectionTimeout},                // it has ended
		{raft.ErrLeadershipTransferInProgress, 4 * s.options.ElectionTimeout},
		{raft.ErrLeadershipTransferInProgress, 5 * s.options.ElectionTimeout},
	} {
		s.noteTransfer(step.err, start.Add(step.after))
	}
	if s.raft.Load() != before {
		t.Fatal("raft was restarted although every transfer came to an end")
	}
	s.noteTransfer(raft.ErrLeadershipTransferInProgress, start.Add(7*s.options.ElectionTimeout))
	await(t, "raft runs again", func() bool { return s.raft.Load() != before })
	n.set("/b", "2")
	if got := n.get("/a"); got != "1" {
		t.Errorf("/a = %q after raft was restarted", got)
	}
}
