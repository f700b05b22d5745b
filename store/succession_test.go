package store

import (
	"context"
	"errors"
	"testing"

	"github.com/quorate/quorate/store/peer"
)

// notSoon is an election time-out that no test waits for: an election within patience has another
// cause.
const notSoon = 2 * patience

// patientCluster is a cluster of three, the first of which leads. Nobody starts an election on its own
// within the time of a test.
func patientCluster(t *testing.T) (c *testCluster, leader *testNode, followers []*testNode) {
	t.Helper()
	c = newTestCluster(t, 3, func(_ int, o *Options) { o.ElectionTimeout = notSoon })
	leader = c.nodes[0]
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := leader.store.raft.Load().transport.InjectTimeoutNow(ctx); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		await(t, "all know the leader and each other", func() bool {
			if n.store.leaderID() != leader.store.self {
				return false
			}
			for _, other := range c.nodes {
				if _, ok := n.store.peers.Active(other.store.self); !ok && other != n {
					return false
				}
			}
			return true
		})
	}
	leader.set("/before", "1")
	c.awaitEqual()
	return c, leader, c.nodes[1:]
}

func TestLeaderThatHasEndedIsSucceeded(t *testing.T) {
	t.Parallel()
	c, leader, followers := patientCluster(t)
	leader.crash()
	for _, n := range followers {
		n.set("/after/"+n.options.Name, "2")
	}
	for _, n := range followers {
		if got := n.get("/before"); got != "1" {
			t.Errorf("/before = %q on %s after the leader was succeeded", got, n.options.Name)
		}
	}
	c.awaitEqual(followers...)
}

// Only a member whose connection to the leader was refused asks, and those who hear the leader do not
// agree: the leader and the term stay.
func TestLivingLeaderStays(t *testing.T) {
	t.Parallel()
	c, leader, followers := patientCluster(t)
	asker, voter := followers[0].store, followers[1].store
	r := asker.raft.Load()
	term := r.CurrentTerm()

	b, ok := asker.bid(r, leader.store.self)
	if !ok {
		t.Fatal("a follower may not ask to succeed its leader")
	}
	if asker.peers.Gone(leader.store.self) {
		t.Error("the leader counts as ended while it is connected")
	}
	if asker.canvass(r, b) {
		t.Error("the others agree to succeed a leader that lives")
	}
	// The connections break, and can be made again.
	for range 5 {
		asker.peers.Drop(leader.store.self)
		leader.store.peers.Drop(voter.self)
		asker.onUnreachable(leader.store.self, context.DeadlineExceeded)
		await(t, "the leader is connected again", func() bool {
			_, a := asker.peers.Active(leader.store.self)
			_, b := voter.peers.Active(leader.store.self)
			return a && b
		})
	}
	if !leader.store.leadsOthers() {
		t.Error("the leader was deposed")
	}
	for _, n := range c.nodes {
		if now := n.store.currentTerm(); now != term {
			t.Errorf("%s is in term %d, want %d as before", n.options.Name, now, term)
		}
	}
	leader.set("/still", "leading")
}

// Nobody agrees with members that would not be elected, or that speak of another leader or term.
func TestWhoAgreesToASuccession(t *testing.T) {
	t.Parallel()
	c, leader, followers := patientCluster(t)
	// Both are kept from acting by themselves, and asked what they would say.
	for _, n := range followers {
		n.store.succeeding.Store(true)
	}
	voter, asker := followers[0].store, followers[1].store
	b, ok := asker.bid(asker.raft.Load(), leader.store.self)
	if !ok {
		t.Fatal("a follower may not ask to succeed its leader")
	}
	b.lastIndex++ // beyond the voter's log, whatever the IDs are
	say := func(change func(*bid)) bool {
		t.Helper()
		b := b
		if change != nil {
			change(&b)
		}
		yes, err := voter.agrees(asker.self, b.append(nil))
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	if say(nil) {
		t.Error("agrees while the leader lives")
	}
	leader.crash()
	await(t, "the leader's end is seen", func() bool { return voter.peers.Gone(leader.store.self) })
	if !say(nil) {
		t.Error("does not agree although the leader has ended")
	}
	for _, tt := range []struct {
		what   string
		change func(*bid)
	}{
		{"an earlier term", func(b *bid) { b.term-- }},
		{"a later term", func(b *bid) { b.term++ }},
		{"another leader", func(b *bid) { b.leader = asker.self }},
		{"a shorter log", func(b *bid) { b.lastIndex -= 2 }},
		{"a log of an earlier term", func(b *bid) { b.lastTerm-- }},
	} {
		if say(tt.change) {
			t.Errorf("agrees to %s", tt.what)
		}
	}
	if _, err := voter.agrees(asker.self, nil); err == nil {
		t.Error("an empty bid is understood")
	}
	for _, n := range followers {
		n.store.succeeding.Store(false)
	}
	if c.leader() == leader {
		t.Error("the leader that has ended leads")
	}
}

// A member that is told to wait for its election time-out says what older members say.
func TestNoFastFailover(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1, func(_ int, o *Options) { o.FastFailover = false })
	_, err := c.leader().store.Call(t.Context(), 2, kindSucceed, bid{}.append(nil))
	if !errors.Is(err, peer.ErrUnknownKind) {
		t.Errorf("the answer is %v, want %v", err, peer.ErrUnknownKind)
	}
}

func TestOrderOfSuccession(t *testing.T) {
	long, short := bid{lastTerm: 3, lastIndex: 9}, bid{lastTerm: 3, lastIndex: 8}
	older := bid{lastTerm: 2, lastIndex: 100}
	for _, tt := range []struct {
		name     string
		a, b     bid
		idA, idB uint64
		want     bool
	}{
		{"the longer log", long, short, 2, 1, true},
		{"the shorter log", short, long, 1, 2, false},
		{"the later term", short, older, 2, 1, true},
		{"equal logs, the lower ID", long, long, 1, 2, true},
		{"equal logs, the higher ID", long, long, 2, 1, false},
	} {
		if got := before(tt.a, tt.idA, tt.b, tt.idB); got != tt.want {
			t.Errorf("%s comes first = %v, want %v", tt.name, got, tt.want)
		}
	}
}
