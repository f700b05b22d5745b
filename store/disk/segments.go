package disk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/durable"
)

// Kind says what holds the log of a member. Settings are in raft.db with either.
type Kind string

const (
	BoltDB Kind = "boltdb" // raft.db, with the journal in front of it (journal.go)
	WAL    Kind = "wal"    // the segments of hashicorp/raft-wal
)

// With the kind WAL, entries are in the segments of hashicorp/raft-wal, sealed and chained as in
// raft.db, and raft.db holds everything else. What raft-wal would keep in a bolt file of its own,
// the table of its segments, is a setting (segmentsKey): so it is checked like a vote, there is
// nothing else to lock or to close, and it is what tells the kind of a log.
//
// raft-wal itself checks the last batch that was written and nothing else, and takes any damage to
// it for a write that a crash has interrupted. So all segments are checked before it sees them
// (segmentread.go), and it is given files in which nothing is left to be repaired.

const (
	segmentsDir = "segments"
	// segmentsKey is the setting that holds the segmentTable, and is there in logs of the kind WAL
	// only.
	segmentsKey = "Segments"
	// segmentSize is how large a segment becomes before the next is begun, in bytes. Each costs a
	// transaction in raft.db, and room until the log has been cut beyond it.
	segmentSize = 16 << 20
	// serialSize is what an entry carries in front of its seals: the serial number of raft.db's
	// head when it was written, as records of the journal do.
	serialSize = 8
	// entryOverhead is more than what an entry takes beside its data and extensions.
	entryOverhead = 256
)

// segmentTable is what raft-wal has to know of its segments, and how far the log went.
type segmentTable struct {
	NextID   uint64
	Segments []types.SegmentInfo
	// Known is the index of an entry that was on disk when this was written: one of the newest
	// segment, unless that is empty, and after Close the last.
	Known uint64
}

func decodeSegmentTable(b []byte) (t segmentTable, err error) {
	err = json.Unmarshal(b, &t)
	return t, err
}

// writesTo is the index of the first entry of the segment that is written to.
func (t *segmentTable) writesTo() uint64 {
	if len(t.Segments) == 0 {
		return 0
	}
	return t.Segments[len(t.Segments)-1].BaseIndex
}

// kind returns what holds a log that was read.
func (c *contents) kind() Kind {
	if _, ok := c.settings[segmentsKey]; ok {
		return WAL
	}
	return BoltDB
}

// wrongKind is the refusal of a log of another kind than was asked for.
func wrongKind(path string, o Options, is Kind) error {
	command := "quorate convert-log " + o.DataDir + " --to " + string(o.LogStore)
	if o.WALDir != filepath.Join(o.DataDir, "member", "wal") {
		command += " --wal-dir " + o.WALDir
	}
	return fmt.Errorf("%s belongs to a log of the kind %q, but --log-store is %q: start with --log-store=%s, or stop the member and convert the log with: %s",
		path, is, o.LogStore, is, command)
}

// segmentLog is the log in segments. It is raft-wal's MetaStore, too.
type segmentLog struct {
	log   *LogStore
	dir   string
	size  int
	wal   *wal.WAL
	batch []raft.Log // scratch space, guarded by LogStore.appendMu
	refs  []*raft.Log

	wrapFiles func(types.VFS) types.VFS

	tableMu sync.Mutex // one change of the table at a time; locked before LogStore.writeMu

	mu    sync.Mutex // guards what follows
	table segmentTable
	last  uint64 // index of the last entry, or of the one that will be the last
}

