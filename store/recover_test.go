package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/store/disk"
)

// lost returns a member of a cluster of three that has written something and is down.
func lost(t *testing.T) (survivor *testNode) {
	t.Helper()
	c := newTestCluster(t, 3)
	survivor = c.follower()
	survivor.set("/a", "1")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := survivor.store.Do(ctx, tree.Write{Op: tree.Op{Action: tree.Set, Path: "/ttl", Value: "2"}, TTL: 5000, HasTTL: true}); err != nil {
		t.Fatal(err)
	}
	c.awaitEqual()
	for _, n := range c.nodes {
		n.crash()
	}
	return survivor
}

// copyOf copies the directory of a member that is down.
func copyOf(t *testing.T, dataDir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if err := os.CopyFS(to, os.DirFS(dataDir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// openDisk opens the directory of a member that is down, for f to change something.
func openDisk(t *testing.T, dataDir string, f func(*disk.Dir) error) {
	t.Helper()
	d, err := disk.Open(disk.Options{DataDir: dataDir})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f(d), d.Close()); err != nil {
		t.Fatal(err)
	}
}

func mustRecover(t *testing.T, dataDir string) *Recovered {
	t.Helper()
	r, err := Recover(RecoverOptions{DataDir: dataDir, EventHistory: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOffline is about the directories of a cluster that is down.
func TestOffline(t *testing.T) {
	survivor := lost(t)
	t.Run("recover", func(t *testing.T) { testRecover(t, survivor) })
	t.Run("survey", func(t *testing.T) { testSurvey(t, survivor.options.DataDir) })
	t.Run("verify", func(t *testing.T) { testVerify(t, survivor.options.DataDir) })
	t.Run("refused", func(t *testing.T) { testRefused(t, survivor.options.DataDir) })
}

// testRecover makes one of three members a cluster of its own, after a crash at every step of a
// first attempt, and adds another to it.
func testRecover(t *testing.T, survivor *testNode) {
	before, err := Survey(survivor.options.DataDir, "")
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string]tree.Node{}
	for _, key := range []string{"/a", "/ttl"} {
		answer, err := survivor.store.Tree().Get(key, false, false)
		if err != nil {
			t.Fatal(err)
		}
		nodes[key] = *answer.Node
	}
	done := copyOf(t, survivor.options.DataDir)
	mustRecover(t, done)

	tests := []struct {
		name        string
		interrupted func(dir string) // what a crash has left
	}{
		{"first attempt", func(string) {}},
		{"crash after the epoch", func(dir string) {
			openDisk(t, dir, func(d *disk.Dir) error {
				id, _ := d.Identity()
				id.Epoch = 4711
				return d.WriteIdentity(*id)
			})
		}},
		{"crash before the log was deleted", func(dir string) { copySnapshots(t, done, dir) }},
		{"crash while the log was deleted", func(dir string) {
			copySnapshots(t, done, dir)
			openDisk(t, dir, func(d *disk.Dir) error { return d.LogStore().DeleteRange(1, before.LastIndex/2) })
		}},
		{"done already", func(dir string) { mustRecover(t, dir) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyOf(t, survivor.options.DataDir)
			tt.interrupted(dir)
			r := mustRecover(t, dir)
			if r.Identity.Member != before.Identity.Member || r.Identity.Cluster != before.Identity.Cluster || r.Identity.Epoch <= before.Identity.Epoch {
				t.Errorf("identity is %+v, was %+v; only the epoch should be new", r.Identity, before.Identity)
			}
			if len(r.Left) != 2 {
				t.Errorf("%d members were left, want 2", len(r.Left))
			}
			v, err := Verify(dir, "")
			if err != nil || len(v.Problems) > 0 {
				t.Fatalf("Verify after Recover: %v, %v", v, err)
			}
			if v.KeyIndex != before.KeyIndex {
				t.Errorf("key index is %d, was %d", v.KeyIndex, before.KeyIndex)
			}

			n := *survivor
			n.options.DataDir = dir
			n.cluster = &testCluster{t: t}
			n.restart()
			n.set("/b", "2")
			if members := n.store.Members(); len(members) != 1 || members[0].ID != formatID(r.Identity.Member) {
				t.Errorf("members: %+v", members)
			}
			for key, was := range nodes {
				answer, err := n.store.Tree().Get(key, false, false)
				if err != nil {
					t.Error(err)
					continue
				}
				if is := answer.Node; is.Value != was.Value || is.Created != was.Created || is.Modified != was.Modified || is.Expires != was.Expires {
					t.Errorf("%s is %+v, was %+v", key, *is, was)
				}
			}
			w, err := n.store.Tree().Watch("/a", false, false, nodes["/a"].Modified)
			if err != nil {
				t.Fatalf("watch from before the recovery: %v", err)
			}
			defer w.Close()
			if e, err := w.Next(t.Context()); err != nil || e.Index != nodes["/a"].Modified {
				t.Errorf("watch from before the recovery: %+v, %v", e, err)
			}
			if tt.name == "first attempt" {
				n.grow()
			}
			n.close()
		})
	}
}

// grow adds a member to a cluster of one and waits until it has everything.
func (n *testNode) grow() {
	t := n.cluster.t
	t.Helper()
	own := Initial{Name: n.options.Name, PeerURLs: n.store.Members()[0].PeerURLs}
	l := listen(t, "127.0.0.1:0")
	urls := []string{"http://" + l.Addr().String()}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := n.store.AddMember(ctx, slices.Clone(urls)); err != nil {
		t.Fatal(err)
	}
	added := n.cluster.node(1, []Initial{own, {Name: "added", PeerURLs: urls}})
	added.options.Name, added.options.Existing = "added", true
	added.open(l)
	n.cluster.awaitEqual(n, added)
	added.set("/through-the-new-one", "1")
	added.close()
}

// appendEntry writes one more command into the log of a member that is down.
func appendEntry(t *testing.T, dataDir string, term uint64, data []byte) {
	t.Helper()
	openDisk(t, dataDir, func(d *disk.Dir) error {
		last, err := d.LogStore().LastIndex()
		if err != nil {
			return err
		}
		return d.LogStore().StoreLog(&raft.Log{Index: last + 1, Term: term, Type: raft.LogCommand, Data: data})
	})
}

// copySnapshots copies identity and snapshots, but not the log.
func copySnapshots(t *testing.T, from, to string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(from, "member", "snap", "*.snap"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no snapshot in %s: %v", from, err)
	}
	for _, file := range append(files, filepath.Join(from, "member", "identity.json")) {
		name, err := filepath.Rel(from, file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecoverRefuses(t *testing.T) {
	running := newTestCluster(t, 1).nodes[0]
	tests := []struct {
		name string
		dir  string
		want string
	}{
		{"missing", filepath.Join(t.TempDir(), "missing"), "does not hold a member"},
		{"empty", t.TempDir(), "does not hold a member"},
		{"running", running.options.DataDir, "is in use by a running member, which has to be stopped first: open wal error: file already locked"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Recover(RecoverOptions{DataDir: tt.dir})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Recover = %v, want %q", err, tt.want)
			}
			_, err = Survey(tt.dir, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Survey = %v, want %q", err, tt.want)
			}
			_, err = Verify(tt.dir, "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Verify = %v, want %q", err, tt.want)
			}
			if entries, _ := os.ReadDir(tt.dir); strings.Contains(tt.want, "not hold") && len(entries) > 0 {
				t.Errorf("%s has %v in it now", tt.dir, entries)
			}
		})
	}
}

// testRefused has logs that cannot become a cluster of their own, and must stay what they are.
func testRefused(t *testing.T, dataDir string) {
	was, err := Survey(dataDir, "")
	if err != nil {
		t.Fatal(err)
	}
	self := was.Identity.Member
	removed, err := fsm.AppendCommand(fsm.AppendEntry(nil, 1), &fsm.Command{Kind: fsm.KindRemoveMember, Change: fsm.Change{ID: self}})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		entry []byte
		want  string
	}{
		{"an entry that only a newer program knows", []byte{250, 1, 2, 3}, fmt.Sprintf("log entry %d (term %d)", was.LastIndex+1, was.LastTerm)},
		{"a member that was removed", removed, "member " + formatID(self) + " was removed from its cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyOf(t, dataDir)
			appendEntry(t, dir, was.LastTerm, tt.entry)
			if _, err := Recover(RecoverOptions{DataDir: dir}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Recover = %v, want an error about %s", err, tt.want)
			}
			openDisk(t, dir, func(d *disk.Dir) error {
				if id, _ := d.Identity(); id.Epoch != was.Identity.Epoch {
					t.Errorf("the epoch is %d, was %d", id.Epoch, was.Identity.Epoch)
				}
				snapshots, err := d.Snapshots().List()
				if len(snapshots) != len(was.Snapshots) {
					t.Errorf("there are %d snapshots, were %d", len(snapshots), len(was.Snapshots))
				}
				return err
			})
		})
	}

	t.Run("a member that has received nothing", func(t *testing.T) {
		dir := copyOf(t, dataDir)
		openDisk(t, dir, func(d *disk.Dir) error { return d.LogStore().DeleteRange(1, was.LastIndex) })
		if _, err := Recover(RecoverOptions{DataDir: dir}); err == nil || !strings.Contains(err.Error(), "never received anything") {
			t.Errorf("Recover = %v", err)
		}
	})
}
