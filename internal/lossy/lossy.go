//go:build linux

// Package lossy is a disk that can lose what was not synced, for tests of programs that must not.
//
// It is a file system in memory, mounted with FUSE. Everything exists twice: as programs see it, and as
// it is on the disk. A sync of a file brings its content to the disk, one of a directory its names.
// After a power failure there is what was on the disk; each sector that was written since then may have
// reached it or not.
//
// What programs see can also fail: writes can be short, late, or refused, and so can syncs.
//
// Files can be mapped into memory for reading. A program that has one open must have ended before the
// power fails, as it would with real power.
package lossy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// sectorSize is what a disk writes as a whole.
const sectorSize = 512

// Faults are what goes wrong until it is changed. The zero value is a healthy disk.
type Faults struct {
	// ShortWrites lets every write of more than one sector take a part of the data only.
	ShortWrites bool
	// WriteError and SyncError, if not 0, are the answers to every write and every sync. Nothing is
	// written then, and what was written before may be lost.
	WriteError, SyncError syscall.Errno
	// WriteDelay and SyncDelay are how long every write and every sync takes.
	WriteDelay, SyncDelay time.Duration
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// Room is how many bytes may be written where there were none; beyond that there is ENOSPC.
	// Negative is no room at all; 0 is as much as there is memory.
	Room int64
}

// Disk is a disk. Its methods may be called from any goroutine.
type Disk struct {
	hold sync.RWMutex // held for reading during a sync; see Hold

	mu     sync.Mutex // guards what follows
	root   *node
	faults Faults
	rng    *rand.Rand
	ino    uint64
	syncs  int
	mount  string
	server *fuse.Server
}

// New returns an empty disk. What a power failure leaves, and how short a write is, follow from the seed.
func New(seed uint64) *Disk {
	d := &Disk{rng: rand.New(rand.NewPCG(seed, seed)), ino: 1}
	d.root = newNode(1, fuse.S_IFDIR|0o700)
	return d
}

// Available says why no disk can be mounted here, if so.
func Available() error {
	dir, err := os.MkdirTemp("", "quorate-lossy-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	d := New(0)
	if err := d.Mount(dir); err != nil {
		return err
	}
	return d.Unmount()
}

// Mount makes the disk appear at dir, which has to be there. It needs root and /dev/fuse.
func (d *Disk) Mount(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server != nil {
		return fmt.Errorf("the disk is mounted at %s already", d.mount)
	}
	server, err := fs.Mount(dir, &entry{disk: d, node: d.root}, &fs.Options{
		MountOptions: fuse.MountOptions{FsName: "lossy", Name: "lossy", DirectMountStrict: true, MaxWrite: 1 << 20},
	})
	if err != nil {
		return fmt.Errorf("mount a FUSE file system at %s: %w", dir, err)
	}
	d.mount, d.server = dir, server
	return nil
}

// patience is how long Unmount waits for the kernel to close what a program that has ended had open.
const patience = time.Minute

// Unmount takes the disk away. It fails while a program uses it; [Disk.Detach] does not.
func (d *Disk) Unmount() error {
	d.mu.Lock()
	server := d.server
	d.server = nil
	d.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Unmount()
	for begin := time.Now(); errors.Is(err, syscall.EBUSY) && time.Since(begin) < patience; {
		time.Sleep(10 * time.Millisecond)
		err = server.Unmount()
	}
	if err != nil {
		d.mu.Lock()
		d.server = server
		d.mu.Unlock()
		return fmt.Errorf("unmount %s: %w", d.mount, err)
	}
	return nil
}

// Detach takes the disk away, even from a program that uses it.
func (d *Disk) Detach() error {
	if err := d.Unmount(); err != nil {
		return unix.Unmount(d.mount, unix.MNT_DETACH)
	}
	return nil
}

// Set changes what goes wrong.
func (d *Disk) Set(f Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

// Syncs returns how many syncs of files have succeeded.
func (d *Disk) Syncs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs
}

// Hold keeps every sync from being answered, until release is called. It returns when those that run
// have been.
func (d *Disk) Hold() (release func()) {
	d.hold.Lock()
	return sync.OnceFunc(d.hold.Unlock)
}

// FailPower unmounts the disk, forgets what was not on it, and mounts it again. Whoever used it must
// have ended. It returns how many sectors and names were lost.
func (d *Disk) FailPower() (lost int, err error) {
	d.mu.Lock()
	dir := d.mount
	d.mu.Unlock()
	if err := d.Unmount(); err != nil {
		return 0, err
	}
	d.mu.Lock()
	lost = d.root.failPower(d.rng)
	d.mu.Unlock()
	return lost, d.Mount(dir)
}

// sync waits as long as a sync takes and returns its error.
func (d *Disk) sync(reach func()) syscall.Errno {
	d.mu.Lock()
	delay := d.faults.SyncDelay
	d.mu.Unlock()
	time.Sleep(delay)
	d.hold.RLock()
	defer d.hold.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.faults.SyncError; e != 0 {
		return e
	}
	reach()
	return 0
}

// mayChange returns why nothing can be changed. Called with mu held.
func (d *Disk) mayChange() syscall.Errno {
	switch {
	case d.faults.ReadOnly:
		return syscall.EROFS
	case d.faults.WriteError != 0:
		return d.faults.WriteError
	case d.faults.Room < 0:
		return syscall.ENOSPC
	}
	return 0
}

// take takes room for sectors, and reports how many there is room for. Called with mu held.
func (d *Disk) take(sectors int64) int64 {
	if d.faults.Room == 0 {
		return sectors
	}
	if d.faults.Room < 0 {
		return 0
	}
	got := min(sectors, d.faults.Room/sectorSize)
	if d.faults.Room -= got * sectorSize; d.faults.Room < sectorSize {
		d.faults.Room = -1
	}
	return got
}
