// Package store is this process as a member of a cluster: raft and its disk, the other members, the
// writes and linearizable reads that go through them, and who belongs to the cluster.
//
// What is replicated is package fsm's; what is on disk package disk's; the wire package peer's.
// Here they meet. A Store implements what package httpd asks of a member.
package store

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/store/disk"
	"github.com/quorate/quorate/store/peer"
)

// ServerVersion is what this member says in answers that name a version of etcd: the one whose
// behaviour it has. ClusterVersion is the version that a cluster of such members agrees on.
const (
	ServerVersion  = "3.4.23"
	ClusterVersion = "3.4.0"
)

// logCache is how many bytes of recent log entries are kept in memory: followers in step need no
// more, and those behind are served from the disk.
const logCache = 8 << 20

// ErrRemoved is why a member stops that was removed from its cluster.
var ErrRemoved = errors.New("the member has been permanently removed from the cluster")

// Options says which member this is and how it behaves. Those of the first start are ignored when
// the data directory says who the member is.
type Options struct {
	Name       string
	ClientURLs []string // published at every start

	DataDir string
	WALDir  string // empty: within DataDir
	// LogStore is the kind of log. Empty means the one that is there, and disk.BoltDB for a new one.
	LogStore disk.Kind

	// First start only.
	Initial  []Initial // all initial members, or with Existing all present ones; this one among them
	Token    string
	Existing bool // the cluster runs already, and this member was added to it

	// AdvertisePeerURLs is where the others are to find this member, ListenPeerURLs where it
	// listens, on Listeners.
	AdvertisePeerURLs []string
	ListenPeerURLs    []string
	Listeners         []net.Listener

	ElectionTimeout time.Duration // zero means 1 s
	// SnapshotCount is how many commands are applied between snapshots; zero means 100000.
	SnapshotCount uint64
	MaxSnapshots  int
	// EventHistory is how many events are kept for watches that begin in the past.
	EventHistory int
	// StrictReconfig refuses changes of members that would endanger the quorum.
	StrictReconfig bool
	// ForceNewCluster makes this member the only one of its cluster.
	ForceNewCluster bool
	// DiskStallLimit is how long a write of the log may take before the member stops, so that the
	// others go on without it.
	DiskStallLimit time.Duration
	// MinFreeDisk is the free space below which writes are refused. Zero never refuses any.
	MinFreeDisk disk.Reserve
	// FastFailover lets this member stand for election as soon as the leader's process has ended,
	// if the others see the same. See succession.go.
	FastFailover bool

	// TLS is asked for what to dial other members with, each time. Nil means the system's roots and
	// no certificate.
	TLS    func() *tls.Config
	Logger hclog.Logger

	// For tests.
	measureSpace func() ([]disk.Space, error) // in place of the disk's
	wrapLog      func(diskLog) diskLog        // around the log on disk
}

// Initial is a member in the list a new member starts with.
type Initial struct {
	Name     string
	PeerURLs []string
}

// Store is a running member. All methods may be called from any goroutine.
type Store struct {
	options Options
	log     hclog.Logger
	self    uint64
	boot    uint64
	started time.Time // with its monotonic reading: the zero of this member's clock

	dir      *disk.Dir
	identity disk.Identity
	// lastKnown is the membership before the state machine has one.
	lastKnown *fsm.Membership

	fsm      *fsm.FSM
	peers    *peer.Peers
	stats    *peer.Stats
	metrics  *metrics
	clock    clock
	acks     acknowledgements
	applied  *appliedNote
	pipeline *pipeline
	space    space

	// confirms are this leader's rounds, readIndex those of a member that asks its leader.
	confirms, readIndex sharedRound

	// raft is replaced when raft has to be started again within this process.
	raft        atomic.Pointer[runningRaft]
	raftMu      sync.Mutex  // held while raft is started or stopped
	raftStarted atomic.Bool // before the first start no raft uses the log
	// restarting is held from the stop to the start of raft within this process.
	restarting sync.Mutex

	// transferSince is when raft began to refuse entries because of a transfer of leadership, in
	// Unix nanoseconds, and 0 while it does not.
	transferSince atomic.Int64

	// leaving says that this member is about to stop: leadership is not for it.
	leaving atomic.Bool

	// succeeding says that this member looks whether to succeed a leader that has ended.
	succeeding atomic.Bool

	// readyTerm is the term in which this member leads and has applied its first command.
	readyTerm atomic.Uint64

	published      chan struct{} // closed once this member has told its name and URLs
	membersChanged chan struct{} // has one value after a change of membership
	snapshotLost   chan struct{} // has one value when the newest snapshot can no longer be used
	raftEvents     chan raft.Observation

	leaderMu    sync.Mutex
	leader      uint64    // guarded by leaderMu: the last leader seen
	leaderSince time.Time // guarded by leaderMu

	stopping  chan struct{} // closed when the store begins to stop
	stopOnce  sync.Once
	stopError error         // written before stopping is closed
	failed    chan struct{} // closed by fail
	failOnce  sync.Once
	work      sync.WaitGroup
	closeOnce sync.Once
	closeErr  error
}

