package disk

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	walsegment "github.com/hashicorp/raft-wal/segment"
)

// deleteChunk is how many entries one transaction deletes at most. Writers wait no longer than
// one such transaction while a long log is cut.
const deleteChunk = 1000

// boltStore is what we use of raftboltdb.BoltStore.
type boltStore interface {
	GetLog(index uint64, log *raft.Log) error
	StoreLogs(logs []*raft.Log) error
	DeleteRange(min, max uint64) error
	Close() error
}

// LogStore is the raft log: a raft.LogStore and raft.MonotonicLogStore on raft-boltdb, with a
// journal in front (journal.go), or on raft-wal (segments.go). It has no holes, and refuses to be
// given one.
//
// It is the place where a leader's own write can later run beside replication: a wrapper around
// it may return early from StoreLogs and hold back acknowledgements until Durable has caught up.
type LogStore struct {
	path        string
	bolt        boltStore
	segments    *segmentLog // nil when entries are in raft.db
	noSync      bool
	snapshots   *snapshotStore
	cache       *entryCache
	watchdog    watchdog
	logger      hclog.Logger
	onCorrupt   func(error)
	onFailure   func(error)
	onStored    func(int, time.Duration)
	corruptOnce sync.Once
	failOnce    sync.Once

	closed   atomic.Bool
	panicked atomic.Bool // bolt is in an unknown state, and may hold its locks

	journalFiles files
	wake         chan struct{} // tells move that there is something to do
	appended     atomic.Int64  // when the last record was written, in Unix ns
	stopMove     chan struct{}
	moving       sync.WaitGroup

	// They are locked in this order.

	trimMu sync.Mutex // one DeleteRange at a time

	appendMu sync.Mutex // nobody else changes the end of the log; guards what follows
	journal  *journal   // nil when entries go into raft.db at once

	writeMu sync.Mutex // one transaction at a time; guards what follows
	txid    uint64     // of bolt's last transaction
	batch   []raft.Log // scratch space
	refs    []*raft.Log
	logs    []*raft.Log
	buf     []byte

	mu       sync.RWMutex // guards what follows
	failed   error        // of the first write that failed
	head     head         // of raft.db; written with writeMu held
	settings map[string][]byte
	// The whole log. Its end is written with appendMu held.
	first, last uint64
	seal        uint32   // of the last entry
	entries     []stored // first..last
	// The end of it that is in the journal only.
	pending      []*record
	pendingBytes int64
	pendingLogs  int
	written      uint64 // number of the last record in the journal
}

// FirstIndex returns the index of the first entry, 0 when there is none.
func (l *LogStore) FirstIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.first, l.readable()
}

// LastIndex returns the index of the last entry, 0 when there is none.
func (l *LogStore) LastIndex() (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last, l.readable()
}

// Durable returns the index of the last entry that is on this disk.
func (l *LogStore) Durable() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.last
}

// IsMonotonic makes raft delete the log when a snapshot from the leader replaces it, instead of
// leaving a hole.
func (l *LogStore) IsMonotonic() bool { return true }

// EntriesWithin returns how many of the newest entries take at most n bytes on disk, for setting
// raft's TrailingLogs by size.
func (l *LogStore) EntriesWithin(n int64) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	count := 0
	for i := len(l.entries) - 1; i >= 0; i-- {
		if n -= int64(l.entries[i].size); n < 0 {
			break
		}
		count++
	}
	return uint64(count)
}

func (l *LogStore) readable() error {
	if l.closed.Load() {
		return ErrClosed
	}
	return nil
}

// expected returns the seal of the entry at index, and false when there is none. The entry comes
// with it unless it is in raft.db.
func (l *LogStore) expected(index uint64) (seal uint32, entry *raft.Log, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if index < l.first || index > l.last || index == 0 {
		return 0, nil, false
	}
	seal = l.entries[index-l.first].seal
	if len(l.pending) == 0 || index < l.pending[0].first() {
		return seal, nil, true
	}
	i, found := slices.BinarySearchFunc(l.pending, index, func(r *record, index uint64) int { return cmp.Compare(r.first(), index) })
	if !found {
		i--
	}
	r := l.pending[i]
	return seal, r.logs[index-r.first()], true
}

// GetLog reads the entry at index into log, or returns raft.ErrLogNotFound. An entry that is not
// exactly what was stored is a [DamageError], and OnCorrupt is called.
func (l *LogStore) GetLog(index uint64, log *raft.Log) error {
	if err := l.readable(); err != nil {
		return err
	}
	if l.cache.get(index, log) {
		return nil
	}
	for {
		want, entry, ok := l.expected(index)
		if !ok {
			return raft.ErrLogNotFound
		}
		if entry != nil {
			*log = *entry
			return nil
		}
		err := l.read(index, want, log)
		if err == nil {
			return nil
		}
		// It may have been deleted, or deleted and written anew, while we were reading.
		if now, _, ok := l.expected(index); !ok || now != want {
			continue
		}
		if err := l.readable(); err != nil {
			return err
		}
		l.corrupt(err)
		return err
	}
}

