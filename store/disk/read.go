package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// ReadSnapshot calls read with the data of a snapshot of a member that is not running, after all of
// it has been checked, and changes nothing. It returns [ErrLocked] when the member is running.
func ReadSnapshot(dataDir, id string, read func(io.Reader) error) error {
	if _, _, ok := parseSnapshotID(id); !ok {
		return fmt.Errorf("open snapshot: %q is not the ID of one", id)
	}
	o := Options{DataDir: dataDir}
	o.setDefaults()
	d := &Dir{opts: o}
	unlock, err := d.lockShared()
	if err != nil {
		return err
	}
	defer unlock()
	_, r, err := openSnapshot(d.member("snap", id+snapSuffix))
	if err != nil {
		return err
	}
	return errors.Join(read(r), r.Close())
}

// ReadLog calls visit with every entry in the log of a member that is not running, in order, after
// all of the log has been checked, and changes nothing. It returns [ErrLocked] when the member is
// running, and what visit returns. An empty walDir means DATA/member/wal.
func ReadLog(dataDir, walDir string, visit func(*raft.Log) error) error {
	o := Options{DataDir: dataDir, WALDir: walDir}
	o.setDefaults()
	d := &Dir{opts: o}
	unlock, err := d.lockShared()
	if err != nil {
		return err
	}
	defer unlock()
	path := d.wal(logFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		path = d.wal(newLogFile)
	}
	b, err := openBoltFile(path, false)
	if err != nil {
		return err
	}
	return errors.Join(b.visitAll(visit), b.close())
}

// visitAll calls visit with all entries of the log, in raft.db and in the journal.
func (b *boltFile) visitAll(visit func(*raft.Log) error) error {
	c, err := b.readContents(1 << 62)
	if err != nil {
		return err
	}
	j, err := c.complete(b.path, visit)
	if err != nil || c.kind() == WAL {
		return err
	}
	if _, err := shielded(b.path, func() error { return b.visitEntries(c.head, visit) }); err != nil {
		return err
	}
	for _, r := range j.records {
		for _, e := range r.logs {
			if err := visit(e); err != nil {
				return err
			}
		}
	}
	return nil
}

// visitEntries calls visit with copies of the entries that h holds, without their seals.
func (b *boltFile) visitEntries(h head, visit func(*raft.Log) error) error {
	return b.walk(func(key, value []byte) error {
		if index := binary.BigEndian.Uint64(key); !h.holds(index) || index == headIndex {
			return nil
		}
		l, err := parseEntry(value)
		if err == nil {
			_, _, err = unseal(&l)
		}
		if err != nil {
			return b.damaged("%v", err)
		}
		l.Data, l.Extensions = bytes.Clone(l.Data), bytes.Clone(l.Extensions)
		return visit(&l)
	})
}

// lockShared keeps a member from being started on the directory. A copy of a directory needs no
// lock, and has none.
func (d *Dir) lockShared() (unlock func(), err error) {
	lock, err := lockFile(d.member("lock"), os.O_RDONLY, false)
	if errors.Is(err, fs.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil
}

// SnapshotPath returns the file of a snapshot.
func SnapshotPath(dataDir, id string) string {
	return filepath.Join(dataDir, "member", "snap", id+snapSuffix)
}
