package disk

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/internal/durable"
)

const (
	snapSuffix   = ".snap"
	brokenSuffix = ".broken"

	snapBuffer = 1 << 20
	// While a snapshot is written, its data goes to the disk in portions of this size, so that
	// the log's next fsync does not have to wait for all of it.
	snapSyncEvery = 32 << 20
)

// A snapshot is one file:
//
//	magic  8 bytes
//	n      4 bytes, length of the description
//	       n bytes, the description: JSON of snapshotHeader
//	crc    4 bytes, CRC-32C of all before
//	data
//	size   8 bytes, of data
//	crc    4 bytes, CRC-32C of data
//	crc    4 bytes, CRC-32C of the 12 bytes before
//
// Numbers are little-endian. It gets its name when it is complete and on disk.
const (
	snapMagic      = "quosnap1"
	snapTrailer    = 8 + 4 + 4
	snapMaxHeader  = 16 << 20
	snapVersionMax = raft.SnapshotVersionMax
)

type snapshotHeader struct {
	Version            raft.SnapshotVersion
	Index, Term        uint64
	Configuration      raft.Configuration
	ConfigurationIndex uint64
}

// snapshotStore is a raft.SnapshotStore. raft.FileSnapshotStore would do, but it passes over a
// damaged snapshot in silence, checksums only the data, and writes in pieces of 4 KiB.
type snapshotStore struct {
	dir     string
	retain  int // 0 means all
	reserve Reserve
	onLost  func() // Options.OnSnapshotLost, or nil
	logger  hclog.Logger

	mu          sync.Mutex // guards what follows, and which files are there
	term, index uint64     // of the newest snapshot that can be used; 0, 0 when there is none
}

func snapshotID(term, index uint64) string { return fmt.Sprintf("%016x-%016x", term, index) }

func parseSnapshotID(id string) (term, index uint64, ok bool) {
	t, i, found := strings.Cut(id, "-")
	if !found || len(t) != 16 || len(i) != 16 {
		return 0, 0, false
	}
	term, err1 := strconv.ParseUint(t, 16, 64)
	index, err2 := strconv.ParseUint(i, 16, 64)
	return term, index, err1 == nil && err2 == nil && snapshotID(term, index) == id
}

func (s *snapshotStore) path(id string) string { return filepath.Join(s.dir, id+snapSuffix) }

// openSnapshots removes what an interrupted write has left and looks for the newest snapshot that
// is whole. Damaged ones before it are set aside.
func openSnapshots(dir string, retain int, reserve Reserve, logger hclog.Logger) (*snapshotStore, error) {
	s := &snapshotStore{dir: dir, retain: retain, reserve: reserve, logger: logger}
	left, _ := filepath.Glob(filepath.Join(globQuote(dir), "*"+snapSuffix+durable.TempSuffix))
	for _, path := range left {
		if err := removeIfThere(path); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	metas, err := s.list()
	if err != nil {
		return nil, err
	}
	for _, m := range metas {
		_, r, err := openSnapshot(s.path(m.ID))
		if err == nil {
			_ = r.Close()
			s.term, s.index = m.Term, m.Index
			break
		}
		if err := s.setAside(m.ID, err); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// newest returns the term and index of the newest snapshot that can be used, or zeros.
func (s *snapshotStore) newest() (term, index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term, s.index
}

// List returns all snapshots, newest first.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

func (s *snapshotStore) list() ([]*raft.SnapshotMeta, error) {
	ids, err := snapshotIDs(s.dir)
	if err != nil {
		return nil, err
	}
	var metas []*raft.SnapshotMeta
	for _, id := range ids {
		f, meta, _, err := openSnapshotHeader(s.path(id))
		if err == nil {
			_ = f.Close()
			metas = append(metas, meta)
			continue
		}
		if err := s.setAside(id, err); err != nil {
			return nil, err
		}
	}
	if newest := snapshotID(s.term, s.index); s.index > 0 && (len(metas) == 0 || metas[0].ID < newest) {
		s.logger.Error("the newest snapshot is not there any more: " + s.path(newest))
		s.forget(ids)
	}
	return metas, nil
}

// forget is called when the newest snapshot can no longer be used: the first of ids takes its place. Called
// with mu held.
func (s *snapshotStore) forget(ids []string) {
	s.term, s.index = 0, 0
	if len(ids) > 0 {
		s.term, s.index, _ = parseSnapshotID(ids[0])
	}
	if s.onLost != nil {
		s.onLost()
	}
}

// snapshotIDs returns the IDs of the files in a directory that are named like snapshots, newest
// first.
func snapshotIDs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var ids []string
	for _, e := range entries {
		id, isSnap := strings.CutSuffix(e.Name(), snapSuffix)
		if _, _, ok := parseSnapshotID(id); ok && isSnap && e.Type().IsRegular() {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(b, a) })
	return ids, nil
}

// setAside renames a snapshot that failed with cause when it is damaged, so that it is not tried
// again, and returns cause when it may not be. Called with mu held.
func (s *snapshotStore) setAside(id string, cause error) error {
	if !errors.Is(cause, ErrDamaged) {
		return cause
	}
	path := s.path(id)
	s.logger.Error(fmt.Sprintf("corrupted snapshot file %s: %v", path, reasonOf(cause)), "renamed-to", path+brokenSuffix)
	if err := durable.Rename(path, path+brokenSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if term, index, _ := parseSnapshotID(id); term == s.term && index == s.index {
		ids, err := snapshotIDs(s.dir)
		if err != nil {
			s.logger.Warn("older snapshots are not known", "error", err)
		}
		s.forget(ids)
	}
	return nil
}

func reasonOf(err error) any {
	if d := (*DamageError)(nil); errors.As(err, &d) {
		return d.Reason
	}
	return err
}

// Open returns a snapshot and its data, after all of it has been checked.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if _, _, ok := parseSnapshotID(id); !ok {
		return nil, nil, fmt.Errorf("open snapshot: %q is not the ID of one", id)
	}
	meta, r, err := openSnapshot(s.path(id))
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return nil, nil, errors.Join(err, s.drop(id, err))
	}
	return meta, r, nil
}

