//go:build linux && faults

package linearizability

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// fault is one kind of trouble. do returns when it is over, or when ctx ends.
type fault struct {
	name   string
	weight int
	do     func(t *troubleMaker, ctx context.Context)
}

// troubleMaker draws faults from the seed, one after the other. Two of them work at once: one on
// processes and one on the network.
type troubleMaker struct {
	*run
	rng *rand.Rand
}

// between draws a time.
func (t *troubleMaker) between(least, most time.Duration) time.Duration {
	return least + time.Duration(t.rng.Int64N(int64(most-least)+1))
}

// trouble injects faults for the duration of the run.
func (r *run) trouble() {
	ctx, cancel := context.WithTimeout(context.Background(), r.duration)
	defer cancel()
	var both sync.WaitGroup
	faults := processFaults
	if r.lossy {
		faults = slices.Concat(diskFaults, processFaults)
	}
	both.Go(func() { r.troubleWith(ctx, 2, faults) })
	if r.mesh != nil {
		both.Go(func() { r.troubleWith(ctx, 3, networkFaults) })
	}
	both.Wait()
}

func (r *run) troubleWith(ctx context.Context, stream uint64, faults []fault) {
	t := &troubleMaker{run: r, rng: rand.New(rand.NewPCG(uint64(r.seed), stream))}
	if len(r.only) > 0 {
		faults = slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return !slices.Contains(r.only, f.name) })
	}
	total := 0
	for _, f := range faults {
		total += f.weight
	}
	if total == 0 {
		return
	}
	for first := true; ; first = false {
		sleep(ctx, t.between(200*time.Millisecond, 1500*time.Millisecond))
		if ctx.Err() != nil || r.Failed() {
			return
		}
		n := t.rng.IntN(total)
		i := 0
		for ; n >= faults[i].weight; i++ {
			n -= faults[i].weight
		}
		if first { // so that as many seeds as there are faults have them all
			i = int(r.seed % int64(len(faults)))
		}
		r.Logf("fault: %s", faults[i].name)
		r.count(faults[i].name)
		faults[i].do(t, ctx)
	}
}

// heal ends all faults.
func (r *run) heal() {
	r.Logf("heal")
	if r.mesh != nil {
		r.mesh.set(map[link]rule{})
	}
	r.healDisks()
	nodes := r.present()
	for _, n := range nodes {
		n.m.Continue()
		if !n.joining {
			r.startAgain(n)
		}
	}
	for _, n := range nodes {
		if n.joining {
			ctx, cancel := context.WithTimeout(context.Background(), cluster.Deadline)
			defer cancel()
			r.bringIn(ctx, n, slices.DeleteFunc(r.present(), func(o *node) bool { return o == n }))
			if n.joining {
				r.Fatalf("%s could not join", n.m.Name)
			}
		}
	}
}

// Roles name whom a fault hits.
type role string

const (
	leader   role = "leader"
	follower role = "follower"
	majority role = "majority"
	everyone role = "all"
)

// pick finds the nodes that have a role now. Without a leader any node may stand for it.
func (t *troubleMaker) pick(who role) []*node {
	nodes := t.present()
	t.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	l := t.leader(nodes)
	switch who {
	case leader:
		return []*node{l}
	case follower:
		if nodes[0] == l && len(nodes) > 1 {
			return nodes[1:2]
		}
		return nodes[:1]
	case majority:
		return nodes[:len(nodes)/2+1]
	}
	return nodes
}

// leader asks all nodes at once who leads, and believes the highest term.
func (t *troubleMaker) leader(nodes []*node) *node {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	answers := make([]cluster.Status, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			if resp, err := n.m.Do(ctx, http.MethodGet, "/quorate/v1/status", "", ""); err == nil {
				_ = json.Unmarshal([]byte(resp.Body), &answers[i]) // or it stays empty
			}
		})
	}
	all.Wait()
	best, found := cluster.Status{}, nodes[0]
	for _, a := range answers {
		if a.Leader == "" || a.Term <= best.Term {
			continue
		}
		if i := slices.IndexFunc(nodes, func(n *node) bool { return n.id == a.Leader }); i >= 0 {
			best, found = a, nodes[i]
		}
	}
	return found
}

