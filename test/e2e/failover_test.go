//go:build linux

package e2e

import (
	"slices"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// TestLeaderKilled kills the leader when nobody else would stand for election for 37 s, three quarters of the
// election time-out: another one leads before that, since the process is gone.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	patient := map[*cluster.Member]bool{}
	var leader *cluster.Member
	for {
		leader = c.WaitLeader()
		i := slices.IndexFunc(c.Members, func(m *cluster.Member) bool { return m != leader && !patient[m] })
		if i < 0 {
			break
		}
		m := c.Members[i]
		m.Stop()
		m.Start("--election-timeout=50000")
		c.WaitReady()
		patient[m] = true
	}
	l := startLoad(t, c, "/load")
	l.progress(50)
	killed := time.Now()
	leader.Kill()
	next := c.WaitLeader()
	if took := time.Since(killed); took > 37*time.Second {
		t.Errorf("there was a leader after %v: others waited for their election time-out", took)
	}
	t.Logf("%s led %v after %s was killed", next.Name, time.Since(killed).Round(time.Millisecond), leader.Name)
	l.progress(50)
	l.verify(c)
}
