// Package httpdtest provides a member without raft, for tests of what speaks HTTP: a cluster of one
// that applies each write at once, and forgets everything when it is closed.
package httpdtest

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd"
)

// FirstIndex is the index at which a new cluster of one starts, as in etcd (spec keys 8.2).
const FirstIndex = 3

// Member is an httpd.Backend. Its fields may be changed before it is used.
type Member struct {
	// Self is the only member at first.
	Self api.Member
	// Fail, when it is set, is asked before every write and linearizable read, and its error is
	// the outcome.
	Fail func(ctx context.Context) error
	// NoLeader makes the member say that it knows of no leader.
	NoLeader atomic.Bool
	// State is what Status returns, unless it is nil: then the member is ready.
	State func() httpd.Status

	tree    *tree.Tree
	start   time.Time
	applied atomic.Uint64
	auth    atomic.Pointer[auth.State]

	mu      sync.Mutex   // one writer at a time; also guards members and removed
	members []api.Member // nil as long as Self is the only one there ever was
	removed map[uint64]bool

	stop chan struct{}
	done chan struct{}
}

// New returns a member that remembers up to history events. Close it when done.
func New(history int) *Member {
	self := api.Member{Name: "default",
		PeerURLs: []string{"http://localhost:2380"}, ClientURLs: []string{"http://localhost:2379"}}
	self.ID = api.FormatID(api.MemberID(self.PeerURLs, "etcd-cluster"))
	m := &Member{
		Self: self, removed: map[uint64]bool{},
		tree: tree.New(history), start: time.Now(),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	m.auth.Store(&auth.State{})
	b := m.tree.Begin(m.start.UnixNano())
	b.Skip(FirstIndex)
	b.End()
	m.applied.Store(4)
	go m.expire()
	return m
}

// Close stops expiry.
func (m *Member) Close() { close(m.stop); <-m.done }

// expire removes what is due, twenty times a second.
func (m *Member) expire() {
	defer close(m.done)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-m.stop:
			return
		case now := <-tick.C:
			if due, ok := m.tree.NextExpiry(); ok && due <= now.UnixNano() {
				m.Expire(now)
			}
		}
	}
}

// Expire removes what is due at the given time.
func (m *Member) Expire(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.tree.Begin(now.UnixNano())
	b.Expire()
	b.End()
}

// Skip moves the index without an event.
func (m *Member) Skip(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.tree.Begin(0)
	b.Skip(n)
	b.End()
}

func (m *Member) ClusterID() uint64 { return api.ClusterID([]uint64{m.MemberID()}) }

func (m *Member) MemberID() uint64 {
	id, _ := api.ParseID(m.Self.ID)
	return id
}

func (m *Member) Tree() *tree.Tree { return m.tree }

func (m *Member) RaftState() (index, term uint64) { return m.applied.Load(), 2 }

// Do applies the write at once.
func (m *Member) Do(ctx context.Context, w tree.Write) (*tree.Event, error) {
	if m.Fail != nil {
		if err := m.Fail(ctx); err != nil {
			return nil, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied.Add(1)
	now := time.Now().UnixNano()
	op := w.Op
	if w.HasTTL {
		// A time beyond what fits means permanent.
		if w.TTL <= uint64((math.MaxInt64-now)/int64(time.Second)) {
			op.Expires = now + int64(w.TTL)*int64(time.Second)
		}
	}
	b := m.tree.Begin(now)
	defer b.End()
	return b.Do(op)
}

func (m *Member) Linearizable(ctx context.Context) error {
	if m.Fail != nil {
		return m.Fail(ctx)
	}
	return nil
}

// Backup has the tree alone as its state.
func (m *Member) Backup() (*backup.State, error) {
	if m.Fail != nil {
		if err := m.Fail(context.Background()); err != nil {
			return nil, err
		}
	}
	t := m.tree.Snapshot()
	info := backup.Info{Cluster: api.FormatID(m.ClusterID()), Member: m.Self.ID, Name: m.Self.Name, Index: t.Index(), Time: time.Now().UTC()}
	info.RaftIndex, info.Term = m.RaftState()
	info.Keys, info.Dirs = t.Count()
	return &backup.State{Info: info, State: t, Release: t.Release}, nil
}

func (m *Member) Members() []api.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]api.Member(nil), m.all()...)
}

func (m *Member) all() []api.Member {
	if m.members == nil {
		m.members = []api.Member{m.Self}
	}
	return m.members
}

func (m *Member) Leader() (api.Member, bool) { return m.Self, !m.NoLeader.Load() }

// Voters has all members but those that were added.
func (m *Member) Voters() []uint64 { return []uint64{m.MemberID()} }

// TransferLeadership knows one voter only.
func (m *Member) TransferLeadership(_ context.Context, to uint64) (api.Member, error) {
	if to != 0 && to != m.MemberID() {
		return api.Member{}, &api.StatusError{Status: 409, Message: "not a voter"}
	}
	return m.Self, nil
}

func (m *Member) AddMember(ctx context.Context, peerURLs []string) (api.Member, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.taken(peerURLs, 0) {
		return api.Member{}, &api.StatusError{Status: 409, Message: "membership: peerURL exists"}
	}
	added := api.Member{ID: api.FormatID(api.AddedMemberID(peerURLs, time.Now())), PeerURLs: peerURLs}
	m.members = append(m.all(), added)
	return added, nil
}

// taken reports whether one of the URLs belongs to a member other than id.
func (m *Member) taken(peerURLs []string, id uint64) bool {
	for _, one := range m.all() {
		if one.ID == api.FormatID(id) {
			continue
		}
		for _, have := range one.PeerURLs {
			for _, want := range peerURLs {
				if have == want {
					return true
				}
			}
		}
	}
	return false
}

func (m *Member) find(id uint64) (int, error) {
	if m.removed[id] {
		return 0, &api.StatusError{Status: 410, Message: "Member permanently removed: " + api.FormatID(id)}
	}
	for i := range m.all() {
		if m.members[i].ID == api.FormatID(id) {
			return i, nil
		}
	}
	return 0, &api.StatusError{Status: 404, Message: "No such member: " + api.FormatID(id)}
}

func (m *Member) UpdateMember(ctx context.Context, id uint64, peerURLs []string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(id)
	if err != nil {
		return err
	}
	if m.taken(peerURLs, id) {
		return &api.StatusError{Status: 409, Message: "membership: peerURL exists"}
	}
	m.members[i].PeerURLs = peerURLs
	return nil
}

func (m *Member) RemoveMember(ctx context.Context, id uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, err := m.find(id)
	if err != nil {
		return err
	}
	m.members = append(m.members[:i], m.members[i+1:]...)
	m.removed[id] = true
	return nil
}

func (m *Member) Version() api.Version { return api.Version{Server: "3.4.23", Cluster: "3.4.0"} }

func (m *Member) SelfStats() api.SelfStats {
	return api.SelfStats{Name: m.Self.Name, ID: m.Self.ID, State: "StateLeader", StartTime: m.start,
		LeaderInfo: api.LeaderInfo{Leader: m.Self.ID, Uptime: time.Since(m.start).String(), StartTime: m.start}}
}

func (m *Member) LeaderStats() (api.LeaderStats, bool) {
	return api.LeaderStats{Leader: m.Self.ID}, !m.NoLeader.Load()
}

func (m *Member) Status() httpd.Status {
	if m.State != nil {
		return m.State()
	}
	return httpd.Status{Ready: true}
}
