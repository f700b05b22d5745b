package store

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// parallelLog lets a leader write its own disk while its followers write theirs. Raft writes the
// leader's first and sends afterwards, so that a commit takes the sum of both; etcd does both at
// once (Raft's dissertation, 10.2.1).
//
// As a leader of two or more voters StoreLogs only notes the entries and returns, and raft sends
// them. In return the acknowledgements of followers are held back (hold) until the entries they are
// about are on this disk too. Raft needs one of them for any commit, so what is committed is on
// the leader's disk and on those of a majority, as without all this. A leader that fails before its
// write is done has acknowledged nothing on account of it.
//
// Entries that change the configuration are written before StoreLogs returns, since they can make
// this member the only voter; so is everything a follower is sent.
type parallelLog struct {
	disk diskLog
	// mayDefer says whether this member leads two voters or more.
	mayDefer func() bool
	// failed is told of a write that failed after raft had been told it was done. The member has
	// to stop: nothing it holds in memory counts any more.
	failed func(error)

	mu      sync.Mutex
	pending []*raft.Log   // guarded by mu: noted, not yet on disk
	durable uint64        // guarded by mu: the last entry on disk
	err     error         // guarded by mu: of the writer
	closed  bool          // guarded by mu
	changed chan struct{} // guarded by mu: closed and replaced when any of the above changes
	done    chan struct{}
}

// diskLog is what stands behind a parallelLog.
type diskLog interface {
	raft.LogStore
	raft.MonotonicLogStore
}

var errLogClosed = errors.New("the log is closed")

func newParallelLog(disk diskLog, mayDefer func() bool, failed func(error)) (*parallelLog, error) {
	last, err := disk.LastIndex()
	if err != nil {
		return nil, err
	}
	p := &parallelLog{
		disk: disk, mayDefer: mayDefer, failed: failed,
		durable: last, changed: make(chan struct{}), done: make(chan struct{}),
	}
	go p.write()
	return p, nil
}

// notify wakes whoever waits for a change. p.mu is held.
func (p *parallelLog) notify() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// write puts pending entries on disk until close.
func (p *parallelLog) write() {
	defer close(p.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil {
		if len(p.pending) == 0 {
			if p.closed {
				return
			}
			p.waitChange()
			continue
		}
		batch := slices.Clip(p.pending)
		p.mu.Unlock()
		err := p.disk.StoreLogs(batch)
		p.mu.Lock()
		if err != nil {
			p.err = err
			p.notify()
			p.failed(err)
			return
		}
		p.durable = batch[len(batch)-1].Index
		p.pending = p.pending[len(batch):]
		p.notify()
	}
}

// waitChange lets go of p.mu until something has changed.
func (p *parallelLog) waitChange() {
	changed := p.changed
	p.mu.Unlock()
	<-changed
	p.mu.Lock()
}

// flush returns once nothing is pending. p.mu is held.
func (p *parallelLog) flush() error {
	for len(p.pending) > 0 && p.err == nil {
		p.waitChange()
	}
	return p.err
}

// close writes what is pending and ends the writer. The disk's log stays open.
func (p *parallelLog) close() {
	p.mu.Lock()
	p.closed = true
	p.notify()
	p.mu.Unlock()
	<-p.done
}

// StoreLog implements raft.LogStore.
func (p *parallelLog) StoreLog(entry *raft.Log) error { return p.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (p *parallelLog) StoreLogs(entries []*raft.Log) error {
	deferred := p.mayDefer() && !slices.ContainsFunc(entries, func(e *raft.Log) bool { return e.Type == raft.LogConfiguration })
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errLogClosed
	}
	if deferred && p.err == nil && p.durable > 0 {
		p.pending = append(p.pending, entries...)
		p.notify()
		return nil
	}
	if err := p.flush(); err != nil {
		return err
	}
	// Nobody else appends now: raft has one writer, and it is here.
	p.mu.Unlock()
	err := p.disk.StoreLogs(entries)
	p.mu.Lock()
	if err == nil && len(entries) > 0 {
		p.durable = entries[len(entries)-1].Index
		p.notify()
	}
	return err
}

// hold waits until what a follower acknowledges is on this disk, too. See peer.TransportConfig.
func (p *parallelLog) hold(ctx context.Context, request *raft.AppendEntriesRequest, response *raft.AppendEntriesResponse) {
	if !response.Success || len(request.Entries) == 0 {
		return
	}
	index := request.Entries[len(request.Entries)-1].Index
	for {
		p.mu.Lock()
		durable, changed := p.durable, p.changed
		p.mu.Unlock()
		if durable >= index {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// GetLog implements raft.LogStore.
func (p *parallelLog) GetLog(index uint64, entry *raft.Log) error {
	p.mu.Lock()
	if n := len(p.pending); n > 0 && index >= p.pending[0].Index && index <= p.pending[n-1].Index {
		*entry = *p.pending[index-p.pending[0].Index]
		p.mu.Unlock()
		return nil
	}
	p.mu.Unlock()
	return p.disk.GetLog(index, entry)
}

// FirstIndex implements raft.LogStore.
func (p *parallelLog) FirstIndex() (uint64, error) { return p.disk.FirstIndex() }

// LastIndex implements raft.LogStore.
func (p *parallelLog) LastIndex() (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.pending); n > 0 {
		return p.pending[n-1].Index, nil
	}
	return p.disk.LastIndex()
}

// DeleteRange implements raft.LogStore.
func (p *parallelLog) DeleteRange(first, last uint64) error {
	p.mu.Lock()
	touches := len(p.pending) > 0 && last >= p.pending[0].Index
	if touches {
		if err := p.flush(); err != nil {
			p.mu.Unlock()
			return err
		}
	}
	p.mu.Unlock()
	if err := p.disk.DeleteRange(first, last); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if first <= p.durable && last >= p.durable {
		// The end of the log was cut off, so the next entries have lower numbers.
		left, err := p.disk.LastIndex()
		if err != nil {
			return err
		}
		p.durable = left
	}
	return nil
}

// IsMonotonic implements raft.MonotonicLogStore.
func (p *parallelLog) IsMonotonic() bool { return p.disk.IsMonotonic() }
