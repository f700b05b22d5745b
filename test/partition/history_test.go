//go:build linux && partition

package partition

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

const (
	logDir   = "/log"      // every write makes a new key here
	register = "/register" // and then counts here
	pace     = 10 * time.Millisecond
)

// history is one writer, several readers, and what they were told. The writer sends one request at a time,
// through each of its members in turn. Readers ask every member, those that are cut off as well.
type history struct {
	t      *testing.T
	cancel context.CancelFunc
	wg     sync.WaitGroup

	progress chan struct{} // of capacity 1: there was an acknowledgement
	counted  atomic.Int64  // the highest count that was acknowledged

	mu       sync.Mutex // guards what follows
	acked    map[string]write
	failed   int // writes that were not acknowledged
	reads    []read
	quorum   map[*cluster.Member]int // linearizable reads that were answered
	problems []string
}

// write is an acknowledged one.
type write struct {
	value string
	index uint64 // modifiedIndex
}

// read is the log as one member showed it, all at once.
type read struct {
	from  *cluster.Member
	index uint64 // X-Etcd-Index
	log   map[string]write
}

// record starts a history that writes through some members and reads from all.
func record(n *network, through []*cluster.Member) *history {
	ctx, cancel := context.WithCancel(n.t.Context())
	h := &history{
		t: n.t, cancel: cancel,
		progress: make(chan struct{}, 1),
		acked:    map[string]write{},
		quorum:   map[*cluster.Member]int{},
	}
	h.wg.Go(func() { h.write(ctx, through) })
	for _, m := range n.Members {
		h.wg.Go(func() { h.readLog(ctx, m) })
		h.wg.Go(func() { h.readRegister(ctx, m) })
	}
	n.t.Cleanup(h.stop)
	return h
}

// stop ends all requests. It may be called again.
func (h *history) stop() {
	h.cancel()
	h.wg.Wait()
}

func (h *history) problem(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.problems = append(h.problems, fmt.Sprintf(format, args...))
}

func (h *history) write(ctx context.Context, through []*cluster.Member) {
	for i := int64(1); ctx.Err() == nil; i++ {
		m := through[i%int64(len(through))]
		key, value := fmt.Sprintf("%s/%06d", logDir, i), fmt.Sprintf("%d through %s", i, m.Name)
		resp, err := m.Put(ctx, key, value)
		if h.acknowledge(m, key, value, resp, err) {
			resp, err = m.Put(ctx, register, strconv.FormatInt(i, 10))
			if h.acknowledge(m, fmt.Sprintf("%s=%d", register, i), strconv.FormatInt(i, 10), resp, err) {
				h.counted.Store(i)
			}
		}
		rest(ctx, pace)
	}
}

// acknowledge notes a write if the answer says that it was done.
func (h *history) acknowledge(m *cluster.Member, key, value string, resp cluster.Response, err error) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil || !resp.OK() {
		h.failed++
		return false
	}
	event, err := resp.Event()
	if err != nil || event.Node == nil {
		h.problems = append(h.problems, fmt.Sprintf("PUT %s on %s: no event in %v", key, m.Name, resp))
		return false
	}
	h.acked[key] = write{value, event.Node.ModifiedIndex}
	select {
	case h.progress <- struct{}{}:
	default:
	}
	return true
}

// await waits for n more acknowledged writes and returns how long the first of them took.
func (h *history) await(n int) time.Duration {
	h.t.Helper()
	select { // what was acknowledged before does not count
	case <-h.progress:
	default:
	}
	start := time.Now()
	late := time.After(cluster.Deadline)
	var first time.Duration
	for i := range n {
		select {
		case <-h.progress:
		case <-late:
			h.t.Fatalf("%d writes were acknowledged in %v, want %d", i, cluster.Deadline, n)
		}
		if i == 0 {
			first = time.Since(start)
		}
	}
	return first
}

// quorumAnswers counts what took a quorum and was answered: all writes, and these members' quorum reads.
func (h *history) quorumAnswers(by []*cluster.Member) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	total := len(h.acked)
	for _, m := range by {
		total += h.quorum[m]
	}
	return total
}

