package tree

import (
	"fmt"
	"strings"

	"github.com/quorate/quorate/api"
)

// Batch is the right to write, from Begin to End. Readers see all of its writes or none; watchers are
// told of each as it is done, and find it in the tree after End.
type Batch struct{ tree *Tree }

// Begin locks the tree and moves its clock to now (Unix nanoseconds), or leaves it where it is if
// now is earlier. It expires nothing by itself. Only one goroutine may write.
func (t *Tree) Begin(now int64) *Batch {
	t.mu.Lock()
	t.clock = max(t.clock, now)
	return &t.batch
}

// End unlocks the tree.
func (b *Batch) End() {
	b.tree.publish()
	b.tree.mu.Unlock()
}

// publish lets Index, Clock and NextExpiry show the present state.
func (t *Tree) publish() {
	t.publishedIndex.Store(t.index)
	t.publishedClock.Store(t.clock)
	t.publishedOffset.Store(t.offset)
	t.publishedDue.Store(t.nextDue())
}

// Index returns the tree's index now.
func (b *Batch) Index() uint64 { return b.tree.index }

// SetOffset says what has to be added to the clock, from now on, to get the time of day, in nanoseconds.
// Nothing expires earlier or later for it: only the times that answers and events show are moved.
func (b *Batch) SetOffset(offset int64) { b.tree.offset = offset }

// Skip takes n index steps that no watcher ever sees: member changes, user changes and the like.
func (b *Batch) Skip(n int) {
	t := b.tree
	for range n {
		t.index++
		t.history.add(nil)
	}
}

// Do carries out one write, or refuses it with an *api.Error that has the current index. A refusal
// changes nothing. Path and Value are copied; the memory behind op may be used again.
func (b *Batch) Do(op Op) (*Event, error) {
	if op.Action == Get || op.Action >= Expire {
		return nil, refusal{api.InvalidField, "not a write: " + op.Action.String()}.at(b.tree.index)
	}
	op.Path = Clean(op.Path)
	e, no := b.tree.do(&op)
	b.tree.counters.count(op.Action, no.code == 0)
	if no.code != 0 {
		return nil, no.at(b.tree.index)
	}
	return e, nil
}

func (t *Tree) do(op *Op) (*Event, refusal) {
	switch op.Action {
	case Set:
		return t.set(op)
	case Create:
		return t.create(op)
	case Update:
		return t.update(op)
	case CompareAndSwap:
		return t.compareAndSwap(op)
	case CompareAndDelete:
		return t.compareAndDelete(op)
	default:
		return t.delete(op)
	}
}

// set makes a node or replaces a file. The order of the checks here and in the following functions
// is that of spec keys 5: it decides which refusal a client sees.
func (t *Tree) set(op *Op) (*Event, refusal) {
	at, no := t.find(op.Path)
	switch {
	case no.code != 0 && (op.Refresh || no.code != api.KeyNotFound):
		return nil, no
	case no.code != 0:
		return t.add(op, op.Path)
	case at.parent == nil:
		return nil, refusal{api.RootReadOnly, "/"}
	case at.dir != nil:
		return nil, refusal{api.NotFile, op.Path}
	}
	index, prev := t.index+1, at.node
	n := &Node{Key: prev.Key, Created: index, Modified: index, Expires: op.Expires, Dir: op.Dir}
	t.replace(prev, n)
	if op.Dir {
		at.parent.dropLeaf(at.name)
		at.parent.putDir(nameOf(n.Key), &dir{node: n})
	} else {
		n.Value = valueFor(op, prev)
		at.parent.putLeaf(nameOf(n.Key), n)
	}
	return t.commit(op, n, prev, nil), refusal{}
}

// create makes a node where there is none.
func (t *Tree) create(op *Op) (*Event, refusal) {
	path := op.Path
	if op.InOrder {
		path = Clean(fmt.Sprintf("%s/%020d", path, t.index+1))
	}
	if path == "/" {
		return nil, refusal{api.RootReadOnly, "/"}
	}
	_, no := t.find(path)
	switch {
	case no.code == 0:
		return nil, refusal{api.KeyExists, path}
	case no.code != api.KeyNotFound:
		return nil, no
	}
	return t.add(op, path)
}

