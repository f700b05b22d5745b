package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/durable"
	"github.com/quorate/quorate/store/disk"
)

// RestoreOptions say which member of which new cluster is made of a backup.
type RestoreOptions struct {
	Backup  *backup.Content
	DataDir string
	WALDir  string // empty: within DataDir
	// LogStore is what holds the member's log. Empty means disk.BoltDB.
	LogStore disk.Kind
	// Name is this member's, Initial are all members of the new cluster, this one among them.
	Name    string
	Initial []Initial
	Token   string
	Logger  hclog.Logger // may be nil
}

// restoring is the directory within a data directory in which a new member is made. It means nothing
// to a start, and what an interrupted Restore has left there is removed by the next.
const restoring = "restoring"

// Restore makes the data directory of one member of a new cluster, which begins with the state of a
// backup: all keys, their indices, the history of events, the moments at which they expire, users and
// roles. It is called for each member, with the same backup and the same list; they then start and
// elect as any others.
//
// The IDs of the members and of the cluster are made from the backup as well as from what they are
// usually made from. So no member of the old cluster is ever taken for one of the new, and neither are
// members that began with two different backups, which would disagree for ever.
//
// After a crash there is either no member in the directory, or all of it.
func Restore(o RestoreOptions) (disk.Identity, error) {
	identity, err := initialIdentity(o.Name, o.Token+"/"+o.Backup.Sum, o.Initial)
	if err != nil {
		return identity, err
	}
	machine, err := readBackup(o.Backup)
	if err != nil {
		return identity, err
	}
	member := filepath.Join(o.DataDir, "member")
	state, err := disk.Inspect(o.DataDir, o.WALDir)
	if err != nil {
		return identity, err
	}
	// A directory that does not count as a member yet may be that of one which is starting.
	if _, err := os.Lstat(member); state != disk.Empty || !errors.Is(err, fs.ErrNotExist) {
		return identity, fmt.Errorf("%s is in use: restore into an empty data directory", o.DataDir)
	}
	now := fsm.Membership{ClusterID: identity.Cluster, Version: machine.Membership().Version}
	for _, m := range identity.Initial {
		now.Members = append(now.Members, fsm.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs})
	}
	machine.Refound(now)

	making := filepath.Join(o.DataDir, restoring)
	if err := os.RemoveAll(making); err != nil {
		return identity, err
	}
	if err := makeMember(disk.Options{DataDir: making, WALDir: o.WALDir, LogStore: o.LogStore, Logger: o.Logger}, identity, o.Backup.Info, machine); err != nil {
		return identity, errors.Join(fmt.Errorf("make member in %s: %w", making, err), os.RemoveAll(making))
	}
	if err := durable.Rename(filepath.Join(making, "member"), member); err != nil {
		return identity, err
	}
	return identity, os.Remove(making)
}

// checkRestored refuses the first start of a restored member that the others know already: it was
// restored once more, after it had lost what it has acknowledged since. Members answer this while they
// ask it.
func (s *Store) checkRestored(ctx context.Context) error {
	booted, err := s.dir.Booted()
	if err != nil || booted {
		return err
	}
	snapshots, err := s.dir.Snapshots().List()
	if err != nil || len(snapshots) == 0 {
		return err
	}
	return s.checkUnknown(ctx, s.identity, 5*time.Second)
}

// makeMember makes a complete data directory: an identity, an empty log, and the state as the snapshot
// that the log goes on from.
func makeMember(o disk.Options, identity disk.Identity, from backup.Info, machine *replica) (err error) {
	dir, err := disk.Open(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := dir.WriteIdentity(identity); err != nil {
		return err
	}
	// Raft's own term must not be behind that of the snapshot.
	if err := dir.StableStore().SetUint64([]byte("CurrentTerm"), from.Term); err != nil {
		return err
	}
	snapshot, err := machine.Snapshot()
	if err != nil {
		return err
	}
	defer snapshot.Release()
	sink, err := dir.Snapshots().Create(raft.SnapshotVersionMax, machine.Applied(), from.Term, initialConfiguration(identity), 1, nil)
	if err != nil {
		return err
	}
	return snapshot.Persist(sink)
}

// readBackup returns the state that a backup holds.
func readBackup(b *backup.Content) (*replica, error) {
	machine := newReplica(math.MaxInt32) // the history is as long as that of the backup
	state := b.State()
	if err := machine.Restore(io.NopCloser(state)); err != nil {
		return nil, err
	}
	if n, err := io.Copy(io.Discard, state); err != nil || n > 0 {
		return nil, errors.Join(err, fmt.Errorf("there are %d bytes behind the state", n))
	}
	if machine.Applied() != b.Info.RaftIndex || machine.Tree().Index() != b.Info.Index {
		return nil, errors.New("the state is not the one that the header describes")
	}
	return machine, nil
}
