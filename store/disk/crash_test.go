package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"
)

// crash ends the world at one operation on raft.db or on the journal. What was written to the
// journal and not synced is then there or not, sector by sector.
type crash struct {
	at      int      // number of the operation, counted from 0; negative for none
	done    bool     // it is carried out all the same
	fate    fate     // of what was not synced
	returns bool     // files that were deleted are there again, as deleting is not synced
	idle    bool     // nothing is counted
	n       int      // operations so far
	writes  []bool   // whether each was to write or sync the journal
	down    bool     // it has happened
	deleted []string // files, kept under another name
	files   []*crashFile
	kind    Kind
	mu      sync.Mutex // guards everything: raft-wal works in the background, too
}

// fate says which of the sectors that were not synced are on disk after the crash.
type fate int

const (
	allLost fate = iota
	allKept
	evenKept
	oddKept
)

func (f fate) keeps(sector int64) bool {
	return f == allKept || (f == evenKept && sector%2 == 0) || (f == oddKept && sector%2 == 1)
}

func (c *crash) op(run func() error) error { return c.count(false, run) }

func (c *crash) count(write bool, run func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return errInjected
	}
	if c.idle {
		return run()
	}
	c.n++
	c.writes = append(c.writes, write)
	if c.n-1 != c.at {
		return run()
	}
	if c.done {
		_ = run()
	}
	c.down = true
	for _, f := range c.files {
		if f.fresh && c.fate == allLost {
			_ = os.Remove(f.Name())
		}
		for sector, before := range f.unsynced {
			if !c.fate.keeps(sector) {
				if _, err := f.File.WriteAt(before, sector*sectorSize); err != nil {
					panic(err)
				}
			}
		}
	}
	for _, path := range c.deleted {
		if c.returns {
			_ = os.Rename(path+".gone", path)
		}
	}
	return errInjected
}

func (c *crash) options(dir string) Options {
	return Options{DataDir: dir, NoSync: true, wrapBolt: c.wrap, LogStore: c.kind, segmentSize: 4096,
		wrapFiles: func(v types.VFS) types.VFS { return &crashVFS{v, c} },
		journal:   journalOptions{manual: true, firstSegment: 4 * sectorSize, maxSegment: 16 * sectorSize, files: c}}
}

type crashBolt struct {
	boltStore
	c *crash
}

func (c *crash) wrap(b boltStore) boltStore { return &crashBolt{b, c} }

func (b *crashBolt) StoreLogs(logs []*raft.Log) error {
	return b.c.op(func() error { return b.boltStore.StoreLogs(logs) })
}

func (b *crashBolt) DeleteRange(min, max uint64) error {
	return b.c.op(func() error { return b.boltStore.DeleteRange(min, max) })
}

func (c *crash) create(path string) (f journalFile, err error) {
	err = c.op(func() error {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, fileMode)
		if err != nil {
			return err
		}
		cf := &crashFile{File: file, c: c, unsynced: map[int64][]byte{}}
		c.files = append(c.files, cf)
		f = cf
		return nil
	})
	return f, err
}

func (c *crash) rename(from, to string) error {
	return c.op(func() error { return os.Rename(from, to) })
}

func (c *crash) remove(path string) error {
	return c.op(func() error {
		err := os.Rename(path, path+".gone")
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		c.deleted = append(c.deleted, path)
		return err
	})
}

// crashVFS is crash for segments.
type crashVFS struct {
	types.VFS
	c *crash
}

func (v *crashVFS) Create(dir, name string, size uint64) (f types.WritableFile, err error) {
	err = v.c.op(func() error {
		f, err = v.VFS.Create(dir, name, size)
		if err == nil {
			f = v.watch(f, true)
		}
		return err
	})
	return f, err
}

func (v *crashVFS) OpenWriter(dir, name string) (types.WritableFile, error) {
	f, err := v.VFS.OpenWriter(dir, name)
	if err == nil {
		v.c.mu.Lock()
		defer v.c.mu.Unlock()
		f = v.watch(f, false)
	}
	return f, err
}

func (v *crashVFS) watch(f types.WritableFile, fresh bool) *crashFile {
	cf := &crashFile{File: f.(*segmentFile).File, c: v.c, unsynced: map[int64][]byte{}, fresh: fresh}
	v.c.files = append(v.c.files, cf)
	return cf
}

func (v *crashVFS) Delete(dir, name string) error { return v.c.remove(filepath.Join(dir, name)) }

