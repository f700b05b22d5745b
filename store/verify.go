package store

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/store/disk"
)

// Verification is what Verify has found.
type Verification struct {
	disk.Report
	// Compared counts the snapshots that hold exactly the state to which an older snapshot and the
	// log lead.
	Compared int
	// RaftIndex, KeyIndex (X-Etcd-Index) and Checksum describe the state after the whole log.
	RaftIndex, KeyIndex, Checksum uint64
	Members                       *fsm.Membership
}

// Verify checks everything in the directory of a member that is not running, and changes nothing:
// checksums, that the log has no gap, that every snapshot and every entry can be decoded and
// applied, that snapshots and log lead to one state, and that all are of the same cluster. What is
// wrong is in the report; the error is for what prevents looking, such as a member that runs. An
// empty walDir means DATA/member/wal.
func Verify(dataDir, walDir string) (*Verification, error) {
	report, err := disk.Verify(dataDir, walDir)
	if err != nil {
		return nil, inUse(dataDir, err)
	}
	v := &verifier{dataDir: dataDir, walDir: walDir, result: &Verification{Report: report, Members: &fsm.Membership{}}}
	v.decodeSnapshots()
	v.replayLog()
	v.checkIdentity()
	return v.result, nil
}

// verifier is one run of Verify.
type verifier struct {
	dataDir, walDir string
	result          *Verification
	states          []decoded // oldest first
}

// decoded is a snapshot that could be decoded, and what is in it.
type decoded struct {
	meta            *raft.SnapshotMeta
	checksum, index uint64
}

func (v *verifier) problem(err error) { v.result.Problems = append(v.result.Problems, err) }

func (v *verifier) decodeSnapshots() {
	for _, meta := range slices.Backward(v.result.Snapshots) {
		machine := newReplica(1)
		if err := machine.restore(v.dataDir, meta); err != nil {
			v.problem(fmt.Errorf("%s: %w", disk.SnapshotPath(v.dataDir, meta.ID), err))
			continue
		}
		if applied := machine.Applied(); applied > meta.Index {
			v.problem(fmt.Errorf("%s: its state is that after entry %d", disk.SnapshotPath(v.dataDir, meta.ID), applied))
			continue
		}
		sum, index := machine.Tree().Checksum()
		v.states = append(v.states, decoded{meta, sum, index})
	}
}

// errOtherHistory ends the reading of a log that a snapshot has replaced, and that would be deleted
// at the next start.
var errOtherHistory = errors.New("the log is of another history than the snapshot")

// replayLog applies the log from its first entry on, or to the oldest snapshot that it continues,
// and looks at the snapshots that it passes.
func (v *verifier) replayLog() {
	r := v.result
	machine := newReplica(1)
	at := uint64(0)
	start := slices.IndexFunc(v.states, func(s decoded) bool { return s.meta.Index+1 >= r.FirstIndex })
	switch {
	case r.FirstIndex == 1:
		start = -1
	case start >= 0:
		machine, at = v.load(v.states[start]), v.states[start].meta.Index
	case r.FirstIndex > 1:
		return // there is a gap, which is among the problems
	}
	err := disk.ReadLog(v.dataDir, v.walDir, func(entry *raft.Log) error {
		if entry.Index > at {
			if err := machine.apply(entry); err != nil {
				return err
			}
			at = entry.Index
		}
		for _, s := range v.states {
			if s.meta.Index != entry.Index {
				continue
			}
			if s.meta.Term != entry.Term {
				return errOtherHistory
			}
			sum, index := machine.Tree().Checksum()
			if sum != s.checksum || index != s.index {
				v.problem(fmt.Errorf("%s: its state differs from that to which the log leads (key index %d, checksum %016x; by the log %d, %016x)",
					disk.SnapshotPath(v.dataDir, s.meta.ID), s.index, s.checksum, index, sum))
			} else if start < 0 || s.meta != v.states[start].meta {
				r.Compared++
			}
		}
		return nil
	})
	switch {
	case machine.failed != nil:
		v.problem(fmt.Errorf("the log cannot be applied: %w", machine.failed))
	case err != nil && !errors.Is(err, errOtherHistory) && !errors.Is(err, disk.ErrDamaged):
		v.problem(err) // damage is among the problems
	}
	if n := len(v.states); n > 0 && (v.states[n-1].meta.Index > at || errors.Is(err, errOtherHistory)) {
		machine, at = v.load(v.states[n-1]), v.states[n-1].meta.Index
	}
	r.RaftIndex = at
	r.Checksum, r.KeyIndex = machine.Tree().Checksum()
	r.Members = machine.Membership()
}

// load loads a snapshot that could be loaded before.
func (v *verifier) load(s decoded) *replica {
	machine := newReplica(1)
	if err := machine.restore(v.dataDir, s.meta); err != nil {
		v.problem(fmt.Errorf("%s: %w", disk.SnapshotPath(v.dataDir, s.meta.ID), err))
	}
	return machine
}

// checkIdentity compares the three places that say which cluster this is.
func (v *verifier) checkIdentity() {
	id, m := v.result.Identity, v.result.Members
	if id.Member == 0 {
		return // damaged, which is among the problems
	}
	if m.ClusterID != 0 && m.ClusterID != id.Cluster {
		v.problem(fmt.Errorf("%s: identity.json is of cluster %s, the log and the snapshots of cluster %s", v.dataDir, formatID(id.Cluster), formatID(m.ClusterID)))
	}
	if m.Epoch > id.Epoch {
		v.problem(fmt.Errorf("%s: identity.json is older than the recovery that the log and the snapshots have seen", v.dataDir))
	}
	roster, err := readRoster(v.dataDir)
	if err != nil {
		v.problem(fmt.Errorf("the list of members: %w", err))
	}
	if roster != nil && roster.ClusterID != 0 && roster.ClusterID != id.Cluster {
		v.problem(fmt.Errorf("%s is of cluster %s, identity.json of cluster %s", rosterPath(v.dataDir), formatID(roster.ClusterID), formatID(id.Cluster)))
	}
}
