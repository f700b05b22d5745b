//go:build linux && partition

package partition

import (
	"fmt"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// TestFlapping has a link come and go, for longer and longer, while clients write through all members. A
// follower that keeps coming back never disturbs the leader. When it is the leader's link, others take over;
// either way nothing is lost and all agree in the end.
func TestFlapping(t *testing.T) {
	t.Parallel()
	for _, leads := range []bool{false, true} {
		name := "follower"
		if leads {
			name = "leader"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, 3)
			members := n.leaderFirst()
			mustPut(t, members[0], "/event", "before")
			n.WaitEqual()
			h := record(n, n.Members)
			h.await(20)
			led := beCalm(t, members[0], members[1:2])
			for _, writes := range []int{1, 5, 20, 100, 500} {
				lone := members[1:2]
				if leads {
					lone = []*cluster.Member{n.leaderOf(n.Members)}
				}
				other := n.others(lone)[0]
				n.cut(between(lone, n.others(lone)))
				start := time.Now()
				for i := range writes { // through a member of the majority, one at a time
					n.eventuallyPut(other, fmt.Sprintf("/flap/%d", writes), fmt.Sprint(i))
				}
				n.heal()
				healed := time.Now()
				n.reached(lone, indexOf(t, other))
				t.Logf("measured: caught up %v after a cut of %v", time.Since(healed).Round(time.Millisecond), healed.Sub(start).Round(time.Millisecond))
			}
			n.WaitReady()
			h.await(20)
			h.stop()
			n.WaitEqual()
			if !leads {
				led.wantUndisturbed()
			}
			h.verify(n)
		})
	}
}
