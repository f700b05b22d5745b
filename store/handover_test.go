package store

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/quorate/quorate/api"
)

// A member that is about to stop gives leadership away first, and goes on doing what it is asked.
func TestHandOver(t *testing.T) {
	t.Parallel()
	c, leader, followers := patientCluster(t)
	leader.store.HandOver()
	if leader.store.leadsOthers() {
		t.Fatal("leads after leadership was handed over")
	}
	for _, n := range c.nodes {
		n.set(fmt.Sprint("/after/", n.options.Name), "v")
	}
	if now := c.leader(); now == leader {
		t.Error("leads again")
	}
	leader.close()
	followers[0].set("/gone", "v")
}

// Of members that stop together none is chosen.
func TestNoSuccessorAmongThoseThatLeave(t *testing.T) {
	t.Parallel()
	_, leader, followers := patientCluster(t)
	s := leader.store
	for i, n := range followers {
		n.store.leaving.Store(true)
		id, err := s.successor(s.raft.Load())
		if last := i == len(followers)-1; last && !errors.Is(err, errNoSuccessor) {
			t.Errorf("all others leave: %x, %v; want %v", id, err, errNoSuccessor)
		} else if !last && (err != nil || id != followers[i+1].store.self) {
			t.Errorf("%d of %d others leave: %x, %v; want the one that stays", i+1, len(followers), id, err)
		}
	}
	s.HandOver()
	if !s.leadsOthers() {
		t.Error("gave leadership to a member that leaves")
	}
}

// Any member is told who is to lead, and answers when it follows the new leader.
func TestTransferLeadership(t *testing.T) {
	t.Parallel()
	c, leader, followers := patientCluster(t)
	for _, step := range []struct {
		name       string
		asked, to  *testNode
		wantLeader *testNode // nil for any but the one before
	}{
		{"a follower is asked to let the other one lead", followers[0], followers[1], followers[1]},
		{"the leader is asked to lead", followers[1], followers[1], followers[1]},
		{"the leader is asked to let anyone lead", followers[1], nil, nil},
		{"a member is asked to lead", leader, leader, leader},
	} {
		before := c.leader()
		var to uint64
		if step.to != nil {
			to = step.to.store.self
		}
		got, err := step.asked.store.TransferLeadership(t.Context(), to)
		if err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if step.wantLeader != nil && got.ID != formatID(to) || step.wantLeader == nil && got.ID == formatID(before.store.self) {
			t.Errorf("%s: %s leads, before it was %s", step.name, got.Name, before.options.Name)
		}
		step.asked.set("/k", step.name)
	}
	var refusal *api.StatusError
	if _, err := leader.store.TransferLeadership(t.Context(), 42); !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound {
		t.Errorf("to nobody: %v, want 404", err)
	}
}
