package tree

import (
	"bytes"
	"fmt"
	"io"
)

// Restore replaces the state of the tree by that of a snapshot, once all of it was read and found
// sound; on an error the tree is as before. It reads from r to the end of the snapshot and no
// further. Watchers stay registered, and are told nothing of what they missed.
func (t *Tree) Restore(r io.Reader) error {
	fresh := New(t.history.capacity)
	if err := fresh.decode(&blockReader{r: r}); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.root, t.slots, t.free = fresh.root, fresh.slots, nil
	t.index, t.clock = fresh.index, fresh.clock
	t.due, t.history = fresh.due, fresh.history
	for a := Get + 1; int(a) < len(t.counters); a++ {
		t.counters[a].done.Store(fresh.counters[a].done.Load())
		t.counters[a].refused.Store(fresh.counters[a].refused.Load())
	}
	t.publish()
	return nil
}

// decode fills a new tree.
func (t *Tree) decode(b *blockReader) error {
	b.beginRecord()
	if v := b.uvarint(); b.err == nil && v != snapshotVersion {
		return fmt.Errorf("%w: %d, this program knows %d", ErrSnapshotVersion, v, snapshotVersion)
	}
	t.index = b.uvarint()
	t.clock = b.varint()
	if n := b.uvarint(); b.err == nil && n != actions-1 {
		b.fail("it has another number of counters")
	}
	for a := Get + 1; int(a) < actions && b.err == nil; a++ {
		t.counters[a].done.Store(b.uvarint())
		t.counters[a].refused.Store(b.uvarint())
	}
	t.decodeNodes(b)
	t.decodeHistory(b)
	return b.end()
}

func (t *Tree) decodeNodes(b *blockReader) {
	b.beginRecord()
	count := b.uvarint()
	t.slots = make([]*Node, 0, min(count, 1<<16))
	dirs := []*dir{t.root}
	created := uint64(0)
	var key []byte
	for i := uint64(0); i < count && b.err == nil; i++ {
		b.beginRecord()
		flags := b.byte()
		parent := b.uvarint()
		name := b.bytes()
		step := b.uvarint()
		switch {
		case b.err != nil:
			return
		case parent >= uint64(len(dirs)):
			b.fail("a node comes before its directory")
			return
		case !possibleName(name):
			b.fail("a name is impossible")
			return
		case step > t.index-created:
			b.fail("a node is younger than the tree")
			return
		}
		created += step
		in := dirs[parent]
		key = append(key[:0], in.node.Key...)
		if parent != 0 {
			key = append(key, '/')
		}
		key = append(key, name...)
		n := &Node{Key: string(key), Created: created}
		t.decodeState(b, n, flags)
		if b.err != nil {
			return
		}
		stem := n.Key[len(n.Key)-len(name):]
		if in.has(stem) {
			b.fail("a node comes twice")
			return
		}
		t.place(n)
		if n.Dir {
			d := &dir{node: n}
			in.putDir(stem, d)
			dirs = append(dirs, d)
		} else {
			in.putLeaf(stem, n)
		}
	}
}

// possibleName says that a clean path can have such a component.
func possibleName(name []byte) bool {
	switch string(name) {
	case "", ".", "..":
		return false
	}
	return bytes.IndexByte(name, '/') < 0
}

func (d *dir) has(name string) bool {
	_, isDir := d.dirs[name]
	_, isLeaf := d.leaves[name]
	return isDir || isLeaf
}

// decodeState reads what blockWriter.state wrote, into a node that has its createdIndex.
func (t *Tree) decodeState(b *blockReader, n *Node, flags byte) {
	if flags&^nodeFlags != 0 {
		b.fail("a node has unknown flags")
		return
	}
	n.Dir = flags&nodeIsDir != 0
	n.Modified = n.Created
	if flags&nodeIsModified != 0 {
		step := b.uvarint()
		if step == 0 || step > t.index-n.Created {
			b.fail("a node was modified after the snapshot")
			return
		}
		n.Modified += step
	}
	if flags&nodeExpires != 0 {
		if n.Expires = b.varint(); n.Expires == 0 {
			b.fail("a node has an impossible expiry")
			return
		}
	}
	if !n.Dir {
		n.Value = string(b.bytes())
	}
}

func (t *Tree) decodeHistory(b *blockReader) {
	b.beginRecord()
	first := b.uvarint()
	if b.err != nil {
		return
	}
	if first == 0 || first > t.index+1 {
		b.fail("the history begins after the tree's index")
		return
	}
	t.history.first, t.history.last = first, first-1
	shared := sharer{tree: t, last: make(map[string]*Node)}
	for index := first; index <= t.index && b.err == nil; index++ {
		b.beginRecord()
		e := t.decodeEvent(b, index, &shared)
		if b.err == nil {
			t.history.add(e)
		}
	}
}

func (t *Tree) decodeEvent(b *blockReader, index uint64, shared *sharer) *Event {
	flags := b.byte()
	if flags == 0 {
		return nil
	}
	e := &Event{Index: index, Action: Action(b.byte()), Refresh: flags&eventIsRefresh != 0}
	e.Time = t.clock - int64(b.uvarint())
	if flags&^eventFlags != 0 || flags&eventIsVisible == 0 || e.Action == Get || e.Action >= actions {
		b.fail("an event is of an unknown kind")
		return nil
	}
	key := string(b.bytes())
	if key == "/" || key != Clean(key) {
		b.fail("an event has an impossible key")
		return nil
	}
	node := t.decodeEventNode(b, key)
	if flags&eventHasPrev != 0 {
		e.Prev = shared.node(t.decodeEventNode(b, node.Key))
	}
	if b.err == nil && node.Modified != index {
		b.fail("an event is not of its index")
	}
	e.Node = shared.node(node)
	return e
}

func (t *Tree) decodeEventNode(b *blockReader, key string) *Node {
	flags := b.byte()
	n := &Node{Key: key, Created: b.uvarint()}
	if n.Created > t.index {
		b.fail("an event's node is younger than the tree")
		return n
	}
	t.decodeState(b, n, flags)
	return n
}

// sharer replaces nodes of events by equal ones that are there already, in the tree or in an earlier
// event, as they were before the snapshot: values need not be held twice.
type sharer struct {
	tree *Tree
	last map[string]*Node // by key
}

func (s *sharer) node(n *Node) *Node {
	if at, no := s.tree.find(n.Key); no.code == 0 && at.node.same(n) {
		return at.node
	}
	if old, ok := s.last[n.Key]; ok {
		if old.same(n) {
			return old
		}
		n.Key = old.Key
	}
	s.last[n.Key] = n
	return n
}
