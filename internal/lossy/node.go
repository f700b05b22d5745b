//go:build linux

package lossy

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or a directory. It is guarded by Disk.mu.
type node struct {
	ino   uint64
	mode  uint32
	mtime time.Time

	// A file: its sectors, those that are not all zero, as they are seen and as they are on the disk.
	size     int64
	sectors  map[int64]*[sectorSize]byte
	diskSize int64
	onDisk   map[int64]*[sectorSize]byte
	dirty    map[int64]bool // sectors that may differ

	// A directory: its names.
	names       map[string]*node
	namesOnDisk map[string]*node
}

func newNode(ino uint64, mode uint32) *node {
	n := &node{ino: ino, mode: mode, mtime: time.Now()}
	if mode&fuse.S_IFDIR != 0 {
		n.names, n.namesOnDisk = map[string]*node{}, map[string]*node{}
	} else {
		n.sectors, n.onDisk, n.dirty = map[int64]*[sectorSize]byte{}, map[int64]*[sectorSize]byte{}, map[int64]bool{}
	}
	return n
}

func (n *node) isDir() bool { return n.names != nil }

func (n *node) read(b []byte, off int64) []byte {
	if off >= n.size {
		return nil
	}
	b = b[:min(int64(len(b)), n.size-off)]
	clear(b)
	for i := off / sectorSize; i*sectorSize < off+int64(len(b)); i++ {
		s := n.sectors[i]
		if s == nil {
			continue
		}
		if at := i*sectorSize - off; at >= 0 {
			copy(b[at:], s[:])
		} else {
			copy(b, s[-at:])
		}
	}
	return b
}

// write writes as much of b as there is room for.
func (n *node) write(d *Disk, b []byte, off int64) (int, syscall.Errno) {
	written := 0
	for written < len(b) {
		at := off + int64(written)
		i, from := at/sectorSize, at%sectorSize
		s := new([sectorSize]byte)
		if old := n.sectors[i]; old != nil {
			*s = *old
		} else if d.take(1) == 0 {
			break
		}
		c := copy(s[from:], b[written:])
		n.sectors[i] = s // the one before may be on the disk
		n.dirty[i] = true
		written += c
		n.size = max(n.size, at+int64(c))
	}
	n.mtime = time.Now()
	if written == 0 && len(b) > 0 {
		return 0, syscall.ENOSPC
	}
	return written, 0
}

// truncate gives a file another size.
func (n *node) truncate(size int64) {
	for i, s := range n.sectors {
		switch {
		case i*sectorSize >= size:
			delete(n.sectors, i)
			n.dirty[i] = true
		case (i+1)*sectorSize > size:
			cut := *s
			clear(cut[size-i*sectorSize:])
			n.sectors[i] = &cut
			n.dirty[i] = true
		}
	}
	n.size, n.mtime = size, time.Now()
}

// reachDisk is what a sync does.
func (n *node) reachDisk() {
	if n.isDir() {
		n.namesOnDisk = maps.Clone(n.names)
		return
	}
	for i := range n.dirty {
		if s := n.sectors[i]; s != nil {
			n.onDisk[i] = s
		} else {
			delete(n.onDisk, i)
		}
	}
	clear(n.dirty)
	n.diskSize = n.size
}

// failPower makes n what is on the disk, and everything below it. Of what was not synced, the disk may
// have any part: it has all names of a directory, or those that were synced, and any of the sectors of a
// file, and its size or the one that was synced.
func (n *node) failPower(rng *rand.Rand) (lost int) {
	if n.isDir() {
		if keep := rng.IntN(2) == 0; !keep {
			for name, child := range n.names {
				if n.namesOnDisk[name] != child {
					lost++
				}
			}
			n.names = maps.Clone(n.namesOnDisk)
		}
		n.namesOnDisk = maps.Clone(n.names)
		for _, name := range slices.Sorted(maps.Keys(n.names)) { // not in map order: it has to follow from the seed
			lost += n.names[name].failPower(rng)
		}
		return lost
	}
	// All, none, the beginning, or any.
	way, dirty := rng.IntN(4), slices.Sorted(maps.Keys(n.dirty))
	cut := 0
	if len(dirty) > 0 {
		cut = rng.IntN(len(dirty))
	}
	for at, i := range dirty {
		if keep := way == 0 || (way == 2 && at < cut) || (way == 3 && rng.IntN(2) == 0); keep {
			continue
		}
		if !same(n.sectors[i], n.onDisk[i]) {
			lost++
		}
		if s := n.onDisk[i]; s != nil {
			n.sectors[i] = s
		} else {
			delete(n.sectors, i)
		}
	}
	if way != 0 && n.size != n.diskSize && rng.IntN(2) == 0 {
		n.truncate(n.diskSize)
	}
	n.reachDisk()
	return lost
}

func same(a, b *[sectorSize]byte) bool {
	if a == nil || b == nil {
		return a == b
	}
	return bytes.Equal(a[:], b[:])
}
