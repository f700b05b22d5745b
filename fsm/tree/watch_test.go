package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// do carries out one write in a batch of its own.
func do(t testing.TB, tree *Tree, op Op) *Event {
	t.Helper()
	b := tree.Begin(epoch)
	defer b.End()
	e, err := b.Do(op)
	if err != nil {
		t.Fatalf("%v %s: %v", op.Action, op.Path, err)
	}
	return e
}

func set(t testing.TB, tree *Tree, path, value string) *Event {
	t.Helper()
	return do(t, tree, Op{Action: Set, Path: path, Value: value})
}

func watch(t testing.TB, tree *Tree, path string, recursive, stream bool, since uint64) *Watcher {
	t.Helper()
	w, err := tree.Watch(path, recursive, stream, since)
	if err != nil {
		t.Fatalf("watch %s since %d: %v", path, since, err)
	}
	t.Cleanup(w.Close)
	return w
}

// next waits for an event, for as long as a loaded machine may need.
func next(t testing.TB, w *Watcher) *Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	e, err := w.Next(ctx)
	if err != nil {
		t.Fatalf("next event of the watch on %s: %v", w.path, err)
	}
	return e
}

// A stream that is read more slowly than its queue fills gets the rest from the history.
func TestSlowStreamReadsOn(t *testing.T) {
	const events = 5 * watcherQueue
	tree := New(events)
	slow := watch(t, tree, "/d", true, true, 0)
	var want []uint64
	for i := range events {
		if i%10 == 9 {
			set(t, tree, "/d/_hidden", "is not seen by those who watch from above")
			continue
		}
		want = append(want, set(t, tree, "/d/k", fmt.Sprint(i)).Index)
	}
	if got := tree.Stats().Watchers; got != 0 {
		t.Errorf("with a full queue %d watchers are told of events, want 0", got)
	}
	for i, index := range want {
		if got := next(t, slow).Index; got != index {
			t.Fatalf("event %d has index %d, want %d", i, got, index)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if e, err := slow.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("after the last event: %v, %v; want to wait", e, err)
	}
	if got := tree.Stats().Watchers; got != 1 {
		t.Errorf("caught up: %d watchers, want 1", got)
	}
	live := set(t, tree, "/d/k", "live")
	if got := next(t, slow); got != live {
		t.Errorf("then came event %d, want the live one, %d", got.Index, live.Index)
	}
}

// A stream that is slower than the history ends, and does not leave out anything silently.
func TestStreamSlowerThanTheHistoryEnds(t *testing.T) {
	tree := New(watcherQueue)
	slow := watch(t, tree, "/k", false, true, 0)
	for range 3 * watcherQueue {
		set(t, tree, "/k", "v")
	}
	for i := range watcherQueue {
		if got, want := next(t, slow).Index, uint64(i+1); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	for range 2 {
		if e, err := slow.Next(t.Context()); !errors.Is(err, ErrWatcherClosed) {
			t.Errorf("drained: event %v, error %v, want %v", e, err, ErrWatcherClosed)
		}
	}
}

// A stream reads a long past in portions, while writes go on, and misses nothing.
func TestStreamCatchesUp(t *testing.T) {
	const past = 3*scanStep + 500
	tree := New(10 * scanStep)
	for range past {
		set(t, tree, "/k", "past")
	}
	w := watch(t, tree, "/k", false, true, 1)
	if got := tree.Stats().Watchers; got != 0 {
		t.Errorf("still in the past: %d watchers, want 0", got)
	}
	for i := range past + 100 {
		e := next(t, w)
		if want := uint64(i + 1); e.Index != want {
			t.Fatalf("event %d, want %d", e.Index, want)
		}
		if i%(past/100) == 0 {
			set(t, tree, "/k", "meanwhile")
		}
	}
	if got := tree.Stats().Watchers; got != 1 {
		t.Errorf("caught up: %d watchers, want 1", got)
	}
	live := set(t, tree, "/k", "live")
	for e := next(t, w); e != live; e = next(t, w) {
		if e.Index > live.Index {
			t.Fatalf("event %d is missing", live.Index)
		}
	}
}

// The past may have no match for long stretches.
func TestWatchSearchesAllOfThePast(t *testing.T) {
	tree := New(10 * scanStep)
	b := tree.Begin(epoch)
	b.Skip(5 * scanStep)
	b.End()
	want := set(t, tree, "/k", "v")
	for _, stream := range []bool{false, true} {
		if got := next(t, watch(t, tree, "/k", false, stream, 1)); got != want {
			t.Errorf("stream %v: event %d, want %d", stream, got.Index, want.Index)
		}
		before := tree.Stats().Watchers
		w := watch(t, tree, "/other", false, stream, 1)
		if got := tree.Stats().Watchers; got != before+1 {
			t.Errorf("stream %v: %d watchers more, want 1", stream, got-before)
		}
		w.Close()
	}
}

// A stream that reads the past more slowly than the history forgets it ends instead of leaving a gap.
func TestHistoryOvertakesStream(t *testing.T) {
	tree := New(2 * watcherQueue)
	for range 2 * watcherQueue {
		set(t, tree, "/k", "v")
	}
	w := watch(t, tree, "/k", false, true, 1)
	for range 2 * watcherQueue {
		set(t, tree, "/k", "v")
	}
	for i := range watcherQueue {
		if got, want := next(t, w).Index, uint64(i+1); got != want {
			t.Fatalf("event %d, want %d", got, want)
		}
	}
	if e, err := w.Next(t.Context()); !errors.Is(err, ErrWatcherClosed) {
		t.Errorf("after the gap: event %v, error %v; want %v", e, err, ErrWatcherClosed)
	}
}

func TestNextWaits(t *testing.T) {
	tree := New(10)
	w := watch(t, tree, "/k", false, true, 0)
	if got := w.StartIndex(); got != 0 {
		t.Errorf("start index %d, want 0", got)
	}

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Next(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: error %v", err)
	}

	got := make(chan *Event)
	go func() {
		for {
			e, err := w.Next(context.Background())
			if err != nil {
				close(got)
				return
			}
			got <- e
		}
	}()
	for range 3 {
		want := set(t, tree, "/k", "v")
		if e := <-got; e != want {
			t.Errorf("event %d, want %d", e.Index, want.Index)
		}
	}
	w.Close()
	if e, ok := <-got; ok {
		t.Errorf("event %d after close", e.Index)
	}
}

// Watchers come and go while writes go on; each sees its events in order and without gaps.
func TestConcurrentWatchers(t *testing.T) {
	const writes = 2000
	tree := New(writes)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			since := uint64(1)
			for since <= writes {
				w, err := tree.Watch("/d", true, i%2 == 0, since)
				if err != nil {
					t.Error(err)
					return
				}
				for range 1 + i*7 {
					e, err := w.Next(context.Background())
					if errors.Is(err, ErrWatcherClosed) {
						break // one-shot, or too slow
					}
					if err != nil || e.Index != since {
						t.Errorf("reader %d: event %v, error %v, want index %d", i, e, err, since)
						w.Close()
						return
					}
					since++
					if _ = e.JSON(); since > writes {
						break
					}
				}
				w.Close()
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			if _, err := tree.Get("/", true, true); err != nil {
				t.Error(err)
			}
			tree.Snapshot().Release()
		}
	})
	for i := range writes {
		set(t, tree, fmt.Sprintf("/d/%d/k", i%10), "v")
	}
	wg.Wait()
	if got := tree.Stats().Watchers; got != 0 {
		t.Errorf("%d watchers are left", got)
	}
	if len(tree.hub.root.children) != 0 {
		t.Errorf("paths are left that nobody watches")
	}
}

