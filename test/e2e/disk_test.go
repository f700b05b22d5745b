//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/cluster"
)

// smallDisk mounts a file system of this many MiB until the test ends.
func smallDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "quorate-disk-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(size)+"m,mode=700"); err != nil {
		_ = os.Remove(dir)
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			return
		}
		_ = os.Remove(dir)
	})
	return dir
}

// resize gives a small disk another size.
func resize(t *testing.T, dir string, size int) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size="+strconv.Itoa(size)+"m"); err != nil {
		t.Fatalf("make %s larger: %v", dir, err)
	}
}

// fill takes space until only this many MiB are free, and returns how to give it back.
func fill(t *testing.T, dir string, free int) (undo func()) {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	take := int64(fs.Bavail)*fs.Bsize - int64(free)<<20
	if take <= 0 {
		t.Fatalf("%s has less than %d MiB free", dir, free)
	}
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, take); err != nil {
		t.Fatalf("take %d bytes of %s: %v", take, dir, err)
	}
	return func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
}

// onSmallDisks makes a cluster whose members have a disk each.
func onSmallDisks(t *testing.T, members, size int, flags ...string) (*cluster.Cluster, []string) {
	t.Helper()
	var disks []string
	for range members {
		disks = append(disks, smallDisk(t, size))
	}
	c := cluster.New(t, cluster.Options{Kind: kind(), Size: members, Flags: flags})
	for i, m := range c.Members {
		m.DataDir = filepath.Join(disks[i], "data")
	}
	c.StartAll()
	c.WaitReady()
	return c, disks
}

// refusesWrites waits until writes through a member are refused for want of space, or accepted.
func refusesWrites(t *testing.T, m *cluster.Member, want bool) {
	t.Helper()
	cluster.Eventually(t, fmt.Sprintf("%s refuses writes: %v", m.Name, want), func(ctx context.Context) error {
		resp, err := m.Put(ctx, "/probe", "1")
		switch {
		case err != nil:
			return err
		case (resp.Status == http.StatusInsufficientStorage) != want, !want && !resp.OK():
			return fmt.Errorf("PUT: %v", resp)
		}
		return nil
	})
}

// TestDiskNearlyFull takes the free space of a member, and then of two of three, and gives it back.
func TestDiskNearlyFull(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it ends when the disk is full")
	c, disks := onSmallDisks(t, 3, 256, "--min-free-disk=32MiB")
	leader := c.WaitLeader()
	i := slices.Index(c.Members, leader)
	mustPut(t, leader, "/k", "1")

	undo := fill(t, disks[i], 20)
	cluster.Eventually(t, "a leader with room", func(ctx context.Context) error {
		for _, m := range c.Members {
			if now, err := m.LeaderOf(ctx); err != nil || now.Name == leader.Name {
				return fmt.Errorf("%s says %v leads (%v)", m.Name, now.Name, err)
			}
		}
		return nil
	})
	refusesWrites(t, leader, false)
	cluster.Eventually(t, "it says that its disk is nearly full", func(ctx context.Context) error {
		resp, err := leader.Do(ctx, http.MethodGet, "/readyz?verbose", "", "")
		if err != nil || resp.Status != http.StatusOK || !strings.Contains(resp.Body, "\n- the disk is nearly full: member "+leader.Name+" has ") {
			return fmt.Errorf("%v %v", resp, err)
		}
		return nil
	})

	other := (i + 1) % 3
	undoOther := fill(t, disks[other], 20)
	for _, m := range c.Members {
		refusesWrites(t, m, true)
		resp, err := m.Put(limit(t), "/k", "2")
		const want = `{"errorCode":310,"message":"Not enough free disk space","cause":"member m`
		if err != nil || resp.Status != http.StatusInsufficientStorage || !strings.HasPrefix(resp.Body, want) ||
			!strings.Contains(resp.Body, " MiB free in ") || !strings.Contains(resp.Body, " and keeps 32.0 MiB (--min-free-disk): make room there") {
			t.Errorf("PUT through %s: %v (%v)", m.Name, resp, err)
		}
		wantValue(t, m, "/k", "1")
		if resp, err := m.Do(limit(t), http.MethodGet, "/readyz?verbose", "", ""); err != nil || !strings.Contains(resp.Body, "\n- writes are refused: member m") {
			t.Errorf("%s says %v (%v)", m.Name, resp, err)
		}
	}
	if resp, err := leader.Delete(limit(t), "/k"); err != nil || !resp.OK() {
		t.Errorf("DELETE: %v (%v)", resp, err)
	}
	if resp, err := leader.Do(limit(t), http.MethodGet, "/metrics", "", ""); err != nil || !strings.Contains(resp.Body, "\nquorate_writes_refused 1\n") || !strings.Contains(resp.Body, "\nquorate_disk_low 1\n") || strings.Contains(resp.Body, "\nquorate_refused_total{limit=\"disk\"} 0\n") {
		t.Error("the metrics do not say so")
	}

	undo()
	undoOther()
	for _, m := range c.Members {
		refusesWrites(t, m, false)
	}
	c.WaitEqual()
}

// TestDiskFull writes until the disk is full: the member ends, says why, and has everything that it
// acknowledged when there is room again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it ends in a panic")
	c, disks := onSmallDisks(t, 1, 24, "--min-free-disk=0", "--snapshot-count=100")
	m := c.Members[0]
	value := strings.Repeat("x", 64<<10)
	acknowledged := 0
	// Far more than the disk holds.
	for m.Running() && acknowledged < 2000 {
		if resp, err := m.Put(limit(t), fmt.Sprintf("/k%d", acknowledged), value); err != nil || !resp.OK() {
			break
		}
		acknowledged++
	}
	wantRefusal(t, m, "no space left on device", "is full; this member ends with all it has acknowledged on disk: make room and start it again")
	if acknowledged == 0 {
		t.Error("nothing could be written")
	}
	resize(t, disks[0], 256)
	m.Start()
	c.WaitReady()
	for i := range acknowledged {
		wantValue(t, m, fmt.Sprintf("/k%d", i), value)
	}
	eventuallyPut(t, m, "/again", "1")
}

// TestReadOnlyDisk starts members on a file system that cannot be written to.
func TestReadOnlyDisk(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "its messages are others")
	c, disks := onSmallDisks(t, 1, 64, "--min-free-disk=0")
	m := c.Members[0]
	mustPut(t, m, "/k", "1")
	m.Stop()
	if err := unix.Mount("tmpfs", disks[0], "tmpfs", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("it cannot be made read-only: %v", err)
	}
	fresh := cluster.New(t, cluster.Options{Kind: kind()})
	fresh.Members[0].DataDir = filepath.Join(disks[0], "fresh")
	for _, m := range []*cluster.Member{m, fresh.Members[0]} {
		m.Start()
		wantRefusal(t, m, "read-only file system: a member must be able to write to "+m.DataDir+": make it writable and start the member again")
	}
	if err := unix.Mount("tmpfs", disks[0], "tmpfs", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(errors.Join(errors.New("make it writable again"), err))
	}
	m.Start()
	c.WaitReady()
	wantValue(t, m, "/k", "1")
}
