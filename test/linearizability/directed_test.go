//go:build linux && faults

package linearizability

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// hangingLog lets every write to the log take three seconds, and every sync.
const hangingLog = "pwrite64,fdatasync:delay_enter=3000000"

// attached is how long strace may take until it holds a process.
const attached = 500 * time.Millisecond

// hangingLeader lets a leader write while its disk hangs and just enough of the others are there, kills it
// and these, and starts it with those that were away. What was acknowledged was on its disk, or is lost.
func hangingLeader(t *troubleMaker, ctx context.Context) {
	nodes := t.present()
	if len(nodes) < 3 {
		return
	}
	l := t.pick(leader)[0]
	others := slices.DeleteFunc(nodes, func(n *node) bool { return n == l })
	away, with := others[:len(others)/2], others[len(others)/2:]
	if !eachUntil(ctx, 5*time.Second, []*node{l}, t.put) {
		return
	}
	for _, n := range away {
		n.m.Pause()
		defer n.m.Continue()
	}
	hanging, cancel := context.WithTimeout(ctx, attached+1500*time.Millisecond)
	defer cancel()
	var writers sync.WaitGroup
	for range 3 {
		writers.Go(func() {
			sleep(hanging, attached)
			limited, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			for hanging.Err() == nil && t.put(limited, l) {
				sleep(hanging, 5*time.Millisecond)
			}
		})
	}
	t.strace(hanging, l, hangingLog, func() {
		// It is killed before strace lets go of it: else it would write what it holds.
		var all sync.WaitGroup
		for _, n := range append(with, l) {
			all.Go(func() { t.stop(n, syscall.SIGKILL) })
		}
		all.Wait()
	})
	writers.Wait()
	for _, n := range away {
		n.m.Continue()
	}
	t.startAgain(l)
	eachUntil(ctx, 10*time.Second, away, t.put)
	for _, n := range with {
		t.startAgain(n)
	}
}

// readsBeforeTerm lets a leader acknowledge a write and kills it before the others have heard of that, which
// then take long to begin a term. Whoever leads next does not know of the commit until its term has begun.
func readsBeforeTerm(t *troubleMaker, ctx context.Context) {
	if t.mesh == nil {
		return
	}
	l := t.pick(leader)[0]
	others := slices.DeleteFunc(t.present(), func(n *node) bool { return n == l })
	if !eachUntil(ctx, 5*time.Second, []*node{l}, t.put) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, n := range others {
		all.Go(func() { t.strace(limited, n, "fdatasync:delay_enter=500000", nil) })
	}
	sleep(limited, attached)
	// What the leader says takes half a second, answers take no time: it knows first that a write is done.
	t.mesh.set(rules(t.oneWay([]*node{l}, others), rule{delay: attached}))
	written, done := context.WithTimeout(limited, 5*time.Second)
	t.put(written, l)
	done()
	t.stop(l, syscall.SIGKILL)
	t.mesh.reset(l.slot)
	t.mesh.set(map[link]rule{})
	defer t.startAgain(l)
	for i := range 20 * len(others) {
		all.Go(func() {
			for limited.Err() == nil {
				one, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				o := t.do(one, Op{Client: -10 - i, Kind: QGet, Key: beacon}, others[i%len(others)].slot)
				cancel()
				if o.Outcome == OK {
					return // the first answer is the interesting one
				}
				sleep(limited, 10*time.Millisecond)
			}
		})
	}
}

// sentAgain lets a follower send requests that are done before it hears of it, and kills the leader then.
// The follower sends them to the next leader, too.
func sentAgain(t *troubleMaker, ctx context.Context) {
	nodes := t.present()
	if t.mesh == nil || len(nodes) < 3 {
		return
	}
	l := t.pick(leader)[0]
	others := slices.DeleteFunc(nodes, func(n *node) bool { return n == l })
	f, g := others[0], others[1]
	if !eachUntil(ctx, 5*time.Second, []*node{l}, t.put) || !eachUntil(ctx, 5*time.Second, []*node{f}, t.put) {
		return
	}
	t.mesh.set(rules(t.oneWay([]*node{l}, []*node{f}), rule{cut: true}))
	dir := fmt.Sprintf("%s/again/%s", root, t.unique())
	limited, cancel := context.WithTimeout(context.Background(), 12*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			t.do(limited, Op{Client: -100 - i, Kind: Put, Key: fmt.Sprintf("%s/%d", dir, i), Value: t.unique()}, f.slot)
		})
	}
	// They are done when the third member has one, long before the follower stands for election.
	eachUntil(ctx, 3*time.Second, []*node{g}, func(ctx context.Context, n *node) bool {
		resp, err := n.m.Do(ctx, http.MethodGet, "/v2/keys"+dir, "", "")
		return err == nil && resp.OK()
	})
	t.stop(l, syscall.SIGKILL)
	t.mesh.reset(l.slot)
	t.mesh.set(map[link]rule{})
	all.Wait()
	t.startAgain(l)
}