func (l *LogStore) read(index uint64, want uint32, log *raft.Log) error {
	var e raft.Log
	var err error
	path := l.path
	if l.segments != nil {
		path = l.segments.dir
		err = l.segments.get(index, &e)
	} else {
		err = l.guarded(func() error { return l.bolt.GetLog(index, &e) })
	}
	if errors.Is(err, ErrDamaged) {
		return err
	}
	if err != nil {
		return damaged(path, "entry %d: %v", index, err)
	}
	prev, seal, err := unseal(&e)
	switch {
	case err != nil:
		return damaged(path, "entry %d: %v", index, err)
	case e.Index != index || seal != want || sealOf(&e, prev) != want:
		return damaged(path, "entry %d: checksum does not match", index)
	}
	e.AppendedAt = e.AppendedAt.UTC()
	*log = e
	return nil
}

// StoreLog appends one entry.
func (l *LogStore) StoreLog(log *raft.Log) error { return l.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, all or none, and returns when they are on disk. Nobody may change them
// afterwards. They have to follow the last entry, or the newest snapshot when the log is empty. After any other error than
// for a wrong index it is unknown whether they are there, and nothing can be written any more.
func (l *LogStore) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	start := time.Now()
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	switch {
	case l.segments != nil:
		return l.appendSegments(logs, start)
	case l.journal != nil:
		return l.appendJournal(logs, start)
	}
	l.writeMu.Lock()
	defer l.writeMu.Unlock()

	// The locks keep others from changing the log, so it may be read without mu.
	h := l.head
	if err := l.checkAppend(h.last, logs); err != nil {
		return err
	}
	if h.empty() {
		h.first = logs[0].Index
	}
	added := make([]stored, len(logs))
	l.batch = sealAll(l.batch[:0], logs, h.seal, nil)
	for i, e := range logs {
		added[i] = stored{seal: sealIn(&l.batch[i]), size: storedSize(e)}
	}
	h.seal = added[len(added)-1].seal
	h.last = logs[len(logs)-1].Index
	if err := l.commit("append", &h); err != nil {
		return err
	}

	l.publish(h, append(l.entries, added...))
	l.cache.add(logs)
	if l.onStored != nil {
		l.onStored(len(logs), time.Since(start))
	}
	return nil
}

func (l *LogStore) checkAppend(last uint64, logs []*raft.Log) error {
	next := last + 1
	if last == 0 {
		_, snapIndex := l.snapshots.newest()
		if next = logs[0].Index; next == 0 || next > snapIndex+1 {
			return fmt.Errorf("append to an empty log: entry %d does not follow the newest snapshot, which ends with entry %d", next, snapIndex)
		}
	}
	for i, e := range logs {
		if e.Index != next+uint64(i) || e.Index == headIndex {
			return fmt.Errorf("append to log: entry %d cannot follow entry %d", e.Index, next+uint64(i)-1)
		}
	}
	return nil
}

// appendSegments is StoreLogs with segments. Called with appendMu held.
func (l *LogStore) appendSegments(logs []*raft.Log, start time.Time) error {
	if err := l.writable(); err != nil {
		return err
	}
	if err := l.checkAppend(l.last, logs); err != nil {
		return err
	}
	for _, e := range logs {
		if len(e.Data)+len(e.Extensions) > walsegment.MaxEntrySize-entryOverhead {
			return fmt.Errorf("append to log: entry %d takes more than %d bytes", e.Index, walsegment.MaxEntrySize-entryOverhead)
		}
	}
	l.mu.RLock()
	serial := l.head.serial
	l.mu.RUnlock()
	added, err := l.segments.append(logs, l.seal, serial)
	if err != nil {
		return err
	}
	l.mu.Lock()
	if l.last == 0 {
		l.first = logs[0].Index
	}
	l.last, l.seal = logs[len(logs)-1].Index, added[len(added)-1].seal
	l.entries = append(l.entries, added...)
	l.mu.Unlock()
	l.cache.add(logs)
	if l.onStored != nil {
		l.onStored(len(logs), time.Since(start))
	}
	return nil
}

// sealAll appends sealed copies of logs to batch, with extra in front of the seals.
func sealAll(batch []raft.Log, logs []*raft.Log, prev uint32, extra []byte) []raft.Log {
	need := 0
	for _, e := range logs {
		need += len(e.Extensions) + len(extra) + sealSize
	}
	exts := make([]byte, 0, need)
	for _, e := range logs {
		sealed := *e
		sealed.AppendedAt = e.AppendedAt.UTC()
		seal := sealOf(e, prev)
		at := len(exts)
		exts = append(exts, e.Extensions...)
		exts = append(exts, extra...)
		exts = order.AppendUint32(exts, prev)
		exts = order.AppendUint32(exts, seal)
		sealed.Extensions = exts[at:len(exts):len(exts)]
		batch = append(batch, sealed)
		prev = seal
	}
	return batch
}

// sealIn returns the seal of an entry that sealAll has made.
func sealIn(e *raft.Log) uint32 { return order.Uint32(e.Extensions[len(e.Extensions)-4:]) }