// Open starts this member. It returns as soon as the member takes part in the cluster, which may
// be long before there is a leader. ctx bounds the questions that a first start asks other members.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.ElectionTimeout == 0 {
		o.ElectionTimeout = time.Second
	}
	if o.SnapshotCount == 0 {
		o.SnapshotCount = 100_000
	}
	s := &Store{
		options:        o,
		log:            o.Logger,
		started:        time.Now(),
		published:      make(chan struct{}),
		membersChanged: make(chan struct{}, 1),
		snapshotLost:   make(chan struct{}, 1),
		raftEvents:     make(chan raft.Observation, 64),
		stopping:       make(chan struct{}),
		failed:         make(chan struct{}),
		metrics:        newMetrics(),
	}
	s.confirms.do = s.confirm
	s.readIndex.do = s.round
	if err := s.openDisk(ctx); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openDisk opens the data directory, and on a first start finds out who this member is.
func (s *Store) openDisk(ctx context.Context) (err error) {
	s.dir, err = disk.Open(disk.Options{
		DataDir:      s.options.DataDir,
		WALDir:       s.options.WALDir,
		LogStore:     s.options.LogStore,
		MaxSnapshots: s.options.MaxSnapshots,
		CacheBytes:   logCache,
		Reserve:      s.options.MinFreeDisk,
		StallLimit:   s.options.DiskStallLimit,
		OnStall: func(op string, waited time.Duration) {
			s.fail(fmt.Errorf("the disk does not answer: %s has taken %v so far; this member stops so that the others go on without it", op, waited.Round(time.Millisecond)))
		},
		OnCorrupt: s.diskFailed,
		OnFailure: s.diskFailed,
		OnSnapshotLost: func() {
			select {
			case s.snapshotLost <- struct{}{}:
			default:
			}
		},
		Logger: s.log,
	})
	if err != nil {
		return explain(err, s.options.DataDir)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.dir.Close())
		}
	}()
	identity, ok := s.dir.Identity()
	switch {
	case ok:
		s.identity = *identity
	case s.options.Existing:
		if s.identity, err = s.join(ctx); err != nil {
			return err
		}
	default:
		if s.identity, err = s.found(ctx); err != nil {
			return err
		}
	}
	if !ok {
		if err := s.dir.WriteIdentity(s.identity); err != nil {
			return err
		}
	}
	s.self = s.identity.Member
	verb := "starting member"
	if ok {
		verb = "restarting member"
	}
	s.log.Info(verb, "member", formatID(s.self), "cluster", formatID(s.identity.Cluster))
	if s.options.ForceNewCluster && ok {
		s.log.Info("force new cluster")
		if err := s.forceNewCluster(); err != nil {
			return err
		}
	}
	return nil
}

// start brings up everything that runs. ctx bounds what a first start asks other members.
func (s *Store) start(ctx context.Context) (err error) {
	s.pipeline = newPipeline(s)
	s.fsm = fsm.New(s.self, s.options.EventHistory, fsm.Hooks{
		Deliver:        s.pipeline.deliver,
		MembersChanged: s.onMembersChanged,
		Committed:      s.onCommitted,
		Applied:        s.onApplied,
		Fatal: func(err error) {
			s.stop(fmt.Errorf("this member cannot go on: %w", err))
		},
	})
	s.loadRoster()
	s.stats = peer.NewStats()
	s.peers = peer.New(peer.Config{
		Self:      s.self,
		Cluster:   s.identity.Cluster,
		Epoch:     s.identity.Epoch,
		Version:   ServerVersion,
		Directory: directory{s},
		Handler:   s,
		TLS:       s.options.TLS,
		Logger:    s.log.Named("peer"),
		OnRefused: s.onRefused,

		OnUnreachable: s.onUnreachable,
	})
	for _, l := range s.options.Listeners {
		s.goDo(func() {
			if err := s.peers.Serve(l); err != nil {
				s.stop(fmt.Errorf("serve members on %v: %w", l.Addr(), err))
			}
		})
	}
	if err := s.checkRestored(ctx); err != nil {
		return err
	}
	if s.boot, err = s.dir.NextBoot(); err != nil {
		return err
	}
	if s.applied, err = openAppliedNote(s.options.DataDir); err != nil {
		return err
	}
	if err := s.replay(); err != nil {
		return err
	}
	if err := s.startRaft(); err != nil {
		return err
	}
	s.peers.Ready(true)
	for _, m := range s.Members() {
		if id, err := api.ParseID(m.ID); err == nil && id != s.self {
			s.peers.Connect(id)
		}
	}
	if s.lastKnown.IsRemoved(s.self) {
		go s.leave()
	}
	s.goDo(s.pipeline.run)
	s.goDo(s.watchLeadership)
	s.goDo(s.publish)
	s.goDo(s.takeSnapshots)
	if s.options.MinFreeDisk != (disk.Reserve{}) {
		s.goDo(s.watchSpace)
	}
	return nil
}

