package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

// Raft does not write down how far the log is committed. After a restart a member would show nothing
// at all until a leader tells it, and if its cluster has no quorum, for ever. So the last entry that
// was applied here is noted in the file DATA/member/applied, and what lies before it is applied
// again before raft starts: it was committed once, and so it still is.
//
// The note is a hint. It is not synced, so a power failure can leave an older one; it must agree with
// the log, or it is left aside, and the member waits for a leader.
const (
	appliedFile = "applied"
	noteSize    = 20 // index(8) term(8) CRC-32C(4)
)

// appliedNote is the open file. Only the goroutine that applies entries writes to it.
type appliedNote struct {
	file *os.File
	err  error // of the last write, told once
}

func openAppliedNote(dataDir string) (*appliedNote, error) {
	f, err := os.OpenFile(filepath.Join(dataDir, "member", appliedFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &appliedNote{file: f}, nil
}

// read returns the noted entry, and zeros when there is no sound note.
func (n *appliedNote) read() (index, term uint64) {
	var b [noteSize]byte
	if _, err := n.file.ReadAt(b[:], 0); err != nil || crc32.Checksum(b[:16], castagnoli) != binary.LittleEndian.Uint32(b[16:]) {
		return 0, 0
	}
	return binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
}

// write notes an entry. It says whether a first write has failed: without the note the member works
// all the same.
func (n *appliedNote) write(index, term uint64) error {
	var b [noteSize]byte
	binary.LittleEndian.PutUint64(b[:], index)
	binary.LittleEndian.PutUint64(b[8:], term)
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[:16], castagnoli))
	_, err := n.file.WriteAt(b[:], 0)
	before := n.err
	n.err = err
	if before != nil {
		return nil
	}
	return err
}

func (n *appliedNote) close() error { return n.file.Close() }

// onApplied is called by the state machine after every step.
func (s *Store) onApplied(index, term uint64) {
	if err := s.applied.write(index, term); err != nil {
		s.log.Warn("it was not noted how far the log is applied: after a restart this member shows nothing until it finds a leader", "error", err)
	}
}

// replayBatch is how many entries are applied at once.
const replayBatch = 256

// replay brings the state machine to where it was: from the newest sound snapshot and the entries
// behind it that are known to be committed.
func (s *Store) replay() error {
	start := time.Now()
	if err := s.restoreNewest(); err != nil {
		return err
	}
	logs := s.dir.LogStore()
	noted, term := s.applied.read()
	last, err := logs.LastIndex()
	if err != nil {
		return err
	}
	next := s.fsm.Applied() + 1
	if noted < next {
		return nil
	}
	var entry raft.Log
	if noted > last {
		s.log.Warn("the note of what was applied does not belong to this log, it is left aside", "noted", noted, "lastIndex", last)
		return nil
	}
	if err := logs.GetLog(noted, &entry); err != nil {
		return err
	}
	if entry.Term != term {
		s.log.Warn("the note of what was applied does not belong to this log, it is left aside", "noted", noted, "term", term, "termInLog", entry.Term)
		return nil
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	for i := max(next, first); i <= noted; {
		var batch []*raft.Log
		for ; i <= noted && len(batch) < replayBatch; i++ {
			e := new(raft.Log)
			if err := logs.GetLog(i, e); err != nil {
				return err
			}
			batch = append(batch, e)
		}
		for _, response := range s.fsm.ApplyBatch(batch) {
			if err, ok := response.(error); ok {
				return err
			}
		}
	}
	s.log.Info("applied what was committed", "index", s.fsm.Applied(), "elapsed", time.Since(start))
	return nil
}

// restoreNewest restores the newest snapshot that can be read. Raft does not, see raftConfig.
func (s *Store) restoreNewest() error {
	snapshots := s.dir.Snapshots()
	list, err := snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	var errs []error
	for _, meta := range list {
		_, data, err := snapshots.Open(meta.ID)
		if err == nil {
			err = s.fsm.Restore(data)
		}
		if err == nil {
			s.log.Info("recovered store from snapshot", "index", meta.Index, "bytes", meta.Size)
			return nil
		}
		s.log.Error("snapshot cannot be used", "snapshot", meta.ID, "error", err)
		errs = append(errs, fmt.Errorf("snapshot %s: %w", meta.ID, err))
	}
	if len(errs) > 0 {
		return fmt.Errorf("none of the snapshots can be used: %w. Restore this member by removing it and adding it again with an empty data directory", errors.Join(errs...))
	}
	return nil
}
