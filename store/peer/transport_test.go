package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// transportPair is two transports; what the second one receives is not taken by any raft.
func transportPair(t *testing.T, cfg TransportConfig) (from, to *Transport, target raft.ServerID) {
	t.Helper()
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	from = NewTransport(a.StreamLayer(), TransportConfig{
		Self: 0xa, CurrentTerm: func() uint64 { return 0 }, HeartbeatTimeout: time.Second,
		SendNudge: func(_ raft.ServerID, nudge []byte) error { return to.Nudged(0xa, nudge) },
	})
	cfg.Self = 0xb
	if cfg.CurrentTerm == nil {
		cfg.CurrentTerm = func() uint64 { return 0 }
	}
	to = NewTransport(b.StreamLayer(), cfg)
	t.Cleanup(func() { from.Close(); to.Close() })
	return from, to, raft.ServerID(api.FormatID(0xb))
}

func addressOf(id raft.ServerID) raft.ServerAddress { return raft.ServerAddress(id) }

// take receives one message or fails.
func take(t *testing.T, tr *Transport) raft.RPC {
	t.Helper()
	select {
	case rpc := <-tr.Consumer():
		return rpc
	case <-time.After(patience):
		t.Fatal("no message arrived")
		panic("unreachable")
	}
}

func heartbeat(term uint64) *raft.AppendEntriesRequest {
	return &raft.AppendEntriesRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte("a"), Addr: []byte("a")},
		Term:      term, Leader: []byte("a"),
	}
}

// A heartbeat that the main loop does not take is answered from the term alone (raft#695).
func TestHeartbeatOfBusyMember(t *testing.T) {
	tests := []struct {
		name            string
		current, leader uint64
		wantTerm        uint64
		want            bool
	}{
		{"same term", 5, 5, 5, true},
		{"leader of an old term", 7, 5, 7, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from, _, to := transportPair(t, TransportConfig{HeartbeatTimeout: 4 * time.Millisecond, CurrentTerm: func() uint64 { return tt.current }})
			var resp raft.AppendEntriesResponse
			if err := from.AppendEntries(to, addressOf(to), heartbeat(tt.leader), &resp); err != nil {
				t.Fatal(err)
			}
			if resp.Term != tt.wantTerm || resp.Success != tt.want || string(resp.ID) != "b" || resp.ProtocolVersion != 3 {
				t.Errorf("answer = %+v, want term %d, success %v", resp, tt.wantTerm, tt.want)
			}
		})
	}
}

// The term of a new leader must reach the disk before there is an answer, so the heartbeat waits for
// the main loop, however long that takes.
func TestHeartbeatOfNewTermWaits(t *testing.T) {
	var asked atomic.Int32
	from, busy, to := transportPair(t, TransportConfig{HeartbeatTimeout: 4 * time.Millisecond, CurrentTerm: func() uint64 { asked.Add(1); return 5 }})
	var resp raft.AppendEntriesResponse
	answered := make(chan error, 1)
	go func() { answered <- from.AppendEntries(to, addressOf(to), heartbeat(6), &resp) }()
	eventually(t, "the heartbeat has run out of patience three times", func() bool { return asked.Load() >= 3 })
	select {
	case err := <-answered:
		t.Fatalf("answered without the main loop: %+v, %v", resp, err)
	default:
	}
	rpc := take(t, busy)
	if req := rpc.Command.(*raft.AppendEntriesRequest); req.Term != 6 {
		t.Errorf("the main loop got %+v", req)
	}
	rpc.Respond(&raft.AppendEntriesResponse{Term: 6, Success: true}, nil)
	if err := <-answered; err != nil || resp.Term != 6 || !resp.Success {
		t.Errorf("answer = %+v, %v", resp, err)
	}
}

