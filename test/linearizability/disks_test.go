//go:build linux && faults

package linearizability

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	lossydisk "github.com/quorate/quorate/internal/lossy"
)

var disksFlag = flag.String("disks", "", "where members keep their data: real, or lossy for disks of which the power can fail (FUSE); empty lets the seed decide")

// lossyDisks says why there are no disks that lose data here, if so.
var lossyDisks = sync.OnceValue(lossydisk.Available)

// diskFaults are what can happen to members on lossy disks, besides the other faults.
var diskFaults = []fault{
	{"power failure of the leader", 4, losingPower(leader)},
	{"power failure of a follower", 3, losingPower(follower)},
	{"power failure of a majority", 4, losingPower(majority)},
	{"power failure of all", 6, losingPower(everyone)},
	{"power failures while starting", 2, losingPowerAgain},
	{"short writes", 2, disturbing(lossydisk.Faults{ShortWrites: true}, everyone)},
	{"every sync late", 1, disturbing(lossydisk.Faults{SyncDelay: 200 * time.Millisecond}, everyone)},
	{"every write late on the leader", 1, disturbing(lossydisk.Faults{WriteDelay: 50 * time.Millisecond}, leader)},
	{"writes fail on the leader", 1, failingDisk(lossydisk.Faults{WriteError: syscall.EIO}, leader)},
	{"writes fail on a follower", 1, failingDisk(lossydisk.Faults{WriteError: syscall.EIO}, follower)},
	{"syncs fail on the leader", 2, failingDisk(lossydisk.Faults{SyncError: syscall.EIO}, leader)},
	{"syncs fail on a follower", 1, failingDisk(lossydisk.Faults{SyncError: syscall.EIO}, follower)},
	{"read-only disk of the leader", 1, failingDisk(lossydisk.Faults{ReadOnly: true}, leader)},
	{"read-only disk of a follower", 1, failingDisk(lossydisk.Faults{ReadOnly: true}, follower)},
	{"the disk of the leader fills up", 1, failingDisk(lossydisk.Faults{Room: 256 << 10}, leader)},
	{"the disk of a follower fills up", 1, failingDisk(lossydisk.Faults{Room: 256 << 10}, follower)},
}

// putOnDisk gives a member that was never started a disk of its own, if the plan says so.
func (r *run) putOnDisk(n *node) {
	if !r.lossy {
		return
	}
	mount := n.m.DataDir + ".disk"
	if err := os.Mkdir(mount, 0o700); err != nil {
		r.Fatalf("make a disk: %v", err)
	}
	r.mu.Lock()
	number := len(r.disks)
	r.mu.Unlock()
	d := lossydisk.New(uint64(r.seed)<<8 + uint64(number))
	if err := d.Mount(mount); err != nil {
		r.Fatalf("make a disk: %v", err)
	}
	n.disk, n.m.DataDir = d, filepath.Join(mount, "data")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disks = append(r.disks, mountedDisk{d, mount})
}

type mountedDisk struct {
	disk  *lossydisk.Disk
	mount string
}

// putAwayDisks ends all disks. With keep, what is on them can be looked at afterwards.
func (r *run) putAwayDisks(keep bool) {
	for _, d := range r.disks {
		if keep {
			_ = os.CopyFS(d.mount+".content", os.DirFS(d.mount)) // as much as there is
		}
		if err := d.disk.Detach(); err != nil {
			r.Errorf("unmount %s: %v", d.mount, err)
		}
	}
}

// healDisks ends the faults of all disks.
func (r *run) healDisks() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.disks {
		d.disk.Set(lossydisk.Faults{})
	}
}

// losePower takes from a member that was killed what it had not synced.
func (t *troubleMaker) losePower(n *node) {
	if n.disk == nil || n.m.Running() {
		return
	}
	lost, err := n.disk.FailPower()
	if err != nil {
		// The disk is as it was: a busy machine says nothing about the server.
		t.Logf("%s keeps its power: %v", n.m.Name, err)
		return
	}
	t.Logf("%s has lost %d sectors and names", n.m.Name, lost)
	if lost > 0 {
		t.count("(lost what was not synced)")
	}
}

// losingPower is a fault that takes the power from members, all in one moment.
func losingPower(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		nodes := t.pick(who)
		var all sync.WaitGroup
		for _, n := range nodes {
			all.Go(func() { t.stop(n, syscall.SIGKILL) })
		}
		all.Wait()
		for _, n := range nodes {
			t.losePower(n)
		}
		sleep(ctx, t.between(0, 2*time.Second))
		for _, n := range nodes {
			t.startAgain(n)
		}
	}
}

// losingPowerAgain takes the power from all again and again while they start.
func losingPowerAgain(t *troubleMaker, ctx context.Context) {
	for range 3 {
		losingPower(everyone)(t, ctx)
		sleep(ctx, t.between(0, 800*time.Millisecond))
	}
}

// disturbing makes a disk worse for a while, in a way that members have to bear.
func disturbing(f lossydisk.Faults, who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		nodes := t.pick(who)
		for _, n := range nodes {
			if n.disk != nil {
				n.disk.Set(f)
				defer n.disk.Set(lossydisk.Faults{})
			}
		}
		sleep(ctx, t.between(2*time.Second, 5*time.Second))
	}
}

// failingDisk lets a disk fail until the member has ended because of it, or found another way, and then
// takes its power as well.
func failingDisk(f lossydisk.Faults, who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		n := t.pick(who)[0]
		t.mu.Lock()
		down := n.down
		n.down = n.down || n.disk != nil
		t.mu.Unlock()
		if down || n.disk == nil {
			return
		}
		n.disk.Set(f)
		limited, cancel := context.WithTimeout(ctx, t.between(2*time.Second, 6*time.Second))
		defer cancel()
		for limited.Err() == nil && n.m.Running() {
			sleep(limited, 50*time.Millisecond)
		}
		if !n.m.Running() {
			t.Logf("%s has ended: %v", n.m.Name, n.m.Wait())
			t.count("(ended because of its disk)")
		}
		n.m.Signal(syscall.SIGKILL)
		n.m.Wait()
		n.disk.Set(lossydisk.Faults{})
		t.losePower(n)
		t.startAgain(n)
	}
}
