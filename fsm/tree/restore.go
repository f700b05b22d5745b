package tree

import (
	"fmt"
	"io"
)

// Restore replaces the state of the tree by that of a snapshot, once all of it was read and found
// sound; on an error the tree is as before. It reads from r to the end of the snapshot and no
// further. Watchers go on: what they have missed they read from the snapshot's history, and those
// that it does not reach back to end after the events they have, so that their readers know.
func (t *Tree) Restore(r io.Reader) error {
	fresh := New(t.history.capacity)
	if err := fresh.decode(&blockReader{r: r}); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hub.sendBack(t.index+1, fresh.index)
	t.root, t.slots, t.free = fresh.root, fresh.slots, nil
	t.index, t.clock, t.offset = fresh.index, fresh.clock, fresh.offset
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
	t.offset = b.varint()
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
	for uint64(len(t.slots)) < count && b.err == nil {
		b.beginRecord()
		parent := b.uvarint()
		path := b.bytes()
		step := b.uvarint()
		switch {
		case b.err != nil:
			return
		case parent >= uint64(len(dirs)):
			b.fail("a node comes before its directory")
			return
		case step > t.index-created:
			b.fail("a node is younger than the tree")
			return
		}
		created += step
		dirs = t.decodeChain(b, dirs, dirs[parent], path, created)
	}
	if uint64(len(t.slots)) != count && b.err == nil {
		b.fail("it has another number of nodes")
	}
}

// decodeChain reads the states of nodes that were made at once: one for each component of path, the
// first of them in a directory. It returns dirs with those of them that are directories.
func (t *Tree) decodeChain(b *blockReader, dirs []*dir, in *dir, path []byte, created uint64) []*dir {
	var key string // all nodes have the beginning of it
	start := keyLen(in.node) + 1
	if in == t.root {
		key = "/" + string(path)
	} else {
		key = in.node.Key + "/" + string(path)
	}
	for {
		end := nextSlash(key, start)
		name := key[start:end]
		switch {
		case !possibleName(name):
			b.fail("a name is impossible")
			return dirs
		case in.has(name):
			b.fail("a node comes twice")
			return dirs
		}
		n := &Node{Key: key[:end], Created: created}
		t.decodeState(b, n)
		if b.err != nil {
			return dirs
		}
		t.place(n)
		if !n.Dir {
			in.putLeaf(name, n)
			if end < len(key) {
				b.fail("a file has children")
			}
			return dirs
		}
		d := &dir{node: n}
		in.putDir(name, d)
		dirs = append(dirs, d)
		if end == len(key) {
			return dirs
		}
		in, start = d, end+1
	}
}

// possibleName says that a clean path can have such a component.
func possibleName(name string) bool { return name != "" && name != "." && name != ".." }

func (d *dir) has(name string) bool {
	_, isDir := d.dirs[name]
	_, isLeaf := d.leaves[name]
	return isDir || isLeaf
}

// decodeState reads what blockWriter.state wrote, into a node that has its createdIndex.
func (t *Tree) decodeState(b *blockReader, n *Node) {
	flags := b.byte()
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
	e.Offset = t.offset - b.varint()
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
	n := &Node{Key: key, Created: b.uvarint()}
	if n.Created > t.index {
		b.fail("an event's node is younger than the tree")
		return n
	}
	t.decodeState(b, n)
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
