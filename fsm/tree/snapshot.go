package tree

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"slices"
	"strings"
)

// A snapshot is a stream of blocks (blocks.go) that hold, as varints and length-prefixed strings:
//
//	version
//	index, clock, offset
//	number of counters, and for each successes and failures, by action, without gets
//	number of nodes, and the nodes in order of (Created, Key), which puts parents first
//	first index of the history, and for each index up to the tree's an event, or a 0
//
// A key and the directories that were made with it are one record: they share the memory of their
// keys, and are to do so again. It names the directory that they are in by number, 0 for the root
// and then as they come, and has the rest of the path, the step of the createdIndex, and each node's
// state. A node in an event has its whole key. No record is split between blocks.
//
// The bytes depend on the state alone, not on how it came about.
const snapshotVersion = 2

// Bits that begin a node.
const (
	nodeIsDir = 1 << iota
	nodeIsModified
	nodeExpires
	nodeFlags = 1<<iota - 1
)

// Bits that begin an event.
const (
	eventIsVisible = 1 << iota
	eventIsRefresh
	eventHasPrev
	eventFlags = 1<<iota - 1
)

// Snapshot is the state of a tree at one index. It shares nodes with the tree, which may move on.
type Snapshot struct {
	nodes    []*Node // some nil
	index    uint64
	clock    int64
	offset   int64
	counts   [actions][2]uint64
	first    uint64   // index of the first event
	events   []*Event // some nil
	released bool
}

// Snapshot takes the state of the tree. It copies pointers only, under the read lock.
func (t *Tree) Snapshot() *Snapshot {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := &Snapshot{
		nodes:  slices.Clone(t.slots),
		index:  t.index,
		clock:  t.clock,
		offset: t.offset,
		first:  t.history.first,
		events: make([]*Event, 0, t.history.len()),
	}
	for a := range t.counters {
		s.counts[a] = [2]uint64{t.counters[a].done.Load(), t.counters[a].refused.Load()}
	}
	for i := t.history.first; i <= t.history.last; i++ {
		s.events = append(s.events, t.history.at(i))
	}
	return s
}

// Release lets go of the state. The snapshot cannot be written afterwards.
func (s *Snapshot) Release() { s.nodes, s.events, s.released = nil, nil, true }

// Index returns the tree's index at the snapshot.
func (s *Snapshot) Index() uint64 { return s.index }

// Count returns how many keys and directories there are, hidden ones included and the root not.
func (s *Snapshot) Count() (keys, dirs int) {
	for _, n := range s.nodes {
		switch {
		case n == nil:
		case n.Dir:
			dirs++
		default:
			keys++
		}
	}
	return keys, dirs
}

// WriteTo writes the snapshot for Restore.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	if s.released {
		return 0, errReleased
	}
	bw := newBlockWriter(w)
	bw.uvarint(snapshotVersion)
	bw.uvarint(s.index)
	bw.varint(s.clock)
	bw.varint(s.offset)
	bw.uvarint(actions - 1)
	for _, c := range s.counts[Get+1:] {
		bw.uvarint(c[0])
		bw.uvarint(c[1])
	}
	bw.endRecord()
	s.writeNodes(bw)
	bw.uvarint(s.first)
	bw.endRecord()
	for _, e := range s.events {
		bw.event(e, s.clock, s.offset)
		bw.endRecord()
	}
	return bw.close()
}

func (s *Snapshot) writeNodes(bw *blockWriter) {
	nodes := inOrder(s.nodes)
	bw.uvarint(uint64(len(nodes)))
	bw.endRecord()
	dirs := map[string]uint64{"": 0} // numbers by key, the root's being empty
	parent, parentNumber := "", uint64(0)
	created := uint64(0)
	for len(nodes) > 0 {
		chain := nodes[:chainLen(nodes)]
		nodes = nodes[len(chain):]
		first, last := chain[0], chain[len(chain)-1]
		slash := parentLen(first.Key)
		if first.Key[:slash] != parent {
			parent = first.Key[:slash]
			parentNumber = dirs[parent]
		}
		bw.uvarint(parentNumber)
		bw.string(last.Key[slash+1:])
		bw.uvarint(first.Created - created)
		created = first.Created
		for _, n := range chain {
			if n.Dir {
				dirs[n.Key] = uint64(len(dirs))
			}
			bw.state(n)
		}
		bw.endRecord()
	}
}

// chainLen returns how many of the first nodes were made at once, each in the one before it.
func chainLen(nodes []*Node) int {
	n := 1
	for n < len(nodes) && nodes[n].Created == nodes[0].Created && nodes[n-1].Dir &&
		parentLen(nodes[n].Key) == len(nodes[n-1].Key) && below(nodes[n].Key, nodes[n-1].Key) {
		n++
	}
	return n
}

// inOrder returns the nodes sorted by (Created, Key), without nils.
func inOrder(slots []*Node) []*Node {
	type entry struct {
		created uint64
		node    *Node
	}
	entries := make([]entry, 0, len(slots))
	for _, n := range slots {
		if n != nil {
			entries = append(entries, entry{n.Created, n})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if a.created != b.created {
			return cmp.Compare(a.created, b.created)
		}
		// A key and directories made for it: shorter is less.
		return cmp.Or(cmp.Compare(len(a.node.Key), len(b.node.Key)), strings.Compare(a.node.Key, b.node.Key))
	})
	nodes := make([]*Node, len(entries))
	for i, e := range entries {
		nodes[i] = e.node
	}
	return nodes
}

func flagsOf(n *Node) byte {
	var f byte
	if n.Dir {
		f |= nodeIsDir
	}
	if n.Modified != n.Created {
		f |= nodeIsModified
	}
	if n.Expires != 0 {
		f |= nodeExpires
	}
	return f
}

// state writes what a node has besides its key and createdIndex.
func (bw *blockWriter) state(n *Node) {
	bw.byte(flagsOf(n))
	if n.Modified != n.Created {
		bw.uvarint(n.Modified - n.Created)
	}
	if n.Expires != 0 {
		bw.varint(n.Expires)
	}
	if !n.Dir {
		bw.string(n.Value)
	}
}

// event writes an event; its index is known from its position.
func (bw *blockWriter) event(e *Event, clock, offset int64) {
	if e == nil {
		bw.byte(0)
		return
	}
	f := byte(eventIsVisible)
	if e.Refresh {
		f |= eventIsRefresh
	}
	if e.Prev != nil {
		f |= eventHasPrev
	}
	bw.byte(f)
	bw.byte(byte(e.Action))
	bw.uvarint(uint64(clock - e.Time))
	bw.varint(offset - e.Offset)
	bw.string(e.Node.Key)
	bw.eventNode(e.Node)
	if e.Prev != nil {
		bw.eventNode(e.Prev)
	}
}

func (bw *blockWriter) eventNode(n *Node) {
	bw.uvarint(n.Created)
	bw.state(n)
}

// Checksum returns a hash over all nodes and the index, and that index. Members of one version whose
// trees are equal have equal sums.
func (t *Tree) Checksum() (sum, index uint64) {
	t.mu.RLock()
	s := Snapshot{nodes: slices.Clone(t.slots), index: t.index}
	t.mu.RUnlock()

	h := sha256.New()
	bw := newBlockWriter(h)
	bw.uvarint(s.index)
	s.writeNodes(bw)
	if _, err := bw.close(); err != nil {
		panic(err) // a hash does not fail
	}
	return binary.BigEndian.Uint64(h.Sum(nil)), s.index
}
