package store

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/store/disk"
)

// RecoverOptions say whose directory becomes a cluster of its own.
type RecoverOptions struct {
	DataDir string
	WALDir  string // empty: within DataDir
	// EventHistory is how many events are kept for watches that begin in the past.
	EventHistory int
	Logger       hclog.Logger // may be nil
}

// Recovered is what Recover has made.
type Recovered struct {
	Identity disk.Identity // with the new recovery epoch
	// Left are the members that do not belong to the cluster any more, once it has started.
	Left []fsm.Member
}

// Recover turns the directory of a member that is not running into a cluster of that member alone,
// with all keys, indices and remaining TTLs, under the old IDs (spec operations 5). It is for when
// the majority of the members is lost for good, and it is never undone: the new recovery epoch
// keeps the others from ever speaking to this member again.
//
// A crash at any point leaves a directory on which Recover can be called again. Until it has
// returned nil, the member may come up without a leader.
//
// Entries that were in this member's log but never committed become part of the state: their
// outcome was unknown to whoever wrote them.
func Recover(o RecoverOptions) (*Recovered, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	state, err := disk.Inspect(o.DataDir, o.WALDir)
	if err != nil {
		return nil, err
	}
	if state != disk.Member {
		return nil, notAMember(o.DataDir)
	}
	dir, err := disk.Open(disk.Options{DataDir: o.DataDir, WALDir: o.WALDir, Logger: o.Logger})
	if err != nil {
		return nil, inUse(o.DataDir, err)
	}
	r, err := recoverAlone(dir, o.EventHistory, o.Logger)
	return r, errors.Join(err, dir.Close())
}

func notAMember(dataDir string) error { return fmt.Errorf("%s does not hold a member", dataDir) }

// inUse explains the error of a directory that a running member has locked.
func inUse(dataDir string, err error) error {
	if errors.Is(err, disk.ErrLocked) {
		return fmt.Errorf("%s is in use by a running member, which has to be stopped first: %w", dataDir, err)
	}
	return err
}

// forceNewCluster is Recover for a member that is about to start.
func (s *Store) forceNewCluster() error {
	r, err := recoverAlone(s.dir, s.options.EventHistory, s.log)
	if err != nil {
		return fmt.Errorf("force new cluster: %w", err)
	}
	s.identity = r.Identity
	for _, m := range r.Left {
		s.log.Warn("removed member", "member", formatID(m.ID), "cluster", formatID(s.identity.Cluster))
	}
	return nil
}

// recoverAlone rewrites raft's configuration on disk, so that it names this member only, and gives
// the identity a new recovery epoch. The membership that the members agree on follows in the first
// term (KindReset).
func recoverAlone(dir *disk.Dir, eventHistory int, log hclog.Logger) (*Recovered, error) {
	identity, ok := dir.Identity()
	if !ok {
		return nil, errors.New("the data directory does not say who this member is")
	}
	logs, stable, snapshots := dir.LogStore(), dir.StableStore(), dir.Snapshots()
	last, err := logs.LastIndex()
	if err != nil {
		return nil, err
	}
	metas, err := snapshots.List()
	if err != nil {
		return nil, err
	}
	if last == 0 && len(metas) == 0 {
		return nil, errors.New("this member has never received anything of its cluster, so there is nothing to begin from")
	}
	result := &Recovered{Identity: *identity}
	result.Identity.Epoch = max(identity.Epoch+1, uint64(time.Now().UnixNano()))

	machine := newReplica(eventHistory)
	// Nothing on disk has been changed when this is called, and everything there has been read.
	begin := func() error {
		if machine.failed != nil {
			return machine.failed
		}
		if machine.Membership().IsRemoved(identity.Member) {
			return fmt.Errorf("member %s was removed from its cluster, so others went on without it: choose another", formatID(identity.Member))
		}
		for _, m := range machine.Membership().Members {
			if m.ID != identity.Member {
				result.Left = append(result.Left, m)
			}
		}
		// The epoch comes first: a crash before raft's configuration is rewritten then leaves a
		// member that nobody speaks to, not one that speaks for two clusters.
		return dir.WriteIdentity(result.Identity)
	}
	var failed error
	watched := beforeSnapshot{FSM: machine.FSM, do: func() error { failed = begin(); return failed }}

	config := raft.DefaultConfig()
	config.LocalID = serverID(identity.Member)
	config.Logger = log.Named("raft")
	// The transport is only asked how it encodes addresses.
	_, transport := raft.NewInmemTransport(raft.ServerAddress(config.LocalID))
	only := raft.Configuration{Servers: []raft.Server{{ID: config.LocalID, Address: raft.ServerAddress(config.LocalID), Suffrage: raft.Voter}}}
	err = raft.RecoverCluster(config, watched, logs, stable, snapshots, transport, only)
	if failed != nil {
		return nil, failed
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// beforeSnapshot is a state machine that does something before its snapshot is taken.
type beforeSnapshot struct {
	*fsm.FSM
	do func() error
}

func (b beforeSnapshot) Snapshot() (raft.FSMSnapshot, error) {
	if err := b.do(); err != nil {
		return nil, err
	}
	return b.FSM.Snapshot()
}

// replica is a state machine that is fed from a directory, outside of a running member.
type replica struct {
	*fsm.FSM
	failed error // why it cannot go on
}

func newReplica(eventHistory int) *replica {
	r := &replica{}
	r.FSM = fsm.New(0, eventHistory, fsm.Hooks{
		Applied:        func(uint64, uint64) {},
		Deliver:        func([]fsm.Delivery) {},
		MembersChanged: func(_, _ *fsm.Membership) {},
		Fatal:          func(err error) { r.failed = err },
	})
	return r
}
