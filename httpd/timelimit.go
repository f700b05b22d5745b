package httpd

import (
	"context"
	"sync/atomic"
	"time"
)

// timeLimit makes the contexts of operations on keys, which end with the time-out of requests. Not when the
// client goes away: what has begun goes on either way.
//
// A context of its own for each operation would be a third of what a write allocates here. So those
// that begin within a 64th of the time-out share one, which ends after the time-out of the last of
// them.
type timeLimit struct {
	timeout time.Duration
	current atomic.Pointer[sharedLimit]
}

type sharedLimit struct {
	context.Context
	until time.Time // for operations that begin before
}

// begin returns the context of an operation that begins now.
func (l *timeLimit) begin(now time.Time) context.Context {
	if c := l.current.Load(); c != nil && now.Before(c.until) {
		return c.Context
	}
	until := now.Add(l.timeout / 64)
	ctx, cancel := context.WithDeadline(context.Background(), until.Add(l.timeout))
	context.AfterFunc(ctx, cancel)
	l.current.Store(&sharedLimit{ctx, until})
	return ctx
}