type crashFile struct {
	*os.File
	c        *crash
	fresh    bool             // a segment that was never synced, and its name neither
	unsynced map[int64][]byte // what was in a sector when it was last synced
}

func (f *crashFile) WriteAt(b []byte, at int64) (n int, err error) {
	err = f.c.count(true, func() error {
		if f.c.kind == BoltDB && (at%sectorSize != 0 || len(b)%sectorSize != 0) {
			return fmt.Errorf("write of %d bytes at %d", len(b), at)
		}
		for i := at / sectorSize; i*sectorSize < at+int64(len(b)); i++ {
			if f.unsynced[i] == nil {
				before := make([]byte, sectorSize)
				_, _ = f.File.ReadAt(before, i*sectorSize) // zeros behind the end
				f.unsynced[i] = before
			}
		}
		n, err = f.File.WriteAt(b, at)
		return err
	})
	return n, err
}

func (f *crashFile) Sync() error {
	return f.c.count(true, func() error { clear(f.unsynced); f.fresh = false; return nil })
}

// moveAll moves what is in the journal into raft.db.
func moveAll(l *LogStore) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	return l.drain()
}

// journalLife is what happens to a member in TestCrashJournal. then says what it changes.
var journalLife = []struct {
	name string
	do   func(*testing.T, *Dir) error
	then func(*model)
}{
	{"term 1", func(_ *testing.T, d *Dir) error { return d.StableStore().SetUint64([]byte("CurrentTerm"), 1) },
		func(m *model) { m.term = 1 }},
	{"store 1..2", store(1, 2, 1), func(m *model) { m.logs = entriesOf(1, 2, 1) }},
	{"store 3..20", store(3, 20, 1), func(m *model) { m.logs = entriesOf(1, 20, 1) }}, // three sectors; a new segment
	{"vote in term 2", func(_ *testing.T, d *Dir) error {
		s := d.StableStore()
		return errors.Join(s.SetUint64([]byte(voteTermKey), 2), s.Set([]byte(voteCandidateKey), []byte("a")))
	}, func(m *model) { m.vote, m.candidate = 2, "a" }},
	{"store 21", store(21, 21, 1), func(m *model) { m.logs = entriesOf(1, 21, 1) }},
	{"move", func(_ *testing.T, d *Dir) error { return moveAll(d.LogStore()) }, func(*model) {}},
	{"store 22..23", store(22, 23, 1), func(m *model) { m.logs = entriesOf(1, 23, 1) }},
	{"cut the beginning, in the journal", func(t *testing.T, d *Dir) error {
		saveSnapshot(t, d, 1, 22, "so that the log may be cut")
		return d.LogStore().DeleteRange(1, 22)
	}, func(m *model) { m.logs = entriesOf(23, 23, 1) }},
	{"store 24..30", store(24, 30, 1), func(m *model) { m.logs = entriesOf(23, 30, 1) }},
	{"cut the end, in the journal", func(_ *testing.T, d *Dir) error { return d.LogStore().DeleteRange(25, 30) },
		func(m *model) { m.logs = entriesOf(23, 24, 1) }},
	{"store 25 of term 3", store(25, 25, 3), func(m *model) { m.logs = append(entriesOf(23, 24, 1), entry(25, 3)) }},
	{"x", func(_ *testing.T, d *Dir) error { return d.StableStore().Set([]byte("x"), []byte("y")) },
		func(m *model) { m.custom = "y" }},
	{"cut all", func(_ *testing.T, d *Dir) error { return d.LogStore().DeleteRange(23, 25) }, func(m *model) { m.logs = nil }},
	{"store 23..50", store(23, 50, 3), func(m *model) { m.logs = entriesOf(23, 50, 3) }}, // a large segment
	{"store 51", store(51, 51, 3), func(m *model) { m.logs = entriesOf(23, 51, 3) }},
}

// A journal that is begun again and again, with files that come back after they were deleted.
func TestCrashFirstSegment(t *testing.T) {
	const most = 12
	empty := t.TempDir()
	if err := openMember(t, Options{DataDir: empty, NoSync: true}).Close(); err != nil {
		t.Fatal(err)
	}
	for first := 6; first < most; first++ {
		for second := 6; second < most; second++ {
			dir := copyDir(t, empty)
			var stored uint64
			for _, at := range []int{first, second, -1} {
				c := &crash{at: at, returns: true}
				d, err := Open(c.options(dir))
				if err != nil {
					if errors.Is(err, errInjected) {
						continue
					}
					t.Fatalf("crashes at %d, %d: %v", first, second, err)
				}
				wantLog(t, d.LogStore(), entriesOf(1, stored, 1))
				if err := d.LogStore().StoreLogs(entriesOf(stored+1, stored+1, 1)); err == nil {
					stored++
				}
				if err := d.Close(); err != nil && !errors.Is(err, errInjected) {
					t.Fatal(err)
				}
			}
			wantLog(t, openMember(t, Options{DataDir: dir, NoSync: true}).LogStore(), entriesOf(1, stored, 1))
		}
	}
}

