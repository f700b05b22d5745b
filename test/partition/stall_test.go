//go:build linux && partition

package partition

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// longestStall is the longest time, in nanoseconds, that this process was kept from running, as far as
// it has noticed.
var longestStall atomic.Int64

// noticeStalls keeps looking at the clock. A machine that stops us for long stops members too, and a member
// that is stopped for an election time-out is replaced as leader, as it should be.
func noticeStalls() {
	const step = 20 * time.Millisecond
	last := time.Now()
	for {
		time.Sleep(step)
		now := time.Now()
		if stall := now.Sub(last) - step; int64(stall) > longestStall.Load() {
			longestStall.Store(int64(stall))
		}
		last = now
	}
}

// calm is a time in which nobody has a reason for an election. It remembers where the logs of those who might
// cause one began.
type calm struct {
	t      *testing.T
	leader *cluster.Member
	term   uint64
	logs   map[*cluster.Member]int
}

// beCalm starts such a time, under this leader. suspects are the members with a bad connection: alone they must
// not have raised their term, or their return would depose the leader.
func beCalm(t *testing.T, leader *cluster.Member, suspects []*cluster.Member) calm {
	t.Helper()
	c := calm{t: t, leader: leader, term: term(t, leader), logs: map[*cluster.Member]int{}}
	for _, m := range suspects {
		if own := term(t, m); own > c.term {
			t.Errorf("%s has raised its term to %d, the leader's is %d", m.Name, own, c.term)
		}
		c.logs[m] = len(m.Log())
	}
	return c
}

// wantUndisturbed checks that there was no election. One is excused if the machine stood still and the suspects
// did not call it.
func (c calm) wantUndisturbed() {
	c.t.Helper()
	now := term(c.t, c.leader)
	if now == c.term {
		return
	}
	for m, from := range c.logs {
		if strings.Contains(m.Log()[from:], "pre-vote successful, starting election") {
			c.t.Errorf("%s has called an election: the term was %d and is %d", m.Name, c.term, now)
			return
		}
	}
	if stall := time.Duration(longestStall.Load()); stall < 200*time.Millisecond {
		c.t.Errorf("there was an election: the term was %d and is %d", c.term, now)
	} else {
		c.t.Logf("there was an election, excused by a stall of %v: the term was %d and is %d", stall, c.term, now)
	}
}
