//go:build linux

package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/fsm/tree"
)

// TestDiskFails takes the disk from a running member. It has to stop with a clear reason: raft by itself
// would panic. Goroutines of raft are left behind on purpose, so it happens in a process of its own.
func TestDiskFails(t *testing.T) {
	const inside = "STORE_TEST_DISK_FAILS"
	if size, err := strconv.Atoi(os.Getenv(inside)); err == nil {
		loseDisk(t, size)
		return
	}
	for _, size := range []int{1, 3} {
		t.Run(fmt.Sprintf("%d members", size), func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestDiskFails$", "-test.v")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", inside, size), "TMPDIR="+t.TempDir())
			if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "stopped as it should") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

func loseDisk(t *testing.T, size int) {
	c := newTestCluster(t, size)
	n := c.leader()
	n.set("/a", "1")
	log := filepath.Join(n.options.DataDir, "member", "wal", "raft.db")
	protect(t, log)
	// What becomes of this write is open; it goes to the disk in any case.
	go n.store.Do(context.Background(), tree.Write{Op: tree.Op{Action: tree.Set, Path: "/a", Value: "2"}})
	select {
	case <-n.store.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the member goes on without its disk")
	}
	if err := n.store.Err(); err == nil || !strings.Contains(err.Error(), log) {
		t.Errorf("it stopped because of %v, want the path of the log", err)
	}
	if err := n.store.Close(); err != nil || !n.store.Failed() {
		t.Errorf("Close() = %v, Failed() = %t", err, n.store.Failed())
	}
	if size > 1 {
		other := c.nodes[0]
		if other == n {
			other = c.nodes[1]
		}
		other.set("/b", "2")
	}
	if t.Failed() {
		os.Exit(1)
	}
	fmt.Println("stopped as it should")
	os.Exit(0)
}

// protect makes every later write to an open file fail.
func protect(t *testing.T, path string) {
	t.Helper()
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if target, e := os.Readlink("/proc/self/fd/" + e.Name()); err != nil || e != nil || target != path || fd == int(readOnly.Fd()) {
			continue
		}
		found = true
		if err := unix.Dup3(int(readOnly.Fd()), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	if !found {
		t.Fatalf("%s is not open", path)
	}
}
