package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// TransportConfig says what a Transport needs to know of the member.
type TransportConfig struct {
	Self uint64 // member ID
	// CurrentTerm is raft's current term, and 0 when raft is not running (yet, or any more). It is
	// called often and must not wait for raft's main loop.
	CurrentTerm func() uint64
	// HeartbeatTimeout is raft's. It can be changed later by SetHeartbeatTimeout.
	HeartbeatTimeout time.Duration
	// CheckSnapshot looks at a snapshot that a leader wants to install, before raft does. With an
	// error raft never sees it, and the leader gets the error as the answer. May be nil.
	CheckSnapshot func(*raft.InstallSnapshotRequest) error
	// OnAppend sees every answer to an AppendEntries of ours, heartbeats included, before raft does.
	// Until it returns the answer does not count, so it may hold back the acknowledgement of an
	// entry. ctx ends when the answer is not wanted any more. May be nil.
	OnAppend func(ctx context.Context, to raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse)
	// SendNudge sends a nudge to a member, which hands it to Nudged there. It must not block, and the
	// nudge may get lost. Nil means that followers are not told (see Nudge).
	SendNudge func(to raft.ServerID, nudge []byte) error
	// Stats counts append messages. It outlives the transport. May be nil.
	Stats *Stats
	// Logger may be nil.
	Logger hclog.Logger
	// MaxPool is how many idle connections are kept per member; 0 means 4.
	MaxPool int
	// Timeout is for one message and its answer, and is scaled up for snapshots; 0 means 10 s.
	Timeout time.Duration
}

// Transport is raft's network transport with answers to what is wrong in raft v1.7.3, and a few
// things that raft does not offer. Everything that raft exchanges with other members passes here.
//
// # Heartbeats
//
// Raft handles a heartbeat on the goroutine that has read it, next to its main loop. Both change
// the term and the state then, and one can undo what the other did: two leaders (raft#695). Here a
// heartbeat goes to the main loop like any other message. Only when that does not take it within a
// quarter of HeartbeatTimeout, because it waits for the disk or installs a snapshot, the transport
// answers by itself, in the only two cases in which the answer does not depend on the main loop:
// the terms are equal, which means success; or ours is higher already, which means refusal. A term
// that we have not reached yet must be persisted first: the heartbeat goes on waiting. Nothing of
// raft's is touched, and raft's own handler never runs.
//
// The leader needs the answer for its lease. Raft's idea of its last contact with the leader, which
// decides whether the member stands for election, is not refreshed by such an answer. It need not
// be: the main loop cannot look at its election timer while it is busy, and everything that keeps a
// follower's main loop busy for long (storing entries, dropping a conflicting suffix, handing
// entries to a slow state machine, installing a snapshot, persisting the vote it grants) ends with
// the refresh in raft's own code, before the timer is looked at again. What is left are steps that
// fail, such as an error of the log store, and that member may well ask for an election: pre-vote
// keeps it from disturbing a leader that the others hear.
//
// # Commit index
//
// Raft commits up to the leader's commit index or its own last entry, also when that entry was not
// compared with the leader's. The commit index of an AppendEntries is therefore cut down to the
// last entry that the message vouches for. Heartbeats carry none.
//
// # Snapshots
//
// A snapshot that conflicts with the log leaves the conflicting suffix behind (raft#697). Only the
// owner of the log can mend that: see TransportConfig.CheckSnapshot.
type Transport struct {
	*raft.NetworkTransport
	cfg       TransportConfig
	layer     *Layer
	addr      raft.ServerAddress
	heartbeat atomic.Int64  // HeartbeatTimeout
	consumer  chan raft.RPC // what raft reads

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	nudged nudged

	mu        sync.Mutex // guards what follows
	closed    bool
	followers map[raft.ServerID]*nudger
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

// NewTransport returns a transport over a stream layer, which it closes when it is closed.
func NewTransport(stream *Layer, cfg TransportConfig) *Transport {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.Stats == nil {
		cfg.Stats = NewStats()
	}
	if cfg.MaxPool == 0 {
		cfg.MaxPool = 4
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	t := &Transport{
		NetworkTransport: raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream:  stream,
			MaxPool: cfg.MaxPool,
			Timeout: cfg.Timeout,
			Logger:  cfg.Logger,
		}),
		cfg:       cfg,
		layer:     stream,
		addr:      raft.ServerAddress(api.FormatID(cfg.Self)),
		consumer:  make(chan raft.RPC),
		followers: make(map[raft.ServerID]*nudger),
	}
	t.heartbeat.Store(int64(cfg.HeartbeatTimeout))
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.NetworkTransport.SetHeartbeatHandler(t.takeHeartbeat)
	t.wg.Go(t.receive)
	t.wg.Go(t.acceptAppends)
	return t
}

