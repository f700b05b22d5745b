package store

import (
	"sync"
	"time"
)

// clock is the time of the cluster as this member knows it: what a leader stamps on entries.
//
// The first leader takes it from the time of day; after that it only goes on. Followers ask the leader
// for it (followClock), and whoever leads next goes on from there by what has passed since on its own
// monotonic clock. So neither a step of a system's clock nor a leader whose clock is wrong lets a key
// expire early or late. Only a member that has heard of no leader since it started reads the time of day.
//
// An answer takes a moment, so a follower's reading is behind the leader's by that much, never ahead.
type clock struct {
	mu    sync.Mutex
	base  int64     // guarded by mu: Unix nanoseconds at start; 0 while nothing is known
	start time.Time // guarded by mu: with its monotonic reading
}

// begin starts a term of this member. timeOfDay counts if nothing is known, and the time is never before
// atLeast, which the state machine has seen. Both are Unix nanoseconds.
func (c *clock) begin(timeOfDay, atLeast int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.read(); now != 0 {
		timeOfDay = now
	}
	c.set(max(timeOfDay, atLeast))
}

// hear takes over what a leader says, unless this member is ahead of it.
func (c *clock) hear(leaders int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if leaders > c.read() {
		c.set(leaders)
	}
}

// now returns the time in Unix nanoseconds, and 0 when nothing is known.
func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read()
}

func (c *clock) read() int64 {
	if c.base == 0 {
		return 0
	}
	return c.base + int64(time.Since(c.start))
}

func (c *clock) set(now int64) { c.base, c.start = now, time.Now() }
