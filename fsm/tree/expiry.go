package tree

import (
	"cmp"
	"container/heap"
)

// expiry knows which nodes are due, and in which order. A node that is replaced or removed leaves
// its entry behind, to be dropped when it comes up or when such entries are the majority.
type expiry struct {
	entries dueHeap
	live    int // nodes with an expiry in the tree
}

// dueEntry says that the node in a slot may be due.
type dueEntry struct {
	expires int64
	created uint64
	slot    uint32
	// length is that of the key. Nodes with the same createdIndex are a key and the directories made
	// for it, so that the order of the lengths is that of the keys.
	length uint32
}

type dueHeap []dueEntry

func (h dueHeap) Len() int      { return len(h) }
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h dueHeap) Less(i, j int) bool {
	a, b := &h[i], &h[j]
	return cmp.Or(cmp.Compare(a.expires, b.expires), cmp.Compare(a.created, b.created), cmp.Compare(a.length, b.length)) < 0
}
func (h *dueHeap) Push(x any) { *h = append(*h, x.(dueEntry)) }
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	x := (*h)[last]
	*h = (*h)[:last]
	return x
}

// watch adds a node that has its slot.
func (x *expiry) watch(n *Node) {
	if n.Expires != 0 {
		x.live++
		heap.Push(&x.entries, dueEntry{n.Expires, n.Created, n.slot, uint32(len(n.Key))})
	}
}

// forget notes that a node goes.
func (x *expiry) forget(n *Node) {
	if n.Expires != 0 {
		x.live--
	}
}

func (x *expiry) pop() dueEntry { return heap.Pop(&x.entries).(dueEntry) }

// current says whether an entry is about the node that is in its slot now.
func (t *Tree) current(e dueEntry) bool {
	n := t.slots[e.slot]
	return n != nil && n.Expires == e.expires && n.Created == e.created
}

// nextDue returns when the next node is due, or 0. The first entry is then a current one.
func (t *Tree) nextDue() int64 {
	x := &t.due
	if len(x.entries) > 2*x.live+64 {
		kept := x.entries[:0]
		for _, e := range x.entries {
			if t.current(e) {
				kept = append(kept, e)
			}
		}
		x.entries = kept
		heap.Init(&x.entries)
	}
	for len(x.entries) > 0 {
		if e := x.entries[0]; t.current(e) {
			return e.expires
		}
		x.pop()
	}
	return 0
}
