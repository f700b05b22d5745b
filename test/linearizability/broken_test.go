package linearizability

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// book writes a history as a correct server would cause it: one operation after the other, 10 ms each,
// and two watchers that get each event 1 ms later.
type book struct {
	History
	now   time.Duration
	keys  map[string]State
	index uint64
}

const tick = 10 * time.Millisecond

func newBook() *book {
	b := &book{keys: map[string]State{}, index: 4}
	b.Start, b.Well, b.Steady, b.Complete = b.index, time.Hour, true, true
	b.Watches = []Watch{{Client: 100, From: 5}, {Client: 101, From: 5}}
	return b
}

// do carries out an operation and returns its place in the history.
func (b *book) do(o Op) int {
	o.Call = b.now
	b.now += tick
	o.Return = b.now - 1
	if o.Member == "" {
		o.Member = "m0"
	}
	key := o.Key
	if o.Kind == Post {
		key = inOrder(o.Key, b.index+1)
	}
	state, there := b.keys[key]
	o.Outcome = OK
	refuse := func(code int, cause string) { o.Outcome, o.Code, o.Cause = Refused, code, cause }
	switch {
	case !there && o.Kind != Put && o.Kind != Create && o.Kind != Post:
		refuse(100, key)
	case there && o.Kind == Create:
		refuse(105, key)
	case (o.Kind == CASValue || o.Kind == CAD) && o.Prev != state.Value:
		refuse(101, fmt.Sprintf("[%s != %s]", o.Prev, state.Value))
	case o.Kind == CASIndex && o.PrevIndex != state.Modified:
		refuse(101, fmt.Sprintf("[%d != %d]", o.PrevIndex, state.Modified))
	case o.Kind == Get || o.Kind == QGet:
		o.Event = Event{Action: "get", Key: key, State: state}
	default:
		o.Event = b.event(actions[o.Kind], key, o.Value)
	}
	o.Index = b.index
	b.Ops = append(b.Ops, o)
	return len(b.Ops) - 1
}

// event changes a key and tells the watchers.
func (b *book) event(action, key, value string) Event {
	b.index++
	e := Event{Action: action, Key: key, State: State{Value: value, Created: b.index, Modified: b.index}}
	if before, there := b.keys[key]; there {
		e.Before = &before
		if action != "set" {
			e.Created = before.Created
		}
	}
	b.keys[key] = e.State
	if e.removes() {
		delete(b.keys, key)
	}
	for i := range b.Watches {
		w := &b.Watches[i]
		w.Events = append(w.Events, Seen{At: b.now + tick/10, Member: fmt.Sprintf("m%d", i), Event: e})
	}
	return e
}

// end notes what all members hold.
func (b *book) end() *History {
	for i := range 3 {
		f := Final{Member: fmt.Sprintf("m%d", i), Index: b.index, Checksum: "same", Keys: map[string]State{}}
		for k, s := range b.keys {
			f.Keys[k] = s
		}
		b.Finals = append(b.Finals, f)
	}
	return &b.History
}

const a = registerDir + "/a"

// story is a history with some of everything. The places of operations that tests change are named.
type story struct {
	*book
	put, cas, qget, get, post, post2, ttl, last int
}

func tell() story {
	s := story{book: newBook()}
	s.do(Op{Kind: Get, Key: a})
	s.do(Op{Kind: Put, Key: a, Value: "v1"})
	s.put = s.do(Op{Kind: Put, Key: a, Value: "v2", Member: "m1"})
	s.get = s.do(Op{Kind: Get, Key: a, Member: "m1"})
	s.cas = s.do(Op{Kind: CASValue, Key: a, Prev: "v2", Value: "v3"})
	s.do(Op{Kind: CASValue, Key: a, Prev: "v2", Value: "v4"})
	s.do(Op{Kind: CASIndex, Key: a, PrevIndex: s.index, Value: "v5"})
	s.do(Op{Kind: CASIndex, Key: a, PrevIndex: 1, Value: "v6"})
	s.qget = s.do(Op{Kind: QGet, Key: a, Member: "m2"})
	s.do(Op{Kind: Create, Key: a, Value: "v7"})
	s.do(Op{Kind: CAD, Key: a, Prev: "v5"})
	s.do(Op{Kind: QGet, Key: a})
	s.post = s.do(Op{Kind: Post, Key: "/faults/set", Value: "p1"})
	s.post2 = s.do(Op{Kind: Post, Key: "/faults/set", Value: "p2"})
	s.ttl = s.do(Op{Kind: Create, Key: "/faults/ttl/1", Value: "t1", TTL: 1})
	s.now += time.Second
	s.event("expire", "/faults/ttl/1", "")
	s.now += tick
	s.last = s.do(Op{Kind: Put, Key: a, Value: "v8"})
	return s
}

