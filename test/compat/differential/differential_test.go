package differential

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2error"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
)

var (
	seed      = flag.Uint64("seed", 1, "seed of the first sequence")
	sequences = flag.Int("sequences", 20000, "how many sequences to run")
)

// divergence is a way in which Quorate means to differ from etcd 3.5's store.
type divergence string

const (
	// 3.5 answers the update of a directory with an internal error and does nothing; 3.4 does it,
	// and shows an index that it does not store. Quorate follows 3.4.
	updateOfDirectory divergence = "update of a directory"
	// A stream watch on a removed key itself gets the removal twice from etcd.
	removalTwice divergence = "removal delivered twice to a stream"
	// A stream watch that finds its first event in the past gets nothing after it from etcd.
	streamFromThePast divergence = "stream from the past ends after one event"
	// To a history watch on /ab etcd delivers the removal of the directory /a.
	foreignRemoval divergence = "removal of a directory whose name begins the same"
)

var divergences = []divergence{updateOfDirectory, removalTwice, streamFromThePast, foreignRemoval}

// TestRandomSequences plays random sequences of operations on both stores. A failure names the seed;
// -seed=N -sequences=1 plays that sequence alone.
func TestRandomSequences(t *testing.T) {
	const workers = 4
	counts := make([]map[divergence]int, workers)
	steps := make([]int, workers)
	t.Run("sequences", func(t *testing.T) {
		for worker := range workers {
			t.Run(fmt.Sprint(worker), func(t *testing.T) {
				t.Parallel()
				counts[worker] = make(map[divergence]int)
				// The bubble's clock is the one that etcd's store reads; it moves when we sleep.
				synctest.Test(t, func(t *testing.T) {
					for i := worker; i < *sequences && !t.Failed(); i += workers {
						steps[worker] += play(t, *seed+uint64(i), counts[worker])
					}
				})
			})
		}
	})
	total := make(map[divergence]int)
	for _, c := range counts {
		for d, n := range c {
			total[d] += n
		}
	}
	t.Logf("%d sequences, %d steps; divergences: %v", *sequences, sum(steps), total)
	for _, d := range divergences {
		if *sequences >= 1000 && total[d] == 0 {
			t.Errorf("divergence never seen: %s", d)
		}
	}
}

func sum(numbers []int) (total int) {
	for _, n := range numbers {
		total += n
	}
	return total
}

// play runs one sequence and returns the number of its steps.
func play(t *testing.T, seed uint64, counts map[divergence]int) int {
	p := newPair(t, seed, counts)
	n := 12 + p.rand.IntN(21)
	for i := range n {
		if i < 4 {
			p.write(p.randomWrite(false)) // something to begin with
		} else {
			p.step()
		}
		if t.Failed() {
			t.Logf("seed %d, the steps were:\n%s", seed, strings.Join(p.log, "\n"))
		}
		if t.Failed() || p.parted {
			n = i + 1
			break
		}
	}
	if !p.parted && !t.Failed() {
		p.compareAll()
	}
	for _, w := range p.watches {
		w.close()
	}
	return n
}

// TestLongHistory compares watches around the edge of etcd's history of 1000 events.
func TestLongHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counts := make(map[divergence]int)
		p := newPair(t, *seed, counts)
		for p.tree.Index() < 2500 {
			p.write(p.randomWrite(false))
			p.expire()
			if t.Failed() {
				t.Fatalf("seed %d, index %d", *seed, p.tree.Index())
			}
			index := p.tree.Index()
			if index%100 != 0 {
				continue
			}
			for _, since := range []uint64{0, 1, 2, index - 1000, index - 999, index - 998, index - 500, index - 1, index, index + 1} {
				if index < 1000 && since > 1<<63 {
					continue // below 0
				}
				p.history(p.path(), p.rand.IntN(2) == 0, since)
			}
		}
	})
}

// prefix is where etcd's server keeps the keys of clients in its store.
const prefix = "/1"

