package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/quorate/quorate/store/disk"
)

// A leader whose snapshots are damaged, or gone, while it runs makes a new one for the member that needs it.
func TestSnapshotLostWhileRunning(t *testing.T) {
	t.Parallel()
	for name, ruin := range map[string]func(path string) error{
		"damaged": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
		"cut":  func(path string) error { return os.Truncate(path, 10) },
		"gone": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 1, func(_ int, o *Options) { o.SnapshotCount = 20 })
			n := c.nodes[0]
			// The log must not reach back to its beginning, so that a new member needs a snapshot.
			await(t, "a log that was cut off", func() bool {
				for i := range 50 {
					n.set(fmt.Sprint("/k", i), "1")
				}
				first, err := n.store.dir.LogStore().FirstIndex()
				return err == nil && first > 10
			})
			n.close()
			n.options.SnapshotCount = 1 << 40 // from now on it has no other reason to take one
			n.restart()
			n.set("/k", "2")
			list, err := n.store.dir.Snapshots().List()
			if err != nil || len(list) == 0 {
				t.Fatalf("snapshots %v, %v", list, err)
			}
			for _, meta := range list {
				if err := ruin(disk.SnapshotPath(n.options.DataDir, meta.ID)); err != nil {
					t.Fatal(err)
				}
			}

			l := listen(t, "127.0.0.1:0")
			url := "http://" + l.Addr().String()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if _, err := n.store.AddMember(ctx, []string{url}); err != nil {
				t.Fatal(err)
			}
			second := c.node(1, append(c.initial[:1:1], Initial{Name: "n1", PeerURLs: []string{url}}))
			second.options.Existing = true
			second.address = l.Addr().String()
			second.open(l)
			await(t, "the new member has the data", func() bool { return second.get("/k") == "2" && second.get("/k49") == "1" })
			whole, err := filepath.Glob(filepath.Join(n.options.DataDir, "member", "snap", "*.snap"))
			if err != nil || len(whole) == 0 {
				t.Errorf("snapshots %q, %v", whole, err)
			}
		})
	}
}
