package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
)

func TestSingleMember(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	n := c.nodes[0]
	n.set("/a", "1")
	// Bootstrap, version and publication take an index each, as in etcd (spec keys 8.2).
	if got := n.store.Tree().Index(); got != 4 {
		t.Errorf("index after the first write = %d, want 4", got)
	}
	if err := n.store.Linearizable(context.Background()); err != nil {
		t.Error(err)
	}
	if got := n.store.Version(); got != (api.Version{Server: "3.4.23", Cluster: "3.4.0"}) {
		t.Errorf("version %+v", got)
	}
	id, index := n.store.MemberID(), n.store.Tree().Index()
	n.close()
	n.restart()
	await(t, "the key after a restart", func() bool { return n.get("/a") == "1" })
	n.set("/b", "2")
	if n.store.MemberID() != id || n.store.Tree().Index() != index+1 {
		t.Errorf("after a restart: member %x index %d, want %x and %d", n.store.MemberID(), n.store.Tree().Index(), id, index+1)
	}
}

func TestThreeMembers(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	for i, n := range c.nodes {
		key := fmt.Sprint("/k", i)
		n.set(key, "v")
		if got := n.get(key); got != "v" {
			t.Errorf("%s does not see its own write: %s", n.options.Name, got)
		}
	}
	for _, n := range c.nodes {
		if err := n.store.Linearizable(context.Background()); err != nil {
			t.Error(err)
		}
		for i := range c.nodes {
			if got := n.get(fmt.Sprint("/k", i)); got != "v" {
				t.Errorf("%s after a linearizable read: /k%d = %s", n.options.Name, i, got)
			}
		}
	}
	c.awaitEqual()
	members := c.nodes[0].store.Members()
	if len(members) != 3 || members[0].ClientURLs == nil {
		t.Errorf("members: %+v", members)
	}
	if got := c.leader().store.SelfStats(); got.State != "StateLeader" || got.LeaderInfo.Leader != got.ID {
		t.Errorf("leader's statistics: %+v", got)
	}
	if _, ok := c.follower().store.LeaderStats(); ok {
		t.Error("a follower gave leader statistics")
	}
	if stats, ok := c.leader().store.LeaderStats(); !ok || len(stats.Followers) != 2 {
		t.Errorf("leader statistics: %+v, %v", stats, ok)
	}
}

// Writes go on through every kind of stop of a leader, and each is applied exactly once.
func TestWritesSurviveLeaders(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"close", "crash"} {
		t.Run(how, func(t *testing.T) {
			c := newTestCluster(t, 3)
			leader := c.leader()
			var others []*testNode
			for _, n := range c.nodes {
				if n != leader {
					others = append(others, n)
				}
			}
			const writers, writes = 8, 40
			var wg sync.WaitGroup
			stopAt := make(chan struct{})
			var once sync.Once
			for w := range writers {
				wg.Go(func() {
					n := others[w%2]
					for i := range writes {
						if i == writes/4 {
							once.Do(func() { close(stopAt) })
						}
						ctx, cancel := context.WithTimeout(context.Background(), patience)
						_, err := n.store.Do(ctx, tree.Write{Op: tree.Op{Action: tree.Create, Path: fmt.Sprint("/q", w), InOrder: true, Value: fmt.Sprint(i)}})
						cancel()
						if err != nil {
							t.Errorf("write %d of writer %d: %v", i, w, err)
						}
					}
				})
			}
			<-stopAt
			if how == "close" {
				leader.close()
			} else {
				leader.crash()
			}
			wg.Wait()
			leader.restart()
			c.awaitEqual()
			for w := range writers {
				answer, err := leader.store.Tree().Get(fmt.Sprint("/q", w), false, true)
				if err != nil {
					t.Fatal(err)
				}
				nodes := answer.Event(0).Node.Nodes
				if len(nodes) != writes {
					t.Errorf("writer %d: %d keys, want %d", w, len(nodes), writes)
				}
				for i, node := range nodes {
					if *node.Value != fmt.Sprint(i) {
						t.Errorf("writer %d: key %d has value %s", w, i, *node.Value)
					}
				}
			}
		})
	}
}

