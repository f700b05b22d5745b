package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// boltFile reads a bolt file that nobody is writing, and trusts nothing in it.
//
// bolt has to be kept away from a damaged file. It follows page numbers and lengths without
// looking, so that it faults, and when it rebuilds its free list at open it panics in a goroutine
// of its own, which no recover reaches. So every page that bolt would visit is looked at here
// first. Reading the log this way is also much faster than through bolt.
//
// The format is that of bbolt 1.4 (version 2): pages of equal size, the first two are meta pages
// written in turns, each names the root of a tree of buckets.
type boltFile struct {
	path     string
	file     *os.File
	data     []byte // the whole file
	pageSize uint64
	meta     boltMeta // the newer one
	sameRoot bool     // both meta pages name the same root: the last transaction changed nothing
	seen     []bool   // pages already visited, by number
	used     uint64   // how many
}

type boltMeta struct {
	pageSize uint32
	root     uint64
	freelist uint64
	limit    uint64 // one more than the highest page ever used
	txid     uint64
}

const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	boltHeader     = 16 // of a page
	boltElement    = 16 // in a branch or a leaf
	boltBucketSize = 16 // value of a bucket element: root page and sequence
	boltNoFreelist = ^uint64(0)
	boltBranch     = 1
	boltLeaf       = 2
	boltBucketFlag = 1
	boltMaxDepth   = 64
)

var native = binary.NativeEndian // bolt writes its structs as they are in memory

// openBoltFile locks and maps the file and checks its meta pages. Damage is a [DamageError].
func openBoltFile(path string, exclusive bool) (*boltFile, error) {
	f, err := lockFile(path, os.O_RDONLY, exclusive)
	if err != nil {
		return nil, err
	}
	b := &boltFile{path: path, file: f}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		b.data, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	}
	if err != nil {
		_ = b.close()
		return nil, &fs.PathError{Op: "map", Path: path, Err: err}
	}
	if _, err := shielded(path, b.readMeta); err != nil {
		_ = b.close()
		return nil, err
	}
	return b, nil
}

func (b *boltFile) close() error {
	var err error
	if b.data != nil {
		err = unix.Munmap(b.data)
		b.data = nil
	}
	return errors.Join(err, b.file.Close())
}

func (b *boltFile) damaged(format string, args ...any) error {
	return damaged(b.path, format, args...)
}

// readMeta wants both meta pages valid, and of successive transactions.
//
// bolt is content with one: when the newer page is invalid it uses the older, which undoes the
// last transaction. Bolt assumes that the write of the newer page was interrupted, but for us the
// transaction may have been a vote or an acknowledged entry. And a crash does not leave an
// invalid meta page: the 80 bytes in use are at the start of a page, so in one disk sector, and
// sectors are written whole. An invalid page is damage, whichever of the two it is.
//
// The file gets its name only when its first transactions are on disk, so there is no moment at
// which a crash leaves fewer than two meta pages either.
func (b *boltFile) readMeta() error {
	if len(b.data) < 2*1024 {
		return b.damaged("it is only %d bytes long", len(b.data))
	}
	first, err := parseBoltMeta(b.data)
	if err != nil {
		return b.damaged("meta page 0: %v", err)
	}
	b.pageSize = uint64(first.pageSize)
	if p := b.pageSize; p < 512 || p > 1<<20 || p&(p-1) != 0 || uint64(len(b.data)) < 2*p {
		return b.damaged("page size %d", p)
	}
	second, err := parseBoltMeta(b.data[b.pageSize:])
	if err != nil {
		return b.damaged("meta page 1: %v", err)
	}
	newer, older := first, second
	if second.txid > first.txid {
		newer, older = second, first
	}
	if newer.txid != older.txid+1 || newer.pageSize != older.pageSize {
		return b.damaged("the meta pages are of transactions %d and %d, which do not follow each other", first.txid, second.txid)
	}
	if newer.freelist != boltNoFreelist {
		return b.damaged("it has a list of free pages, which this program never writes")
	}
	if newer.limit > uint64(len(b.data))/b.pageSize {
		return b.damaged("it is cut off: %d pages are in use, the file has %d", newer.limit, uint64(len(b.data))/b.pageSize)
	}
	b.meta, b.sameRoot = newer, newer.root == older.root
	return nil
}

func parseBoltMeta(page []byte) (boltMeta, error) {
	var m boltMeta
	if len(page) < boltHeader+64 {
		return m, errors.New("it is not there")
	}
	p := page[boltHeader:]
	if native.Uint32(p) != boltMagic {
		return m, errors.New("it is not a bolt file")
	}
	if v := native.Uint32(p[4:]); v != boltVersion {
		return m, fmt.Errorf("version %d", v)
	}
	sum := fnv.New64a()
	sum.Write(p[:56])
	if sum.Sum64() != native.Uint64(p[56:]) {
		return m, errors.New("checksum does not match")
	}
	m.pageSize = native.Uint32(p[8:])
	m.root = native.Uint64(p[16:])
	m.freelist = native.Uint64(p[32:])
	m.limit = native.Uint64(p[40:])
	m.txid = native.Uint64(p[48:])
	return m, nil
}

// The two buckets raft-boltdb makes. We use the first.
const (
	logBucket  = "logs"
	confBucket = "conf"
)