// add makes a node, and the directories above it, at a path that was seen to be free. They all get
// the same index, and share the memory of their keys.
func (t *Tree) add(op *Op, path string) (*Event, refusal) {
	index := t.index + 1
	path = strings.Clone(path)
	parent := t.root
	end := nextSlash(path, 1)
	for ; end < len(path); end = nextSlash(path, end+1) {
		name := nameOf(path[:end])
		child, ok := parent.dirs[name]
		if !ok {
			n := &Node{Key: path[:end], Created: index, Modified: index, Dir: true}
			t.place(n)
			child = &dir{node: n}
			parent.putDir(nameOf(n.Key), child)
		}
		parent = child
	}
	n := &Node{Key: path, Created: index, Modified: index, Expires: op.Expires, Dir: op.Dir}
	t.place(n)
	if op.Dir {
		parent.putDir(nameOf(n.Key), &dir{node: n})
	} else {
		n.Value = strings.Clone(op.Value)
		parent.putLeaf(nameOf(n.Key), n)
	}
	return t.commit(op, n, nil, nil), refusal{}
}

// update changes value and expiry of a file, or the expiry of a directory.
func (t *Tree) update(op *Op) (*Event, refusal) {
	if op.Path == "/" {
		return nil, refusal{api.RootReadOnly, "/"}
	}
	at, no := t.find(op.Path)
	if no.code != 0 {
		return nil, no
	}
	if at.dir == nil {
		return t.overwrite(op, at), refusal{}
	}
	if op.Value != "" {
		return nil, refusal{api.NotFile, op.Path}
	}
	// The answer shows a new modifiedIndex, but the directory keeps the one it has: so does etcd
	// 3.4 (spec keys 8.2).
	prev := at.node
	kept := &Node{Key: prev.Key, Created: prev.Created, Modified: prev.Modified, Expires: op.Expires, Dir: true}
	t.replace(prev, kept)
	at.dir.node = kept
	shown := *kept
	shown.Modified = t.index + 1
	return t.commit(op, &shown, prev, nil), refusal{}
}

// compareAndSwap is an update of a file on conditions.
func (t *Tree) compareAndSwap(op *Op) (*Event, refusal) {
	if op.Path == "/" {
		return nil, refusal{api.RootReadOnly, "/"}
	}
	at, no := t.compare(op, op.Path)
	if no.code != 0 {
		return nil, no
	}
	return t.overwrite(op, at), refusal{}
}

// overwrite gives the file at a place a new value and expiry. It stays the same key: createdIndex
// is kept.
func (t *Tree) overwrite(op *Op, at place) *Event {
	prev := at.node
	n := &Node{
		Key: prev.Key, Value: valueFor(op, prev),
		Created: prev.Created, Modified: t.index + 1, Expires: op.Expires,
	}
	t.replace(prev, n)
	at.parent.putLeaf(nameOf(n.Key), n)
	return t.commit(op, n, prev, nil)
}

// compareAndDelete removes a file on conditions.
func (t *Tree) compareAndDelete(op *Op) (*Event, refusal) {
	// There is no check for the root here; it fails as a directory whose path is not shown.
	at, no := t.compare(op, strings.TrimSuffix(op.Path, "/"))
	if no.code != 0 {
		return nil, no
	}
	return t.remove(op, at), refusal{}
}

// compare finds a file that meets the conditions of op. shown is the cause when it is a directory.
func (t *Tree) compare(op *Op, shown string) (place, refusal) {
	at, no := t.find(op.Path)
	if no.code != 0 {
		return place{}, no
	}
	if at.dir != nil {
		return place{}, refusal{api.NotFile, shown}
	}
	var failed []string // spec keys 5.1
	if op.PrevValue != "" && op.PrevValue != at.node.Value {
		failed = append(failed, fmt.Sprintf("[%s != %s]", op.PrevValue, at.node.Value))
	}
	if op.PrevIndex != 0 && op.PrevIndex != at.node.Modified {
		failed = append(failed, fmt.Sprintf("[%d != %d]", op.PrevIndex, at.node.Modified))
	}
	if failed != nil {
		return place{}, refusal{api.CompareFailed, strings.Join(failed, " ")}
	}
	return at, refusal{}
}