// TestGoodHistories shows that the checks accept what a correct server says.
func TestGoodHistories(t *testing.T) {
	tests := []struct {
		name string
		bend func(*story)
	}{
		{"all answered", func(*story) {}},
		{"done, but without an answer", func(s *story) {
			o := &s.Ops[s.cas]
			o.Outcome, o.Event, o.Index = Lost, Event{}, 0
		}},
		{"without an answer, and done by nobody", func(s *story) {
			s.Ops = append(s.Ops, Op{Kind: Put, Key: a, Value: "never", Member: "m0", Outcome: Lost, Call: tick, Return: 2 * tick})
		}},
		{"a swap without an answer that a swap without an answer builds on", func(s *story) {
			s.do(Op{Kind: CASValue, Key: a, Prev: "v8", Value: "v9"})
			s.do(Op{Kind: CASIndex, Key: a, PrevIndex: s.index, Value: "v10"})
			s.do(Op{Kind: QGet, Key: a})
			for i := len(s.Ops) - 3; i < len(s.Ops)-1; i++ {
				s.Ops[i].Outcome, s.Ops[i].Event, s.Ops[i].Index = Lost, Event{}, 0
			}
		}},
		{"done long after its client gave up", func(s *story) {
			s.Ops = append(s.Ops, Op{Kind: Put, Key: a, Value: "late", Member: "m0", Outcome: Lost, Call: tick, Return: 2 * tick})
			s.event("set", a, "late")
			s.now += tick
			s.do(Op{Kind: QGet, Key: a})
		}},
		{"a plain read of the past", func(s *story) {
			o := &s.Ops[s.get]
			o.Member, o.Event.State, o.Index = "m2", State{"v1", 5, 5}, 5
		}},
		{"a plain read right after a restart", func(s *story) {
			o := &s.Ops[s.get]
			o.Life, o.Outcome, o.Code, o.Event, o.Index = 1, Refused, 100, Event{}, 0
		}},
		{"a watcher that began later", func(s *story) {
			w := &s.Watches[1]
			w.From, w.Events = w.Events[3].Modified, w.Events[3:]
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tell()
			tt.bend(&s)
			for _, v := range Check(s.end(), 10*time.Second).Violations {
				t.Error(v)
			}
		})
	}
}