// SetHeartbeatTimeout follows a change of raft's configuration.
func (t *Transport) SetHeartbeatTimeout(d time.Duration) { t.heartbeat.Store(int64(d)) }

// SetHeartbeatHandler ignores raft's own handler, see Transport.
func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Consumer returns the messages of other members, in the form in which raft can take them.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr returns the address of this member, which is its ID.
func (t *Transport) LocalAddr() raft.ServerAddress { return t.addr }

// Close ends everything that the transport has started, and closes its stream layer.
func (t *Transport) Close() error {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	err := t.NetworkTransport.Close()
	t.wg.Wait()
	return err
}

// start runs f unless the transport is closed.
func (t *Transport) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Go(f)
	return true
}

// receive passes on what arrives, except for heartbeats, which do not come this way.
func (t *Transport) receive() {
	for {
		var rpc raft.RPC
		select {
		case rpc = <-t.NetworkTransport.Consumer():
		case <-t.ctx.Done():
			return
		}
		switch req := rpc.Command.(type) {
		case *raft.AppendEntriesRequest:
			t.cfg.Stats.received(req)
			clampCommit(req)
		case *raft.InstallSnapshotRequest:
			if t.cfg.CheckSnapshot != nil {
				// It reads the log: nobody should wait for that.
				t.start(func() { t.checkSnapshot(rpc, req) })
				continue
			}
		}
		t.deliver(rpc)
	}
}

// acceptAppends serves the connections on which leaders send entries.
func (t *Transport) acceptAppends() {
	for {
		c, from, err := t.layer.acceptAppend()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && !t.start(func() { t.serveAppends(c, from) }) {
			c.Close()
		}
	}
}

// deliver waits until raft takes the message.
func (t *Transport) deliver(rpc raft.RPC) bool {
	select {
	case t.consumer <- rpc:
		return true
	case <-t.ctx.Done():
		return false
	}
}

// clampCommit cuts the commit index down to the last entry that req vouches for.
func clampCommit(req *raft.AppendEntriesRequest) {
	req.LeaderCommitIndex = min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(req.Entries)))
}

// checkSnapshot lets a snapshot pass or refuses it. The data behind a refused one is read, since
// the answer would not be seen before it.
func (t *Transport) checkSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest) {
	if err := t.cfg.CheckSnapshot(req); err != nil {
		t.cfg.Logger.Warn("refused a snapshot of the leader", "index", req.LastLogIndex, "term", req.LastLogTerm, "error", err)
		io.Copy(io.Discard, rpc.Reader)
		rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: t.header(), Term: t.cfg.CurrentTerm()}, err)
		return
	}
	t.deliver(rpc)
}

// takeHeartbeat answers a heartbeat: raft does, unless it is too busy. It runs on the goroutine
// that reads the connection.
func (t *Transport) takeHeartbeat(rpc raft.RPC) {
	req, ok := rpc.Command.(*raft.AppendEntriesRequest)
	if !ok {
		t.deliver(rpc)
		return
	}
	patience := time.Duration(t.heartbeat.Load()) / 4
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case t.consumer <- rpc:
			return
		case <-t.ctx.Done():
			return
		case <-timer.C:
		}
		if term := t.cfg.CurrentTerm(); term >= req.Term {
			rpc.Respond(&raft.AppendEntriesResponse{RPCHeader: t.header(), Term: term, Success: term == req.Term}, nil)
			return
		}
		timer.Reset(max(patience, time.Millisecond))
	}
}

// header is what raft puts in front of all that it sends.
func (t *Transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.addr), Addr: []byte(t.addr)}
}

// InjectTimeoutNow makes our raft stand for election at once, as if the leader had asked it to, and
// returns when it has begun. Raft obeys in any state: call it for a voter that follows a leader of
// whose end there is evidence.
func (t *Transport) InjectTimeoutNow(ctx context.Context) error {
	done := make(chan raft.RPCResponse, 1)
	rpc := raft.RPC{Command: &raft.TimeoutNowRequest{RPCHeader: t.header()}, RespChan: done}
	select {
	case t.consumer <- rpc:
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return raft.ErrTransportShutdown
	}
	select {
	case r := <-done:
		return r.Error
	case <-ctx.Done():
		return ctx.Err()
	case <-t.ctx.Done():
		return raft.ErrTransportShutdown
	}
}
