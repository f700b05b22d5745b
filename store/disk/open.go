package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"

	"github.com/quorate/quorate/internal/durable"
)

// createLog makes a new empty log at path, durably. What was there is replaced.
func createLog(path string, kind Kind) error {
	if err := removeIfThere(path); err != nil {
		return err
	}
	bolt, err := openBolt(path, false)
	if err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	h := head{journal: journalMark{segment: 1}}
	if kind == WAL {
		h.settings = encodeSettings(map[string][]byte{segmentsKey: []byte("{}")})
	}
	err = writeFirstHead(bolt, path, h)
	if err = errors.Join(err, bolt.Close()); err != nil {
		return fmt.Errorf("make log: %w", err)
	}
	return durable.SyncDir(filepath.Dir(path))
}

// writeFirstHead writes h into a file that has no head yet, or one of another file.
func writeFirstHead(bolt *raftboltdb.BoltStore, path string, h head) error {
	txid, err := readTxid(path)
	if err != nil {
		return err
	}
	h.txid = txid + 1
	return bolt.StoreLogs([]*raft.Log{{Index: headIndex, Data: h.appendTo(nil)}})
}

// catchUp writes the head c.head again, with the number of the transaction that does, into a file
// whose last transactions did not write one. raft-boltdb would add another of those by opening it.
func catchUp(path string, c *contents, noSync bool) error {
	_, err := shielded(path, func() error {
		db, err := bbolt.Open(path, fileMode, boltOptions(noSync))
		if err != nil {
			return err
		}
		err = db.Update(func(tx *bbolt.Tx) error {
			logs, key := tx.Bucket([]byte(logBucket)), binary.BigEndian.AppendUint64(nil, headIndex)
			value := bytes.Clone(logs.Get(key))
			e, err := parseEntry(value)
			if err != nil {
				return err
			}
			// Only numbers change, so the new record takes the place of the old inside value.
			h := c.head
			h.txid, h.trim = uint64(tx.ID()), uint32(len(outside(h, c.lowest, c.highest)))
			copy(e.Data, h.appendTo(nil))
			return logs.Put(key, value)
		})
		return errors.Join(err, db.Close())
	})
	return err
}

// readTxid returns the number of the last transaction of a file bolt has open.
func readTxid(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	page := make([]byte, boltHeader+64)
	var txid uint64
	size := int64(0)
	for range 2 {
		if _, err := f.ReadAt(page, size); err != nil {
			return 0, err
		}
		m, err := parseBoltMeta(page)
		if err != nil {
			return 0, damaged(path, "meta page: %v", err)
		}
		txid, size = max(txid, m.txid), int64(m.pageSize)
	}
	return txid, nil
}

func boltOptions(noSync bool) *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true, // writing it costs more with every entry; it is rebuilt at open
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 64 << 20,
		NoSync:          noSync,
	}
}

func openBolt(path string, noSync bool) (store *raftboltdb.BoltStore, err error) {
	_, err = shielded(path, func() error {
		store, err = raftboltdb.New(raftboltdb.Options{
			Path:        path,
			NoSync:      noSync,
			BoltOptions: boltOptions(noSync),
		})
		return err
	})
	if errors.Is(err, bbolt.ErrTimeout) {
		err = ErrLocked
	}
	return store, err
}

