//go:build linux

package main

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// writers begin a write every few milliseconds, whatever became of those before, so that they see the
// moment at which writes are taken again. Each write tries one member after the other.
type writers struct {
	stop, done chan struct{}

	mu   sync.Mutex
	acks []time.Time // guarded by mu
}

func startWriters(addrs []string) *writers {
	const every = 5 * time.Millisecond
	w := &writers{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		var all sync.WaitGroup
		defer all.Wait()
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-w.stop:
				return
			case <-ticker.C:
			}
			all.Go(func() {
				for i := range addrs {
					if once(addrs[(n+i)%len(addrs)], put(), soon) == nil {
						w.mu.Lock()
						w.acks = append(w.acks, time.Now())
						w.mu.Unlock()
						return
					}
				}
			})
		}
	}()
	return w
}

// count is how many writes were acknowledged.
func (w *writers) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}

// await waits until some more writes were acknowledged.
func (w *writers) await(tb *progress, more int) {
	began := time.Now()
	for want := w.count() + more; w.count() < want; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			tb.Fatalf("no writes for a minute")
		}
	}
}

// end stops the writers and returns the longest time between two acknowledged writes.
func (w *writers) end() time.Duration {
	close(w.stop)
	<-w.done
	slices.SortFunc(w.acks, func(a, b time.Time) int { return cmp.Compare(a.UnixNano(), b.UnixNano()) })
	var gap time.Duration
	for i := 1; i < len(w.acks); i++ {
		gap = max(gap, w.acks[i].Sub(w.acks[i-1]))
	}
	return gap
}

// leaderKillLine kills the leader of a cluster that is being written to.
func leaderKillLine() line {
	return line{name: "write-gap/nodes=3/kill-9-of-leader", run: func(tb *progress, c config, t *target) []value {
		leader := t.cluster.WaitLeader()
		var others []string
		for _, m := range t.cluster.Followers() {
			others = append(others, addrOf(m))
		}
		w := startWriters(others)
		w.await(tb, 50)
		leader.Kill()
		w.await(tb, 100)
		return []value{{unit: "ms", number: milliseconds(w.end()), lowerBetter: true, goal: ratio(10)}}
	}}
}

// rollingRestartLine restarts one member after the other, as an upgrade does.
func rollingRestartLine() line {
	return line{name: "write-gap/nodes=3/rolling-restart", rounds: 3, run: func(tb *progress, c config, t *target) []value {
		w := startWriters(t.addrs)
		w.await(tb, 50)
		// The leader is last, as in a careful upgrade it would be.
		leader := t.cluster.WaitLeader()
		for _, m := range append(t.cluster.Followers(), leader) {
			restartGracefully(t.cluster, m)
			w.await(tb, 50)
		}
		return []value{{unit: "ms", number: milliseconds(w.end()), lowerBetter: true, goal: atMost(100)}}
	}}
}

func restartGracefully(cl *cluster.Cluster, m *cluster.Member) {
	m.Stop()
	m.Start()
	cl.WaitReady(m)
}
