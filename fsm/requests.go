package fsm

import (
	"maps"
	"slices"
)

// requests remembers which requests have been applied, so that one that reaches the log twice is
// applied once (DESIGN: exactly once from the member on). Of each member only the newest run is
// kept, and of that only what is at or above the lowest sequence still waited for.
type requests map[uint64]*run

// run is what is remembered of one run of one member.
type run struct {
	boot    uint64
	lowest  uint64
	applied map[uint64]struct{}
}

// admit says whether the request is to be applied, and notes that it was.
func (r requests) admit(id RequestID) bool {
	if id.Member == 0 {
		return true
	}
	o := r[id.Member]
	if o == nil || id.Boot > o.boot {
		o = &run{boot: id.Boot, applied: make(map[uint64]struct{})}
		r[id.Member] = o
	}
	if id.Boot < o.boot {
		return false // an earlier run of that member: nobody waits for it
	}
	o.raise(id.Lowest)
	if id.Sequence < o.lowest {
		return false
	}
	if _, ok := o.applied[id.Sequence]; ok {
		return false
	}
	o.applied[id.Sequence] = struct{}{}
	return true
}

// raise forgets what lies below lowest.
func (o *run) raise(lowest uint64) {
	if lowest <= o.lowest {
		return
	}
	if lowest-o.lowest <= uint64(len(o.applied)) {
		for s := o.lowest; s < lowest; s++ {
			delete(o.applied, s)
		}
	} else {
		maps.DeleteFunc(o.applied, func(s uint64, _ struct{}) bool { return s < lowest })
	}
	o.lowest = lowest
}

// runState is a run as a snapshot holds it.
type runState struct {
	Member  uint64   `json:"member"`
	Boot    uint64   `json:"boot"`
	Lowest  uint64   `json:"lowest"`
	Applied []uint64 `json:"applied,omitempty"`
}

func (r requests) state() []runState {
	var out []runState
	for _, id := range slices.Sorted(maps.Keys(r)) {
		o := r[id]
		out = append(out, runState{Member: id, Boot: o.boot, Lowest: o.lowest, Applied: slices.Sorted(maps.Keys(o.applied))})
	}
	return out
}

func restoreRequests(state []runState) requests {
	r := make(requests, len(state))
	for _, s := range state {
		o := &run{boot: s.Boot, lowest: s.Lowest, applied: make(map[uint64]struct{}, len(s.Applied))}
		for _, seq := range s.Applied {
			o.applied[seq] = struct{}{}
		}
		r[s.Member] = o
	}
	return r
}