func TestWithoutQuorum(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	c.leader()
	last := c.follower()
	last.set("/a", "1")
	for _, n := range c.nodes {
		if n != last {
			n.crash()
		}
	}
	await(t, "no leader", func() bool { _, ok := last.store.Leader(); return !ok })
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := last.store.Do(ctx, tree.Write{Op: tree.Op{Action: tree.Set, Path: "/a", Value: "2"}}); err != api.ErrTimeout {
		t.Errorf("write without a quorum: %v, want %v", err, api.ErrTimeout)
	}
	if err := last.store.Linearizable(ctx); err != api.ErrTimeout {
		t.Errorf("linearizable read without a quorum: %v, want %v", err, api.ErrTimeout)
	}
	if got := last.get("/a"); got != "1" {
		t.Errorf("plain read without a quorum: %s", got)
	}
	if status := last.store.Status(); status.Ready || len(status.Reasons) == 0 {
		t.Errorf("status without a quorum: %+v", status)
	}
	// What timed out is not sent later.
	for _, n := range c.nodes {
		if n != last {
			n.restart()
		}
	}
	c.leader()
	last.set("/b", "1")
	if got := last.get("/a"); got != "1" {
		t.Errorf("a write whose caller had been told of a time-out was sent later: /a = %s", got)
	}
}

func TestCatchUpBySnapshot(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	n := c.nodes[0]
	n.options.SnapshotCount = 50
	n.close()
	n.restart()
	for i := range 300 {
		n.set(fmt.Sprint("/k", i%20), fmt.Sprint(i))
	}
	await(t, "a snapshot", func() bool {
		list, err := n.store.dir.Snapshots().List()
		return err == nil && len(list) > 0
	})
	sum, index := n.store.Tree().Checksum()
	n.crash()
	n.restart()
	await(t, "the same state after a restart", func() bool {
		s, i := n.store.Tree().Checksum()
		return s == sum && i == index
	})
}

func TestMembersComeAndGo(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	first := c.nodes[0]
	first.set("/a", "1")
	l := listen(t, "127.0.0.1:0")
	url := "http://" + l.Addr().String()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	added, err := first.store.AddMember(ctx, []string{url})
	if err != nil {
		t.Fatal(err)
	}
	if added.Name != "" || len(added.ClientURLs) != 0 || added.PeerURLs[0] != url {
		t.Errorf("added member: %+v", added)
	}
	// An unstarted member does not count: writes go on.
	first.set("/b", "2")
	var refusal *api.StatusError
	if _, err := first.store.AddMember(ctx, []string{url}); !errors.As(err, &refusal) || refusal.Status != http.StatusInternalServerError {
		t.Errorf("a third member while the second has not started: %v, want a refusal by the strict check", err)
	}

	second := c.node(1, append(c.initial[:1:1], Initial{Name: "n1", PeerURLs: []string{url}}))
	second.options.Existing = true
	second.address = l.Addr().String()
	second.open(l)
	if got := formatID(second.store.MemberID()); got != added.ID {
		t.Errorf("the new member has ID %s, want %s", got, added.ID)
	}
	if second.store.ClusterID() != first.store.ClusterID() {
		t.Error("the new member has another cluster ID")
	}
	await(t, "the new member has the data", func() bool { return second.get("/a") == "1" && second.get("/b") == "2" })
	await(t, "the new member votes", func() bool { return voters(first.store.raft.Load()) == 2 })
	second.set("/c", "3")
	c.awaitEqual()

	await(t, "the new member is known by name", func() bool { m, _ := first.store.fsm.Membership().Find(second.store.self); return m.Started() })
	leader, follower := c.leader(), c.follower()
	if err := follower.store.RemoveMember(ctx, leader.store.MemberID()); err != nil {
		t.Fatalf("remove the leader: %v", err)
	}
	select {
	case <-leader.store.Done():
		if !errors.Is(leader.store.Err(), ErrRemoved) {
			t.Errorf("the removed member stopped because of %v", leader.store.Err())
		}
	case <-time.After(patience):
		t.Fatal("the removed member goes on")
	}
	leader.close()
	follower.set("/d", "4")
	if err := follower.store.RemoveMember(ctx, leader.store.MemberID()); !errors.As(err, &refusal) || refusal.Status != http.StatusGone {
		t.Errorf("removing it again: %v, want 410", err)
	}
	if err := follower.store.RemoveMember(ctx, follower.store.MemberID()); !errors.As(err, &refusal) || refusal.Status != http.StatusInternalServerError {
		t.Errorf("removing the last member: %v, want 500", err)
	}

	// It comes back with its old directory and is told.
	leader.restart()
	select {
	case <-leader.store.Done():
		if !errors.Is(leader.store.Err(), ErrRemoved) {
			t.Errorf("the removed member stopped because of %v", leader.store.Err())
		}
	case <-time.After(patience):
		t.Fatal("the removed member runs again")
	}
}

