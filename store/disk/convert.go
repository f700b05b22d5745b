package disk

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/internal/durable"
)

const convertSuffix = ".convert"

// Entries are copied in batches of about this size.
const (
	convertEntries = 4096
	convertBytes   = 4 << 20
)

// ConvertOptions say which log is to become one of which kind.
type ConvertOptions struct {
	DataDir string
	WALDir  string // empty: DATA/member/wal
	To      Kind
	Logger  hclog.Logger // may be nil
}

// Convert makes the log of a member that is not running one of another kind, with the same entries,
// under the same indexes, and the same settings. It reports whether it had to: a log may be of that
// kind already. The directory needs room for both logs.
//
// The new log is made beside the old one and checked, and then raft.db, which tells the kind, is
// replaced: after a crash the member has the old log or the new one. Convert can be called again to
// delete what is left of the other.
func Convert(co ConvertOptions) (converted bool, err error) {
	o := Options{DataDir: co.DataDir, WALDir: co.WALDir, Logger: co.Logger, quietLeftovers: true}
	state, err := Inspect(o.DataDir, o.WALDir)
	if err != nil {
		return false, err
	}
	if state != Member {
		return false, fmt.Errorf("%s does not hold a member", o.DataDir)
	}
	d, err := Open(o)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if d.log.kind() == co.To {
		return false, d.removeLeftovers()
	}
	if co.To == WAL {
		// Not those of this log, which is in raft.db.
		if err := os.RemoveAll(d.wal(segmentsDir)); err != nil {
			return false, err
		}
	}
	path := d.wal(logFile + convertSuffix)
	if err := d.copyLog(path, co.To); err != nil {
		return false, fmt.Errorf("convert %s: %w", d.wal(logFile), err)
	}
	log := d.log
	d.log, d.stable = nil, nil
	if err := log.close(); err != nil {
		return false, err
	}
	if err := durable.Rename(path, d.wal(logFile)); err != nil {
		return false, err
	}
	if co.To == BoltDB {
		return true, os.RemoveAll(d.wal(segmentsDir))
	}
	return true, nil
}

// kind returns what holds the entries.
func (l *LogStore) kind() Kind {
	if l.segments != nil {
		return WAL
	}
	return BoltDB
}

// removeLeftovers deletes segments that a conversion has left.
func (d *Dir) removeLeftovers() error {
	if d.log.kind() == WAL {
		return nil
	}
	return os.RemoveAll(d.wal(segmentsDir))
}

// warnOfLeftovers says that a conversion was interrupted before it could delete the old segments.
func warnOfLeftovers(path string, o Options) {
	dir := filepath.Join(filepath.Dir(path), segmentsDir)
	if _, err := os.Stat(dir); err == nil && !o.quietLeftovers {
		o.Logger.Warn("a directory is left from a conversion that was interrupted; it is not used and may be deleted", "path", dir)
	}
}

// copyLog makes a log of the given kind at path that equals the one that is open, and checks it.
func (d *Dir) copyLog(path string, kind Kind) error {
	if err := createLog(path, kind); err != nil {
		return err
	}
	o := d.opts
	o.LogStore, o.journal.off = kind, true
	to, err := openLog(path, o, d.snapshots)
	if err != nil {
		return err
	}
	err = copyEntries(to, d.log)
	if err == nil {
		err = to.changeSettings(func(settings map[string][]byte) error {
			table, hasTable := settings[segmentsKey]
			clear(settings)
			maps.Copy(settings, d.log.settings)
			delete(settings, segmentsKey)
			if hasTable {
				settings[segmentsKey] = table
			}
			return nil
		})
	}
	if err = errors.Join(err, to.close()); err != nil {
		return err
	}
	c, _, err := readWholeLog(path, 1<<62, true)
	if err != nil {
		return err
	}
	if c.first != d.log.first || c.last != d.log.last {
		return fmt.Errorf("the copy has the entries %d to %d instead of %d to %d", c.first, c.last, d.log.first, d.log.last)
	}
	return nil
}

func copyEntries(to, from *LogStore) error {
	if from.last == 0 {
		return nil
	}
	var batch []*raft.Log
	size := int64(0)
	for index := from.first; index <= from.last; index++ {
		var e raft.Log
		if err := from.GetLog(index, &e); err != nil {
			return err
		}
		batch = append(batch, &e)
		size += cost(&e)
		if len(batch) < convertEntries && size < convertBytes && index < from.last {
			continue
		}
		if err := to.StoreLogs(batch); err != nil {
			return err
		}
		batch, size = nil, 0
	}
	return nil
}
