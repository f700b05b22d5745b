package linearizability

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is what porcupine knows of a key.
type register struct {
	exists bool
	value  string
	// index is that of the last change, 0 while it is not known: the change had no answer.
	index uint64
	// above is an index that the last change lies above, when its own is not known.
	above uint64
}

// low is an index that the next change lies above.
func (r register) low() uint64 { return max(r.index, r.above) }

// matches says whether the last change may have had the index.
func (r register) matches(index uint64) bool {
	if r.index > 0 {
		return r.index == index
	}
	return index > r.above
}

// step is the sequential meaning of one operation on one key. An operation without an answer is done
// when its turn comes; that it is never done is covered, too: its turn can come after everything else.
func step(r register, o *Op) (bool, register) {
	if o.Outcome == Lost {
		return true, stepLost(r, o)
	}
	e := &o.Event
	if o.Outcome == Refused {
		return stepRefused(r, o)
	}
	if o.Kind == QGet {
		if !r.exists || r.value != e.Value || !r.matches(e.Modified) {
			return false, r
		}
		r.index = e.Modified
		return true, r
	}
	// A write that was done. Its answer also shows what was there before.
	if e.Modified <= r.low() || r.exists != (e.Before != nil) {
		return false, r
	}
	if r.exists && (r.value != e.Before.Value || !r.matches(e.Before.Modified)) {
		return false, r
	}
	switch o.Kind {
	case Create:
		if r.exists {
			return false, r
		}
	case CASValue, CAD:
		if !r.exists || r.value != o.Prev {
			return false, r
		}
	case CASIndex:
		if !r.exists || !r.matches(o.PrevIndex) {
			return false, r
		}
	case Delete:
		if !r.exists {
			return false, r
		}
	}
	if o.Kind == Delete || o.Kind == CAD {
		return true, register{index: e.Modified}
	}
	return true, register{exists: true, value: o.Value, index: e.Modified}
}

func stepLost(r register, o *Op) register {
	switch o.Kind {
	case Put:
	case Create:
		if r.exists {
			return r
		}
	case CASValue, CAD:
		if !r.exists || r.value != o.Prev {
			return r
		}
	case CASIndex:
		if !r.exists || !r.matches(o.PrevIndex) {
			return r
		}
	case Delete:
		if !r.exists {
			return r
		}
	default:
		return r
	}
	if o.Kind == Delete || o.Kind == CAD {
		return register{above: r.low()}
	}
	return register{exists: true, value: o.Value, above: r.low()}
}

func stepRefused(r register, o *Op) (bool, register) {
	switch o.Code {
	case 100:
		return !r.exists, r
	case 105:
		return r.exists, r
	case 101:
		given, actual := compared(o.Cause)
		if !r.exists || given == actual {
			return false, r
		}
		if o.Kind != CASIndex {
			return r.value == actual && given == o.Prev, r
		}
		var index uint64
		if _, err := fmt.Sscan(actual, &index); err != nil || given != fmt.Sprint(o.PrevIndex) || !r.matches(index) {
			return false, r
		}
		r.index = index
		return true, r
	}
	return false, r
}

// compared reads the cause of a failed comparison, "[given != actual]".
func compared(cause string) (given, actual string) {
	cause = strings.TrimSuffix(strings.TrimPrefix(cause, "["), "]")
	given, actual, _ = strings.Cut(cause, " != ")
	return given, actual
}

// model is the key for porcupine.
var model = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		ok, next := step(state.(register), input.(*Op))
		return ok, next
	},
	DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
	DescribeState: func(state any) string {
		r := state.(register)
		if !r.exists {
			return fmt.Sprintf("nothing since %d", r.index)
		}
		return fmt.Sprintf("%q since %d", r.value, r.index)
	},
}

// Registers is the outcome of CheckRegisters.
type Registers struct {
	Keys       int
	Violations []Violation
	// Undecided are keys whose histories the search did not come to an end with in its time.
	Undecided []string
	// Broken are the searches of the keys that are not linearizable, to be shown.
	Broken map[string]porcupine.LinearizationInfo
}

// Visualize writes the search for one broken key as an HTML page.
func (r *Registers) Visualize(key, path string) error {
	return porcupine.VisualizePath(model, r.Broken[key], path)
}

// CheckRegisters looks for an order of the operations on each key below dir in which all answers make
// sense and which agrees with time. It spends at most limit on one key.
func CheckRegisters(h *History, dir string, limit time.Duration) *Registers {
	byKey := map[string][]*Op{}
	for i := range h.Ops {
		o := &h.Ops[i]
		if strings.HasPrefix(o.Key, dir+"/") && o.Kind != Get && o.Outcome != Unsent && (o.Kind != QGet || o.Outcome != Lost) {
			byKey[o.Key] = append(byKey[o.Key], o)
		}
	}
	out := &Registers{Keys: len(byKey), Broken: map[string]porcupine.LinearizationInfo{}}
	v := violations{check: "linearizable keys"}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		ops := prune(byKey[key])
		history := make([]porcupine.Operation, 0, len(ops))
		for _, o := range ops {
			op := porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Call), Return: int64(o.Return)}
			if o.Outcome == Lost {
				op.Return = math.MaxInt64
			}
			history = append(history, op)
		}
		result, info := porcupine.CheckOperationsVerbose(model, history, limit)
		switch result {
		case porcupine.Unknown:
			out.Undecided = append(out.Undecided, key)
		case porcupine.Illegal:
			out.Broken[key] = info
			v.add("%s: no order of its %d operations explains all answers", key, len(ops))
		}
	}
	out.Violations = v.result()
	return out
}

// prune leaves out operations without an answer whose effect nobody has seen: if they were done at all,
// something else was done before anybody looked, or nobody ever looked, so the others must make sense
// without them. It keeps all when somebody speaks of a state that no answer shows in full.
func prune(ops []*Op) []*Op {
	values := map[string]bool{}   // that were seen
	indexes := map[uint64]bool{}  // that belong to values seen, or to writes that were answered
	mentions := map[uint64]bool{} // that were seen alone
	for _, o := range ops {
		values[o.Prev] = true
		if o.Kind == CASIndex {
			mentions[o.PrevIndex] = true
		}
		switch o.Outcome {
		case OK:
			values[o.Event.Value] = true
			indexes[o.Event.Modified] = true
			if b := o.Event.Before; b != nil {
				values[b.Value] = true
				indexes[b.Modified] = true
			}
		case Refused:
			_, actual := compared(o.Cause)
			var index uint64
			switch {
			case o.Code == 105:
				return ops
			case o.Code == 101 && o.Kind == CASIndex:
				if _, err := fmt.Sscan(actual, &index); err != nil {
					return ops
				}
				mentions[index] = true
			case o.Code == 101:
				values[actual] = true
			}
		}
	}
	for index := range mentions {
		if !indexes[index] {
			return ops
		}
	}
	kept := make([]*Op, 0, len(ops))
	for _, o := range ops {
		if o.Outcome == Lost && o.Value != "" && !values[o.Value] {
			continue
		}
		kept = append(kept, o)
	}
	slices.SortStableFunc(kept, func(a, b *Op) int { return cmp.Compare(a.Call, b.Call) })
	return kept
}
