package store

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/fsm/tree"
)

// errNothingYet is why a member that has only just started cannot be backed up.
var errNothingYet = errors.New("this member has no state yet: it has not heard from its cluster")

// Backup takes the state of this member: all keys with their indices, history and lifetimes, users and
// roles, and who belongs to the cluster, all at one moment. It asks nobody, so it may be old; call
// Linearizable first where that matters. Writes go on.
func (s *Store) Backup() (*backup.State, error) {
	b, err := s.fsm.Backup()
	if err != nil {
		return nil, err
	}
	if b.RaftIndex() == 0 {
		b.Release()
		return nil, errNothingYet
	}
	info := backup.Info{
		Cluster:   formatID(s.identity.Cluster),
		Member:    formatID(s.self),
		Name:      s.options.Name,
		Index:     b.Index(),
		RaftIndex: b.RaftIndex(),
		Time:      time.Now().UTC(),
	}
	_, info.Term = s.RaftState()
	info.Keys, info.Dirs = b.Count()
	return &backup.State{Info: info, State: b, Release: b.Release}, nil
}

// BackupOf takes the state of a member that is not running from its directory: with everything in its
// log, committed or not. Nothing is changed. An empty walDir means DATA/member/wal.
func BackupOf(dataDir, walDir string) (*backup.State, error) {
	machine := newReplica(math.MaxInt32)
	s, err := survey(dataDir, walDir, machine)
	if err != nil {
		return nil, err
	}
	b, err := machine.Backup()
	if err != nil {
		return nil, err
	}
	if b.RaftIndex() == 0 {
		b.Release()
		return nil, fmt.Errorf("%s: %w", dataDir, errNothingYet)
	}
	info := backup.Info{
		Cluster:   formatID(s.Identity.Cluster),
		Member:    formatID(s.Identity.Member),
		Name:      s.Name(),
		Index:     b.Index(),
		RaftIndex: b.RaftIndex(),
		Time:      time.Now().UTC(),
	}
	_, info.Term = s.Last()
	info.Keys, info.Dirs = b.Count()
	return &backup.State{Info: info, State: b, Release: b.Release}, nil
}

// BackupContents is what ReadBackup finds in a backup.
type BackupContents struct {
	// Checksum is the one of GET /quorate/v1/status?checksum=true at the index of the backup.
	Checksum uint64
	// FirstEvent is the index from which on a watch can begin.
	FirstEvent uint64
	Members    *fsm.Membership
	Auth       *auth.State
	// Tree holds the keys.
	Tree *tree.Tree
}

// ReadBackup decodes the state in a backup, all of it.
func ReadBackup(b *backup.Content) (*BackupContents, error) {
	machine, err := readBackup(b)
	if err != nil {
		return nil, err
	}
	c := &BackupContents{Members: machine.Membership(), Auth: machine.Auth(), Tree: machine.Tree()}
	c.Checksum, _ = c.Tree.Checksum()
	c.FirstEvent = c.Tree.FirstEvent()
	return c, nil
}