// TestBrokenHistories shows that each check finds what it is for.
func TestBrokenHistories(t *testing.T) {
	const (
		keys   = "linearizable keys"
		log    = "one log of events"
		acked  = "acknowledged writes are there, and all writes once"
		answer = "answers agree with the log and with time"
		held   = "what members hold is what the log says"
		reads  = "a member does not go back"
		posts  = "in-order keys once and in order"
		ttl    = "keys live as long as they should"
		equal  = "members are equal"
	)
	tests := []struct {
		name  string
		bend  func(*story)     // before the end
		after func(h *History) // after it
		want  []string         // checks that must find it
	}{
		{name: "acknowledged write lost", want: []string{acked}, bend: func(s *story) {
			s.unwatch(s.index)
			s.keys[a] = State{"gone", 1, 1}
		}},
		{name: "acknowledged write lost and its index used again", want: []string{keys, log, answer}, bend: func(s *story) {
			before := s.keys[a]
			s.Ops[s.last].Event.Value = "other"
			s.Ops[s.last].Value = "other"
			s.do(Op{Kind: QGet, Key: a})
			s.Watches[0].Events[len(s.Watches[0].Events)-1].Value = "other"
			s.keys[a] = before
		}},
		{name: "acknowledged twice under one index", want: []string{keys, acked}, bend: func(s *story) {
			o := s.Ops[s.last]
			o.Value, o.Event.Value = "again", "again"
			o.Call, o.Return = s.now, s.now+tick
			s.Ops = append(s.Ops, o)
		}},
		{name: "stale quorum read", want: []string{keys, answer}, bend: func(s *story) {
			o := &s.Ops[s.qget]
			o.Event.State, o.Index = State{"v3", 6, 7}, 7
		}},
		{name: "stale quorum read of another key", want: []string{answer}, bend: func(s *story) {
			o := &s.Ops[s.qget]
			o.Key, o.Outcome, o.Code, o.Event, o.Index = registerDir+"/other", Refused, 100, Event{}, 6
		}},
		{name: "quorum read of nothing", want: []string{keys, answer}, bend: func(s *story) {
			o := &s.Ops[s.qget]
			o.Outcome, o.Code, o.Event = Refused, 100, Event{}
		}},
		{name: "read of a value that was never there", want: []string{answer}, bend: func(s *story) {
			s.Ops[s.get].Event.Value = "phantom"
		}},
		{name: "write from the past", want: []string{answer}, bend: func(s *story) {
			o := &s.Ops[s.put]
			o.Outcome = Lost
			o.Call += 30 * tick
			o.Return += 30 * tick
		}},
		{name: "swap that should have been refused", want: []string{keys, acked}, bend: func(s *story) {
			s.Ops[s.cas].Prev = "v1"
		}},
		{name: "refused write done", want: []string{acked}, bend: func(s *story) {
			s.event("set", a, "v7")
			s.do(Op{Kind: QGet, Key: a})
		}},
		{name: "write done twice", want: []string{acked, log}, bend: func(s *story) {
			s.event("compareAndSwap", a, "v3")
			for i := range s.Watches { // the second time it comes from nowhere
				s.Watches[i].Events[len(s.Watches[i].Events)-1].Created = 1
			}
		}},
		{name: "delete that nobody asked for", want: []string{acked}, bend: func(s *story) { s.event("delete", a, "") }},
		{name: "duplicated in-order key", want: []string{posts, acked}, bend: func(s *story) {
			s.event("create", inOrder("/faults/set", s.index+1), "p1")
		}},
		{name: "lost in-order key", want: []string{posts}, after: func(h *History) {
			for _, f := range h.Finals {
				for key, state := range f.Keys {
					if state.Value == "p1" {
						delete(f.Keys, key)
					}
				}
			}
		}},
		{name: "in-order keys out of order", want: []string{posts}, bend: func(s *story) {
			x, y := &s.Ops[s.post], &s.Ops[s.post2]
			x.Call, x.Return, y.Call, y.Return = y.Call, y.Return, x.Call, x.Return
		}},
		{name: "watch gap", want: []string{log}, bend: func(s *story) {
			w := &s.Watches[1]
			w.Events = slices.Delete(w.Events, 2, 3)
		}},
		{name: "watch gap at a reconnect", want: []string{log}, bend: func(s *story) {
			w := &s.Watches[0]
			w.Events = slices.Delete(w.Events, 1, 4)
			for i := range w.Events[1:] {
				w.Events[i+1].Member = "m2"
			}
		}},
		{name: "gap in all watches", want: []string{log, acked}, bend: func(s *story) { s.unwatch(6) }},
		{name: "watch out of order", want: []string{log}, bend: func(s *story) {
			e := s.Watches[1].Events
			e[2], e[3] = e[3], e[2]
		}},
		{name: "event repeated to a watcher", want: []string{log}, bend: func(s *story) {
			w := &s.Watches[1]
			w.Events = slices.Insert(w.Events, 3, w.Events[2])
		}},
		{name: "watchers differ", want: []string{log}, bend: func(s *story) { s.Watches[1].Events[2].Value = "else" }},
		{name: "early expiry", want: []string{ttl}, bend: func(s *story) {
			for i := range s.Watches {
				for j := range s.Watches[i].Events {
					if e := &s.Watches[i].Events[j]; e.Action == "expire" {
						e.At = s.Ops[s.ttl].Call + time.Second - time.Millisecond
					}
				}
			}
		}},
		{name: "late expiry", want: []string{ttl}, bend: func(s *story) {
			s.Well = 0
			for i := range s.Watches {
				for j := range s.Watches[i].Events {
					if e := &s.Watches[i].Events[j]; e.Action == "expire" {
						e.At += Lateness
					}
				}
			}
		}},
		{name: "expiry of a permanent key", want: []string{ttl}, bend: func(s *story) { s.event("expire", a, "") }},
		{name: "key that never expires", want: []string{ttl, held}, after: func(h *History) {
			h.Finals[2].Keys["/faults/ttl/1"] = State{"t1", 11, 11}
		}},
		{name: "member goes back", want: []string{reads}, bend: func(s *story) {
			o := &s.Ops[s.get] // after a write through the same member
			o.Event.State, o.Index = State{"v1", 5, 5}, 5
		}},
		{name: "members differ", want: []string{equal, held}, after: func(h *History) { h.Finals[1].Keys[a] = State{"v9", 14, 14} }},
		{name: "checksums differ", want: []string{equal}, after: func(h *History) { h.Finals[2].Checksum = "other" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := tell()
			if tt.bend != nil {
				tt.bend(&s)
			}
			h := s.end()
			if tt.after != nil {
				tt.after(h)
			}
			var found []string
			for _, v := range Check(h, 10*time.Second).Violations {
				if !slices.Contains(found, v.Check) {
					found = append(found, v.Check)
				}
				t.Log(v)
			}
			for _, want := range tt.want {
				if !slices.Contains(found, want) {
					t.Errorf("%q did not find it; found by %q", want, found)
				}
			}
		})
	}
}