// Raft's own handler is never called: an idle main loop gets the heartbeat.
func TestHeartbeatGoesToTheMainLoop(t *testing.T) {
	from, idle, to := transportPair(t, TransportConfig{HeartbeatTimeout: time.Hour, CurrentTerm: func() uint64 { return 5 }})
	idle.SetHeartbeatHandler(func(raft.RPC) { t.Error("the fast path was used") })
	go func() {
		rpc := <-idle.Consumer()
		rpc.Respond(&raft.AppendEntriesResponse{Term: 5, LastLog: 42, Success: true}, nil)
	}()
	var resp raft.AppendEntriesResponse
	if err := from.AppendEntries(to, addressOf(to), heartbeat(5), &resp); err != nil || resp.LastLog != 42 {
		t.Errorf("answer = %+v, %v", resp, err)
	}
}

func TestClampCommit(t *testing.T) {
	tests := []struct {
		name          string
		prev, entries int
		commit, want  uint64
	}{
		{"heartbeat", 0, 0, 0, 0},
		{"behind", 10, 2, 11, 11},
		{"exact", 10, 2, 12, 12},
		{"ahead of the entries", 10, 2, 13, 12},
		{"ahead without entries", 10, 0, 13, 10},
		{"from the start", 0, 3, 100, 3},
		{"nothing vouched for", 0, 0, 100, 0},
	}
	from, to, id := transportPair(t, TransportConfig{HeartbeatTimeout: time.Hour})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := heartbeat(3)
			req.PrevLogEntry, req.LeaderCommitIndex = uint64(tt.prev), tt.commit
			for i := range tt.entries {
				req.Entries = append(req.Entries, &raft.Log{Index: uint64(tt.prev + i + 1), Term: 3})
			}
			done := make(chan error, 1)
			go func() { done <- from.AppendEntries(id, addressOf(id), req, new(raft.AppendEntriesResponse)) }()
			rpc := take(t, to)
			if got := rpc.Command.(*raft.AppendEntriesRequest).LeaderCommitIndex; got != tt.want {
				t.Errorf("commit index = %d, want %d", got, tt.want)
			}
			rpc.Respond(&raft.AppendEntriesResponse{Term: 3, Success: true}, nil)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCheckSnapshot(t *testing.T) {
	from, to, id := transportPair(t, TransportConfig{CheckSnapshot: func(req *raft.InstallSnapshotRequest) error {
		if req.LastLogIndex == 7 {
			return errors.New("conflicting suffix")
		}
		return nil
	}})
	data := make([]byte, 1<<20)
	install := func(index uint64) error {
		req := &raft.InstallSnapshotRequest{RPCHeader: heartbeat(1).RPCHeader, SnapshotVersion: 1, Term: 1, LastLogIndex: index, Size: int64(len(data))}
		return from.InstallSnapshot(id, addressOf(id), req, new(raft.InstallSnapshotResponse), io.LimitReader(zeros{}, req.Size))
	}
	if err := install(7); err == nil || err.Error() != "conflicting suffix" {
		t.Errorf("refused snapshot: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- install(8) }()
	rpc := take(t, to)
	if n, err := io.Copy(io.Discard, rpc.Reader); n != int64(len(data)) || err != nil {
		t.Errorf("raft reads %d bytes, %v", n, err)
	}
	rpc.Respond(&raft.InstallSnapshotResponse{Success: true}, nil)
	if err := <-done; err != nil {
		t.Errorf("accepted snapshot: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestInjectTimeoutNow(t *testing.T) {
	_, to, _ := transportPair(t, TransportConfig{})
	done := make(chan error, 1)
	go func() { done <- to.InjectTimeoutNow(testContext(t)) }()
	rpc := take(t, to)
	if req, ok := rpc.Command.(*raft.TimeoutNowRequest); !ok || req.ProtocolVersion != 3 || string(req.ID) != "b" {
		t.Errorf("raft gets %#v", rpc.Command)
	}
	rpc.Respond(&raft.TimeoutNowResponse{}, nil)
	if err := <-done; err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := to.InjectTimeoutNow(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody takes it: %v", err)
	}
	to.Close()
	if err := to.InjectTimeoutNow(context.Background()); err == nil {
		t.Error("closed transport: no error")
	}
}

// A follower is told of a commit once it has acknowledged the entry, not before.
func TestNudge(t *testing.T) {
	from, to, id := transportPair(t, TransportConfig{HeartbeatTimeout: time.Hour})
	from.Nudge(id, 10, 3, 3) // entry 10 is still on its way
	req := heartbeat(3)
	req.PrevLogEntry, req.PrevLogTerm = 9, 2
	req.Entries = []*raft.Log{{Index: 10, Term: 3}}
	done := make(chan error, 1)
	go func() { done <- from.AppendEntries(id, addressOf(id), req, new(raft.AppendEntriesResponse)) }()
	rpc := take(t, to)
	if got := rpc.Command.(*raft.AppendEntriesRequest); len(got.Entries) != 1 {
		t.Fatalf("first comes %+v, want the entry", got)
	}
	rpc.Respond(&raft.AppendEntriesResponse{Term: 3, Success: true}, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	rpc = take(t, to)
	got := rpc.Command.(*raft.AppendEntriesRequest)
	if got.PrevLogEntry != 10 || got.PrevLogTerm != 3 || got.LeaderCommitIndex != 10 || got.Term != 3 || len(got.Entries) != 0 ||
		string(got.ID) != "a" || string(got.Addr) != "a" || string(got.Leader) != "a" || got.ProtocolVersion != 3 {
		t.Errorf("nudge = %+v", got)
	}

	rpc.Respond(&raft.AppendEntriesResponse{Term: 3, Success: true}, nil)

	// While raft takes none the last one of the highest term waits, and one that has begun to wait for it.
	for i := range uint64(5) {
		from.Nudge(id, 5+i, 3, 3)
	}
	if err := to.Nudged(0xc, nudge{index: 10, term: 2, leaderTerm: 2}.encode()); err != nil {
		t.Error(err)
	}
	for last := uint64(0); last != 9; {
		rpc := take(t, to)
		got := rpc.Command.(*raft.AppendEntriesRequest)
		if got.LeaderCommitIndex <= last || got.Term != 3 {
			t.Fatalf("after commit index %d comes %+v", last, got)
		}
		last = got.LeaderCommitIndex
		rpc.Respond(&raft.AppendEntriesResponse{Term: 3, Success: true}, nil)
	}
	for _, bad := range [][]byte{nil, make([]byte, nudgeSize-1), make([]byte, nudgeSize+1)} {
		if err := to.Nudged(0xa, bad); err == nil {
			t.Errorf("a nudge of %d bytes was taken", len(bad))
		}
	}
}

func TestPipelineHook(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	const id = raft.ServerID("b")
	release := make(chan struct{})
	stats := NewStats()
	from := NewTransport(a.StreamLayer(), TransportConfig{Self: 0xa, CurrentTerm: func() uint64 { return 1 }, Stats: stats,
		OnAppend: func(ctx context.Context, to raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) {
			if to != id || !resp.Success || req.Term != 1 {
				t.Errorf("hook: to %s, %+v, %+v", to, req, resp)
			}
			select {
			case <-release:
			case <-ctx.Done():
			}
		}})
	defer from.Close()
	received := NewStats()
	to := NewTransport(b.StreamLayer(), TransportConfig{Self: 0xb, CurrentTerm: func() uint64 { return 1 }, Stats: received})
	defer to.Close()
	go func() {
		for rpc := range to.Consumer() {
			rpc.Respond(&raft.AppendEntriesResponse{Term: 1, Success: true}, nil)
			if req := rpc.Command.(*raft.AppendEntriesRequest); len(req.Entries) > 0 && req.Entries[0].Index == 3 {
				return
			}
		}
	}()

	p, err := from.AppendEntriesPipeline(id, addressOf(id))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	send := func(index uint64) {
		t.Helper()
		req := heartbeat(1)
		req.PrevLogEntry, req.PrevLogTerm = index-1, 1
		req.Entries = []*raft.Log{{Index: index, Term: 1, Data: make([]byte, 100)}}
		if _, err := p.AppendEntries(req, new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
	}
	send(2)
	send(3)
	select {
	case <-p.Consumer():
		t.Fatal("the answer has passed the hook")
	default:
	}
	close(release)
	for i := range uint64(2) {
		select {
		case f := <-p.Consumer():
			if f.Error() != nil || f.Request().Entries[0].Index != i+2 {
				t.Errorf("answer %d: %+v, %v", i, f.Request(), f.Error())
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
	}
	var sent, recv api.SelfStats
	stats.Fill(&sent)
	received.Fill(&recv)
	if sent.SendAppendRequestCnt != 2 || recv.RecvAppendRequestCnt != 2 {
		t.Errorf("sent %d, received %d, want 2 and 2", sent.SendAppendRequestCnt, recv.RecvAppendRequestCnt)
	}
	if f := stats.Followers([]uint64{0xb})["b"]; f.Counts.Success != 2 || f.Counts.Fail != 0 || f.Latency.Minimum <= 0 {
		t.Errorf("follower = %+v", f)
	}
}

// Closing raft's layer leaves the member's listener alone, and the next layer takes over.
func TestLayerAgain(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	la := a.StreamLayer()
	if _, err := la.Dial("b", patience); err == nil {
		t.Error("a connection to a member without raft")
	}
	if _, err := la.Dial("not hex", patience); err == nil {
		t.Error("an address that is no ID was dialed")
	}
	exchange := func(lb raft.StreamLayer) (near, far net.Conn) {
		t.Helper()
		accepted := make(chan net.Conn, 1)
		go func() {
			c, err := lb.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		near, err := la.Dial("b", patience)
		if err != nil {
			t.Fatal(err)
		}
		far = <-accepted
		go far.Write([]byte("hello"))
		got := make([]byte, 5)
		near.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(near, got); err != nil || string(got) != "hello" {
			t.Fatalf("read %q, %v", got, err)
		}
		return near, far
	}
	first := b.StreamLayer()
	near, _ := exchange(first)
	first.Close()
	if _, err := near.Read(make([]byte, 1)); err == nil {
		t.Error("a connection of a closed layer is open")
	}
	if _, err := first.Accept(); err == nil {
		t.Error("a closed layer accepts")
	}
	second := b.StreamLayer()
	if _, far := exchange(second); far != nil {
		b.Drop(0xa)
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Error("a dropped connection is open")
		}
	}
	if got := second.Addr().String(); got != "b" {
		t.Errorf("Addr = %q, want b", got)
	}
	wantCall(t, a, 0xb, "a to b: 7 hi")
}

// logFSM is a state machine that remembers what was applied.
type logFSM struct {
	mu      sync.Mutex
	applied []string
}

func (f *logFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, string(l.Data))
	return nil
}
func (f *logFSM) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none") }
func (f *logFSM) Restore(io.ReadCloser) error         { return errors.New("none") }
func (f *logFSM) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.applied)
}

// raftNode is a raft over the transport, with its logs in memory.
type raftNode struct {
	*testPeer
	fsm   *logFSM
	store *raft.InmemStore
	raft  *raft.Raft
	trans *Transport
	stats *Stats
	nudge func(to raft.ServerID, nudge []byte) error
}

func (n *raftNode) start(t *testing.T) {
	t.Helper()
	var current atomic.Pointer[raft.Raft]
	n.trans = NewTransport(n.StreamLayer(), TransportConfig{
		Self: n.id, HeartbeatTimeout: time.Second, Stats: n.stats, SendNudge: n.nudge,
		CurrentTerm: func() uint64 {
			if r := current.Load(); r != nil {
				return r.CurrentTerm()
			}
			return 0
		},
	})
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(api.FormatID(n.id))
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	conf.CommitTimeout = time.Hour // followers learn of a commit by a nudge or with the next entry
	conf.LogOutput = io.Discard
	n.fsm = &logFSM{}
	r, err := raft.NewRaft(conf, n.fsm, n.store, n.store, raft.NewDiscardSnapshotStore(), n.trans)
	if err != nil {
		t.Fatal(err)
	}
	n.raft = r
	current.Store(r)
}

// apply finds the leader and has it apply data. It returns the leader and the entry's index.
func apply(t *testing.T, nodes []*raftNode, data string) (leader *raftNode, index uint64) {
	t.Helper()
	eventually(t, "applied "+data, func() bool {
		for _, n := range nodes {
			if n.raft.State() != raft.Leader {
				continue
			}
			f := n.raft.Apply([]byte(data), patience)
			if err := f.Error(); err == nil {
				leader, index = n, f.Index()
				return true
			}
		}
		return false
	})
	return leader, index
}

func TestRaftOverTransport(t *testing.T) {
	var nodes []*raftNode
	var servers []raft.Server
	var peers []*testPeer
	for id := uint64(0xa); id <= 0xc; id++ {
		n := &raftNode{testPeer: open(t, Config{Self: id}), store: raft.NewInmemStore(), stats: NewStats()}
		nodes, peers = append(nodes, n), append(peers, n.testPeer)
		name := api.FormatID(id)
		servers = append(servers, raft.Server{ID: raft.ServerID(name), Address: raft.ServerAddress(name)})
	}
	introduce(peers...)
	for _, n := range nodes {
		n.nudge = func(to raft.ServerID, nudge []byte) error {
			for _, other := range nodes {
				if api.FormatID(other.id) == string(to) {
					return other.trans.Nudged(n.id, nudge)
				}
			}
			return ErrNotConnected
		}
		n.start(t)
		defer func() { n.raft.Shutdown().Error() }()
	}
	for _, n := range nodes {
		if err := n.raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			t.Fatal(err)
		}
	}

	nudgeAll := func(leader *raftNode, index uint64) {
		var entry raft.Log
		if err := leader.store.GetLog(index, &entry); err != nil {
			t.Fatal(err)
		}
		for _, s := range servers {
			if string(s.ID) != api.FormatID(leader.id) {
				leader.trans.Nudge(s.ID, index, entry.Term, entry.Term)
			}
		}
	}
	var leader *raftNode
	for i := range 5 {
		var index uint64
		leader, index = apply(t, nodes, fmt.Sprint(i))
		nudgeAll(leader, index)
	}
	for _, n := range nodes {
		eventually(t, "everybody has applied everything", func() bool { return n.fsm.len() >= 5 })
	}

	// Raft starts again in the same process, on the same listener.
	follower := nodes[0]
	if follower == leader {
		follower = nodes[1]
	}
	if err := follower.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	follower.start(t)
	eventually(t, "the restarted member has applied everything", func() bool {
		// With this CommitTimeout only a new entry makes raft try again.
		var index uint64
		leader, index = apply(t, nodes, "after the restart")
		nudgeAll(leader, index)
		return follower.fsm.len() >= 6
	})

	var sent api.SelfStats
	leader.stats.Fill(&sent)
	if sent.SendAppendRequestCnt == 0 {
		t.Error("the leader has sent nothing")
	}

	// TimeoutNow makes a follower stand for election, and win it.
	term := leader.raft.CurrentTerm()
	if follower.raft.State() == raft.Follower {
		if err := follower.trans.InjectTimeoutNow(testContext(t)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "there was an election", func() bool { return follower.raft.CurrentTerm() > term })
	}
	apply(t, nodes, "the end")
}