// drop is setAside for a caller that returns cause anyway.
func (s *snapshotStore) drop(id string, cause error) error {
	if err := s.setAside(id, cause); err != cause {
		return err
	}
	return nil
}

// openSnapshotHeader opens a file and checks all but its data, which is size bytes from where the
// file is positioned.
func openSnapshotHeader(path string) (f *os.File, meta *raft.SnapshotMeta, sum uint32, err error) {
	if f, err = os.Open(path); err != nil {
		return nil, nil, 0, fmt.Errorf("open snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			f = nil
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return f, nil, 0, err
	}
	fixed := make([]byte, len(snapMagic)+4)
	if _, err := io.ReadFull(f, fixed); err != nil {
		return f, nil, 0, readError(path, err)
	}
	n := int64(order.Uint32(fixed[len(snapMagic):]))
	size := info.Size() - int64(len(fixed)) - n - 4 - snapTrailer
	if string(fixed[:len(snapMagic)]) != snapMagic || n > snapMaxHeader || size < 0 {
		return f, nil, 0, damaged(path, "it is not a snapshot")
	}
	rest := make([]byte, n+4)
	if _, err := io.ReadFull(f, rest); err != nil {
		return f, nil, 0, readError(path, err)
	}
	if crc32.Update(crc32.Checksum(fixed, crcTable), crcTable, rest[:n]) != order.Uint32(rest[n:]) {
		return f, nil, 0, damaged(path, "checksum of the description does not match")
	}
	var h snapshotHeader
	if err := json.Unmarshal(rest[:n], &h); err != nil {
		return f, nil, 0, damaged(path, "description: %v", err)
	}
	if h.Version > snapVersionMax {
		return f, nil, 0, fmt.Errorf("%s: snapshot version %d is newer than this program", path, h.Version)
	}
	id := snapshotID(h.Term, h.Index)
	if filepath.Base(path) != id+snapSuffix {
		return f, nil, 0, damaged(path, "it is the snapshot %s", id)
	}
	trailer := make([]byte, snapTrailer)
	if _, err := f.ReadAt(trailer, info.Size()-snapTrailer); err != nil {
		return f, nil, 0, readError(path, err)
	}
	if crc32.Checksum(trailer[:12], crcTable) != order.Uint32(trailer[12:]) || order.Uint64(trailer) != uint64(size) {
		return f, nil, 0, damaged(path, "it is cut off")
	}
	meta = &raft.SnapshotMeta{
		Version: h.Version, ID: id, Index: h.Index, Term: h.Term, Size: size,
		Configuration: h.Configuration, ConfigurationIndex: h.ConfigurationIndex,
	}
	return f, meta, order.Uint32(trailer[8:]), nil
}

// openSnapshot opens a file and checks everything in it.
func openSnapshot(path string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f, meta, sum, err := openSnapshotHeader(path)
	if err != nil {
		return nil, nil, err
	}
	start, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		crc := crc32.New(crcTable)
		if _, err = io.CopyBuffer(crc, io.NewSectionReader(f, start, meta.Size), make([]byte, snapBuffer)); err == nil && crc.Sum32() != sum {
			err = damaged(path, "checksum does not match")
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, readError(path, err)
	}
	return meta, &snapshotReader{
		Reader: bufio.NewReaderSize(io.NewSectionReader(f, start, meta.Size), snapBuffer),
		Closer: f,
	}, nil
}

type snapshotReader struct {
	io.Reader
	io.Closer
}

// readError turns the end of the file into damage. Other errors may pass, and are no reason to
// give up a snapshot.
func readError(path string, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(path, "it is cut off")
	}
	if errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("read %s: %w", path, err)
}