// storedSize is about what an entry takes in the file.
func storedSize(e *raft.Log) uint32 {
	const fields = 96 // names, numbers, time, seals and the key
	return uint32(min(fields+len(e.Data)+len(e.Extensions), 1<<32-1))
}

// commit writes l.batch and the head h in one transaction. Called with writeMu held. The result
// of a transaction that failed is unknown: bolt may go on as if it had succeeded, and the disk may
// have kept any part of it. So a failure is remembered and ends all writing.
func (l *LogStore) commit(op string, h *head) error {
	h.txid, h.serial = l.txid+1, l.head.serial+1
	if h.journal.open() {
		l.mu.RLock()
		h.journal.known = max(h.journal.known, l.written)
		l.mu.RUnlock()
	}
	l.buf = h.appendTo(l.buf[:0])
	l.batch = append(l.batch, raft.Log{Index: headIndex, Data: l.buf})
	l.refs = l.refs[:0]
	for i := range l.batch {
		l.refs = append(l.refs, &l.batch[i])
	}
	err := l.transact(op, func() error { return l.bolt.StoreLogs(l.refs) })
	clear(l.batch) // let go of the data
	l.batch = l.batch[:0]
	return err
}

// transact runs one bolt transaction. Called with writeMu held.
func (l *LogStore) transact(op string, fn func() error) error {
	if err := l.writable(); err != nil {
		return err
	}
	timer := l.watchdog.start(op)
	err := l.guarded(fn)
	l.watchdog.stop(timer)
	if err == nil {
		l.txid++
		return nil
	}
	return l.fail(l.path, op, err)
}

// writable returns why nothing can be written, if so.
func (l *LogStore) writable() error {
	if err := l.readable(); err != nil {
		return err
	}
	l.mu.RLock()
	failed := l.failed
	l.mu.RUnlock()
	if failed != nil {
		l.report(failed)
	}
	return failed
}

// fail ends all writing after a write to path has failed.
func (l *LogStore) fail(path, op string, err error) error {
	damage := errors.Is(err, ErrDamaged)
	if !damage {
		err = fmt.Errorf("write to %s failed (%s), and what reached the disk is unknown: %w", path, op, err)
	}
	l.mu.Lock()
	if l.failed == nil {
		l.failed = err
	}
	err = l.failed
	l.mu.Unlock()
	l.report(err)
	return err
}

// report tells of the failure that ended all writing, once. Whoever is refused a write because of it gets
// here as well, and waits while it is told: raft panics on most errors, also on those that come second.
func (l *LogStore) report(err error) {
	if errors.Is(err, ErrDamaged) {
		l.corrupt(err)
		return
	}
	l.failOnce.Do(func() {
		l.logger.Error("write failed", "path", l.path, "error", err)
		if l.onFailure != nil {
			l.onFailure(err)
		}
	})
}

// guarded calls into bolt.
func (l *LogStore) guarded(fn func() error) error {
	panicked, err := shielded(l.path, fn)
	if panicked {
		l.panicked.Store(true)
	}
	return err
}

func (l *LogStore) corrupt(err error) {
	l.corruptOnce.Do(func() {
		l.logger.Error("log is damaged", "path", l.path, "error", err)
		if l.onCorrupt != nil {
			l.onCorrupt(err)
		}
	})
}

// setting changes one setting: change gets the old value, nil when there is none, and returns the
// new one. Nothing is written when they are equal.
func (l *LogStore) setting(key string, change func(old []byte) ([]byte, error)) error {
	return l.changeSettings(func(settings map[string][]byte) error {
		value, err := change(settings[key])
		if err == nil {
			settings[key] = value
		}
		return err
	})
}

// changeSettings changes settings in one transaction. The map is change's own, the values are not.
func (l *LogStore) changeSettings(change func(settings map[string][]byte) error) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	settings := maps.Clone(l.settings)
	if err := change(settings); err != nil {
		return err
	}
	h := l.head
	if h.settings = encodeSettings(settings); bytes.Equal(h.settings, l.head.settings) {
		return l.readable()
	}
	if err := l.commit("settings", &h); err != nil {
		return err
	}
	l.mu.Lock()
	l.head, l.settings = h, settings
	l.mu.Unlock()
	return nil
}

// getSetting returns a value nobody may change, and false when there is none.
func (l *LogStore) getSetting(key string) ([]byte, bool, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	value, ok := l.settings[key]
	return value, ok, l.readable()
}

// close waits for a write that is running, and moves what is in the journal into raft.db. After a
// panic bolt may hold its locks for ever, so that its file stays open until the process ends.
func (l *LogStore) close() error {
	if l.stopMove != nil {
		close(l.stopMove)
		l.moving.Wait()
	}
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	var err error
	if l.segments != nil {
		err = l.segments.close()
	}
	if j := l.journal; j != nil {
		// After a failure it stays, for the next start.
		if j.file != nil && l.writable() == nil {
			if err = l.drain(); err == nil {
				err = l.retire(j.number+1, []string{j.current()})
			}
		}
		err = errors.Join(err, j.close())
	}
	l.closed.Store(true)
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.panicked.Load() {
		return err
	}
	return errors.Join(err, l.bolt.Close())
}
