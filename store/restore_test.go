package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/store/disk"
)

// backupOf takes a backup of a running member.
func backupOf(t *testing.T, n *testNode) *backup.Content {
	t.Helper()
	state, err := n.store.Backup()
	if err != nil {
		t.Fatal(err)
	}
	defer state.Release()
	var b bytes.Buffer
	if _, err := state.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	content, err := backup.Read(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestRestore makes a cluster of three of a backup of a cluster of one, and one of one.
func TestRestore(t *testing.T) {
	old := newTestCluster(t, 1).nodes[0]
	old.set("/a", "1")
	old.set("/dir/b", "2")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := old.store.Do(ctx, tree.Write{Op: tree.Op{Action: tree.Set, Path: "/ttl", Value: "3"}, TTL: 5000, HasTTL: true}); err != nil {
		t.Fatal(err)
	}
	b := backupOf(t, old)
	if b.Info.Keys != 3 || b.Info.Dirs != 1 || b.Info.Cluster != formatID(old.store.ClusterID()) || b.Info.Member != formatID(old.store.self) {
		t.Errorf("the backup says of itself %+v", b.Info)
	}
	contents, err := ReadBackup(b)
	if err != nil {
		t.Fatal(err)
	}
	if sum, index := old.store.Tree().Checksum(); contents.Checksum != sum || b.Info.Index != index {
		t.Errorf("the backup has checksum %x at index %d, the member %x at %d", contents.Checksum, b.Info.Index, sum, index)
	}
	sizes := map[string]int{"three members": 3, "one member": 1}
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) { testRestore(t, old, b, size) })
	}
	t.Run("refused", func(t *testing.T) { testRestoreRefused(t, b) })
}

