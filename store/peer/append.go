package peer

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// AppendEntries sends entries or a heartbeat, and waits for the answer.
func (t *Transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	start := time.Now()
	t.cfg.Stats.sending(req)
	err := t.NetworkTransport.AppendEntries(id, target, req, resp)
	t.answered(t.ctx, id, req, resp, start, err)
	return err
}

// answered looks at the answer to an AppendEntries before raft does.
func (t *Transport) answered(ctx context.Context, id raft.ServerID, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, start time.Time, err error) {
	t.cfg.Stats.sent(id, req, time.Since(start), err)
	if err != nil {
		return
	}
	t.acked(id, req, resp)
	if t.cfg.OnAppend != nil {
		t.cfg.OnAppend(ctx, id, req, resp)
	}
}

// AppendEntriesPipeline returns a pipeline whose answers pass by here.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, transport: t, id: id, answers: make(chan raft.AppendFuture)}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	if !t.start(p.run) {
		p.Close()
		return nil, raft.ErrTransportShutdown
	}
	return p, nil
}

type pipeline struct {
	raft.AppendPipeline
	transport *Transport
	id        raft.ServerID
	answers   chan raft.AppendFuture
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	once      sync.Once
}

func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.transport.cfg.Stats.sending(req)
	f, err := p.AppendPipeline.AppendEntries(req, resp)
	if err != nil {
		p.transport.cfg.Stats.sent(p.id, req, 0, err)
	}
	return f, err
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(p.cancel)
	return p.AppendPipeline.Close()
}

// run passes on the answers, in order, until the pipeline or the transport is closed. Then nobody
// takes answers any more, and a sender that waits for room would wait for ever.
func (p *pipeline) run() {
	defer p.AppendPipeline.Close()
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			p.transport.answered(p.ctx, p.id, f.Request(), f.Response(), f.Start(), f.Error())
			select {
			case p.answers <- f:
			case <-p.ctx.Done():
				return
			}
		case <-p.ctx.Done():
			return
		}
	}
}
