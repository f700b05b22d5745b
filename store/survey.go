package store

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/store/disk"
)

// Survivor is what the directory of a member that is not running holds, for choosing the one to
// recover a cluster from.
type Survivor struct {
	DataDir string
	disk.Summary
	// Members is who belongs to the cluster as far as this member knows.
	Members *fsm.Membership
	// KeyIndex is X-Etcd-Index, and Keys how many visible keys and directories there are, after
	// everything in the log, committed or not.
	KeyIndex uint64
	Keys     int
	// SnapshotIndex and SnapshotTerm are those of the newest snapshot that can be read, 0 if none.
	SnapshotIndex, SnapshotTerm uint64

	terms []termStart
}

// termStart is where the entries of a term begin in a log.
type termStart struct{ index, term uint64 }

// Survey reads the directory of a member that is not running, all of it, and changes nothing. An
// empty walDir means DATA/member/wal. A damaged snapshot is passed over, as at a start.
func Survey(dataDir, walDir string) (*Survivor, error) {
	return survey(dataDir, walDir, newReplica(1))
}

// survey is Survey, and leaves the state in machine.
func survey(dataDir, walDir string, machine *replica) (*Survivor, error) {
	summary, err := disk.Summarize(dataDir, walDir)
	if err != nil && (!errors.Is(err, disk.ErrDamaged) || summary.Identity.Member == 0) {
		return nil, inUse(dataDir, err)
	}
	passedOver := err
	s := &Survivor{DataDir: dataDir, Summary: summary}
	for _, meta := range summary.Snapshots {
		err := machine.restore(dataDir, meta)
		if err == nil {
			s.SnapshotIndex, s.SnapshotTerm = meta.Index, meta.Term
			break
		}
		passedOver = errors.Join(passedOver, err)
	}
	if s.FirstIndex > s.SnapshotIndex+1 {
		return nil, inUse(dataDir, errors.Join(passedOver,
			fmt.Errorf("%s: the log begins with entry %d, and there is no whole snapshot of what was before", dataDir, s.FirstIndex)))
	}
	err = disk.ReadLog(dataDir, walDir, func(entry *raft.Log) error {
		if n := len(s.terms); n == 0 || s.terms[n-1].term != entry.Term {
			s.terms = append(s.terms, termStart{entry.Index, entry.Term})
		}
		if entry.Index <= s.SnapshotIndex {
			return nil
		}
		return machine.apply(entry)
	})
	if err != nil {
		return nil, inUse(dataDir, err)
	}
	s.Members = machine.Membership()
	s.KeyIndex = machine.Tree().Index()
	if all, err := machine.Tree().Get("/", true, false); err == nil {
		s.Keys = all.Len() - 1 // without the root
	}
	return s, nil
}

// restore loads a snapshot from a directory.
func (r *replica) restore(dataDir string, meta *raft.SnapshotMeta) error {
	return disk.ReadSnapshot(dataDir, meta.ID, func(data io.Reader) error {
		return r.Restore(io.NopCloser(data))
	})
}

// apply applies one entry of a log.
func (r *replica) apply(entry *raft.Log) error {
	r.ApplyBatch([]*raft.Log{entry})
	return r.failed
}

// Name is what the member is called: as the cluster has it, or as at its first start.
func (s *Survivor) Name() string {
	if m, ok := s.Members.Find(s.Identity.Member); ok && m.Name != "" {
		return m.Name
	}
	return s.Identity.Name
}

// Last returns index and term of the newest entry this member has.
func (s *Survivor) Last() (index, term uint64) {
	if s.LastIndex > s.SnapshotIndex {
		return s.LastIndex, s.LastTerm
	}
	return s.SnapshotIndex, s.SnapshotTerm
}

// SameCluster says why two directories cannot be compared, nil if they can: members of different
// clusters, or of one cluster before and after a recovery, have nothing in common.
func (s *Survivor) SameCluster(o *Survivor) error {
	a, b := s.Identity, o.Identity
	switch {
	case a.Cluster != b.Cluster:
		return fmt.Errorf("%s and %s are of different clusters (%s, %s)", s.DataDir, o.DataDir, formatID(a.Cluster), formatID(b.Cluster))
	case a.Epoch != b.Epoch:
		if a.Epoch > b.Epoch {
			s, o = o, s
		}
		return fmt.Errorf("%s was left behind when the cluster was recovered from another member, and %s was not", s.DataDir, o.DataDir)
	}
	return nil
}

// Compare is negative when s is less advanced than o, in the order by which members of raft decide
// whom to vote for: whoever has the newer term in its last entry, and then the longer log, has
// everything that was ever committed on a majority to which both belong.
func (s *Survivor) Compare(o *Survivor) int {
	index, term := s.Last()
	otherIndex, otherTerm := o.Last()
	return cmp.Or(cmp.Compare(term, otherTerm), cmp.Compare(index, otherIndex))
}

// Lacks returns the range of o's log entries that s does not have; from is above to when it has
// all. Where a log has been replaced by a snapshot, both are taken to have the same.
func (s *Survivor) Lacks(o *Survivor) (from, to uint64) {
	index, _ := s.Last()
	to, _ = o.Last()
	for from = min(index, to); from > 0; from-- {
		mine, ok1 := s.termAt(from)
		other, ok2 := o.termAt(from)
		// Two logs that have the same term at one index are equal up to there.
		if !ok1 || !ok2 || mine == other {
			break
		}
	}
	return from + 1, to
}

// termAt returns the term of an entry, false when only a snapshot has it.
func (s *Survivor) termAt(index uint64) (uint64, bool) {
	if index == s.SnapshotIndex {
		return s.SnapshotTerm, true
	}
	if index > s.LastIndex {
		return 0, false
	}
	for i := len(s.terms) - 1; i >= 0; i-- {
		if s.terms[i].index <= index {
			return s.terms[i].term, true
		}
	}
	return 0, false
}