// Restore keeps the watchers, and gives them the events that they missed and those that follow.
func TestWatchersSurviveRestore(t *testing.T) {
	tree, other := New(100), New(100)
	for i := range 20 {
		set(t, other, fmt.Sprintf("/k%d", i), "v")
	}
	w := watch(t, tree, "/k3", false, true, 0)
	future := watch(t, tree, "/k3", false, true, 22)
	copyState(t, other, tree)
	if got := next(t, w).Index; got != 4 {
		t.Errorf("the watcher got event %d, want 4, which came with the snapshot", got)
	}
	if got := set(t, tree, "/k3", "first"); next(t, w) != got {
		t.Errorf("the watcher missed event %d", got.Index)
	}
	if got := set(t, tree, "/k3", "second"); next(t, future) != got {
		t.Errorf("the watcher from 22 missed event %d", got.Index)
	}
	// The history is that of the snapshot.
	if got := next(t, watch(t, tree, "/k1", false, false, 1)).Index; got != 2 {
		t.Errorf("event %d of the past, want 2", got)
	}
}

func TestIdleWatcherSize(t *testing.T) {
	const n = 20000
	tree := New(10)
	watchers := make([]*Watcher, n)
	before := heapInUse()
	for i := range watchers {
		w, err := tree.Watch(fmt.Sprintf("/services/%d", i), true, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.take() // as if waiting
		watchers[i] = w
	}
	size := (heapInUse() - before) / n
	t.Logf("%d bytes a watcher, each on a path of its own", size)
	if size > 700 {
		t.Errorf("%d bytes a watcher, want a few hundred", size)
	}
	for _, w := range watchers {
		w.Close()
	}
	if len(tree.hub.root.children) != 0 {
		t.Errorf("paths are left that nobody watches")
	}
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRestoreGoesOnWithWatchers gives a tree the snapshot of one that is further, as a member gets it
// that was away for long.
func TestRestoreGoesOnWithWatchers(t *testing.T) {
	const before, missed = 10, 5
	ahead, behind := New(1000), New(1000)
	for i := range before {
		set(t, ahead, "/k", fmt.Sprint(i))
		set(t, behind, "/k", fmt.Sprint(i))
	}
	stream := watch(t, behind, "/", true, true, before) // has an event that was not read yet
	once := watch(t, behind, "/k", false, false, 0)
	future := watch(t, behind, "/k", false, true, before+missed)
	elsewhere := watch(t, behind, "/other", false, true, 0)
	closed := watch(t, behind, "/k", false, true, 0)
	closed.Close()
	waiting := watch(t, behind, "/k", false, false, 0)
	got := make(chan *Event)
	go func() {
		e, err := waiting.Next(context.Background())
		if err != nil {
			t.Errorf("watcher that waits: %v", err)
		}
		got <- e
	}()
	for i := range missed {
		set(t, ahead, "/k", fmt.Sprint("missed ", i))
	}
	if err := behind.Restore(bytes.NewReader(save(t, ahead))); err != nil {
		t.Fatal(err)
	}
	if e := <-got; e.Index != before+1 {
		t.Errorf("watcher that waits: event %d, want %d", e.Index, before+1)
	}
	set(t, behind, "/k", "live")
	set(t, behind, "/other", "live")

	for want := uint64(before); want <= before+missed+2; want++ {
		if e := next(t, stream); e.Index != want {
			t.Errorf("stream: event %d, want %d", e.Index, want)
		}
	}
	if e := next(t, once); e.Index != before+1 {
		t.Errorf("watcher for one event: event %d, want %d", e.Index, before+1)
	}
	for _, want := range []uint64{before + missed, before + missed + 1} {
		if e := next(t, future); e.Index != want {
			t.Errorf("watcher from later on: event %d, want %d", e.Index, want)
		}
	}
	if e := next(t, elsewhere); e.Index != before+missed+2 {
		t.Errorf("watcher of another key: event %d, want %d", e.Index, before+missed+2)
	}
	if _, err := closed.Next(t.Context()); !errors.Is(err, ErrWatcherClosed) {
		t.Errorf("closed watcher: %v, want %v", err, ErrWatcherClosed)
	}
	// Those that are read to the end wait for more; the others have ended.
	if got, want := behind.Stats().Watchers, uint64(3); got != want {
		t.Errorf("%d watchers are left, want %d", got, want)
	}
}

// TestRestoreEndsWatchersThatMissedTooMuch has a history that does not reach back far enough.
func TestRestoreEndsWatchersThatMissedTooMuch(t *testing.T) {
	ahead, behind := New(3), New(3)
	set(t, ahead, "/k", "0")
	set(t, behind, "/k", "0")
	w := watch(t, behind, "/k", false, true, 1)
	for i := range 5 {
		set(t, ahead, "/k", fmt.Sprint("missed ", i))
	}
	if err := behind.Restore(bytes.NewReader(save(t, ahead))); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Index != 1 {
		t.Errorf("event %d, want the one that it had", e.Index)
	}
	if e, err := w.Next(t.Context()); !errors.Is(err, ErrWatcherClosed) {
		t.Errorf("after a gap: %v, %v, want %v", e, err, ErrWatcherClosed)
	}
}