func store(from, to, term uint64) func(*testing.T, *Dir) error {
	return func(_ *testing.T, d *Dir) error { return d.LogStore().StoreLogs(entriesOf(from, to, term)) }
}

// live runs a member until the crash, and returns the states it may leave.
func live(t *testing.T, c *crash, dir string) (before, after model) {
	c.idle = true
	d := openMember(t, c.options(dir))
	defer d.Close()
	c.idle = false
	for _, s := range journalLife {
		after = before.clone()
		s.then(&after)
		if err := s.do(t, d); err != nil {
			if !errors.Is(err, errInjected) {
				t.Fatalf("%s: %v", s.name, err)
			}
			if again := d.LogStore().StoreLogs(entriesOf(5000, 5000, 9)); again == nil {
				t.Fatalf("%s: a write worked after the failure", s.name)
			}
			return before, after
		}
		before = after
		if got := observe(t, d); !got.equal(after) {
			t.Fatalf("%s: %v, want %v", s.name, got, after)
		}
	}
	if err := d.Close(); err != nil && !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	return before, after
}

// A crash at any operation on the journal or raft.db leaves the state before the call that was
// running or the one after it, whichever part of what was not synced has reached the disk.
func TestCrashJournal(t *testing.T) { eachKind(t, testCrashJournal) }

func testCrashJournal(t *testing.T, kind Kind) {
	empty := t.TempDir()
	if err := openMember(t, (&crash{at: -1, kind: kind}).options(empty)).Close(); err != nil {
		t.Fatal(err)
	}
	newDir := func(t *testing.T) string { return copyDir(t, empty) }
	count := &crash{at: -1, kind: kind}
	dir := newDir(t)
	_, want := live(t, count, dir)
	if kind == BoltDB {
		wantFiles(t, dir+"/member/wal", "journal-1.gone", "journal-2.gone", "journal-3.gone", logFile)
	}
	if got := observe(t, openMember(t, Options{DataDir: dir, NoSync: true})); !got.equal(want) {
		t.Fatalf("after restart: %v, want %v", got, want)
	}
	t.Logf("%d operations", count.n)

	for at := range count.n {
		for _, c := range []*crash{
			{done: false, fate: allLost}, {done: true, fate: allKept, returns: true},
			{done: at%2 == 0, fate: evenKept, returns: true}, {done: at%2 == 0, fate: oddKept},
		} {
			if c.fate > allKept && !count.writes[at] {
				continue // nothing but what was synced
			}
			c.at, c.kind = at, kind
			t.Run(fmt.Sprintf("operation=%d/done=%v/fate=%d", at, c.done, c.fate), func(t *testing.T) {
				t.Parallel()
				dir := newDir(t)
				before, after := live(t, c, dir)
				// Nobody who only looks changes anything.
				if r, err := Verify(dir, ""); err != nil || len(r.Problems) > 0 {
					t.Fatalf("Verify: %v, %v", r.Problems, err)
				}
				// The member may crash again while it starts.
				for again := range 2 {
					restart := &crash{at: (again*5 + at) % 8, done: c.done, fate: c.fate, returns: c.returns, kind: kind}
					d, err := Open(restart.options(dir))
					if err == nil {
						err = d.Close()
					}
					if err != nil && !errors.Is(err, errInjected) {
						t.Fatalf("restart that crashes: %v", err)
					}
				}
				last := &crash{at: -1, kind: kind}
				d := openMember(t, last.options(dir))
				got := observe(t, d)
				if !got.equal(before) && !got.equal(after) {
					t.Fatalf("after restart: %v, want %v or %v", got, before, after)
				}
				// Life goes on.
				next, _ := d.LogStore().LastIndex()
				if next == 0 {
					_, next = d.snapshots.newest()
				}
				mustStore(t, d.LogStore(), entriesOf(next+1, next+3, 9))
				got.logs = append(got.logs, entriesOf(next+1, next+3, 9)...)
				if now := observe(t, reopen(t, d)); !now.equal(got) {
					t.Fatalf("after the next restart: %v, want %v", now, got)
				}
			})
		}
	}
}