// unwatch takes an event from all watchers.
func (b *book) unwatch(index uint64) {
	for i := range b.Watches {
		w := &b.Watches[i]
		w.Events = slices.DeleteFunc(w.Events, func(e Seen) bool { return e.Modified == index })
	}
}

// TestStep is the model of one key, operation by operation.
func TestStep(t *testing.T) {
	known := register{exists: true, value: "x", index: 7}
	unsure := register{exists: true, value: "x", above: 7}
	done := func(kind Kind, value string, modified uint64, before *State) Op {
		return Op{Kind: kind, Value: value, Outcome: OK, Event: Event{State: State{Value: value, Modified: modified}, Before: before}}
	}
	x7, x9 := &State{Value: "x", Modified: 7}, &State{Value: "x", Modified: 9}
	with := func(o Op, prev string, index uint64) Op {
		o.Prev, o.PrevIndex = prev, index
		return o
	}
	tests := []struct {
		name string
		from register
		op   Op
		ok   bool
		to   register
	}{
		{"put on nothing", register{index: 3}, done(Put, "y", 4, nil), true, register{exists: true, value: "y", index: 4}},
		{"put that hides what was there", known, done(Put, "y", 8, nil), false, register{}},
		{"put under an old index", known, done(Put, "y", 7, x7), false, register{}},
		{"read", known, done(QGet, "x", 7, nil), true, known},
		{"read of another value", known, done(QGet, "y", 7, nil), false, register{}},
		{"read tells the index", unsure, done(QGet, "x", 9, nil), true, register{exists: true, value: "x", index: 9, above: 7}},
		{"read tells an old index", unsure, done(QGet, "x", 7, nil), false, register{}},
		{"read of nothing", known, Op{Kind: QGet, Outcome: Refused, Code: 100}, false, register{}},
		{"swap", known, with(done(CASValue, "y", 9, x7), "x", 0), true, register{exists: true, value: "y", index: 9}},
		{"swap by index", unsure, with(done(CASIndex, "y", 10, x9), "", 9), true, register{exists: true, value: "y", index: 10}},
		{"swap by a wrong index", known, with(done(CASIndex, "y", 10, x7), "", 9), false, register{}},
		{"swap of another value", known, with(done(CASValue, "y", 9, x7), "z", 0), false, register{}},
		{"refused swap", known, Op{Kind: CASValue, Prev: "z", Outcome: Refused, Code: 101, Cause: "[z != x]"}, true, known},
		{"swap refused wrongly", known, Op{Kind: CASValue, Prev: "x", Outcome: Refused, Code: 101, Cause: "[x != x]"}, false, register{}},
		{"refusal tells the index", unsure, Op{Kind: CASIndex, PrevIndex: 3, Outcome: Refused, Code: 101, Cause: "[3 != 8]"}, true, register{exists: true, value: "x", index: 8, above: 7}},
		{"create of what is there", known, done(Create, "y", 9, x7), false, register{}},
		{"lost put", known, Op{Kind: Put, Value: "y", Outcome: Lost}, true, register{exists: true, value: "y", above: 7}},
		{"lost swap in vain", known, Op{Kind: CASValue, Prev: "z", Value: "y", Outcome: Lost}, true, known},
		{"lost delete", known, Op{Kind: Delete, Outcome: Lost}, true, register{above: 7}},
		{"delete", known, done(Delete, "", 9, x7), true, register{index: 9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ok, to := step(tt.from, &tt.op)
			if ok != tt.ok || ok && to != tt.to {
				t.Errorf("%v on %+v = %t, %+v; want %t, %+v", tt.op, tt.from, ok, to, tt.ok, tt.to)
			}
		})
	}
}

// TestSave leaves what a broken run leaves, and reads it again.
func TestSave(t *testing.T) {
	s := tell()
	o := &s.Ops[s.qget]
	o.Event.State, o.Index = State{"v3", 6, 7}, 7
	h := s.end()
	report := Check(h, 10*time.Second)
	dir := t.TempDir()
	if err := report.Save(h, dir); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(f))
	}
	if want := []string{"faults-register-a.html", "history.json", "violations.txt"}; !slices.Equal(names, want) {
		t.Errorf("it left %q, want %q", names, want)
	}
	again, err := Load(filepath.Join(dir, "history.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Check(again, 10*time.Second); len(got.Violations) != len(report.Violations) {
		t.Errorf("it found %v after reading it again, before %v", got.Violations, report.Violations)
	}
	if line := report.Summary(h); !strings.Contains(line, "violations="+fmt.Sprint(len(report.Violations))) {
		t.Errorf("the summary is %q", line)
	}
}