// stop ends a process and returns when it has ended.
func (r *run) stop(n *node, sig syscall.Signal) {
	r.mu.Lock()
	down := n.down
	n.down = true
	r.mu.Unlock()
	if down {
		return
	}
	if !n.m.Running() {
		r.unexpectedEnd(n)
		return
	}
	n.m.Signal(sig)
	n.m.Wait()
}

// startAgain starts a process that is down.
func (r *run) startAgain(n *node) {
	r.mu.Lock()
	down, gone := n.down, n.gone
	r.mu.Unlock()
	if gone || !down {
		if !gone && !n.m.Running() {
			r.unexpectedEnd(n)
		}
		return
	}
	r.mu.Lock()
	n.life++
	n.down = false
	r.mu.Unlock()
	n.m.Start()
}

// stopping is a fault that ends processes and starts them again.
func stopping(sig syscall.Signal, who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		nodes := t.pick(who)
		var all sync.WaitGroup
		for _, n := range nodes {
			all.Go(func() { t.stop(n, sig) })
		}
		all.Wait()
		sleep(ctx, t.between(0, 3*time.Second))
		for _, n := range nodes {
			t.startAgain(n)
		}
	}
}

// pausing is a fault that keeps processes from running.
func pausing(d time.Duration, who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		nodes := t.pick(who)
		for _, n := range nodes {
			n.m.Pause()
		}
		sleep(ctx, d)
		for _, n := range nodes {
			n.m.Continue()
		}
	}
}

// beacon is a key for faults that want to see what becomes of one write.
const beacon = root + "/beacon"

// put writes the beacon through a node.
func (t *troubleMaker) put(ctx context.Context, n *node) bool {
	return t.do(ctx, Op{Client: -6, Kind: Put, Key: beacon, Value: t.unique()}, n.slot).Outcome == OK
}

// readersWaiting pauses the leader until another one leads and has acknowledged a write. Then many readers
// ask the paused one, which answers them in the moment when it runs again and still thinks that it leads.
func readersWaiting(t *troubleMaker, ctx context.Context) {
	nodes := t.present()
	old := t.pick(leader)[0]
	others := slices.DeleteFunc(nodes, func(n *node) bool { return n == old })
	eachUntil(ctx, 5*time.Second, others, t.put)
	old.m.Pause()
	defer old.m.Continue()
	if !eachUntil(ctx, 12*time.Second, others, t.put) {
		return
	}
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 12*time.Second)
	defer cancel()
	var readers sync.WaitGroup
	defer readers.Wait()
	for i := range 60 {
		readers.Go(func() { t.do(limited, Op{Client: -10 - i, Kind: QGet, Key: beacon}, old.slot) })
	}
	sleep(ctx, 300*time.Millisecond) // in which they send
	old.m.Continue()
}

// crashLoop kills a process again and again while it starts.
func crashLoop(t *troubleMaker, ctx context.Context) {
	n := t.pick([]role{leader, follower}[t.rng.IntN(2)])[0]
	for range 4 {
		t.stop(n, syscall.SIGKILL)
		t.startAgain(n)
		sleep(ctx, t.between(0, 500*time.Millisecond))
	}
}

// rolling stops all, one after the other.
func rolling(t *troubleMaker, ctx context.Context) {
	for _, n := range t.pick(everyone) {
		t.stop(n, syscall.SIGTERM)
		t.startAgain(n)
		sleep(ctx, t.between(500*time.Millisecond, 2*time.Second))
	}
}