// readLog keeps reading the log from one member, plainly. That never fails, cut off or not.
func (h *history) readLog(ctx context.Context, m *cluster.Member) {
	var last uint64
	for ctx.Err() == nil {
		r, err := readAll(ctx, m)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.problem("a plain read on %s failed: %v", m.Name, err)
		case r.index < last:
			h.problem("%s went back from index %d to %d", m.Name, last, r.index)
		default:
			last = r.index
			h.mu.Lock()
			h.reads = append(h.reads, r)
			h.mu.Unlock()
		}
		rest(ctx, 20*pace)
	}
}

func readAll(ctx context.Context, m *cluster.Member) (read, error) {
	resp, err := m.Get(ctx, logDir+"?recursive=true")
	if err != nil {
		return read{}, err
	}
	r := read{from: m, index: resp.Index(), log: map[string]write{}}
	if resp.Status == http.StatusNotFound {
		return r, nil // no write has arrived yet
	}
	event, err := resp.Event()
	if err != nil || !resp.OK() {
		return read{}, fmt.Errorf("%v (%v)", resp, err)
	}
	for _, node := range event.Node.Nodes {
		r.log[node.Key] = write{value(node), node.ModifiedIndex}
	}
	return r, nil
}

func value(n *api.Node) string {
	if n == nil || n.Value == nil {
		return ""
	}
	return *n.Value
}

// readRegister keeps reading the register from one member, linearizably: an answer is never older than
// what was acknowledged before the question.
func (h *history) readRegister(ctx context.Context, m *cluster.Member) {
	for ctx.Err() == nil {
		before := h.counted.Load()
		resp, err := m.QuorumGet(ctx, register)
		if err == nil && resp.OK() {
			h.mu.Lock()
			h.quorum[m]++
			h.mu.Unlock()
			if have, err := strconv.ParseInt(resp.Value(), 10, 64); err != nil || have < before {
				h.problem("a quorum read on %s was stale: %q (%v), when %d had been acknowledged", m.Name, resp.Value(), err, before)
			}
		}
		rest(ctx, 2*pace)
	}
}

// verify compares what was told to clients with what all members hold in the end. Requests must have ended.
func (h *history) verify(n *network) {
	h.t.Helper()
	h.stop()
	for _, p := range h.problems {
		h.t.Error(p)
	}
	owners := map[uint64]string{}
	for key, w := range h.acked {
		if other, ok := owners[w.index]; ok {
			h.t.Errorf("index %d was acknowledged for %s and for %s", w.index, key, other)
		}
		owners[w.index] = key
	}
	for i, m := range n.Members {
		final, err := readAll(limit(h.t), m)
		if err != nil {
			h.t.Fatalf("read everything from %s: %v", m.Name, err)
		}
		for key, w := range h.acked {
			if have := final.log[key]; have != w && strings.HasPrefix(key, logDir) {
				h.t.Errorf("%s holds %s = %+v, acknowledged was %+v", m.Name, key, have, w)
			}
		}
		if i == 0 {
			h.checkReads(final)
		}
	}
	h.t.Logf("%s: %d writes acknowledged, %d not, %d plain reads compared, %d quorum reads answered",
		h.t.Name(), len(h.acked), h.failed, len(h.reads), sum(h.quorum))
}

// checkReads checks that every plain read showed what there is in the end, up to the index that it named.
func (h *history) checkReads(final read) {
	h.t.Helper()
	for _, r := range h.reads {
		want := 0
		for key, w := range final.log {
			if w.index > r.index {
				continue
			}
			want++
			if r.log[key] != w {
				h.t.Errorf("at index %d %s showed %s = %+v, in the end it is %+v", r.index, r.from.Name, key, r.log[key], w)
				return
			}
		}
		if len(r.log) != want {
			h.t.Errorf("at index %d %s showed %d writes, in the end there are %d", r.index, r.from.Name, len(r.log), want)
			return
		}
	}
}

func sum(counts map[*cluster.Member]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

// rest is a pause between two requests of one client.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// limit is a context for one request. Its deadline is above the server's own of 7 s, so that it ends only
// what would never end.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}
