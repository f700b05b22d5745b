package store

import (
	"errors"
	"fmt"
	"testing"
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