// Create begins a snapshot. It exists once the sink is closed.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	if version != 1 {
		return nil, fmt.Errorf("make snapshot: unsupported version %d", version)
	}
	if err := s.room(); err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	description, err := json.Marshal(snapshotHeader{
		Version: version, Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	})
	if err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	id := snapshotID(term, index)
	f, err := os.CreateTemp(s.dir, id+".*"+snapSuffix+durable.TempSuffix)
	if err != nil {
		return nil, fmt.Errorf("make snapshot: %w", err)
	}
	sink := &snapshotSink{store: s, id: id, term: term, index: index, file: f, started: time.Now()}
	sink.buffer = bufio.NewWriterSize(f, snapBuffer)
	header := order.AppendUint32([]byte(snapMagic), uint32(len(description)))
	header = append(header, description...)
	header = order.AppendUint32(header, crc32.Checksum(header, crcTable))
	if _, err := sink.buffer.Write(header); err != nil {
		return nil, errors.Join(err, sink.Cancel())
	}
	return sink, nil
}

// snapshotSink writes one snapshot. It is used by one goroutine.
type snapshotSink struct {
	store       *snapshotStore
	id          string
	term, index uint64
	file        *os.File // nil when closed
	buffer      *bufio.Writer
	size        uint64
	unsynced    int
	unchecked   int // bytes since the last look for space
	sum         uint32
	started     time.Time
}

func (k *snapshotSink) ID() string { return k.id }

func (k *snapshotSink) Write(p []byte) (int, error) {
	if k.file == nil {
		return 0, os.ErrClosed
	}
	if k.unchecked += len(p); k.unchecked >= snapSpaceEvery {
		k.unchecked = 0
		if err := k.store.room(); err != nil {
			return 0, fmt.Errorf("write snapshot %s: %w", k.id, err)
		}
	}
	n, err := k.buffer.Write(p)
	k.size += uint64(n)
	k.sum = crc32.Update(k.sum, crcTable, p[:n])
	if k.unsynced += n; err == nil && k.unsynced >= snapSyncEvery {
		k.unsynced = 0
		err = k.file.Sync()
	}
	return n, err
}

// Close completes the snapshot, makes it durable and removes the oldest beyond the number to
// keep. After an error there is no new snapshot.
func (k *snapshotSink) Close() error {
	if k.file == nil {
		return nil
	}
	trailer := order.AppendUint64(nil, k.size)
	trailer = order.AppendUint32(trailer, k.sum)
	trailer = order.AppendUint32(trailer, crc32.Checksum(trailer, crcTable))
	_, err := k.buffer.Write(trailer)
	if err == nil {
		err = k.buffer.Flush()
	}
	if err == nil {
		err = k.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write snapshot %s: %w", k.id, err), k.Cancel())
	}
	tmp := k.file.Name()
	err = k.file.Close()
	k.file = nil
	if err == nil {
		err = k.store.add(tmp, k)
	}
	if err != nil {
		_ = os.Remove(tmp)
		return fmt.Errorf("write snapshot %s: %w", k.id, err)
	}
	k.store.logger.Info("snapshot saved", "term", k.term, "index", k.index, "bytes", k.size, "elapsed", time.Since(k.started))
	return nil
}

// Cancel gives the snapshot up.
func (k *snapshotSink) Cancel() error {
	if k.file == nil {
		return nil
	}
	err := errors.Join(k.file.Close(), os.Remove(k.file.Name()))
	k.file = nil
	return err
}

// add gives a complete file its name. A snapshot of the same term and index is replaced: the one
// of a forced recovery differs from it in the configuration, and is the one that counts.
func (s *snapshotStore) add(tmp string, k *snapshotSink) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := durable.Rename(tmp, s.path(k.id)); err != nil {
		return err
	}
	if k.term > s.term || (k.term == s.term && k.index > s.index) {
		s.term, s.index = k.term, k.index
	}
	if s.retain <= 0 {
		return nil
	}
	ids, err := snapshotIDs(s.dir)
	if err != nil {
		s.logger.Warn("old snapshots are not removed", "error", err)
		return nil
	}
	for _, id := range ids[min(s.retain, len(ids)):] {
		if err := os.Remove(s.path(id)); err != nil {
			s.logger.Warn("old snapshot is not removed", "id", id, "error", err)
		}
	}
	return nil
}
