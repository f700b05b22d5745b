//go:build linux

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// TestKill kills members without warning while writes come in: whatever was acknowledged is on every member
// afterwards, indices only rise, and all members hold the same bytes.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 2
	if long {
		rounds = 20
	}
	victims := []struct {
		name   string
		choose func(c *cluster.Cluster) []*cluster.Member
	}{
		{"leader", func(c *cluster.Cluster) []*cluster.Member { return []*cluster.Member{c.WaitLeader()} }},
		{"follower", func(c *cluster.Cluster) []*cluster.Member { return c.Followers()[:1] }},
		{"all", func(c *cluster.Cluster) []*cluster.Member { return c.Members }},
	}
	c := start(t, 3)
	var index uint64
	for round := range rounds {
		for _, v := range victims {
			l := startLoad(t, c, fmt.Sprintf("/round%d/%s", round, v.name))
			l.progress(50)
			down := v.choose(c)
			if len(down) == len(c.Members) {
				c.KillAll()
			} else {
				for _, m := range down {
					m.Kill()
				}
				l.progress(50) // the others are a quorum
			}
			c.StartAll()
			c.WaitReady()
			l.progress(50)
			l.verify(c)
			now := c.WaitEqual()
			if now < index {
				t.Errorf("round %d, %s: the index went back from %d to %d", round, v.name, index, now)
			}
			index = now
			if t.Failed() {
				t.Fatalf("round %d, killed %s", round, v.name)
			}
		}
	}
}

// TestSnapshots makes many snapshots, with one member down all the while: it catches up by a snapshot, as the
// log it missed is gone, and everyone comes back from disk with the same contents.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it says other things in its log")
	writes := 5000
	if long {
		writes = 50_000
	}
	c := start(t, 3, "--snapshot-count=10") // which also keeps the log behind a snapshot short
	late := c.Followers()[0]
	mustPut(t, late, "/before", "1")
	status, err := late.Status(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	late.Kill()
	putMany(t, c.Running(), "/many", writes)
	// One write after the other makes an entry each, until nobody has those that the member has missed.
	for n := 0; slices.ContainsFunc(c.Running(), func(m *cluster.Member) bool { return compacted(t, m) <= status.RaftIndex }); n++ {
		mustPut(t, c.Running()[0], "/one-by-one", fmt.Sprint(n))
	}
	late.Start()
	c.WaitReady()
	index := c.WaitEqual()
	if log := late.Log(); !strings.Contains(log, "copied to local snapshot") {
		t.Errorf("%s has caught up without a snapshot:\n%s", late.Name, log)
	}
	c.KillAll()
	c.StartAll()
	c.WaitReady()
	// Higher is fine: a member that starts may say so in the replicated state.
	if again := c.WaitEqual(); again < index {
		t.Errorf("after the restart the index is %d, before it was %d", again, index)
	}
	for _, m := range c.Members {
		values, _, err := m.Listing(limit(t), "/many")
		if err != nil || len(values) != writes {
			t.Errorf("%s has %d keys (%v), want %d", m.Name, len(values), err, writes)
		}
	}
}

// compaction is what raft says when it drops the entries before a snapshot.
var compaction = regexp.MustCompile(`compacting logs: from=\d+ to=(\d+)`)

// compacted is the last entry that the member's log has dropped, 0 if it has dropped none.
func compacted(t *testing.T, m *cluster.Member) uint64 {
	t.Helper()
	all := compaction.FindAllStringSubmatch(m.Log(), -1)
	if len(all) == 0 {
		return 0
	}
	index, err := strconv.ParseUint(all[len(all)-1][1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// putMany sets keys 0 to n-1 below a directory, spread over the members, each key once.
func putMany(t *testing.T, members []*cluster.Member, dir string, n int) {
	t.Helper()
	const workers = 64
	errs := make([]error, workers)
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 5*cluster.Deadline)
	defer cancel()
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				resp, err := members[i%len(members)].Put(ctx, fmt.Sprintf("%s/%03d/%03d", dir, i/1000, i%1000), fmt.Sprint(i))
				errs[w] = answered(resp, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestTerminate stops the leader with SIGTERM under load: it ends by that signal, its watchers are let go, the
// others go on, and nothing is lost. Then the same with every member.
func TestTerminate(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	l := startLoad(t, c, "/load")
	l.progress(50)
	leader := c.WaitLeader()
	watch := openWatch(t, leader, "/nothing-happens-here?wait=true&stream=true")
	if exit := leader.Stop(); exit.Signal != syscall.SIGTERM {
		t.Errorf("the leader ended with %v, want the signal that stopped it", exit)
	}
	watch.waitEnd(t)
	l.progress(50)
	if now := c.WaitLeader(); now == leader {
		t.Errorf("%s still leads", now.Name)
	}
	leader.Start()
	c.WaitReady()
	l.progress(50)
	l.verify(c)
	c.StopAll()
	c.StartAll()
	c.WaitReady()
	l.verify(c)
}

// watch is an open long poll or stream.
type watch struct {
	name  string
	lines chan string   // of the body; closed when it ends
	done  chan struct{} // closed when the connection has ended
}

// openWatch sends a watch and returns when its headers are there.
func openWatch(t *testing.T, m *cluster.Member, path string) *watch {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.ClientURL+"/v2/keys"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("watch %s on %s: %v", path, m.Name, err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("watch %s on %s: %s", path, m.Name, resp.Status)
	}
	w := &watch{name: path + " on " + m.Name, lines: make(chan string, 1000), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer close(w.lines)
		defer resp.Body.Close()
		s := bufio.NewScanner(resp.Body)
		for s.Scan() {
			if line := strings.TrimSpace(s.Text()); line != "" {
				w.lines <- line
			}
		}
	}()
	return w
}

// next waits for one event.
func (w *watch) next(t *testing.T) string {
	t.Helper()
	select {
	case line, ok := <-w.lines:
		if !ok {
			t.Fatalf("the watch %s ended", w.name)
		}
		return line
	case <-time.After(cluster.Deadline):
		t.Fatalf("no event for the watch %s in %v", w.name, cluster.Deadline)
		return ""
	}
}

// waitEnd waits until the server has ended the watch.
func (w *watch) waitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-w.done:
	case <-time.After(cluster.Deadline):
		t.Fatalf("the watch %s is still open after %v", w.name, cluster.Deadline)
	}
}