// goDo runs f on a goroutine that Close waits for.
func (s *Store) goDo(f func()) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		f()
	}()
}

// stop lets the member stop, because of err. The first reason counts.
func (s *Store) stop(err error) {
	s.stopOnce.Do(func() {
		s.stopError = err
		close(s.stopping)
	})
}

// fail stops a member whose disk cannot be relied upon, or does not answer. Nothing can be closed in
// an orderly way then: whoever runs the store is to end the process (Failed).
func (s *Store) fail(err error) {
	s.stop(err)
	s.failOnce.Do(func() { close(s.failed) })
}

// diskFailed is called when the log cannot be read or written, before whoever wanted to is told. Raft
// would panic then, and a clear message is worth more than a stack trace, so it never returns to raft.
func (s *Store) diskFailed(err error) {
	err = explain(err, s.options.DataDir)
	if !s.raftStarted.Load() {
		s.stop(err)
		return
	}
	s.fail(err)
	select {}
}

// Failed says that the member stopped because of its disk. Close does not wait then, and the process
// has to end.
func (s *Store) Failed() bool {
	select {
	case <-s.failed:
		return true
	default:
		return false
	}
}

// Done is closed when the member has to stop, for the reason that Err gives.
func (s *Store) Done() <-chan struct{} { return s.stopping }

// Err returns why the member stopped by itself: ErrRemoved, or what went wrong. Call it after Done.
func (s *Store) Err() error { return s.stopError }

// Close hands leadership over if this member leads, unless HandOver has done so, and stops it. Everything it
// started has ended when Close returns, unless the member has Failed.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		closed := make(chan error, 1)
		go func() { closed <- s.close() }()
		select {
		case s.closeErr = <-closed:
		case <-s.failed:
		}
	})
	return s.closeErr
}

func (s *Store) close() error {
	// stopError may be written by another goroutine only before stopping is closed.
	select {
	case <-s.stopping:
	default:
		s.HandOver()
	}
	s.stop(nil)
	err := errors.Join(s.stopRaft(), s.closePeers())
	s.work.Wait()
	if s.applied != nil {
		err = errors.Join(err, s.applied.close())
	}
	if s.dir != nil {
		err = errors.Join(err, s.dir.Close())
	}
	return err
}

func (s *Store) closePeers() error {
	if s.peers == nil {
		return nil
	}
	return s.peers.Close()
}

// Do replicates a write and returns its event once this member has applied it. The error is an
// *api.Error: the store's refusal; code 310 when a disk is too full for the write to be tried; or one of
// code 300, after which the outcome may be unknown.
func (s *Store) Do(ctx context.Context, w tree.Write) (*tree.Event, error) {
	if err := s.haveRoom(&w); err != nil {
		return nil, err
	}
	if err := s.introduced(ctx); err != nil {
		return nil, err
	}
	result, err := s.pipeline.propose(ctx, &fsm.Command{Kind: fsm.KindWrite, Write: w})
	if err != nil {
		return nil, err
	}
	return result.Event, result.Err
}

// introduced returns once this member has told its name and URLs. The first writes of a member wait
// for that: it, too, takes an index, and clients of etcd see it behind them.
func (s *Store) introduced(ctx context.Context) error {
	select {
	case <-s.published:
		return nil
	default:
	}
	select {
	case <-s.published:
		return nil
	case <-ctx.Done():
	case <-s.stopping:
	}
	return s.unknown(ctx)
}

// unknown returns the error for a request that was given up.
func (s *Store) unknown(ctx context.Context) error {
	select {
	case <-s.stopping:
		return api.ErrStopped
	default:
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return api.ErrCanceled
	}
	return api.ErrTimeout
}

// requestTimeout is how long a replicated request may take: etcd's 5 s and two election time-outs.
func (s *Store) requestTimeout() time.Duration { return 5*time.Second + 2*s.options.ElectionTimeout }

func (s *Store) electionTimeout() time.Duration { return s.options.ElectionTimeout }

// leads says whether the route is this member's own log.
func (s *Store) leads(r route) bool { return r.leader == s.self }

// ClusterID returns the cluster's ID.
func (s *Store) ClusterID() uint64 { return s.identity.Cluster }

// MemberID returns this member's ID.
func (s *Store) MemberID() uint64 { return s.self }

// Tree returns the key tree, for reads and watches. Only the state machine writes to it.
func (s *Store) Tree() *tree.Tree { return s.fsm.Tree() }

// RaftState returns raft's commit index and current term.
func (s *Store) RaftState() (index, term uint64) {
	r := s.raft.Load()
	return r.CommitIndex(), r.CurrentTerm()
}

func formatID(id uint64) string { return api.FormatID(id) }

func serverID(id uint64) raft.ServerID { return raft.ServerID(api.FormatID(id)) }

func parseServerID(id raft.ServerID) (uint64, error) { return api.ParseID(string(id)) }