func testRestore(t *testing.T, old *testNode, b *backup.Content, size int) {
	c := &testCluster{t: t}
	var listeners []net.Listener
	for i := range size {
		listeners = append(listeners, listen(t, "127.0.0.1:0"))
		c.initial = append(c.initial, Initial{Name: fmt.Sprint("n", i), PeerURLs: []string{"http://" + listeners[i].Addr().String()}})
	}
	for i := range size {
		n := c.node(i, c.initial)
		n.address = listeners[i].Addr().String()
		if i%2 == 1 {
			n.options.LogStore = disk.WAL
		}
		identity, err := Restore(RestoreOptions{Backup: b, DataDir: n.options.DataDir, LogStore: n.options.LogStore, Name: n.options.Name, Initial: c.initial, Token: "test"})
		if err != nil {
			t.Fatal(err)
		}
		if identity.Cluster == old.store.ClusterID() || identity.Member == old.store.self {
			t.Errorf("the new member %x of cluster %x can be taken for the old one", identity.Member, identity.Cluster)
		}
		v, err := Verify(n.options.DataDir, "")
		if err != nil || len(v.Problems) > 0 {
			t.Errorf("Verify = %+v, %v", v, err)
		} else if v.KeyIndex != b.Info.Index || v.RaftIndex != b.Info.RaftIndex {
			t.Errorf("the directory holds index %d after entry %d, want %d after %d", v.KeyIndex, v.RaftIndex, b.Info.Index, b.Info.RaftIndex)
		}
	}
	for i, n := range c.nodes {
		n.open(listeners[i])
	}
	c.leader()
	n := c.nodes[size-1]
	n.set("/new", "4")
	c.awaitEqual()
	for key, want := range map[string]string{"/a": "1", "/dir/b": "2", "/ttl": "3", "/new": "4"} {
		if got := n.get(key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	for _, key := range []string{"/a", "/dir/b", "/ttl"} {
		before, err1 := old.store.Tree().Get(key, false, false)
		after, err2 := n.store.Tree().Get(key, false, false)
		if err1 != nil || err2 != nil || *before.Node != *after.Node {
			t.Errorf("%s is %+v, was %+v (%v, %v)", key, after.Node, before.Node, err2, err1)
		}
	}
	// Watches go on from an index that a client has had before.
	watch, err := n.store.Tree().Watch("/", true, false, b.Info.Index)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if event, err := watch.Next(ctx); err != nil || event.Node.Key != "/ttl" {
		t.Errorf("the event at index %d is %+v, %v, want that of /ttl", b.Info.Index, event, err)
	}
	if got := len(n.store.Members()); got != size {
		t.Errorf("there are %d members, want %d", got, size)
	}
	// A restart is a restart as any other.
	for _, n := range c.nodes {
		n.close()
		n.restart()
	}
	c.leader()
	c.nodes[0].set("/new", "5")
	c.awaitEqual()
	if size == 1 {
		return
	}

	// The data of a member is lost, and it is restored once more: it has forgotten what it acknowledged.
	n = c.follower()
	n.close()
	options := RestoreOptions{Backup: b, DataDir: filepath.Join(t.TempDir(), "again"), LogStore: n.options.LogStore, Name: n.options.Name, Initial: c.initial, Token: "test"}
	if _, err := Restore(options); err != nil {
		t.Fatal(err)
	}
	n.options.DataDir = options.DataDir
	n.options.Listeners = nil
	if _, err := Open(ctx, n.options); err == nil || !strings.Contains(err.Error(), "has already been bootstrapped: its data is lost") {
		t.Errorf("a member that was restored twice starts: %v", err)
	}
}

// testRestoreRefused has what may not become a member. None of it leaves anything in the directory.
func testRestoreRefused(t *testing.T, b *backup.Content) {
	initial := []Initial{{Name: "a", PeerURLs: []string{"http://127.0.0.1:1"}}, {Name: "b", PeerURLs: []string{"http://127.0.0.1:2"}}}
	short := *b
	short.Info.Index++
	tests := []struct {
		name   string
		change func(t *testing.T, o *RestoreOptions)
		want   string
	}{
		{"a name that is not in the list", func(t *testing.T, o *RestoreOptions) { o.Name = "c" }, `couldn't find local name "c" in the initial cluster configuration`},
		{"the same member twice", func(t *testing.T, o *RestoreOptions) {
			o.Initial = []Initial{initial[0], {Name: "b", PeerURLs: initial[0].PeerURLs}}
		}, "member exists with identical ID"},
		{"a directory that is in use", func(t *testing.T, o *RestoreOptions) {
			if _, err := Restore(*o); err != nil {
				t.Fatal(err)
			}
		}, "is in use: restore into an empty data directory"},
		{"a directory of a member that starts", func(t *testing.T, o *RestoreOptions) {
			if err := os.MkdirAll(filepath.Join(o.DataDir, "member"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is in use: restore into an empty data directory"},
		{"a proxy's directory", func(t *testing.T, o *RestoreOptions) {
			if err := os.MkdirAll(filepath.Join(o.DataDir, "proxy"), 0o700); err != nil {
				t.Fatal(err)
			}
		}, "is in use: restore into an empty data directory"},
		{"a header of another state", func(t *testing.T, o *RestoreOptions) { o.Backup = &short }, "the state is not the one that the header describes"},
		{"a directory that cannot be made", func(t *testing.T, o *RestoreOptions) {
			o.DataDir = filepath.Join(o.DataDir, "file", "data")
			if err := os.WriteFile(filepath.Dir(o.DataDir), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := RestoreOptions{Backup: b, DataDir: t.TempDir(), Name: "a", Initial: initial, Token: "test"}
			tt.change(t, &o)
			if _, err := Restore(o); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Restore = %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(o.DataDir, restoring)); err == nil {
				t.Error("the directory in which it was made is still there")
			}
		})
	}

	t.Run("what an interrupted attempt has left", func(t *testing.T) {
		o := RestoreOptions{Backup: b, DataDir: t.TempDir(), Name: "a", Initial: initial, Token: "test"}
		if err := os.MkdirAll(filepath.Join(o.DataDir, restoring, "member", "wal"), 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(o); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(filepath.Join(o.DataDir, restoring)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("it is still there: %v", err)
		}
	})
	t.Run("a log of its own", func(t *testing.T) {
		o := RestoreOptions{Backup: b, DataDir: t.TempDir(), WALDir: filepath.Join(t.TempDir(), "wal"), Name: "a", Initial: initial, Token: "test"}
		if _, err := Restore(o); err != nil {
			t.Fatal(err)
		}
		if v, err := Verify(o.DataDir, o.WALDir); err != nil || len(v.Problems) > 0 {
			t.Errorf("Verify = %+v, %v", v, err)
		}
	})
}
