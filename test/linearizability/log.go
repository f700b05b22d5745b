package linearizability

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sort"
	"time"
)

// eventLog is the one log that all watchers have seen, and what it makes of every key.
type eventLog struct {
	start, end uint64 // of indexes that the log covers: (start, end]
	events     map[uint64]*logged
	versions   map[string][]version
}

// logged is an event and when the first watcher had it.
type logged struct {
	Event
	at     time.Duration
	member string
}

// version is what a key was from an index on; nil when it was not there.
type version struct {
	index uint64
	state *State
}

// CheckLog puts together what all watchers saw, and holds every answer against it.
func CheckLog(h *History) []Violation {
	v := violations{check: "one log of events"}
	l := buildLog(h, &v)
	l.replay(&v)
	out := v.result()
	out = append(out, l.checkWrites(h)...)
	out = append(out, l.checkAnswers(h)...)
	return append(out, l.checkFinals(h)...)
}

// buildLog merges what the watchers saw, which must be the same for all of them.
func buildLog(h *History, v *violations) *eventLog {
	l := &eventLog{start: h.Start, end: h.Start, events: map[uint64]*logged{}, versions: map[string][]version{}}
	for _, w := range h.Watches {
		last := w.From - 1
		for _, e := range w.Events {
			if e.Modified <= last {
				v.add("watcher %d got event %d from %s after it had got %d", w.Client, e.Modified, e.Member, last)
				continue
			}
			last = e.Modified
			have, ok := l.events[e.Modified]
			switch {
			case !ok:
				l.events[e.Modified] = &logged{Event: e.Event, at: e.At, member: e.Member}
			case !have.same(e.Event):
				v.add("index %d is two events: %v from %s; %v from %s", e.Modified, have.Event, have.member, e.Event, e.Member)
			case e.At < have.at:
				have.at, have.member = e.At, e.Member
			}
		}
		l.end = max(l.end, last)
	}
	indexes := slices.Sorted(maps.Keys(l.events))
	for _, w := range h.Watches {
		l.checkGaps(w, indexes, v)
	}
	return l
}

// checkGaps says which events of the log a watcher did not get, between those it did.
func (l *eventLog) checkGaps(w Watch, indexes []uint64, v *violations) {
	if len(w.Events) == 0 {
		return
	}
	got := make(map[uint64]bool, len(w.Events))
	for _, e := range w.Events {
		got[e.Modified] = true
	}
	last := w.Events[len(w.Events)-1].Modified
	missing := []uint64{}
	for _, i := range indexes {
		if i >= w.From && i <= last && !got[i] {
			missing = append(missing, i)
		}
	}
	if len(missing) > 0 {
		next := sort.Search(len(w.Events), func(i int) bool { return w.Events[i].Modified > missing[0] })
		v.add("watcher %d, which went from %d to %d, missed %d events, the first at index %d; the next event came from %s",
			w.Client, w.From, last, len(missing), missing[0], w.Events[next].Member)
	}
}

// replay follows each key through the log. Every event must make sense after the one before.
func (l *eventLog) replay(v *violations) {
	now := map[string]*State{}
	for _, i := range slices.Sorted(maps.Keys(l.events)) {
		e := l.events[i]
		before := now[e.Key]
		switch {
		case (before == nil) != (e.Before == nil), before != nil && *before != *e.Before:
			v.add("event %d does not follow from what was before: %v; the log has %v", i, e.Event, describe(before))
		case e.Action == "create" && before != nil:
			v.add("event %d creates what was there: %v", i, e.Event)
		case e.Action == "set" || e.Action == "create":
			if e.Created != i {
				v.add("event %d is not the creation of its node: %v", i, e.Event)
			}
		case before == nil:
			v.add("event %d changes what was not there: %v", i, e.Event)
		case e.Created != before.Created:
			v.add("event %d changes the createdIndex from %d: %v", i, before.Created, e.Event)
		}
		var state *State
		if !e.removes() {
			s := e.State
			state = &s
		}
		now[e.Key] = state
		l.versions[e.Key] = append(l.versions[e.Key], version{i, state})
	}
}

