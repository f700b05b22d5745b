//go:build linux && partition

package partition

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestSplit cuts four members into halves. Neither can write, both can be read, and whoever waits for a write
// until the halves are one again gets it. What the leader's half was asked to do meanwhile may still be done
// then; what the other half was asked to do may not, for it had nobody to hand it to.
func TestSplit(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, 4)
	members := n.leaderFirst()
	led, lost := members[:2], members[2:]
	t.Logf("%s leads %s, the other half is %s", members[0].Name, names(led), names(lost))
	for _, m := range members {
		mustPut(t, members[0], "/victim/"+m.Name, "alive")
	}
	mustPut(t, members[0], "/event", "before")
	n.WaitEqual()
	h := record(n, members)
	h.await(20)
	mustPut(t, members[0], "/short-lived", "x", "ttl", "6")
	n.reached(members, indexOf(t, members[0]))
	n.cut(between(led, lost))

	var wait sync.WaitGroup
	for _, m := range members {
		wait.Go(func() { askForQuorum(t, m, false) })
	}
	for _, m := range members {
		n.wantAlone(m)
	}
	answered := h.quorumAnswers(members)
	wait.Wait()
	n.wantExpired(nil, members)
	if more := h.quorumAnswers(members) - answered; more > 0 {
		t.Errorf("%d writes and quorum reads were answered by half of the members", more)
	}

	n.heal()
	healed := time.Now()
	h.await(1)
	t.Logf("measured: writable %v after the heal", time.Since(healed).Round(time.Millisecond))
	n.WaitReady()
	t.Logf("measured: all healthy %v after the heal", time.Since(healed).Round(time.Millisecond))
	h.await(20)
	for _, m := range members {
		mustPut(t, m, "/back/"+m.Name, "1")
	}
	h.stop()
	n.WaitEqual()
	for _, m := range members {
		wantUndone(t, m, lost)
		if resp, err := m.Get(limit(t), "/short-lived"); err != nil || resp.Status != http.StatusNotFound {
			t.Errorf("the expired key on %s: %v (%v), want 404", m.Name, resp, err)
		}
	}
	h.verify(n)
}
