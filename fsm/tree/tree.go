// Package tree is the v2 key tree: its nodes, their recent history, and the watchers on them.
//
// The tree is what the members agree on, so it is deterministic: it reads no clock, draws no
// random number, and never lets map order show in its state. Time arrives as an argument, chosen
// once by the leader and carried in the log. Two members at one index hold the same nodes, and
// their snapshots hold the same bytes.
//
// One goroutine writes, through a Batch, under the write lock; any number read. Nodes and events
// are never changed once they are reachable, so readers hold the read lock only to collect
// pointers, and render outside it. The package does no I/O, starts no goroutine, and knows nothing
// of raft or HTTP.
//
// Behaviour is that of etcd 3.4 (v2store), with these deliberate differences, all of which a client
// of etcd can live with:
//   - A stream watch on a removed key gets the removal once, not twice.
//   - A stream watch from a past index gets every matching event since, then the live ones; etcd
//     sends the first match and then nothing.
//   - The removal of /a is shown to a history watch on /a/b, but not to one on /ab.
//   - A slow stream ends once its queue is drained, instead of going silent.
//   - Nodes that are due at the same time expire in order of creation.
package tree

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/quorate/quorate/api"
)

// Tree is the key tree. Create one with New.
type Tree struct {
	mu sync.RWMutex // guards all up to the next blank line

	root    *dir
	slots   []*Node  // every node but the root, by Node.slot; nil where free
	free    []uint32 // slots to use again
	index   uint64
	clock   int64
	offset  int64 // what makes the clock the time of day, see Batch.SetOffset
	due     expiry
	history history
	batch   Batch

	hub      hub      // has its own lock
	counters counters // atomics

	// What the last End left, for those who need no lock for it.
	publishedIndex  atomic.Uint64
	publishedClock  atomic.Int64
	publishedOffset atomic.Int64
	publishedDue    atomic.Int64
}

// New returns an empty tree at index 0 which remembers up to historyCapacity events for watchers
// (at least one; 1000 is what etcd keeps).
func New(historyCapacity int) *Tree {
	t := &Tree{
		root:    newRoot(),
		history: newHistory(historyCapacity),
	}
	t.batch.tree = t
	return t
}

func newRoot() *dir { return &dir{node: &Node{Key: "/", Dir: true}} }

// Index returns the tree's index after the last batch.
func (t *Tree) Index() uint64 { return t.publishedIndex.Load() }

// FirstEvent returns the oldest index from which a watch can begin.
func (t *Tree) FirstEvent() uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.history.first
}

// Clock returns the latest time that any batch brought, in Unix nanoseconds.
func (t *Tree) Clock() int64 { return t.publishedClock.Load() }

// Offset returns what has to be added to the clock to get the time of day, in nanoseconds.
func (t *Tree) Offset() int64 { return t.publishedOffset.Load() }

// NextExpiry returns when the next node is due, in Unix nanoseconds, and false when none ever is.
func (t *Tree) NextExpiry() (int64, bool) {
	at := t.publishedDue.Load()
	return at, at != 0
}

// Get reads the node at path: with its children if it is a directory, with all its descendants if
// recursive is set, and each directory in byte order of the names if sorted is set. Hidden children
// are left out. The error is an *api.Error with code 100 or 104.
func (t *Tree) Get(path string, recursive, sorted bool) (Answer, error) {
	path = Clean(path)
	a, no := t.collect(path, recursive)
	t.counters.count(Get, no.code == 0)
	if no.code != 0 {
		return Answer{}, no.at(a.Index)
	}
	if sorted {
		a.sort()
	}
	return a, nil
}

// collect does the part of a read that needs the lock.
func (t *Tree) collect(path string, recursive bool) (Answer, refusal) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	at, no := t.find(path)
	a := Answer{Node: at.node, Index: t.index, offset: t.offset}
	if at.dir != nil {
		a.below = at.dir.list(make([]*Node, 0, len(at.dir.leaves)+len(at.dir.dirs)), recursive)
	}
	return a, no
}

// list appends the visible children of d, each directory followed by its own if recursive is set.
func (d *dir) list(nodes []*Node, recursive bool) []*Node {
	for name, n := range d.leaves {
		if !hidden(name) {
			nodes = append(nodes, n)
		}
	}
	for name, child := range d.dirs {
		if hidden(name) {
			continue
		}
		nodes = append(nodes, child.node)
		if recursive {
			nodes = child.list(nodes, recursive)
		}
	}
	return nodes
}

// place is where a path leads.
type place struct {
	parent *dir   // nil for the root
	name   string // of the node in its parent
	node   *Node
	dir    *dir // nil for a file
}

// find walks to a clean path. A missing component is code 100, a file on the way code 104; the
// cause names that component or file (spec keys 5, "lookup"). The caller holds the lock.
func (t *Tree) find(path string) (place, refusal) {
	at := place{node: t.root.node, dir: t.root}
	if path == "/" {
		return at, refusal{}
	}
	for end := 0; end < len(path); {
		start := end + 1
		end = nextSlash(path, start)
		parent, name := at.dir, path[start:end]
		if parent == nil {
			return place{}, refusal{api.NotDirectory, at.node.Key}
		}
		if d, ok := parent.dirs[name]; ok {
			at = place{parent, name, d.node, d}
		} else if n, ok := parent.leaves[name]; ok {
			at = place{parent, name, n, nil}
		} else {
			return place{}, refusal{api.KeyNotFound, path[:end]}
		}
	}
	return at, refusal{}
}

// nextSlash returns the position of the first slash at or after start, or the length of path.
func nextSlash(path string, start int) int {
	if i := strings.IndexByte(path[start:], '/'); i >= 0 {
		return start + i
	}
	return len(path)
}

// refusal is why the tree does not carry out an operation; its code is 0 when it does.
type refusal struct {
	code  api.Code
	cause string
}

// at makes a refusal the error that clients see, at an index of the tree.
func (r refusal) at(index uint64) *api.Error {
	return &api.Error{Code: r.code, Cause: strings.Clone(r.cause), Index: index}
}