// walk checks every page in use and calls visit for each pair in the log bucket, in key order. The
// slices are only valid during the call, and must not be read without shielded.
func (b *boltFile) walk(visit func(key, value []byte) error) error {
	b.seen, b.used = make([]bool, b.meta.limit), 2
	var names []string
	root := &boltWalk{file: b, buckets: true, visit: func(key, value []byte) error {
		names = append(names, string(key))
		bucket := &boltWalk{file: b, visit: func(key, value []byte) error { return nil }}
		if string(key) == logBucket {
			bucket.visit = visit
		}
		if len(value) < boltBucketSize {
			return b.damaged("bucket %q: its record is cut off", key)
		}
		if root := native.Uint64(value); root != 0 {
			return bucket.page(root, 0, nil, nil)
		}
		// A small bucket is a page inside the value.
		inline := value[boltBucketSize:]
		if len(inline) < boltHeader || native.Uint16(inline[8:]) != boltLeaf {
			return b.damaged("bucket %q: not a leaf", key)
		}
		return bucket.leaf(inline, 0, nil, nil)
	}}
	if err := root.page(b.meta.root, 0, nil, nil); err != nil {
		return err
	}
	if len(names) != 2 || names[0] != confBucket || names[1] != logBucket {
		return b.damaged("it has the buckets %q, not a raft log's", names)
	}
	return nil
}

// boltWalk visits the tree of one bucket.
type boltWalk struct {
	file    *boltFile
	buckets bool // the elements are buckets; else none is
	visit   func(key, value []byte) error
	last    []byte // the last key seen
	any     bool
}

// page visits the subtree at page id. Its keys have to be in [low, high); nil means no limit.
func (w *boltWalk) page(id uint64, depth int, low, high []byte) error {
	b := w.file
	if id < 2 || id >= b.meta.limit {
		return b.damaged("page %d does not exist", id)
	}
	if depth > boltMaxDepth {
		return b.damaged("page %d: the tree is too deep", id)
	}
	start := b.data[id*b.pageSize:]
	if got := native.Uint64(start); got != id {
		return b.damaged("page %d has the number %d", id, got)
	}
	pages := uint64(native.Uint32(start[12:])) + 1
	if pages > b.meta.limit-id {
		return b.damaged("page %d is cut off", id)
	}
	for i := id; i < id+pages; i++ {
		if b.seen[i] {
			return b.damaged("page %d is used twice", i)
		}
		b.seen[i] = true
	}
	b.used += pages
	page := start[:pages*b.pageSize]
	switch flags := native.Uint16(page[8:]); flags {
	case boltBranch:
		return w.branch(page, id, depth, low, high)
	case boltLeaf:
		return w.leaf(page, id, low, high)
	default:
		return b.damaged("page %d is of the unknown kind %#x", id, flags)
	}
}

func (w *boltWalk) branch(page []byte, id uint64, depth int, low, high []byte) error {
	b := w.file
	count := int(native.Uint16(page[10:]))
	if count == 0 || boltHeader+count*boltElement > len(page) {
		return b.damaged("page %d has %d elements", id, count)
	}
	key := func(i int) ([]byte, error) {
		at := boltHeader + i*boltElement
		return b.field(page, id, at, uint64(native.Uint32(page[at:])), uint64(native.Uint32(page[at+4:])))
	}
	k, err := key(0)
	if err != nil {
		return err
	}
	if low != nil && bytes.Compare(k, low) < 0 {
		return b.damaged("page %d: a key is too low", id)
	}
	for i := range count {
		child := native.Uint64(page[boltHeader+i*boltElement+8:])
		next := high
		if i+1 < count {
			if next, err = key(i + 1); err != nil {
				return err
			}
			if bytes.Compare(k, next) >= 0 {
				return b.damaged("page %d: keys are out of order", id)
			}
		}
		if high != nil && bytes.Compare(k, high) >= 0 {
			return b.damaged("page %d: a key is too high", id)
		}
		if err := w.page(child, depth+1, k, next); err != nil {
			return err
		}
		k = next
	}
	return nil
}

func (w *boltWalk) leaf(page []byte, id uint64, low, high []byte) error {
	b := w.file
	count := int(native.Uint16(page[10:]))
	if boltHeader+count*boltElement > len(page) {
		return b.damaged("page %d has %d elements", id, count)
	}
	for i := range count {
		at := boltHeader + i*boltElement
		flags := native.Uint32(page[at:])
		pos, ksize, vsize := uint64(native.Uint32(page[at+4:])), uint64(native.Uint32(page[at+8:])), uint64(native.Uint32(page[at+12:]))
		key, err := b.field(page, id, at, pos, ksize)
		if err != nil {
			return err
		}
		value, err := b.field(page, id, at, pos+ksize, vsize)
		if err != nil {
			return err
		}
		if (flags&boltBucketFlag != 0) != w.buckets {
			return b.damaged("page %d: element %d is of the wrong kind", id, i)
		}
		if (w.any && bytes.Compare(w.last, key) >= 0) || bytes.Compare(key, low) < 0 || (high != nil && bytes.Compare(key, high) >= 0) {
			return b.damaged("page %d: keys are out of order", id)
		}
		w.last, w.any = key, true
		if err := w.visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// field returns n bytes at pos behind the element that starts at byte at of the page.
func (b *boltFile) field(page []byte, id uint64, at int, pos, n uint64) ([]byte, error) {
	from := uint64(at) + pos
	if from > uint64(len(page)) || n > uint64(len(page))-from {
		return nil, b.damaged("page %d: an element reaches beyond its page", id)
	}
	return page[from : from+n : from+n], nil
}