// delete removes a file, an empty directory, or with Recursive any directory.
func (t *Tree) delete(op *Op) (*Event, refusal) {
	if op.Path == "/" {
		return nil, refusal{api.RootReadOnly, "/"}
	}
	at, no := t.find(op.Path)
	switch {
	case no.code != 0:
		return nil, no
	case at.dir != nil && !op.Dir && !op.Recursive:
		return nil, refusal{api.NotFile, op.Path}
	case at.dir != nil && !op.Recursive && !at.dir.empty():
		return nil, refusal{api.DirectoryNotEmpty, op.Path}
	}
	return t.remove(op, at), refusal{}
}

// Expire removes every node that is due at the tree's clock, in order of (Expires, Created, Key),
// and returns their events. A directory goes with all that it holds, in one event. Each event takes
// an index.
func (b *Batch) Expire() []*Event {
	t := b.tree
	var events []*Event
	for at := t.nextDue(); at != 0 && at <= t.clock; at = t.nextDue() {
		node := t.slots[t.due.pop().slot]
		gone, no := t.find(node.Key)
		if no.code != 0 || gone.node != node {
			panic("tree: a stored node is not in its place: " + node.Key)
		}
		events = append(events, t.remove(&Op{Action: Expire}, gone))
		t.counters.count(Expire, true)
	}
	return events
}

// remove takes the node at a place out of the tree, with all below it.
func (t *Tree) remove(op *Op, at place) *Event {
	if at.dir != nil {
		at.parent.dropDir(at.name)
		t.releaseAll(at.dir)
	} else {
		at.parent.dropLeaf(at.name)
		t.release(at.node)
	}
	n := &Node{Key: at.node.Key, Created: at.node.Created, Modified: t.index + 1, Dir: at.node.Dir}
	return t.commit(op, n, at.node, at.dir)
}

// commit takes the next index for a write that was carried out, and tells history and watchers.
// gone is the directory that it removed, still with its children, or nil.
func (t *Tree) commit(op *Op, n, prev *Node, gone *dir) *Event {
	t.index++
	e := &Event{Action: op.Action, Node: n, Prev: prev, Index: t.index, Time: t.clock, Offset: t.offset, Refresh: op.Refresh && op.Action.refreshes()}
	t.history.add(e)
	if !e.Refresh {
		t.hub.notify(e, gone)
	}
	return e
}

// place gives a new node a slot.
func (t *Tree) place(n *Node) {
	if last := len(t.free) - 1; last >= 0 {
		n.slot = t.free[last]
		t.free = t.free[:last]
		t.slots[n.slot] = n
	} else {
		n.slot = uint32(len(t.slots))
		t.slots = append(t.slots, n)
	}
	t.due.watch(n)
}

// replace gives a node the slot of another, which goes.
func (t *Tree) replace(old, n *Node) {
	t.due.forget(old)
	n.slot = old.slot
	t.slots[n.slot] = n
	t.due.watch(n)
}

func (t *Tree) release(n *Node) {
	t.due.forget(n)
	t.slots[n.slot] = nil
	t.free = append(t.free, n.slot)
}

func (t *Tree) releaseAll(d *dir) {
	t.release(d.node)
	for _, n := range d.leaves {
		t.release(n)
	}
	for _, child := range d.dirs {
		t.releaseAll(child)
	}
}

// valueFor returns the value that a file has after op, sharing memory with the old one if equal.
func valueFor(op *Op, prev *Node) string {
	if op.Refresh || op.Value == prev.Value {
		return prev.Value
	}
	return strings.Clone(op.Value)
}

// nameOf returns the last component of a key.
func nameOf(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }
