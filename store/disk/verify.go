package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Summary is what a member that is not running has on disk.
type Summary struct {
	Identity Identity
	// FirstIndex to LastIndex are in the log, 0 when it is empty. LastTerm is that of LastIndex.
	FirstIndex, LastIndex, LastTerm uint64
	Snapshots                       []*raft.SnapshotMeta // newest first; data not checked
}

// Last returns index and term of the newest entry this member has, in the log or in a snapshot.
// After the loss of a majority, the survivor to keep is the one with the highest term, then index.
func (s *Summary) Last() (index, term uint64) {
	index, term = s.LastIndex, s.LastTerm
	if len(s.Snapshots) > 0 && s.Snapshots[0].Index > index {
		index, term = s.Snapshots[0].Index, s.Snapshots[0].Term
	}
	return index, term
}

// Summarize reads the directory of a member, changing nothing. It returns [ErrLocked] when the
// member is running. An empty walDir means DATA/member/wal.
func Summarize(dataDir, walDir string) (Summary, error) {
	s, _, err := survey(dataDir, walDir, 0, false)
	return s, err
}

// Report is the result of Verify.
type Report struct {
	Summary
	Entries  uint64  // in the log, all checked
	LogBytes int64   // they take
	Problems []error // what is wrong; empty when all is well
}

// Verify checks everything in the directory of a member that is not running: identity, every
// entry of the log and every snapshot. What is wrong is in the report; the error is for what
// prevents looking, such as [ErrLocked]. An empty walDir means DATA/member/wal.
func Verify(dataDir, walDir string) (Report, error) {
	summary, r, err := survey(dataDir, walDir, 1<<62, true)
	r.Summary = summary
	if errors.Is(err, ErrDamaged) {
		err = nil
	}
	return r, err
}

// survey reads what there is and goes on after damage, which is returned joined and is in the
// report.
func survey(dataDir, walDir string, verifyBytes int64, snapshotData bool) (s Summary, r Report, err error) {
	o := Options{DataDir: dataDir, WALDir: walDir}
	o.setDefaults()
	d := &Dir{opts: o}
	state, err := Inspect(o.DataDir, o.WALDir)
	if err != nil {
		return s, r, err
	}
	if state != Member {
		return s, r, fmt.Errorf("%s does not hold a member", dataDir)
	}
	problem := func(e error) {
		err = errors.Join(err, e)
		r.Problems = append(r.Problems, e)
	}
	unlock, err := d.lockShared()
	if err != nil {
		return s, r, err
	}
	defer unlock()

	id, e := readIdentity(d.member(identityFile))
	switch {
	case errors.Is(e, ErrDamaged):
		problem(e)
	case e != nil:
		return s, r, e
	case id != nil:
		s.Identity = *id
	}

	path := d.wal(logFile)
	if _, e := os.Stat(path); errors.Is(e, fs.ErrNotExist) {
		path = d.wal(newLogFile)
	}
	c, _, e := readWholeLog(path, verifyBytes, false)
	switch {
	case errors.Is(e, ErrDamaged):
		problem(e)
	case e != nil:
		return s, r, e
	default:
		s.FirstIndex, s.LastIndex, s.LastTerm = c.first, c.last, c.lastTerm
		r.Entries, r.LogBytes = uint64(len(c.entries)), c.bytes
	}

	ids, e := snapshotIDs(d.member("snap"))
	if e != nil && !errors.Is(e, fs.ErrNotExist) {
		return s, r, e
	}
	for _, id := range ids {
		meta, e := checkSnapshot(filepath.Join(d.member("snap"), id+snapSuffix), snapshotData)
		switch {
		case errors.Is(e, ErrDamaged):
			problem(e)
		case e != nil:
			return s, r, e
		default:
			s.Snapshots = append(s.Snapshots, meta)
		}
	}
	if c != nil && c.first > 1 && (len(s.Snapshots) == 0 || s.Snapshots[0].Index+1 < c.first) {
		problem(damaged(path, "the log begins with entry %d and no snapshot has those before", c.first))
	}
	return s, r, err
}

func checkSnapshot(path string, data bool) (*raft.SnapshotMeta, error) {
	if data {
		meta, r, err := openSnapshot(path)
		if err == nil {
			err = r.Close()
		}
		return meta, err
	}
	f, meta, _, err := openSnapshotHeader(path)
	if err == nil {
		err = f.Close()
	}
	return meta, err
}