func TestForceNewCluster(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3)
	survivor := c.follower()
	survivor.set("/a", "1")
	for _, n := range c.nodes {
		n.crash()
	}
	index := survivor.store.Tree().Index()
	id, cluster := survivor.store.MemberID(), survivor.store.ClusterID()
	survivor.options.ForceNewCluster = true
	survivor.restart()
	survivor.set("/b", "2")
	if survivor.store.MemberID() != id || survivor.store.ClusterID() != cluster {
		t.Error("IDs have changed")
	}
	if members := survivor.store.Members(); len(members) != 1 || members[0].ID != formatID(id) {
		t.Errorf("members: %+v", members)
	}
	if got := survivor.get("/a"); got != "1" || survivor.store.Tree().Index() <= index {
		t.Errorf("/a = %q at index %d, before the index was %d", got, survivor.store.Tree().Index(), index)
	}
	// The old members form no cluster with it: it has another recovery epoch.
	for _, n := range c.nodes {
		if n != survivor {
			n.restart()
		}
	}
	await(t, "the old members refuse to listen to it", func() bool {
		for _, n := range c.nodes {
			if n != survivor {
				if _, ok := n.store.Leader(); ok {
					return true
				}
			}
		}
		return false
	})
	survivor.set("/c", "3")
	for _, n := range c.nodes {
		if n != survivor && n.get("/c") == "3" {
			t.Error("an old member takes part in the new cluster")
		}
	}
}

func TestBootstrapErrors(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 1)
	c.nodes[0].set("/a", "1")
	open := func(change func(*Options)) error {
		o := c.nodes[0].options
		o.DataDir = t.TempDir()
		o.Listeners = nil
		change(&o)
		s, err := Open(context.Background(), o)
		if err == nil {
			s.Close()
		}
		return err
	}
	url := c.initial[0].PeerURLs
	tests := []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"name not in the list", func(o *Options) { o.Name = "x" }, `couldn't find local name "x" in the initial cluster configuration`},
		{"joining: name not in the list", func(o *Options) { o.Name, o.Existing = "x", true }, `couldn't find local name "x"`},
		{"joining: nobody to ask", func(o *Options) { o.Existing = true }, "cannot fetch cluster info from peer urls"},
		{"joining: not announced", func(o *Options) {
			o.Existing, o.Name = true, "new"
			o.Initial = append(c.initial[:1:1], Initial{Name: "new", PeerURLs: []string{"http://127.0.0.1:1"}})
		}, "member count is unequal"},
		{"joining: other URLs", func(o *Options) {
			o.Existing, o.Name = true, "new"
			o.Initial = []Initial{{Name: "new", PeerURLs: append([]string{"http://127.0.0.1:1"}, url...)}, {Name: "b", PeerURLs: url}}
			o.Initial = o.Initial[:2]
		}, "member count is unequal"},
		{"data lost", func(o *Options) {
			o.Initial = []Initial{{Name: "n0", PeerURLs: url}, {Name: "probe", PeerURLs: url}}
			o.Token = "test"
		}, "identical ID"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := open(tt.change); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, want it to say %q", err, tt.want)
			}
		})
	}
}

// slowDisk holds back writes of a log until it is told to let them pass.
type slowDisk struct {
	diskLog
	holds   atomic.Bool   // whether it holds back
	pass    chan struct{} // closed to let writes pass
	writing chan struct{} // has a value once a write that is held back has begun
}

func (d *slowDisk) StoreLogs(entries []*raft.Log) error {
	if d.holds.Load() {
		select {
		case d.writing <- struct{}{}:
		default:
		}
		<-d.pass
	}
	return d.diskLog.StoreLogs(entries)
}

// The followers may be as quick as they like: nothing is acknowledged before it is on the leader's
// disk, too.
func TestNothingIsAcknowledgedBeforeTheLeaderHasIt(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, 3, func(_ int, o *Options) {
		o.wrapLog = func(l diskLog) diskLog {
			return &slowDisk{diskLog: l, pass: make(chan struct{}), writing: make(chan struct{}, 1)}
		}
	})
	leader := c.leader()
	leader.set("/a", "1")
	c.awaitEqual()
	logs := leader.store.raft.Load().logs
	slow := logs.disk.(*slowDisk)
	slow.holds.Store(true)

	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_, err := leader.store.Do(ctx, tree.Write{Op: tree.Op{Action: tree.Set, Path: "/a", Value: "2"}})
		done <- err
	}()
	<-slow.writing
	// The entry is on the followers' disks, and they have said so.
	last, err := logs.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		if n != leader {
			await(t, "the entry on a follower's disk", func() bool {
				got, err := n.store.dir.LogStore().LastIndex()
				return err == nil && got >= last
			})
		}
	}
	select {
	case err := <-done:
		t.Errorf("a write was acknowledged before it was on the leader's disk: %v", err)
	case <-time.After(300 * time.Millisecond): // only lets a wrong acknowledgement show itself
	}
	close(slow.pass)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