// troubledBootstrap kills members while the cluster forms.
func (r *run) troubledBootstrap(rng *rand.Rand) {
	t := &troubleMaker{run: r, rng: rng}
	for range 6 {
		sleep(context.Background(), t.between(0, 400*time.Millisecond))
		n := r.nodes[rng.IntN(len(r.nodes))]
		t.stop(n, syscall.SIGKILL)
		t.startAgain(n)
	}
}

// straceWorks says why strace cannot hold other processes here, if so.
var straceWorks = sync.OnceValue(func() error {
	target := exec.Command("sleep", "60")
	if err := target.Start(); err != nil {
		return err
	}
	defer target.Wait()
	defer target.Process.Kill()
	var said strings.Builder
	cmd := exec.Command("strace", "-qq", "-o", "/dev/null", "-p", fmt.Sprint(target.Process.Pid))
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	// When it may not it ends at once.
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		return fmt.Errorf("%w: %s", err, said.String())
	case <-time.After(2 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		return nil
	}
})

// strace changes what system calls of a process on its log do, as long as ctx lasts. before is called before
// it lets go of the process; it may be nil.
func (r *run) strace(ctx context.Context, n *node, inject string, before func()) {
	if before == nil {
		before = func() {}
	}
	call, _, _ := strings.Cut(inject, ":")
	args := []string{"-qq", "-f", "-o", "/dev/null", "-e", "trace=" + call, "-e", "inject=" + inject, "-p", fmt.Sprint(n.m.Pid())}
	// Files that are made later are left alone: the newest journal has another one prepared.
	for _, pattern := range []string{"wal/*", "wal/segments/*"} {
		files, _ := filepath.Glob(filepath.Join(n.m.DataDir, "member", pattern))
		for _, f := range files {
			args = append(args, "-P", f)
		}
	}
	cmd := exec.Command("strace", args...)
	if err := cmd.Start(); err != nil {
		r.Logf("no strace: %v", err)
		before()
		return
	}
	<-ctx.Done()
	before()
	_ = cmd.Process.Signal(syscall.SIGTERM) // it lets go of the process
	_ = cmd.Wait()
}

// slowDisk makes every sync of a log take longer.
func slowDisk(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, t.between(2*time.Second, 5*time.Second))
		defer cancel()
		delay := t.between(50*time.Millisecond, 700*time.Millisecond)
		var all sync.WaitGroup
		for _, n := range t.pick(who) {
			all.Go(func() { t.strace(ctx, n, fmt.Sprintf("fdatasync:delay_enter=%d", delay.Microseconds()), nil) })
		}
		all.Wait()
	}
}

// brokenDisk lets a system call fail until the member has noticed. It has to end by itself then: what it
// holds in memory counts no more.
func brokenDisk(inject string, who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		n := t.pick(who)[0]
		t.mu.Lock()
		down := n.down
		n.down = true
		t.mu.Unlock()
		if down {
			return
		}
		limited, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		go func() {
			for limited.Err() == nil && n.m.Running() {
				sleep(limited, 50*time.Millisecond)
			}
			cancel()
		}()
		t.strace(limited, n, inject, nil)
		<-limited.Done()
		if n.m.Running() {
			t.Logf("%s has not ended: nothing was written, or strace did not work", n.m.Name)
		} else {
			t.Logf("%s has ended: %v", n.m.Name, n.m.Wait())
			t.count("(ended because of its disk)")
		}
		n.m.Signal(syscall.SIGKILL)
		n.m.Wait()
		t.startAgain(n)
	}
}

// These keep a node away from the others, and return what ends that.
func killed(t *troubleMaker, n *node, _ []*node) func() {
	t.stop(n, syscall.SIGKILL)
	return func() { t.startAgain(n) }
}

func paused(_ *troubleMaker, n *node, _ []*node) func() {
	n.m.Pause()
	return n.m.Continue
}

func cutOff(t *troubleMaker, n *node, others []*node) func() {
	if t.mesh == nil {
		return paused(t, n, others)
	}
	t.mesh.set(rules(t.bothWays([]*node{n}, others), rule{cut: true}))
	return func() { t.mesh.set(map[link]rule{}) }
}

