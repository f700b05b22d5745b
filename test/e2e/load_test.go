//go:build linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// load is writers that keep setting new keys on all members, and remember what was acknowledged.
type load struct {
	t      *testing.T
	prefix string
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the rest
	members []*cluster.Member
	acked   map[string]write  // by key
	owners  map[uint64]string // key by its modifiedIndex
	faults  []string          // broken promises
	latest  time.Time         // of an acknowledgement
	gap     time.Duration     // the longest time between two, for the log: speed is not judged here
}

// write is an acknowledged one.
type write struct {
	value string
	index uint64 // modifiedIndex
}

const writers = 6

// startLoad starts writers below a directory of their own. Each begins with another member and goes on to the
// next one after every write, so that all members get writes at all times.
func startLoad(t *testing.T, c *cluster.Cluster, prefix string) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{
		t: t, members: slices.Clone(c.Members), prefix: prefix, cancel: cancel,
		acked: map[string]write{}, owners: map[uint64]string{},
	}
	for w := range writers {
		l.wg.Go(func() { l.write(ctx, w) })
	}
	t.Cleanup(l.stop)
	return l
}

// use tells the writers that these are the members from now on.
func (l *load) use(members []*cluster.Member) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members = slices.Clone(members)
}

func (l *load) member(n int) *cluster.Member {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.members[n%len(l.members)]
}

func (l *load) write(ctx context.Context, w int) {
	var last uint64 // the highest index this writer was told
	for n := 0; ctx.Err() == nil; n++ {
		m := l.member(w + n)
		key, value := fmt.Sprintf("%s/%d/%06d", l.prefix, w, n), fmt.Sprintf("value %d of %d", n, w)
		one, cancel := context.WithTimeout(ctx, 10*time.Second)
		resp, err := m.Put(one, key, value)
		cancel()
		if answered(resp, err) != nil {
			// Refused or unknown: it may be there or not. The pause keeps a dead member from being hammered.
			select {
			case <-time.After(5 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		last = l.acknowledge(m, key, value, resp, last)
	}
}

// acknowledge notes a successful write and checks its indices against those before.
func (l *load) acknowledge(m *cluster.Member, key, value string, resp cluster.Response, last uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, err := resp.Event()
	if err != nil || e.Node == nil {
		l.faults = append(l.faults, fmt.Sprintf("PUT %s on %s: no event in %v", key, m.Name, resp))
		return last
	}
	index := e.Node.ModifiedIndex
	if index <= last {
		l.faults = append(l.faults, fmt.Sprintf("PUT %s on %s got index %d, after the same writer had got %d", key, m.Name, index, last))
	}
	if other, ok := l.owners[index]; ok {
		l.faults = append(l.faults, fmt.Sprintf("index %d was given to %s and to %s", index, other, key))
	}
	if resp.Index() < index {
		l.faults = append(l.faults, fmt.Sprintf("PUT %s on %s: X-Etcd-Index %d is below its modifiedIndex %d", key, m.Name, resp.Index(), index))
	}
	l.owners[index] = key
	l.acked[key] = write{value, index}
	now := time.Now()
	if !l.latest.IsZero() {
		l.gap = max(l.gap, now.Sub(l.latest))
	}
	l.latest = now
	return max(index, last)
}

// count is how many writes were acknowledged so far.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// progress waits until n more writes are acknowledged.
func (l *load) progress(n int) {
	l.t.Helper()
	from := l.count()
	cluster.Eventually(l.t, fmt.Sprintf("%d more acknowledged writes", n), func(context.Context) error {
		if have := l.count() - from; have < n {
			return fmt.Errorf("%d so far", have)
		}
		return nil
	})
}

// stop ends the writers. It may be called again.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// verify ends the writers, waits until the running members are equal, and compares what each of them
// holds with what was acknowledged.
func (l *load) verify(c *cluster.Cluster) {
	l.t.Helper()
	l.stop()
	l.t.Logf("%d writes acknowledged, the longest time without one was %v", l.count(), l.gap.Round(time.Millisecond))
	c.WaitReady()
	c.WaitEqual()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.faults {
		l.t.Error(f)
	}
	for _, m := range c.Running() {
		var found map[string]string
		cluster.Eventually(l.t, "the listing of "+m.Name, func(ctx context.Context) (err error) {
			found, _, err = m.Listing(ctx, l.prefix)
			return err
		})
		lost := 0
		for key, w := range l.acked {
			value, ok := found[key]
			if ok && value == w.value {
				continue
			}
			if lost++; lost <= 5 {
				l.t.Errorf("%s: %s was acknowledged as %q at index %d, now it has %q (there: %v)", m.Name, key, w.value, w.index, value, ok)
			}
		}
		if lost > 0 {
			l.t.Errorf("%s lost %d of %d acknowledged writes", m.Name, lost, len(l.acked))
		}
		for key := range maps.Keys(found) {
			if !strings.HasPrefix(found[key], "value ") {
				l.t.Errorf("%s: %s has %q, which nobody wrote", m.Name, key, found[key])
			}
		}
	}
}

// answered turns any outcome but done into an error.
func answered(resp cluster.Response, err error) error {
	if err == nil && !resp.OK() {
		err = fmt.Errorf("answer %v", resp)
	}
	return err
}
