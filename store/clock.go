package store

import (
	"sync"
	"time"

	"github.com/quorate/quorate/fsm/tree"
)

// clock is the time of the cluster as this member knows it: what a leader stamps on entries.
//
// The first leader takes it from the time of day; after that it only goes on. Followers ask the leader
// for it (followClock), and whoever leads next goes on from there by what has passed since on its own
// monotonic clock. So neither a step of a system's clock nor a leader whose clock is wrong lets a key
// expire early or late. Only a member that has heard of no leader since it started reads the time of day.
//
// How far it is from the time of day is replicated (dayWatch), so that people see times they know.
//
// An answer takes a moment, so a follower's reading is behind the leader's by that much, never ahead.
type clock struct {
	mu    sync.Mutex
	base  int64     // guarded by mu: Unix nanoseconds at start; 0 while nothing is known
	start time.Time // guarded by mu: with its monotonic reading
}

// begin starts a term of this member. byDay, the time that follows from the time of day, counts if nothing
// is known, and the time is never before atLeast, which the state machine has seen. Both are Unix
// nanoseconds.
func (c *clock) begin(byDay, atLeast int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.read(); now != 0 {
		byDay = now
	}
	c.set(max(byDay, atLeast))
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

// dayWatch tells a leader when the time of day is no longer where the tree believes it to be: somebody has
// set this machine's clock, the machine was suspended, or the leader before had a clock that was wrong.
type dayWatch struct {
	tree   *tree.Tree
	looked time.Time
	seen   int64 // what the last look found
}

func watchDay(t *tree.Tree) dayWatch { return dayWatch{tree: t, looked: time.Now(), seen: t.Offset()} }

const (
	dayPause     = 10 * time.Second
	dayTolerance = int64(2 * time.Second)
)

// look gets the time of day less the time of the cluster, in nanoseconds. It returns that as the tree's
// new offset when it was the same for two looks, ten seconds apart, and is not the present one.
func (d *dayWatch) look(offset int64) (int64, bool) {
	if time.Since(d.looked) < dayPause {
		return 0, false
	}
	near := func(other int64) bool { return max(offset-other, other-offset) <= dayTolerance }
	again := near(d.seen) && !near(d.tree.Offset())
	d.looked, d.seen = time.Now(), offset
	return offset, again
}