// farBehind keeps a follower away until so much has been written that it gets a snapshot.
func farBehind(keepAway func(*troubleMaker, *node, []*node) func()) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		if t.snapshots == 0 {
			return // the log is too long then
		}
		n := t.pick(follower)[0]
		others := slices.DeleteFunc(t.present(), func(o *node) bool { return o == n })
		defer keepAway(t, n, others)()
		t.fill(ctx, others, 10*t.snapshots+200)
		sleep(ctx, 300*time.Millisecond) // in which snapshots are taken
	}
}

// fill writes until the log of the cluster has grown by so many entries.
func (t *troubleMaker) fill(ctx context.Context, nodes []*node, entries uint64) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	var group sync.WaitGroup
	for i := range 3 {
		slot := nodes[t.rng.IntN(len(nodes))].slot
		group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 9*time.Second)
				t.do(limited, Op{Client: -2 - i, Kind: Put, Key: fmt.Sprintf("%s/fill/%d", root, i), Value: t.unique()}, slot)
				cancel()
			}
		})
	}
	first := uint64(0)
	for ctx.Err() == nil {
		for _, n := range nodes {
			limited, done := context.WithTimeout(ctx, time.Second)
			s, err := n.m.Status(limited)
			done()
			switch {
			case err != nil:
			case first == 0:
				first = s.RaftIndex
			case s.RaftIndex >= first+entries:
				cancel()
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
	group.Wait()
}

// unfinishedBusiness lets a leader note entries that it cannot bring to its disk or to the others, takes
// its leadership away, and mostly kills it before its disk has answered.
func unfinishedBusiness(t *troubleMaker, ctx context.Context) {
	n := t.pick(leader)[0]
	others := slices.DeleteFunc(t.present(), func(o *node) bool { return o == n })
	limited, cancel := context.WithTimeout(ctx, t.between(1500*time.Millisecond, 4*time.Second))
	defer cancel()
	var disk sync.WaitGroup
	disk.Go(func() { t.strace(limited, n, "fdatasync:delay_enter=900000", nil) })
	sleep(ctx, t.between(200*time.Millisecond, 600*time.Millisecond))
	if t.mesh != nil {
		t.mesh.set(rules(t.bothWays([]*node{n}, others), rule{cut: true}))
		defer t.mesh.set(map[link]rule{})
	} else {
		n.m.Pause()
		defer n.m.Continue()
	}
	disk.Wait()
	if t.rng.IntN(4) > 0 {
		n.m.Continue()
		t.stop(n, syscall.SIGKILL)
		t.startAgain(n)
	}
}

// noWitness lets a leader with a slow disk write with just enough others, kills all of these, and lets the
// leader go on with those that were away. What was acknowledged is on its disk, or lost.
func noWitness(t *troubleMaker, ctx context.Context) {
	nodes := t.present()
	if len(nodes) < 3 {
		return
	}
	l := t.pick(leader)[0]
	others := slices.DeleteFunc(nodes, func(n *node) bool { return n == l })
	t.rng.Shuffle(len(others), func(i, j int) { others[i], others[j] = others[j], others[i] })
	away, with := others[:len(others)/2], others[len(others)/2:]
	for _, n := range away {
		n.m.Pause()
		defer n.m.Continue()
	}
	limited, cancel := context.WithTimeout(ctx, t.between(300*time.Millisecond, 1500*time.Millisecond))
	defer cancel()
	t.strace(limited, l, "fdatasync:delay_enter=900000", nil)
	var all sync.WaitGroup
	for _, n := range append(with, l) {
		all.Go(func() { t.stop(n, syscall.SIGKILL) })
	}
	all.Wait()
	for _, n := range away {
		n.m.Continue()
	}
	t.startAgain(l)
	sleep(ctx, t.between(2*time.Second, 4*time.Second))
	for _, n := range with {
		t.startAgain(n)
	}
}
