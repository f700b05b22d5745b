package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/store/disk"
)

// disks are the disks of members, with as much free space as a test wants.
type disks []atomic.Uint64

func (d disks) adjust(i int, o *Options) {
	d[i].Store(1000)
	o.MinFreeDisk = disk.Reserve{Bytes: 100}
	o.measureSpace = func() ([]disk.Space, error) {
		return []disk.Space{{Dir: fmt.Sprint("/disk", i), Free: d[i].Load(), Total: 1000, Reserve: 100}}, nil
	}
}

// try writes a key and returns what came of it.
func (n *testNode) try(action tree.Action, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := n.store.Do(ctx, tree.Write{Op: tree.Op{Action: action, Path: key, Value: "x"}})
	return err
}

// awaitRefused waits until a member refuses writes, or accepts them.
func (n *testNode) awaitRefused(want bool) {
	n.cluster.t.Helper()
	await(n.cluster.t, fmt.Sprintf("%s refuses writes: %v", n.options.Name, want), func() bool {
		return errors.Is(n.try(tree.Set, "/k"), api.DiskFull) == want
	})
}

func TestDiskNearlyFull(t *testing.T) {
	t.Parallel()
	d := make(disks, 1)
	c := newTestCluster(t, 1, d.adjust)
	n := c.nodes[0]
	n.set("/k", "1")
	n.set("/gone", "1")
	d[0].Store(99)
	n.awaitRefused(true)
	index := n.store.Tree().Index()
	for _, action := range []tree.Action{tree.Set, tree.Create, tree.Update, tree.CompareAndSwap} {
		err := n.try(action, "/k")
		const want = "member n0 has 0.0 MiB free in /disk0 and keeps 0.0 MiB (--min-free-disk): make room there or move it to a larger disk; reads, watches and DELETE go on"
		var refusal *api.Error
		if !errors.As(err, &refusal) || refusal.Code != api.DiskFull || refusal.Cause != want || refusal.Index != index {
			t.Errorf("action %v: %v", action, err)
		}
	}
	if got := n.store.Tree().Index(); got != index {
		t.Errorf("refused writes moved the index from %d to %d", index, got)
	}
	if err := n.try(tree.Delete, "/gone"); err != nil {
		t.Errorf("DELETE: %v", err)
	}
	if err := n.store.Linearizable(t.Context()); err != nil {
		t.Errorf("a linearizable read: %v", err)
	}
	status := n.store.Status()
	if !status.Ready || !slices.ContainsFunc(status.Reasons, func(r string) bool { return strings.HasPrefix(r, "writes are refused: member n0 has") }) {
		t.Errorf("status %+v", status)
	}
	// A little more than the reserve is not enough yet, or it would go to and fro.
	d[0].Store(105)
	for range 2 {
		n.store.measure()
	}
	if n.store.space.own.Load() == nil {
		t.Error("accepts writes a moment before it will refuse them again")
	}
	d[0].Store(120)
	n.awaitRefused(false)
	if reasons := n.store.Status().Reasons; len(reasons) > 0 {
		t.Errorf("reasons %q", reasons)
	}
}

func TestDisksOfCluster(t *testing.T) {
	t.Parallel()
	d := make(disks, 3)
	c := newTestCluster(t, 3, d.adjust)
	full := c.leader()
	i := slices.Index(c.nodes, full)
	full.set("/k", "1")

	// The leader goes where there is room, and whoever has none follows.
	d[i].Store(10)
	await(t, "another leader", func() bool { return c.leader() != full })
	full.awaitRefused(false)
	if reasons := full.store.Status().Reasons; !slices.ContainsFunc(reasons, func(r string) bool { return strings.HasPrefix(r, "the disk is nearly full: ") }) {
		t.Errorf("reasons %q", reasons)
	}

	// Without a quorum that has room every member refuses, with the name of one that has not.
	other := (i + 1) % 3
	d[other].Store(10)
	for _, n := range c.nodes {
		n.awaitRefused(true)
		if err := n.try(tree.Set, "/k"); err == nil || !strings.Contains(err.Error(), "has 0.0 MiB free in /disk") {
			t.Errorf("%s: %v", n.options.Name, err)
		}
		if err := n.try(tree.Delete, "/k"); errors.Is(err, api.DiskFull) {
			t.Errorf("DELETE through %s: %v", n.options.Name, err)
		}
	}
	d[i].Store(500)
	for _, n := range c.nodes {
		n.awaitRefused(false)
	}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{syscall.ENOSPC, "no space left on device: the disk of /d is full; this member ends with all it has acknowledged on disk: make room and start it again"},
		{syscall.EROFS, "read-only file system: a member must be able to write to /d: make it writable and start the member again"},
		{syscall.EIO, "input/output error"},
	} {
		got := ""
		if err := explain(tt.err, "/d"); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
