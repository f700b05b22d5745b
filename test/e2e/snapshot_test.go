//go:build linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// snapshotSummary is what snapshot verify and verify say as JSON.
type snapshotSummary struct {
	Index     uint64
	RaftIndex uint64
	Keys      int
	Checksum  string
}

// saved saves a snapshot of a member and returns what is in it.
func saved(t *testing.T, m *cluster.Member, file string, flags ...string) snapshotSummary {
	t.Helper()
	mustOffline(t, append([]string{"-C", m.ClientURL, "snapshot", "save", file}, flags...)...)
	return summary(t, "snapshot", "verify", "--json", file)
}

func summary(t *testing.T, args ...string) snapshotSummary {
	t.Helper()
	var s snapshotSummary
	if err := json.Unmarshal([]byte(mustOffline(t, args...)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSnapshotAndDisaster saves a snapshot of a follower while all members get writes, loses the whole
// cluster, and goes on from the snapshot with three new members at the same addresses. A member of the
// old cluster comes back, and one of the new ones is restored twice: neither may take part.
func TestSnapshotAndDisaster(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it has no such tool")
	c := start(t, 3)
	mustPut(t, c.Members[0], "/ttl", "x", "ttl", "5000")
	l := startLoad(t, c, "/load")
	l.progress(100)
	follower := c.Followers()[0]
	file := filepath.Join(c.Dir(), "under-load.snap")
	from := saved(t, follower, file)
	l.progress(100)
	l.stop()

	// When nobody writes, the sum in the file can be compared with the member's own. Writes that the
	// writers have given up may still be under way at first.
	cluster.Eventually(t, "a snapshot of the index that the member is at", func(ctx context.Context) error {
		quiet := saved(t, follower, filepath.Join(c.Dir(), "quiet.snap"), "--quorum", "--force")
		status, err := follower.Status(ctx)
		if err != nil {
			return err
		}
		if quiet.Index != status.Index {
			return fmt.Errorf("the snapshot is of index %d, the member at %d", quiet.Index, status.Index)
		}
		if quiet.Checksum != status.Checksum || quiet.Index <= from.Index {
			t.Errorf("at index %d the snapshot has checksum %s, the member %s; the one before was of index %d", quiet.Index, quiet.Checksum, status.Checksum, from.Index)
		}
		return nil
	})
	oldID := clusterIDOf(t, follower)
	c.KillAll()

	left := c.Members[2] // comes back with its old data
	var restored []string
	for _, m := range c.Members {
		dir := filepath.Join(c.Dir(), m.Name+".restored")
		mustOffline(t, "snapshot", "restore", file, "--data-dir", dir, "--name", m.Name, "--initial-cluster", c.InitialCluster())
		if now := summary(t, "verify", dir, "--json"); now.Checksum != from.Checksum || now.Index != from.Index || now.RaftIndex != from.RaftIndex {
			t.Errorf("%s was restored to %+v, want %+v", m.Name, now, from)
		}
		restored = append(restored, dir)
		if m != left {
			m.DataDir = dir
		}
	}
	c.StartAll()
	c.WaitReady(c.Members[0], c.Members[1])
	left.WaitLog("cluster ID mismatch")
	left.Kill()
	left.DataDir = restored[2]
	left.Start()
	c.WaitReady()
	if now := clusterIDOf(t, left); now == oldID {
		t.Errorf("the restored cluster has the ID of the old one, %s", now)
	}
	for _, m := range c.Members {
		if now := mustPut(t, m, "/after", m.Name).Index(); now <= from.Index {
			t.Errorf("a write through %s got index %d, the snapshot has %d", m.Name, now, from.Index)
		}
	}
	c.WaitEqual()
	for _, m := range c.Members {
		l.wantState(m, from.Index)
		if value, _, _, ttl := nodeOf(t, m, "/ttl"); value != "x" || ttl <= 0 || ttl > 5000 {
			t.Errorf("/ttl on %s is %q and has %d s to live, of 5000", m.Name, value, ttl)
		}
	}

	// The disk of a restored member is replaced by another copy of the snapshot.
	twice := c.Followers()[0]
	twice.Kill()
	twice.DataDir = filepath.Join(c.Dir(), "twice")
	mustOffline(t, "snapshot", "restore", file, "--data-dir", twice.DataDir, "--name", twice.Name, "--initial-cluster", c.InitialCluster())
	twice.Start()
	if exit := twice.Wait(); exit.Code != 1 || !strings.Contains(twice.Log(), "has already been bootstrapped: its data is lost") {
		t.Errorf("a member that was restored twice ended with %v:\n%s", exit, twice.Log())
	}
	eventuallyPut(t, others(c, twice)[0], "/without", twice.Name)
}

// wantState compares what a member has with what had been acknowledged at an index: all of that, with
// its indices, and nothing that was acknowledged later. The writers must have been stopped.
func (l *load) wantState(m *cluster.Member, index uint64) {
	l.t.Helper()
	resp, err := m.Do(limit(l.t), http.MethodGet, "/v2/keys"+l.prefix+"?recursive=true&quorum=true", "", "")
	if err != nil || !resp.OK() {
		l.t.Fatalf("list %s on %s: %v (%v)", l.prefix, m.Name, resp, err)
	}
	e, err := resp.Event()
	if err != nil {
		l.t.Fatal(err)
	}
	found := map[string]*api.Node{}
	var walk func(*api.Node)
	walk = func(n *api.Node) {
		if !n.Dir {
			found[n.Key] = n
		}
		for _, child := range n.Nodes {
			walk(child)
		}
	}
	walk(e.Node)
	checked, after := 0, 0
	for key, w := range l.acked {
		n := found[key]
		switch {
		case w.index > index:
			after++
			if n != nil {
				l.t.Errorf("%s: %s of index %d is in a snapshot of index %d", m.Name, key, w.index, index)
			}
		case n == nil || *n.Value != w.value || n.ModifiedIndex != w.index:
			l.t.Errorf("%s: %s was acknowledged as %q at index %d and is %+v in a snapshot of index %d", m.Name, key, w.value, w.index, n, index)
		default:
			checked++
		}
	}
	if checked == 0 || after == 0 {
		l.t.Errorf("%d writes before and %d after the snapshot: this shows nothing", checked, after)
	}
	// A watch goes on from an index that it had before the disaster.
	path := fmt.Sprintf("%s?wait=true&recursive=true&waitIndex=%d", "/v2/keys"+l.prefix, index-10)
	if resp, err := m.Do(limit(l.t), http.MethodGet, path, "", ""); err != nil || !resp.OK() || !strings.Contains(resp.Body, `"modifiedIndex":`) {
		l.t.Errorf("watch from index %d on %s: %v (%v)", index-10, m.Name, resp, err)
	}
}
