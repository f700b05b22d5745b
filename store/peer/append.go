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
	err := t.resend(func() error { return t.NetworkTransport.AppendEntries(id, target, req, resp) })
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

// AppendEntriesPipeline returns a pipeline on a connection of its own, whose answers pass by here. All
// that raft sends to a follower in step goes this way. Raft's own pipeline would need two goroutines
// more between the connection and raft, and as many wake-ups for every entry.
func (t *Transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	c, err := t.layer.dial(target, t.cfg.Timeout, kindAppend)
	if err != nil {
		return nil, err
	}
	p := &pipeline{
		transport: t, id: id, stream: newAppendStream(c, t.cfg.Timeout),
		waiting: make(chan *appendFuture, 1), answers: make(chan raft.AppendFuture),
	}
	p.ctx, p.cancel = context.WithCancel(t.ctx)
	if !t.start(p.run) {
		p.Close()
		return nil, raft.ErrTransportShutdown
	}
	return p, nil
}

// pipeline sends entries to one follower without waiting for the answer to those before. Two messages
// can be under way: more would not make it faster, as entries are large when there are many writers.
type pipeline struct {
	transport *Transport
	id        raft.ServerID
	stream    *appendStream
	waiting   chan *appendFuture // for their answers, in the order in which they were sent
	answers   chan raft.AppendFuture
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
	once      sync.Once
}

// appendFuture is a message and its answer. Raft gets it when both are there.
type appendFuture struct {
	req   *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	start time.Time
	err   error
}

func (f *appendFuture) Error() error                          { return f.err }
func (f *appendFuture) Start() time.Time                      { return f.start }
func (f *appendFuture) Request() *raft.AppendEntriesRequest   { return f.req }
func (f *appendFuture) Response() *raft.AppendEntriesResponse { return f.resp }

// AppendEntries sends a message. Raft calls it from one goroutine, and looks at the future only when it
// comes out of Consumer.
func (p *pipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	f := &appendFuture{req: req, resp: resp, start: time.Now()}
	p.transport.cfg.Stats.sending(req)
	if err := p.stream.send(req); err != nil {
		p.transport.cfg.Stats.sent(p.id, req, 0, err)
		return nil, err
	}
	select {
	case p.waiting <- f:
		return f, nil
	case <-p.ctx.Done():
		return nil, raft.ErrPipelineShutdown
	}
}

func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

func (p *pipeline) Close() error {
	p.once.Do(p.cancel)
	return p.stream.conn.Close()
}

// run passes on the answers, in order, until the pipeline or the transport is closed, or the connection
// is lost. Of that raft learns by an answer without success, or when it sends the next message.
func (p *pipeline) run() {
	defer p.Close()
	for lost := false; !lost; {
		var resp raft.AppendEntriesResponse
		err := p.stream.receive(&resp)
		var f *appendFuture
		select {
		case f = <-p.waiting: // it was sent before its answer came, and is about to be put there
		case <-p.ctx.Done():
			return
		}
		if f.err = err; err == nil {
			*f.resp = resp
		}
		p.transport.answered(p.ctx, p.id, f.req, f.resp, f.start, err)
		select {
		case p.answers <- f:
		case <-p.ctx.Done():
			return
		}
		lost = err != nil
	}
}
