package store

import (
	"sync"
	"time"
)

// clock is the time that a leader stamps on entries: the time of day when its term began, but never
// before the state machine's, plus the time that has passed since. A step of the system's clock
// within a term moves nothing, so no key expires early because of one.
type clock struct {
	mu    sync.Mutex
	base  int64     // guarded by mu: Unix nanoseconds at start
	start time.Time // guarded by mu: with its monotonic reading
}

// begin starts a term.
func (c *clock) begin(now time.Time, atLeast int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.base, c.start = max(now.UnixNano(), atLeast), now
}

// now returns the leader's time in Unix nanoseconds.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base + int64(time.Since(c.start))
}
