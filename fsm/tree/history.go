package tree

import (
	"fmt"
	"strings"

	"github.com/quorate/quorate/api"
)

// Limits of the history besides its capacity. Values of many megabytes must not make it outgrow the
// tree itself, but it never holds less than etcd's does.
const (
	historyBytes    = 256 << 20
	historyMinimum  = 1000
	historyOverhead = 200 // bytes of an event besides its strings, about

	// historyRendered is how many of the last events keep the JSON that they were delivered as.
	historyRendered = 1000
)

// history remembers the last events, one for each index from first to last. An index that no watcher
// may see has no event, but takes a place.
type history struct {
	ring        []*Event // event i is at ring[i%len(ring)]
	capacity    int
	first, last uint64 // empty when first > last
	bytes       int    // of the events, about
}

func newHistory(capacity int) history {
	return history{capacity: max(capacity, 1), first: 1}
}

func (h *history) len() int { return int(h.last + 1 - h.first) }

// at returns the event at an index between first and last, or nil if it is not to be seen.
func (h *history) at(index uint64) *Event { return h.ring[index%uint64(len(h.ring))] }

// add appends the event of the next index, nil if it is not to be seen.
func (h *history) add(e *Event) {
	if h.len() == len(h.ring) && len(h.ring) < h.capacity {
		h.grow()
	}
	if h.len() == h.capacity {
		h.drop()
	}
	h.last++
	h.ring[h.last%uint64(len(h.ring))] = e
	h.bytes += eventBytes(e)
	if h.len() > historyRendered {
		if old := h.at(h.last - historyRendered); old != nil {
			old.rendered.Store(nil)
		}
	}
	for h.bytes > historyBytes && h.len() > historyMinimum {
		h.drop()
	}
}

// drop forgets the oldest event.
func (h *history) drop() {
	slot := &h.ring[h.first%uint64(len(h.ring))]
	h.bytes -= eventBytes(*slot)
	*slot = nil
	h.first++
}

// grow makes room, up to the capacity.
func (h *history) grow() {
	ring := make([]*Event, min(max(2*len(h.ring), 64), h.capacity))
	for i := h.first; i <= h.last; i++ {
		ring[i%uint64(len(ring))] = h.at(i)
	}
	h.ring = ring
}

func eventBytes(e *Event) int {
	if e == nil {
		return 0
	}
	n := historyOverhead + len(e.Node.Key) + len(e.Node.Value)
	if e.Prev != nil {
		n += len(e.Prev.Value) // shares its key with Node
	}
	return n
}

// cleared is the refusal of a watch that begins before the history (spec watch 4).
func (h *history) cleared(index uint64) refusal {
	return refusal{api.EventIndexCleared, fmt.Sprintf("the requested history has been cleared [%d/%d]", h.first, index)}
}

// inHistory says whether a watch on key sees an event of the past. The rules differ a little from
// those for live events: hidden keys are seen, and so are removals of directories above keys that
// did not exist (spec watch 4.1).
func inHistory(e *Event, key string, recursive bool) bool {
	if e == nil || e.Refresh {
		return false
	}
	return e.Node.Key == key ||
		recursive && below(e.Node.Key, key) ||
		e.Node.Dir && (e.Action == Delete || e.Action == Expire) && below(key, e.Node.Key)
}

// hiddenBelow says whether a key has a hidden component below dir.
func hiddenBelow(key, dir string) bool {
	return below(key, dir) && strings.LastIndex(key, "/_") >= len(strings.TrimSuffix(dir, "/"))
}

// below says that a key is a descendant of dir.
func below(key, dir string) bool {
	if dir == "/" {
		return key != "/"
	}
	return len(key) > len(dir) && key[len(dir)] == '/' && strings.HasPrefix(key, dir)
}
