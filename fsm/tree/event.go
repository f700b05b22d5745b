package tree

import (
	"math"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/quorate/quorate/api"
)

// Event is one change of the tree. It is immutable, and shared by the answer to whoever made the
// change, all watchers, and the history.
type Event struct {
	Action Action
	// Node is what the change left; for a removal it has neither value nor expiry.
	Node *Node
	// Prev is what was there before, or nil.
	Prev  *Node
	Index uint64
	// Time is the tree's clock at the change, in Unix nanoseconds. Lifetimes in the event are shown
	// relative to it, however late it is delivered.
	Time int64
	// Offset is what makes Time, and the expiry of the nodes, the time of day, in nanoseconds.
	Offset int64
	// Refresh marks a change that watchers do not see.
	Refresh bool

	rendered atomic.Pointer[[]byte]
}

// Status returns the HTTP status of the answer: 201 when the event made something new, else 200.
func (e *Event) Status() int {
	if e.Action == Create || e.Action == Set && e.Prev == nil {
		return http.StatusCreated
	}
	return http.StatusOK
}

// JSON returns the event as one line of JSON with its newline. It is rendered once, for any number
// of watchers: callers must not modify it. Recent events keep it; where one answer is all there is
// to write, AppendJSON costs less.
func (e *Event) JSON() []byte {
	if p := e.rendered.Load(); p != nil {
		return *p
	}
	line := e.appendJSON(make([]byte, 0, e.sizeHint()))
	// Of several goroutines at once here, all return the same.
	if !e.rendered.CompareAndSwap(nil, &line) {
		if p := e.rendered.Load(); p != nil {
			return *p
		}
	}
	return line
}

// sizeHint is about the length of the event's JSON.
func (e *Event) sizeHint() int {
	n := 160 + len(e.Node.Key) + len(e.Node.Value)
	if e.Prev != nil {
		n += 160 + len(e.Prev.Key) + len(e.Prev.Value)
	}
	return n
}

// AppendJSON appends what JSON returns. With noValue (the noValueOnSuccess of a request) only the
// action is shown; delete and compareAndDelete ignore it, as in etcd (spec keys 7).
func (e *Event) AppendJSON(dst []byte, noValue bool) []byte {
	if noValue && !e.Action.removes() {
		dst = append(dst, `{"action":"`...)
		dst = append(dst, e.Action.String()...)
		return append(dst, "\"}\n"...)
	}
	if p := e.rendered.Load(); p != nil {
		return append(dst, *p...)
	}
	return e.appendJSON(dst)
}

// Wire returns the event in the types of package api.
func (e *Event) Wire() *api.Event {
	w := &api.Event{Action: e.Action.String(), Node: wireNode(e.Node, e.Time+e.Offset, e.Offset)}
	if e.Action.removes() {
		w.Node.Value = nil
	}
	if e.Prev != nil {
		w.PrevNode = wireNode(e.Prev, e.Time+e.Offset, e.Offset)
	}
	return w
}

// wireNode returns a node without children as it is shown at a time of day. The offset is that of Event.
func wireNode(n *Node, now, offset int64) *api.Node {
	w := &api.Node{Key: n.Key, Dir: n.Dir, ModifiedIndex: n.Modified, CreatedIndex: n.Created}
	if n.Key == "/" {
		w.Key = "" // the root has no key in answers
	}
	if !n.Dir {
		w.Value = &n.Value
	}
	if n.Expires != 0 {
		expires := timeOfDay(n.Expires, offset)
		at := time.Unix(0, expires).UTC()
		w.Expiration, w.TTL = &at, secondsLeft(expires, now)
	}
	return w
}

// timeOfDay is when a node expires, by the clocks of people. An end of time is not passed.
func timeOfDay(expires, offset int64) int64 {
	at := expires + offset
	switch {
	case offset > 0 && at < expires:
		return math.MaxInt64
	case offset < 0 && at > expires:
		return math.MinInt64
	}
	return at
}

// secondsLeft is the remaining life in seconds, rounded up; it is negative for what is overdue by a
// second or more (spec keys 9).
func secondsLeft(expires, now int64) int64 {
	left := expires - now
	seconds := left / int64(time.Second)
	if left%int64(time.Second) > 0 {
		seconds++
	}
	return seconds
}
