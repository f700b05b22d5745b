package tree

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// ErrWatcherClosed is returned by Next when no more events will come.
var ErrWatcherClosed = errors.New("watcher is closed")

const (
	// watcherQueue is how many live events wait for a slow reader. It gets those that follow from the
	// history, as long as they are there.
	watcherQueue = 100
	// scanStep is how many past events are looked at under the read lock in one go.
	scanStep = 4096
)

// Watcher receives the events of one watch. Close it when done.
//
// It reads past events in portions, straight from the history, and is then registered to be told of
// live ones, which wait in its queue. When that is full it goes back to reading the history.
type Watcher struct {
	tree      *Tree
	path      string
	recursive bool
	stream    bool
	start     uint64 // index of the tree when the watch began
	since     uint64 // index of the first event wanted; of the next one to look at, in the past

	// The list that the hub keeps for the path; at is nil while the watcher is not registered. The
	// hub's lock guards these.
	at         *watched
	prev, next *Watcher
	counted    bool // by the hub

	mu    sync.Mutex // guards what follows; taken after the hub's lock
	queue []*Event
	past  bool          // the history has not been read to its end
	live  bool          // it was, and what has happened since is seen by the rules for live events
	ended bool          // no event will come after those in the queue
	wake  chan struct{} // made when someone waits
}

// Watch begins a watch on path, and with recursive set on all below it. It delivers the first event
// at or after waitIndex (0 means from now on), or with stream set all of them. The error is an
// *api.Error with code 401, when the history no longer has waitIndex.
func (t *Tree) Watch(path string, recursive, stream bool, waitIndex uint64) (*Watcher, error) {
	w := &Watcher{
		tree: t, path: strings.Clone(Clean(path)), recursive: recursive, stream: stream,
		since: waitIndex, past: true,
	}
	t.mu.RLock()
	w.start = t.index
	if waitIndex == 0 {
		w.since = t.index + 1
	}
	requested := w.since
	ok := w.scan()
	t.mu.RUnlock()
	for ok && w.searching() {
		ok = w.catchUp()
	}
	if !ok {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return nil, t.history.cleared(requested).at(t.index)
	}
	return w, nil
}

// StartIndex returns the tree's index when the watch began.
func (w *Watcher) StartIndex() uint64 { return w.start }

// Next returns the next event. It returns ErrWatcherClosed after Close; after the one event of a
// watch that is no stream; and when a stream was so slow that the history no longer has what comes
// next, so that its reader knows that it has a gap. Only one goroutine may call it at a time.
func (w *Watcher) Next(ctx context.Context) (*Event, error) {
	for {
		e, wake, past := w.take()
		switch {
		case e != nil:
			return e, nil
		case past:
			if !w.catchUp() {
				w.end(false) // the history has moved on without it
				w.tree.hub.unregister(w)
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		case wake == nil:
			return nil, ErrWatcherClosed
		default:
			select {
			case <-wake:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	}
}

// take returns the next event; or what to wait for; or that the past is to be read; or nothing when
// the watcher has ended.
func (w *Watcher) take() (e *Event, wake <-chan struct{}, past bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.queue); n > 0 {
		e = w.queue[0]
		copy(w.queue, w.queue[1:])
		w.queue[n-1] = nil
		w.queue = w.queue[:n-1]
		if n == 1 && cap(w.queue) > 8 {
			w.queue = nil
		}
		return e, nil, false
	}
	if w.ended {
		return nil, nil, false
	}
	if w.past {
		return nil, nil, true
	}
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
	}
	return nil, w.wake, false
}

// searching says that the history has not been read to its end, and no event was found in it.
func (w *Watcher) searching() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.past && len(w.queue) == 0
}

// catchUp reads a portion of the past. It returns false if the history no longer has it.
func (w *Watcher) catchUp() bool {
	w.tree.mu.RLock()
	defer w.tree.mu.RUnlock()
	return w.scan()
}

// scan is catchUp for a caller that holds the read lock. While it is held no event can be missed
// between the end of the history and the registration.
func (w *Watcher) scan() bool {
	h := &w.tree.history
	if w.since < h.first {
		return false
	}
	w.mu.Lock()
	for n := 0; w.since <= h.last && n < scanStep && len(w.queue) < watcherQueue; n++ {
		e := h.at(w.since)
		w.since++
		if inHistory(e, w.path, w.recursive) && !(w.live && hiddenBelow(e.Node.Key, w.path)) {
			w.queue = append(w.queue, e)
			if !w.stream {
				w.past, w.ended = false, true
				w.mu.Unlock()
				w.tree.hub.unregister(w)
				return true
			}
		}
	}
	done := w.since > h.last
	w.past, w.live = !done, w.live || done
	w.mu.Unlock()
	if done {
		w.tree.hub.register(w)
	}
	return true
}

// push queues a live event, or has the watcher read the history from there on. It says whether the
// watcher is to be told of the next one.
func (w *Watcher) push(e *Event) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	if len(w.queue) < watcherQueue {
		w.queue = append(w.queue, e)
		w.ended = !w.stream
	} else {
		w.since, w.past = e.Index, true
	}
	w.signal()
	return !w.ended && !w.past
}

// end lets no more events in, and with drop set none out.
func (w *Watcher) end(drop bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if drop {
		w.queue = nil
	}
	w.signal()
}

func (w *Watcher) signal() {
	if w.wake != nil {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Close ends the watch. It may be called at any time, more than once, and by any goroutine.
func (w *Watcher) Close() {
	w.end(true)
	w.tree.hub.unregister(w)
}