// pair is the two stores, to be kept in the same state.
type pair struct {
	t       *testing.T
	rand    *rand.Rand
	etcd    v2store.Store
	tree    *tree.Tree
	watches []*watchPair
	counts  map[divergence]int
	log     []string
	parted  bool // by a divergence after which the states differ
}

func newPair(t *testing.T, seed uint64, counts map[divergence]int) *pair {
	return &pair{
		t: t, counts: counts,
		rand: rand.New(rand.NewPCG(seed, 0)),
		etcd: v2store.New("/0", prefix),
		tree: tree.New(1000),
	}
}

// path returns one of few paths, some hidden, some unclean, some the beginning of others.
func (p *pair) path() string {
	names := []string{"a", "a", "b", "ab", "_h", "a-", "é<"}
	s := ""
	for range 1 + p.rand.IntN(3) {
		s += "/" + names[p.rand.IntN(len(names))]
	}
	switch p.rand.IntN(40) {
	case 0:
		return "/"
	case 1:
		return s + "/"
	}
	return s
}

// randomWrite returns a write; one that updates a directory only if that is wanted, because it ends
// what can be compared.
func (p *pair) randomWrite(updates bool) tree.Op {
	p.tick()
	r := p.rand
	op := tree.Op{
		Action: []tree.Action{
			tree.Set, tree.Set, tree.Set, tree.Create, tree.Create, tree.Update, tree.CompareAndSwap, tree.CompareAndSwap,
			tree.Delete, tree.Delete, tree.CompareAndDelete,
		}[r.IntN(11)],
		Path: p.path(),
	}
	values := []string{"", "1", "2", "<\xff>"}
	op.Value = values[r.IntN(len(values))]
	switch op.Action {
	case tree.Set, tree.Create:
		op.Dir = r.IntN(4) == 0
		op.InOrder = op.Action == tree.Create && r.IntN(2) == 0
	case tree.Delete:
		op.Dir, op.Recursive = r.IntN(2) == 0, r.IntN(3) == 0
	case tree.CompareAndSwap, tree.CompareAndDelete:
		for op.PrevValue == "" && op.PrevIndex == 0 {
			if r.IntN(2) == 0 {
				op.PrevValue = values[r.IntN(len(values))]
			}
			if r.IntN(3) == 0 {
				op.PrevIndex = uint64(max(int(p.tree.Index())-r.IntN(4), 0))
			}
		}
	}
	switch op.Action {
	case tree.Set, tree.Create, tree.Update, tree.CompareAndSwap:
		if r.IntN(3) == 0 {
			op.Expires = p.now() + int64(r.IntN(6))*int64(time.Second)
			if r.IntN(3) == 0 { // the server lets no value through with it
				op.Refresh, op.Value = true, ""
			}
		}
	}
	if a, err := p.tree.Get(op.Path, false, false); op.Action == tree.Update && !updates && err == nil && a.Node.Dir {
		op.Refresh, op.Value = false, "1" // is refused
	}
	return op
}

func (p *pair) now() int64 { return time.Now().UnixNano() }

// tick lets time pass: some milliseconds, and a nanosecond more with every step, so that no two keys
// are due at once. Their order would be that of etcd's heap.
func (p *pair) tick() { time.Sleep(time.Duration(p.rand.IntN(700))*time.Millisecond + 1) }

// step does one random thing to both stores.
func (p *pair) step() {
	switch n := p.rand.IntN(20); {
	case n < 11:
		p.write(p.randomWrite(p.rand.IntN(8) == 0))
	case n < 13:
		p.expire()
	case n < 16:
		p.get(p.path(), p.rand.IntN(2) == 0, p.rand.IntN(2) == 0)
	case n < 18:
		since := p.rand.Uint64N(p.tree.Index() + 1)
		if p.rand.IntN(4) == 0 {
			p.streamFromPast(p.path(), p.rand.IntN(2) == 0, max(since, 1))
		} else {
			p.history(p.path(), p.rand.IntN(2) == 0, max(since, 1))
		}
	default:
		since := uint64(0)
		if p.rand.IntN(4) == 0 {
			since = p.tree.Index() + 1 + p.rand.Uint64N(4)
		}
		p.watch(p.path(), p.rand.IntN(2) == 0, p.rand.IntN(2) == 0, since)
	}
	for _, w := range p.watches {
		w.compare()
	}
}

