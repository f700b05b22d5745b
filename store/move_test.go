package store

import (
	"context"
	"testing"
)

// recordedURL is where the cluster, as n sees it, believes a member to be.
func (n *testNode) recordedURL(id uint64) string {
	m, _ := n.store.fsm.Membership().Find(id)
	if len(m.PeerURLs) != 1 {
		return ""
	}
	return m.PeerURLs[0]
}

// A member that starts at another address, before anybody has recorded that, tells the cluster.
func TestMovedMemberAnnouncesItself(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	leader, moved := c.leader(), c.follower()
	leader.set("/a", "1")
	c.awaitEqual()
	id := moved.store.MemberID()
	moved.close()
	leader.set("/a", "2")
	l := listen(t, "127.0.0.1:0")
	url := "http://" + l.Addr().String()
	moved.options.AdvertisePeerURLs = []string{url}
	moved.options.ListenPeerURLs = []string{url}
	moved.open(l)
	await(t, "the cluster records the new address", func() bool { return leader.recordedURL(id) == url })
	await(t, "the moved member has what it missed", func() bool { return moved.get("/a") == "2" })
	if moved.store.MemberID() != id {
		t.Errorf("its ID has changed from %x to %x", id, moved.store.MemberID())
	}
	moved.set("/b", "3")
	c.awaitEqual()
}

// One that was moved by an update keeps the flags of its old address: they do no harm.
func TestMovedMemberWithOldFlags(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	leader, moved := c.leader(), c.follower()
	leader.set("/a", "1")
	c.awaitEqual()
	id := moved.store.MemberID()
	moved.close()
	l := listen(t, "127.0.0.1:0")
	url := "http://" + l.Addr().String()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := leader.store.UpdateMember(ctx, id, []string{url}); err != nil {
		t.Fatal(err)
	}
	moved.options.ListenPeerURLs = []string{url} // it still advertises the old one
	moved.open(l)
	moved.set("/b", "2")
	c.awaitEqual()
	for _, n := range c.nodes {
		if got := n.recordedURL(id); got != url {
			t.Errorf("%s believes it at %s, want %s", n.options.Name, got, url)
		}
	}
}