// openLog checks the file and opens it, compacts it when it is mostly empty, and brings the log in
// line with the snapshots.
func openLog(path string, o Options, snapshots *snapshotStore) (*LogStore, error) {
	start := time.Now()
	c, waiting, err := readWholeLog(path, o.VerifyBytes, true)
	if err != nil {
		return nil, err
	}
	if kind := c.kind(); o.LogStore != "" && o.LogStore != kind {
		return nil, wrongKind(path, o, kind)
	}
	if err := errors.Join(removeIfThere(path+compactSuffix), removeIfThere(path+convertSuffix)); err != nil {
		return nil, err
	}
	if c.kind() == BoltDB {
		warnOfLeftovers(path, o)
	}
	if int64(c.fileSize) > o.compactAbove && c.usedSize < c.fileSize/4 && c.garbage == 0 {
		if err := compact(path, c.head, o.NoSync); err != nil {
			return nil, fmt.Errorf("compact %s: %w", path, err)
		}
		before := c.fileSize
		if c, waiting, err = readWholeLog(path, o.VerifyBytes, true); err != nil {
			return nil, err
		}
		o.Logger.Info("log file compacted", "path", path, "bytes-before", before, "bytes", c.fileSize)
	}

	if c.head.txid != c.txid {
		if err := catchUp(path, c, o.NoSync); err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
	}
	bolt, err := openBolt(path, o.NoSync)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	txid, err := readTxid(path)
	if err != nil {
		_ = bolt.Close()
		return nil, err
	}
	l := &LogStore{
		path:      path,
		bolt:      bolt,
		snapshots: snapshots,
		cache:     newEntryCache(o.CacheBytes),
		watchdog:  watchdog{limit: o.StallLimit, onStall: o.OnStall},
		noSync:    o.NoSync,
		logger:    o.Logger,
		onCorrupt: o.OnCorrupt,
		onFailure: o.OnFailure,
		onStored:  o.OnStored,
		txid:      txid,
		head:      c.head,
		settings:  c.settings,
		first:     c.first,
		last:      c.last,
		seal:      c.seal,
		entries:   c.entries,
		pending:   waiting.records,
	}
	o.journal.setDefaults(o.NoSync)
	l.journalFiles = o.journal.files
	for _, r := range l.pending {
		l.pendingBytes += r.bytes
		l.pendingLogs += len(r.logs)
	}
	if o.wrapBolt != nil {
		l.bolt = o.wrapBolt(bolt)
	}
	if c.kind() == WAL {
		l.segments = &segmentLog{log: l, dir: filepath.Join(filepath.Dir(path), segmentsDir), size: o.segmentSize, table: c.table, last: c.last, wrapFiles: o.wrapFiles}
	}
	if err := l.settle(c, waiting); err != nil {
		_ = l.close()
		return nil, err
	}
	if !o.journal.off && l.segments == nil {
		l.journal = &journal{journalOptions: o.journal, path: path, number: waiting.next}
		l.wake = make(chan struct{}, 1)
		if !o.journal.manual {
			l.stopMove = make(chan struct{})
			l.moving.Go(func() { l.move(l.stopMove) })
		}
	}
	l.logger.Info("log opened", "path", path, "kind", c.kind(), "first-index", l.first, "last-index", l.last, "last-term", c.lastTerm,
		"bytes", c.bytes, "journal-records", len(waiting.records), "bytes-cut", waiting.cut+c.cut, "elapsed", time.Since(start))
	return l, nil
}

// readLogFile checks a log file and returns what is in it.
func readLogFile(path string, verifyBytes int64, exclusive bool) (*contents, error) {
	b, err := openBoltFile(path, exclusive)
	if err != nil {
		return nil, err
	}
	c, err := b.readContents(verifyBytes)
	return c, errors.Join(err, b.close())
}

// settle finishes what a crash has interrupted. All that was in the journal is then in raft.db:
// what can be read in a file after a crash may still not be on disk, so it has to be written again.
func (l *LogStore) settle(c *contents, waiting *journalContents) error {
	if err := l.begin(outside(c.head, c.lowest, c.highest)); err != nil {
		return err
	}
	if err := l.drain(); err != nil {
		return err
	}
	if err := l.retire(waiting.next, waiting.garbage); err != nil {
		return err
	}
	if l.segments != nil {
		if err := l.segments.open(c.repair); err != nil {
			return err
		}
	}
	snapTerm, snapIndex := l.snapshots.newest()
	first, last := l.first, l.last
	if last == 0 {
		return nil
	}
	if first > snapIndex+1 {
		if snapIndex == 0 {
			return damaged(l.path, "the log begins with entry %d and no snapshot in %s can be used for those before", first, l.snapshots.dir)
		}
		return damaged(l.path, "the log begins with entry %d, but the newest snapshot that can be used, %s, ends with entry %d",
			first, l.snapshots.path(snapshotID(snapTerm, snapIndex)), snapIndex)
	}
	// A snapshot that came from the leader replaces the whole log, after it is on disk. A log
	// that ends before it, or is of another history, was to be deleted next.
	stale := last < snapIndex
	if !stale && first <= snapIndex {
		var e raft.Log
		if err := l.GetLog(snapIndex, &e); err != nil {
			return err
		}
		stale = e.Term != snapTerm
	}
	if stale {
		l.logger.Warn("deleting a log that the snapshot has replaced", "first-index", first, "last-index", last, "snapshot-index", snapIndex)
		return l.DeleteRange(first, last)
	}
	return nil
}
