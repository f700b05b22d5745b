//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// TestMigrateEachMember moves all members of a cluster one after the other, each with a copy of its directory, while
// writes come in: nobody changes its ID, and nothing is lost.
func TestMigrateEachMember(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	l := startLoad(t, c, "/load")
	for i, m := range c.Members {
		l.progress(30)
		id := c.ID(m)
		m.Stop()
		copied := filepath.Join(c.Dir(), fmt.Sprintf("copied%d", i))
		if err := os.CopyFS(copied, os.DirFS(m.DataDir)); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(m.DataDir); err != nil {
			t.Fatal(err)
		}
		m.DataDir = copied
		m.Move()
		changeMembers(t, others(c, m)[0], http.StatusNoContent, http.MethodPut, id, m.PeerURL)
		m.Start()
		c.WaitReady()
		if now := c.ID(m); now != id {
			t.Errorf("the ID of %s is now %s, was %s", m.Name, now, id)
		}
	}
	l.progress(30)
	l.verify(c)
}

// TestMigrate moves a member to another address with a copy of its directory, while writes come in: it stays the
// member it was, the cluster can be written to all the time, and nothing is lost. Both orders of announcing the
// new address and starting there end well, for a follower and for the leader.
func TestMigrate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name          string
		leader        bool
		announceFirst bool
	}{
		{"follower, announced first", false, true},
		{"leader, started first", true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := start(t, 3)
			l := startLoad(t, c, "/load")
			l.progress(50)
			m := c.Followers()[0]
			if tt.leader {
				m = c.WaitLeader()
			}
			id := c.ID(m)
			clusterID := clusterIDOf(t, m)
			other := others(c, m)[0]

			m.Stop()
			l.progress(50)
			copied := filepath.Join(c.Dir(), "copied")
			if err := os.CopyFS(copied, os.DirFS(m.DataDir)); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(m.DataDir); err != nil {
				t.Fatal(err)
			}
			m.DataDir = copied
			m.Move()
			announce := func() { changeMembers(t, other, http.StatusNoContent, http.MethodPut, id, m.PeerURL) }
			if tt.announceFirst {
				announce()
				l.progress(50)
				m.Start()
			} else {
				m.Start()
				// It knows who it is, and nobody knows where. The others go on all the while.
				cluster.Eventually(t, "the moved member to answer", func(ctx context.Context) error {
					_, err := m.MemberList(ctx)
					return err
				})
				announce()
			}
			c.WaitReady()
			l.progress(50)
			l.verify(c)
			if now := c.ID(m); now != id {
				t.Errorf("its ID is now %s, was %s", now, id)
			}
			if now := clusterIDOf(t, m); now != clusterID {
				t.Errorf("the cluster's ID is now %s, was %s", now, clusterID)
			}
			cluster.Eventually(t, "the new client URL in the list", func(ctx context.Context) error {
				list, err := other.MemberList(ctx)
				if err != nil {
					return err
				}
				for _, l := range list {
					if l.ID == id && len(l.ClientURLs) == 1 && l.ClientURLs[0] == m.ClientURL {
						return nil
					}
				}
				return fmt.Errorf("members are %+v", list)
			})
		})
	}
}

// others are the members but one.
func others(c *cluster.Cluster, m *cluster.Member) []*cluster.Member {
	var out []*cluster.Member
	for _, o := range c.Members {
		if o != m {
			out = append(out, o)
		}
	}
	return out
}

func clusterIDOf(t *testing.T, m *cluster.Member) string {
	t.Helper()
	resp, err := m.Do(limit(t), http.MethodGet, "/v2/members", "", "")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Get("X-Etcd-Cluster-Id")
}

// TestStaleCopy starts a member from a copy of its directory that is older than what it has acknowledged since. Its
// vote would count for what it no longer knows, so it must not take part.
func TestStaleCopy(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it crashes, or not")
	c := start(t, 3)
	m := c.Followers()[0]
	mustPut(t, m, "/before", "1")
	m.Stop()
	stale := filepath.Join(c.Dir(), "stale")
	if err := os.CopyFS(stale, os.DirFS(m.DataDir)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	c.WaitReady()
	putMany(t, c.Members, "/after", 100)
	c.WaitEqual()
	m.Stop()
	m.DataDir = stale
	m.Start()
	wantRefusal(t, m)
	mustPut(t, c.WaitLeader(), "/and-on", "1")
}

// TestLostDirectory starts a member of a running cluster on an empty directory, in both ways an operator may try.
func TestLostDirectory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, state string
		want        []string
		better      bool // than etcd
	}{
		{"as new", "new", []string{"has already been bootstrapped"}, false},
		{"as existing", "existing", []string{"remove", "add"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.better {
				quorateOnly(t, "it crashes")
			}
			c := start(t, 3)
			m := c.Followers()[0]
			mustPut(t, m, "/x", "1")
			m.Kill()
			if err := os.RemoveAll(m.DataDir); err != nil {
				t.Fatal(err)
			}
			m.Start("--initial-cluster-state", tt.state)
			wantRefusal(t, m, tt.want...)
		})
	}
}