// open does what a crash has left to do, and opens the segments.
func (s *segmentLog) open(todo segmentRepair) error {
	if err := durable.Mkdir(s.dir, dirMode); err != nil {
		return err
	}
	if err := todo.run(); err != nil {
		return s.log.fail(s.dir, "open", err)
	}
	if todo.sealed != nil {
		if err := s.write(s.table.rotated(*todo.sealed, s.size)); err != nil {
			return err
		}
	}
	files := types.VFS(&segmentFiles{log: s.log})
	if s.wrapFiles != nil {
		files = s.wrapFiles(files)
	}
	_, err := shielded(s.dir, func() (err error) {
		s.wal, err = wal.Open(s.dir, wal.WithMetaStore(s), wal.WithSegmentSize(s.size), wal.WithLogger(s.log.logger),
			wal.WithSegmentFiler(walsegment.NewFiler(s.dir, files)))
		return err
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", s.dir, err)
	}
	first, err1 := s.wal.FirstIndex()
	last, err2 := s.wal.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if first != s.log.first || last != s.log.last {
		return damaged(s.dir, "it was read as the entries %d to %d, and opened as %d to %d", s.log.first, s.log.last, first, last)
	}
	return nil
}

// rotated is the table with a new segment behind its last one, which has been sealed.
func (t segmentTable) rotated(sealed types.SegmentInfo, size int) segmentTable {
	t.Segments = slices.Clone(t.Segments)
	t.Segments[len(t.Segments)-1] = sealed
	t.Segments = append(t.Segments, types.SegmentInfo{
		ID: t.NextID, BaseIndex: sealed.MaxIndex + 1, MinIndex: sealed.MaxIndex + 1,
		Codec: sealed.Codec, SizeLimit: uint32(size), CreateTime: time.Now(),
	})
	t.NextID++
	return t
}

// append writes sealed copies of entries and returns what is to be remembered of each.
func (s *segmentLog) append(logs []*raft.Log, prev uint32, serial uint64) ([]stored, error) {
	s.batch = sealAll(s.batch[:0], logs, prev, encodeUint64(serial))
	defer func() { clear(s.batch) }() // let go of the data
	s.refs = s.refs[:0]
	added := make([]stored, len(logs))
	for i := range s.batch {
		s.refs = append(s.refs, &s.batch[i])
		added[i] = stored{seal: sealIn(&s.batch[i]), size: storedSize(logs[i])}
	}
	if err := s.call("append", func() error { return s.wal.StoreLogs(s.refs) }); err != nil {
		return nil, err
	}
	last := logs[len(logs)-1].Index
	s.mu.Lock()
	s.last = last
	isFirst := s.table.Known < s.table.writesTo()
	s.mu.Unlock()
	if isFirst {
		// From now on a segment that is missing or empty is a lost one.
		return added, s.mark()
	}
	return added, nil
}

// deleteFrom deletes the entries from min to last, the end of the log. Behind it is entry newLast.
func (s *segmentLog) deleteFrom(min, last, newLast uint64) error {
	s.mu.Lock()
	s.last = newLast
	s.mu.Unlock()
	return s.call("delete", func() error { return s.wal.DeleteRange(min, last) })
}

func (s *segmentLog) deleteTo(first, max uint64) error {
	return s.call("delete", func() error { return s.wal.DeleteRange(first, max) })
}

// call calls raft-wal to write something. A failure is final.
func (s *segmentLog) call(op string, fn func() error) error {
	if err := s.log.writable(); err != nil {
		return err
	}
	timer := s.log.watchdog.start(op)
	_, err := shielded(s.dir, fn)
	s.log.watchdog.stop(timer)
	if err != nil {
		return s.log.fail(s.dir, op, err)
	}
	return nil
}

// get reads an entry with its seals, and without the serial number between.
func (s *segmentLog) get(index uint64, e *raft.Log) error {
	_, err := shielded(s.dir, func() error { return s.wal.GetLog(index, e) })
	if err != nil {
		return err
	}
	_, err = takeSerial(e)
	return err
}

// takeSerial takes the serial number out of an entry that still has its seals.
func takeSerial(e *raft.Log) (uint64, error) {
	n := len(e.Extensions) - sealSize - serialSize
	if n < 0 {
		return 0, errors.New("it has no checksum")
	}
	serial := order.Uint64(e.Extensions[n:])
	e.Extensions = slices.Delete(e.Extensions, n, n+serialSize)
	return serial, nil
}

// close closes the segments. After it, raft.db knows where the log ends.
func (s *segmentLog) close() error {
	if s.wal == nil {
		return nil
	}
	var err error
	if s.log.writable() == nil {
		err = s.mark()
	}
	return errors.Join(err, s.wal.Close())
}

// mark writes down that the log goes up to its last entry.
func (s *segmentLog) mark() error {
	return s.change(func(t *segmentTable) {})
}

// change changes the table. raft-wal does so in the background, too, and neither may undo what the other
// has done: the table in memory is the one on disk when the next change begins.
func (s *segmentLog) change(change func(*segmentTable)) error {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	var next segmentTable
	err := s.log.setting(segmentsKey, func([]byte) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		next = s.table
		change(&next)
		next.Known = s.last
		return json.Marshal(next)
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.table = next
	s.mu.Unlock()
	return nil
}

func (s *segmentLog) write(t segmentTable) error {
	return s.change(func(next *segmentTable) { *next = t })
}

// Load returns the table, for raft-wal.
func (s *segmentLog) Load(string) (types.PersistentState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return types.PersistentState{NextSegmentID: s.table.NextID, Segments: slices.Clone(s.table.Segments)}, nil
}

// CommitState replaces the table durably, for raft-wal.
func (s *segmentLog) CommitState(state types.PersistentState) error {
	return s.change(func(next *segmentTable) { next.NextID, next.Segments = state.NextSegmentID, state.Segments })
}

var errNotASetting = errors.New("settings are not kept by the log")

// GetStable is not used.
func (s *segmentLog) GetStable([]byte) ([]byte, error) { return nil, errNotASetting }

// SetStable is not used.
func (s *segmentLog) SetStable([]byte, []byte) error { return errNotASetting }

// Close does nothing: raft.db belongs to the LogStore.
func (s *segmentLog) Close() error { return nil }

// segmentFiles is the file system of raft-wal. A segment that cannot be made ends all writing here,
// since raft-wal makes it in the background and does not say why it has none.
type segmentFiles struct{ log *LogStore }

// ListDir returns the names of the files in dir.
func (f *segmentFiles) ListDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// Create makes a file of size bytes, all zero. It is durable after its first Sync.
func (f *segmentFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, fileMode)
	if err == nil {
		if err = allocate(file, int64(size)); err != nil {
			err = errors.Join(err, file.Close(), os.Remove(file.Name()))
		}
	}
	if err != nil {
		return nil, f.log.fail(filepath.Join(dir, name), "make segment", err)
	}
	return f.file(file), nil
}

// allocate gives a file its size, and room on the disk where the file system can.
func allocate(f *os.File, size int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP):
			return f.Truncate(size)
		case err != nil:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
		return nil
	}
}

func (f *segmentFiles) file(file *os.File) types.WritableFile {
	return &segmentFile{osFile: osFile{file, f.log.noSync}}
}

// Delete deletes a file durably.
func (f *segmentFiles) Delete(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}

// OpenReader opens a file for reading.
func (f *segmentFiles) OpenReader(dir, name string) (types.ReadableFile, error) {
	return os.Open(filepath.Join(dir, name))
}

// OpenWriter opens a file for writing.
func (f *segmentFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	return f.file(file), nil
}

// segmentFile is a segment that is written to. The first Sync makes its size and its name durable,
// those that follow what was written.
type segmentFile struct {
	osFile
	named bool
}

// Sync returns when everything written is on disk.
func (f *segmentFile) Sync() error {
	if f.named || f.noSync {
		return f.osFile.Sync()
	}
	if err := f.File.Sync(); err != nil {
		return err
	}
	f.named = true
	return durable.SyncDir(filepath.Dir(f.Name()))
}
