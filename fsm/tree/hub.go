package tree

import (
	"strings"
	"sync"
	"sync/atomic"
)

// hub tells watchers of live events. It finds them by the components of the event's path, so that
// the cost of an event does not grow with the number of watchers elsewhere.
type hub struct {
	mu    sync.Mutex // guards root and all below it, and the links of watchers
	root  watched
	count atomic.Int64 // watchers that are registered, or that read on in the history after a restore
}

// watched is a path that is watched, or has such paths below it.
type watched struct {
	parent           *watched
	name             string
	children         map[string]*watched
	plain, recursive watchList
}

// watchList is a list of watchers, linked through themselves.
type watchList struct{ first, last *Watcher }

func (l *watchList) add(w *Watcher) {
	w.prev, w.next = l.last, nil
	if l.last != nil {
		l.last.next = w
	} else {
		l.first = w
	}
	l.last = w
}

func (l *watchList) remove(w *Watcher) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.last = w.prev
	}
	w.prev, w.next = nil, nil
}

// list returns the one of the two lists that a watcher belongs to.
func (at *watched) list(w *Watcher) *watchList {
	if w.recursive {
		return &at.recursive
	}
	return &at.plain
}

// idle says that nobody watches the path or one below.
func (at *watched) idle() bool {
	return at.plain.first == nil && at.recursive.first == nil && len(at.children) == 0
}

// register adds a watcher, unless it was closed meanwhile.
func (h *hub) register(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w.mu.Lock()
	ended := w.ended
	w.mu.Unlock()
	if ended {
		return
	}
	at := &h.root
	for end := 0; end < len(w.path) && w.path != "/"; {
		start := end + 1
		end = nextSlash(w.path, start)
		name := w.path[start:end]
		child, ok := at.children[name]
		if !ok {
			child = &watched{parent: at, name: name}
			if at.children == nil {
				at.children = make(map[string]*watched)
			}
			at.children[name] = child
		}
		at = child
	}
	w.at = at
	at.list(w).add(w)
	if !w.counted {
		w.counted = true
		h.count.Add(1)
	}
}

// unregister removes a watcher if it is there.
func (h *hub) unregister(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(w)
}

// sendBack sends watchers to the history that is about to hold events, from first to last, that they
// were not told. The tree is locked, so none of them looks before the events are there.
func (h *hub) sendBack(first, last uint64) {
	if first > last {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.root.each(func(w *Watcher) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.since > last {
			return // it does not want them
		}
		h.detach(w)
		if !w.ended {
			w.since, w.past = max(w.since, first), true
			w.signal()
		}
	})
}

// each calls do with every watcher at or below a path. do may drop the watcher.
func (at *watched) each(do func(*Watcher)) {
	for _, child := range at.children {
		child.each(do)
	}
	for _, list := range []*watchList{&at.plain, &at.recursive} {
		for w := list.first; w != nil; {
			next := w.next
			do(w)
			w = next
		}
	}
}

// drop removes a watcher for good.
func (h *hub) drop(w *Watcher) {
	if w.at != nil {
		h.detach(w)
	}
	if w.counted {
		w.counted = false
		h.count.Add(-1)
	}
}

// detach takes a watcher from its path, and removes the paths that nobody watches any more.
func (h *hub) detach(w *Watcher) {
	at := w.at
	at.list(w).remove(w)
	w.at = nil
	for at.parent != nil && at.idle() {
		delete(at.parent.children, at.name)
		at = at.parent
	}
}

// notify tells the watchers that an event concerns (spec watch 3): those on its path; recursive ones
// above it, unless a component below theirs is hidden; and those on nodes that went with gone, the
// directory that the event removed.
func (h *hub) notify(e *Event, gone *dir) {
	if h.count.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	path := e.Node.Key
	hiddenFrom := strings.LastIndex(path, "/_")
	at := &h.root
	for end := 0; ; {
		exact := end == len(path)
		if exact {
			h.tellAll(at, e)
			break
		}
		if hiddenFrom < end {
			h.tell(&at.recursive, e)
		}
		start := end + 1
		end = nextSlash(path, start)
		child, ok := at.children[path[start:end]]
		if !ok {
			return
		}
		at = child
	}
	if gone != nil {
		h.notifyBelow(at, e, gone)
	}
}

// notifyBelow tells the watchers on the former descendants of a directory. It goes where watchers
// are; nodes that nobody watches are not visited.
func (h *hub) notifyBelow(at *watched, e *Event, gone *dir) {
	for name, child := range at.children {
		if sub, ok := gone.dirs[name]; ok {
			h.tellAll(child, e)
			h.notifyBelow(child, e, sub)
		} else if _, ok := gone.leaves[name]; ok {
			h.tellAll(child, e)
		}
	}
}

func (h *hub) tellAll(at *watched, e *Event) {
	h.tell(&at.plain, e)
	h.tell(&at.recursive, e)
}

// tell gives an event to the watchers in a list.
func (h *hub) tell(list *watchList, e *Event) {
	for w := list.first; w != nil; {
		next := w.next
		if e.Index >= w.since && !w.push(e) {
			h.drop(w)
		}
		w = next
	}
}