// TestForeignCluster starts a member with another token, so of another cluster, which dials a member of ours: the
// two do not mix, both say so, and ours is not disturbed.
func TestForeignCluster(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	mustPut(t, c.Members[0], "/x", "1")
	stranger := c.Join("stranger")
	c.Forget(stranger)
	stranger.Boot = []string{
		"--initial-cluster", c.InitialCluster() + "," + stranger.Name + "=" + stranger.PeerURL,
		"--initial-cluster-token", "another", "--initial-cluster-state", "new",
	}
	stranger.Start()
	stranger.WaitLog("cluster ID mismatch")
	if kind() == cluster.Quorate { // etcd takes the request and never answers
		resp, err := stranger.Get(limit(t), "/x")
		if err != nil || resp.Status != http.StatusNotFound {
			t.Errorf("GET /x on the stranger: %v (%v), want 404", resp, err)
		}
	}
	mustPut(t, c.Members[1], "/y", "1")
	c.WaitEqual()
	if !stranger.Running() {
		t.Errorf("the stranger ended with %v; etcd keeps running without a leader", stranger.Wait())
	}
}

// TestJoinRefused has members that are to join a running cluster, with lists that do not fit it.
func TestJoinRefused(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	m := c.Members[0]
	for _, tt := range []struct {
		name string
		boot func(in *cluster.Member) string
		want string
	}{
		{"not announced", func(in *cluster.Member) string { return c.InitialCluster() }, "member count is unequal"},
		{"alone in its list", func(in *cluster.Member) string { return in.Name + "=" + in.PeerURL },
			"cannot fetch cluster info from peer urls: could not retrieve cluster information from the given "},
		{"not in its list", func(in *cluster.Member) string { return m.Name + "=" + m.PeerURL }, "couldn't find local name"},
		{"URL twice", func(in *cluster.Member) string { return m.Name + "=" + m.PeerURL + "," + in.Name + "=" + m.PeerURL }, "has duplicate url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := c.Join("new-" + strings.ReplaceAll(tt.name, " ", "-"))
			in.Boot = []string{"--initial-cluster", tt.boot(in), "--initial-cluster-state", "existing"}
			c.Forget(in)
			in.Start()
			wantRefusal(t, in, tt.want)
		})
	}
	mustPut(t, m, "/x", "1")
}

// TestForceNewCluster makes a cluster of one out of the only member that is left of three.
func TestForceNewCluster(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	index := mustPut(t, c.Members[0], "/x", "1").Index()
	c.WaitEqual()
	left := c.Members[0]
	id, clusterID := c.ID(left), clusterIDOf(t, left)
	c.StopAll()
	left.Start("--force-new-cluster")
	c.WaitReady()
	wantValue(t, left, "/x", "1")
	list, err := left.MemberList(limit(t))
	if err != nil || len(list) != 1 || list[0].ID != id || list[0].PeerURLs[0] != left.PeerURL {
		t.Fatalf("members are now %+v (%v), want only %s at %s", list, err, id, left.PeerURL)
	}
	if now := clusterIDOf(t, left); now != clusterID {
		t.Errorf("the cluster's ID is now %s, was %s", now, clusterID)
	}
	if now := mustPut(t, left, "/y", "1").Index(); now <= index {
		t.Errorf("the index went back to %d, was %d", now, index)
	}
	left.Stop()
	left.Start()
	c.WaitReady()
	wantValue(t, left, "/y", "1")

	gone := others(c, left)
	for _, m := range gone {
		c.Forget(m)
	}
	in := c.Join("new")
	changeMembers(t, left, http.StatusCreated, http.MethodPost, "", in.PeerURL)
	in.Start()
	c.WaitReady()
	wantValue(t, in, "/y", "1")
	c.WaitEqual()
	if kind() == cluster.Quorate {
		// The others come back, and cannot speak to the new cluster.
		for _, m := range gone {
			m.Start()
		}
		eventuallyPut(t, gone[0], "/the-old-cluster", "1")
		mustPut(t, left, "/the-new-cluster", "1")
		if resp, err := left.QuorumGet(limit(t), "/the-old-cluster"); err != nil || resp.Status != http.StatusNotFound {
			t.Errorf("the old cluster's data got into the new one: %v (%v)", resp, err)
		}
	}
}