func (p *pair) logf(format string, args ...any) {
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

func (p *pair) write(op tree.Op) {
	p.logf("%v %+v", op.Action, op)
	wantEvent, wantErr := p.etcdWrite(op)
	b := p.tree.Begin(p.now())
	gotEvent, gotErr := b.Do(op)
	b.End()

	if wantErr != nil && !errors.As(wantErr, new(*v2error.Error)) {
		p.directoryUpdated(op, wantErr, gotEvent, gotErr)
		return
	}
	want, got := p.showEtcd(wantEvent, wantErr), ""
	if gotErr != nil {
		got = showError(gotErr)
	} else {
		got = string(gotEvent.AppendJSON(nil, false))
		if created := wantEvent != nil && wantEvent.IsCreated(); created != (gotEvent.Status() == 201) {
			p.t.Errorf("%+v: status %d, created %v", op, gotEvent.Status(), created)
		}
	}
	p.equal(op.Action.String()+" "+op.Path, got, want)
	p.equal("index", fmt.Sprint(p.tree.Index()), fmt.Sprint(p.etcd.Index()))
}

// directoryUpdated checks against 3.4 what 3.5 no longer does. The stores have parted then.
func (p *pair) directoryUpdated(op tree.Op, etcdErr error, got *tree.Event, gotErr error) {
	p.counts[updateOfDirectory]++
	p.parted = true
	before, err := p.etcd.Get(path.Join(prefix, op.Path), false, false)
	if op.Action != tree.Update || err != nil || !before.Node.Dir {
		p.t.Errorf("%+v: etcd fails with %v", op, etcdErr)
		return
	}
	if gotErr != nil {
		p.t.Errorf("%+v: %v, want it done as in 3.4", op, gotErr)
		return
	}
	event := p.trim(before)
	prev, node := *event.Node, *event.Node
	prev.Nodes, node.Nodes = nil, nil
	node.Expiration, node.TTL = nil, 0
	node.ModifiedIndex = p.etcd.Index() + 1
	if op.Expires != 0 {
		at := time.Unix(0, op.Expires).UTC()
		node.Expiration, node.TTL = &at, int64((time.Until(at)+time.Second-1)/time.Second)
	}
	want := encode(p.t, &v2store.Event{Action: v2store.Update, Node: &node, PrevNode: &prev})
	p.equal("update of a directory", string(got.AppendJSON(nil, false)), string(want))
	// What is stored keeps its index.
	a, err := p.tree.Get(op.Path, false, false)
	if err != nil || a.Node.Modified != prev.ModifiedIndex || a.Node.Expires != op.Expires {
		p.t.Errorf("after the update of a directory: %+v, %v; want modifiedIndex %d", a.Node, err, prev.ModifiedIndex)
	}
}

// etcdWrite does to etcd's store what its server does for the request (etcdserver/apply_v2.go).
func (p *pair) etcdWrite(op tree.Op) (*v2store.Event, error) {
	ttl := v2store.TTLOptionSet{Refresh: op.Refresh}
	if op.Expires != 0 {
		ttl.ExpireTime = time.Unix(0, op.Expires)
	}
	key := path.Join(prefix, op.Path)
	switch op.Action {
	case tree.Set:
		return p.etcd.Set(key, op.Dir, op.Value, ttl)
	case tree.Create:
		return p.etcd.Create(key, op.Dir, op.Value, op.InOrder, ttl)
	case tree.Update:
		return p.etcd.Update(key, op.Value, ttl)
	case tree.CompareAndSwap:
		return p.etcd.CompareAndSwap(key, op.PrevValue, op.PrevIndex, op.Value, ttl)
	case tree.CompareAndDelete:
		return p.etcd.CompareAndDelete(key, op.PrevValue, op.PrevIndex)
	default:
		return p.etcd.Delete(key, op.Dir, op.Recursive)
	}
}

// expire removes what is due. Its events are compared by a history watch.
func (p *pair) expire() {
	p.tick()
	before, now := p.tree.Index(), p.now()
	p.etcd.DeleteExpiredKeys(time.Unix(0, now))
	b := p.tree.Begin(now)
	events := b.Expire()
	b.End()
	p.logf("expire: %d events", len(events))
	p.equal("index after expiry", fmt.Sprint(p.tree.Index()), fmt.Sprint(p.etcd.Index()))
	for i, e := range events {
		w, err := p.etcd.Watch(prefix, true, false, before+1+uint64(i))
		if err != nil {
			p.t.Fatal(err)
		}
		p.equal("expiry", string(e.JSON()), p.showEtcd(<-w.EventChan(), nil))
		w.Remove()
	}
}

func (p *pair) get(key string, recursive, sorted bool) {
	p.logf("get %s recursive=%v sorted=%v", key, recursive, sorted)
	// etcd's order is random unless sorted is asked for; ours is compared after sorting.
	want := p.showEtcd(p.etcd.Get(path.Join(prefix, key), recursive, true))
	a, err := p.tree.Get(key, recursive, sorted)
	if err != nil {
		p.equal("get "+key, showError(err), want)
		return
	}
	got := string(a.AppendJSON(nil, p.now()))
	if !sorted {
		got, want = p.sorted(got), p.sorted(want)
	}
	p.equal("get "+key, got, want)
}

// sorted returns a listing in order.
func (p *pair) sorted(listing string) string {
	var e api.Event
	if err := json.Unmarshal([]byte(listing), &e); err != nil {
		p.t.Fatalf("%v: %s", err, listing)
	}
	if e.Node != nil {
		sortNodes(e.Node)
	}
	return string(encode(p.t, &e))
}

func sortNodes(n *api.Node) {
	slices.SortFunc(n.Nodes, func(a, b *api.Node) int { return strings.Compare(a.Key, b.Key) })
	for _, child := range n.Nodes {
		sortNodes(child)
	}
}

// compareAll compares everything, and once more after our state was saved and read back.
func (p *pair) compareAll() {
	p.get("/", true, true)
	p.get("/_h", true, true)
	var saved bytes.Buffer
	if _, err := p.tree.Snapshot().WriteTo(&saved); err != nil {
		p.t.Fatal(err)
	}
	p.tree = tree.New(1000)
	if err := p.tree.Restore(&saved); err != nil {
		p.t.Fatal(err)
	}
	p.get("/", true, true)
	for since := range p.tree.Index() {
		p.history("/", true, since+1)
	}
}

func (p *pair) equal(what, got, want string) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s:\n got %s\netcd %s", what, got, want)
	}
}

// showEtcd returns the JSON that etcd's server answers with: without the prefix, and without the
// refresh mark, which a clone does not have.
func (p *pair) showEtcd(e *v2store.Event, err error) string {
	if err != nil {
		var coded *v2error.Error
		if !errors.As(err, &coded) {
			p.t.Fatalf("etcd: %v", err)
		}
		coded.Cause = strings.TrimPrefix(coded.Cause, prefix)
		return string(encode(p.t, coded))
	}
	return string(encode(p.t, p.trim(e)))
}

func (p *pair) trim(e *v2store.Event) *v2store.Event {
	e = e.Clone()
	trimNode(e.Node)
	trimNode(e.PrevNode)
	return e
}

func trimNode(n *v2store.NodeExtern) {
	if n == nil {
		return
	}
	n.Key = strings.TrimPrefix(n.Key, prefix)
	for _, child := range n.Nodes {
		trimNode(child)
	}
}

func encode(t *testing.T, v any) []byte {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func showError(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return fmt.Sprintf("%T: %v", err, err)
	}
	b, _ := json.Marshal(v2error.Error{ErrorCode: int(e.Code), Message: e.Code.Error(), Cause: e.Cause, Index: e.Index})
	return string(b) + "\n"
}
