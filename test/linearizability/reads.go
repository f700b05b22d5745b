package linearizability

import (
	"cmp"
	"slices"
	"time"
)

// CheckReads checks what one run of a member promises to those who stay with it: it never goes back, and
// it shows what it has acknowledged.
func CheckReads(h *History) []Violation {
	v := violations{check: "a member does not go back"}
	type life struct {
		member string
		number int
	}
	lives := map[life][]*Op{}
	for i := range h.Ops {
		o := &h.Ops[i]
		if o.Life >= 0 && (o.Outcome == OK || o.Outcome == Refused) {
			k := life{o.Member, o.Life}
			lives[k] = append(lives[k], o)
		}
	}
	for _, ops := range lives {
		slices.SortStableFunc(ops, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
		var told knowledge
		for _, o := range ops {
			index := max(o.Index, o.Event.Modified)
			if len(told) == 0 || index > told[len(told)-1].index {
				told = append(told, fact{o.Return, index, ""})
			}
		}
		for _, o := range ops {
			if floor, _ := told.before(o.Call); max(o.Index, o.Event.Modified) < floor {
				v.add("%s had shown index %d before: %v", o.Member, floor, o)
			}
		}
	}
	return v.result()
}

// CheckPosts checks the in-order keys: each was made at most once, those that were acknowledged exactly
// once, under a name that is its index, and in the order of time.
func CheckPosts(h *History) []Violation {
	v := violations{check: "in-order keys once and in order"}
	var acked []*Op
	made := map[string]string{} // the key by its value
	for _, w := range h.Watches {
		for _, e := range w.Events {
			if e.Action != "create" {
				continue
			}
			if other, ok := made[e.Value]; ok && other != e.Key {
				v.add("%q was made as %s and as %s", e.Value, other, e.Key)
			}
			made[e.Value] = e.Key
		}
	}
	for _, o := range h.byCall() {
		if o.Kind != Post || o.Outcome != OK {
			continue
		}
		acked = append(acked, o)
		if key, ok := made[o.Value]; ok && key != o.Event.Key {
			v.add("watchers saw it as %s: %v", key, o)
		}
		if want := inOrder(o.Key, o.Event.Modified); o.Event.Key != want {
			v.add("it should be named %s: %v", want, o)
		}
		for _, f := range h.Finals {
			if have, ok := f.Keys[o.Event.Key]; !ok || have != o.Event.State {
				v.add("%s holds %v in its place: %v", f.Member, have, o)
			}
		}
	}
	for _, f := range h.Finals {
		times := map[string]int{}
		for _, s := range f.Keys {
			times[s.Value]++
		}
		for i := range h.Ops {
			if o := &h.Ops[i]; o.Kind == Post && times[o.Value] > 1 {
				v.add("%s holds it %d times: %v", f.Member, times[o.Value], o)
			}
		}
	}
	byReturn := slices.Clone(acked)
	slices.SortStableFunc(byReturn, func(a, b *Op) int { return cmp.Compare(a.Return, b.Return) })
	for i, j := 0, 0; i < len(acked); i++ {
		o := acked[i]
		var highest *Op
		for ; j < len(byReturn) && byReturn[j].Return < o.Call; j++ {
			if highest == nil || byReturn[j].Event.Modified > highest.Event.Modified {
				highest = byReturn[j]
			}
		}
		if highest != nil && highest.Event.Modified >= o.Event.Modified {
			v.add("named before one that was done earlier, %s: %v", highest.Event.Key, o)
		}
	}
	return v.result()
}

// Lateness is how late a key may expire after a cluster is well. The server promises 2 s; the rest is for
// machines that have something else to do.
const Lateness = 12 * time.Second

// stalls is how many delays of the machine itself a key's end may meet, one after the other.
const stalls = 5

// Expiries is what was found out about keys that live for a time.
type Expiries struct {
	Violations []Violation
	// Late is how late keys expired that were due when the cluster was well, by client's clock.
	Late []time.Duration
}

// CheckTTL checks that no key with a TTL was gone before its time, and that it was soon after.
func CheckTTL(h *History) *Expiries {
	out := &Expiries{}
	if h.Stepped {
		return out
	}
	v := violations{check: "keys live as long as they should"}
	byValue := map[string]*Op{}
	for i := range h.Ops {
		if o := &h.Ops[i]; o.TTL > 0 {
			byValue[o.Value] = o
		}
	}
	expired := map[string]time.Duration{} // by value: when somebody knew
	for _, w := range h.Watches {
		for _, e := range w.Events {
			if e.Action != "expire" {
				continue
			}
			if e.Before == nil || byValue[e.Before.Value] == nil {
				v.add("event %d ends a key that was to live for ever: %v", e.Modified, e.Event)
				continue
			}
			if at, ok := expired[e.Before.Value]; !ok || e.At < at {
				expired[e.Before.Value] = e.At
			}
		}
	}
	for value, at := range expired {
		o := byValue[value]
		lived := time.Duration(o.TTL) * time.Second
		if at < o.Call+lived {
			v.add("it had expired by %v, %v early: %v", ms(at), o.Call+lived-at, o)
		}
		if due := max(o.Return+lived, h.Well); o.Outcome == OK && o.Return+lived >= h.Well && h.Steady {
			out.Late = append(out.Late, at-due)
			if at-due > Lateness+stalls*h.Stall {
				v.add("it expired at %v, %v late: %v", ms(at), at-due, o)
			}
		}
	}
	slices.Sort(out.Late)
	for _, f := range h.Finals {
		for key, s := range f.Keys {
			if o := byValue[s.Value]; o != nil {
				v.add("%s still holds %s: %v", f.Member, key, o)
			}
		}
	}
	out.Violations = v.result()
	return out
}

// CheckFinals checks that all members hold the same at the end, by their own checksums and by all that
// they list.
func CheckFinals(h *History) []Violation {
	v := violations{check: "members are equal"}
	for _, f := range h.Finals {
		first := h.Finals[0]
		if f.Index != first.Index || f.Checksum != first.Checksum {
			v.add("%s is at index %d with checksum %s, %s at %d with %s", first.Member, first.Index, first.Checksum, f.Member, f.Index, f.Checksum)
		}
		for key, s := range first.Keys {
			if have, ok := f.Keys[key]; !ok || have != s {
				v.add("%s: %s has %v, %s has %v", key, first.Member, s, f.Member, have)
			}
		}
		if len(f.Keys) > len(first.Keys) {
			v.add("%s has %d keys, %s has %d", first.Member, len(first.Keys), f.Member, len(f.Keys))
		}
	}
	return v.result()
}