func describe(s *State) string {
	if s == nil {
		return "nothing"
	}
	return fmt.Sprintf("%q (created %d, modified %d)", s.Value, s.Created, s.Modified)
}

// at returns the key as it was at an index.
func (l *eventLog) at(key string, index uint64) *State {
	versions := l.versions[key]
	i := sort.Search(len(versions), func(i int) bool { return versions[i].index > index })
	if i == 0 {
		return nil
	}
	return versions[i-1].state
}

// actions are how events name what the operations do.
var actions = map[Kind]string{
	Put: "set", CASValue: "compareAndSwap", CASIndex: "compareAndSwap",
	Delete: "delete", CAD: "compareAndDelete", Create: "create", Post: "create",
}

// explains says whether the event is what the operation does.
func (o *Op) explains(e Event) bool {
	switch {
	case e.Action != actions[o.Kind]:
		return false
	case o.Kind == Post:
		return e.Key == inOrder(o.Key, e.Modified)
	case e.Key != o.Key:
		return false
	case o.Kind == CASIndex:
		return e.Before != nil && e.Before.Modified == o.PrevIndex
	case o.Prev != "":
		return e.Before != nil && e.Before.Value == o.Prev
	}
	return true
}

// inOrder is the name of an in-order key.
func inOrder(dir string, index uint64) string { return fmt.Sprintf("%s/%020d", dir, index) }

// checkWrites looks for each write in the log, and for the cause of each event.
func (l *eventLog) checkWrites(h *History) []Violation {
	v := violations{check: "acknowledged writes are there, and all writes once"}
	owners := map[uint64]*Op{}
	byValue := map[string]*Op{}
	lostDeletes := map[string]int{} // by key
	for _, o := range h.byCall() {
		if !o.Kind.writes() {
			continue
		}
		if o.Value != "" {
			byValue[o.Value] = o
		}
		if o.Outcome == Lost && (o.Kind == Delete || o.Kind == CAD) {
			lostDeletes[o.Key]++
		}
		if o.Outcome != OK {
			continue
		}
		i := o.Event.Modified
		if other, ok := owners[i]; ok {
			v.add("index %d was given to two writes: %v; %v", i, other, o)
		}
		owners[i] = o
		e, ok := l.events[i]
		switch {
		case i > l.end:
			if h.Complete {
				v.add("no watcher came as far as: %v", o)
			}
		case !ok:
			v.add("acknowledged, but in no watcher's log: %v", o)
		case !e.same(o.Event):
			v.add("acknowledged as %v, but the log has %v", o, e.Event)
		}
	}
	made := map[string]uint64{} // by value
	for _, i := range slices.Sorted(maps.Keys(l.events)) {
		e := l.events[i]
		if e.Action == "expire" {
			continue
		}
		owner := owners[i]
		if e.removes() {
			if owner == nil {
				if lostDeletes[e.Key]--; lostDeletes[e.Key] < 0 {
					v.add("nobody asked for event %d: %v", i, e.Event)
				}
			}
			continue
		}
		if first, ok := made[e.Value]; ok {
			v.add("done twice, at index %d and %d: %v", first, i, byValue[e.Value])
		}
		made[e.Value] = i
		asked := byValue[e.Value]
		switch {
		case asked == nil:
			v.add("nobody asked for event %d: %v", i, e.Event)
		case asked.Outcome == Refused || asked.Outcome == Unsent:
			v.add("done at index %d although it was not: %v", i, asked)
		case !asked.explains(e.Event):
			v.add("event %d, %v, is not what was asked for: %v", i, e.Event, asked)
		}
	}
	return v.result()
}

// checkAnswers holds the answers to reads, and refusals, against the log at the index that they name;
// and that index against what was known to anybody when they were asked for.
func (l *eventLog) checkAnswers(h *History) []Violation {
	v := violations{check: "answers agree with the log and with time"}
	past := known(h)
	for _, o := range h.byCall() {
		index := o.Index
		switch {
		case o.Outcome == Unsent:
			continue
		case o.Outcome == Lost:
			e := l.made(o)
			if e == nil {
				continue
			}
			index = e.Modified
		case o.Outcome == OK && o.Kind.writes():
			index = o.Event.Modified
		default:
			l.checkAnswer(o, &v)
		}
		if o.Kind == Get {
			continue // may be old
		}
		floor, by := past.before(o.Call)
		if index < floor || o.Kind.writes() && o.Outcome != Refused && index == floor {
			v.add("index %d was known before (%s), when this was asked for: %v", floor, by, o)
		}
	}
	return v.result()
}

// made returns the event of a write that had no answer, if it was done.
func (l *eventLog) made(o *Op) *logged {
	if o.Value == "" || !o.Kind.writes() {
		return nil
	}
	versions := l.versions[o.Key]
	if o.Kind == Post {
		return nil
	}
	for _, ver := range versions {
		if ver.state != nil && ver.state.Value == o.Value {
			return l.events[ver.index]
		}
	}
	return nil
}

// checkAnswer checks an answer that describes a key at an index.
func (l *eventLog) checkAnswer(o *Op, v *violations) {
	if o.Index < l.start && o.Kind == Get {
		// A member that has just been started and knows nothing yet.
		if o.Outcome == OK {
			v.add("there was no such thing yet: %v", o)
		}
		return
	}
	if o.Index > l.end {
		return // only changes of members can be there, which are no events
	}
	state := l.at(o.Key, o.Index)
	switch {
	case o.Outcome == OK:
		if state == nil || *state != o.Event.State {
			v.add("at that index the log has %s: %v", describe(state), o)
		}
	case o.Code == 100:
		if state != nil {
			v.add("at that index the log has %s: %v", describe(state), o)
		}
	case o.Code == 105:
		if state == nil {
			v.add("at that index the log has nothing: %v", o)
		}
	case o.Code == 101:
		_, actual := compared(o.Cause)
		if state == nil || actual != state.Value && actual != fmt.Sprint(state.Modified) {
			v.add("at that index the log has %s: %v", describe(state), o)
		}
	default:
		v.add("an answer that no request here can have: %v", o)
	}
}

// knowledge is the highest index that anybody had been told by a time.
type knowledge []fact

type fact struct {
	at    time.Duration
	index uint64
	by    string
}

func known(h *History) knowledge {
	var facts []fact
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Outcome == OK || o.Outcome == Refused {
			facts = append(facts, fact{o.Return, max(o.Index, o.Event.Modified), "client of " + o.Member})
		}
	}
	for _, w := range h.Watches {
		for _, e := range w.Events {
			facts = append(facts, fact{e.At, e.Modified, "watcher of " + e.Member})
		}
	}
	slices.SortStableFunc(facts, func(a, b fact) int { return cmp.Compare(a.at, b.at) })
	out := facts[:0]
	for _, f := range facts {
		if len(out) == 0 || f.index > out[len(out)-1].index {
			out = append(out, f)
		}
	}
	return out
}

// before returns the highest index that was known before a time.
func (k knowledge) before(t time.Duration) (uint64, string) {
	i := sort.Search(len(k), func(i int) bool { return k[i].at >= t })
	if i == 0 {
		return 0, ""
	}
	return k[i-1].index, k[i-1].by
}

// checkFinals compares what members hold at the end with what the log makes of every key.
func (l *eventLog) checkFinals(h *History) []Violation {
	v := violations{check: "what members hold is what the log says"}
	for _, f := range h.Finals {
		for key := range l.versions {
			want := l.at(key, f.Index)
			have, ok := f.Keys[key]
			if ok != (want != nil) || ok && have != *want {
				v.add("%s holds %s = %v at index %d, the log has %s", f.Member, key, have, f.Index, describe(want))
			}
		}
		for key, have := range f.Keys {
			if _, ok := l.versions[key]; !ok {
				v.add("%s holds %s = %v at index %d, of which the log knows nothing", f.Member, key, have, f.Index)
			}
		}
	}
	return v.result()
}
