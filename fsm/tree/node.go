package tree

import (
	"path"
	"strings"
)

// Action says what an operation does, and what an event was.
type Action uint8

// The actions, with the names that etcd shows for them.
const (
	Get              Action = iota // get
	Set                            // set
	Create                         // create, also in order
	Update                         // update
	CompareAndSwap                 // compareAndSwap
	CompareAndDelete               // compareAndDelete
	Delete                         // delete
	Expire                         // expire

	actions = iota
)

var actionNames = [actions]string{
	"get", "set", "create", "update", "compareAndSwap", "compareAndDelete", "delete", "expire",
}

// String returns the name that answers carry.
func (a Action) String() string {
	if int(a) < len(actionNames) {
		return actionNames[a]
	}
	return "unknown"
}

// removes says that an event of this action leaves nothing behind at its path.
func (a Action) removes() bool { return a == Delete || a == CompareAndDelete || a == Expire }

// refreshes says that Op.Refresh has a meaning for this action; others ignore it.
func (a Action) refreshes() bool { return a == Set || a == Update || a == CompareAndSwap }

// Node is one state of a key or directory. It never changes: a write puts another in its place, so
// that answers, events, watchers and snapshots can share it without copies.
type Node struct {
	// Key is the whole path, "/a/b"; "/" for the root.
	Key string
	// Value is "" for directories.
	Value string
	// Created and Modified are indexes of the tree; both are 0 for the root.
	Created, Modified uint64
	// Expires is when the node is due to go, in Unix nanoseconds; 0 means that it stays.
	Expires int64
	Dir     bool

	// slot is the node's place in Tree.slots. Only the writer reads it.
	slot uint32
}

// same says that two nodes hold the same state, wherever they are stored.
func (n *Node) same(o *Node) bool {
	return n.Created == o.Created && n.Modified == o.Modified && n.Expires == o.Expires &&
		n.Dir == o.Dir && n.Key == o.Key && n.Value == o.Value
}

// hidden says that listings leave out a child of this name (spec keys 10).
func hidden(name string) bool { return name[0] == '_' }

// dir is a directory with its children by name. Names are substrings of the child's Node.Key. A map
// without entries is nil: an emptied one would keep its memory.
type dir struct {
	node   *Node
	dirs   map[string]*dir
	leaves map[string]*Node
}

func (d *dir) empty() bool { return len(d.dirs)+len(d.leaves) == 0 }

func (d *dir) putLeaf(name string, n *Node) {
	if d.leaves == nil {
		d.leaves = make(map[string]*Node)
	}
	d.leaves[name] = n
}

func (d *dir) dropLeaf(name string) {
	delete(d.leaves, name)
	if len(d.leaves) == 0 {
		d.leaves = nil
	}
}

func (d *dir) putDir(name string, child *dir) {
	if d.dirs == nil {
		d.dirs = make(map[string]*dir)
	}
	d.dirs[name] = child
}

func (d *dir) dropDir(name string) {
	delete(d.dirs, name)
	if len(d.dirs) == 0 {
		d.dirs = nil
	}
}

// Op is one write (spec keys 4, 5). The zero value of a field means "not given".
type Op struct {
	// Action is Set, Create, Update, CompareAndSwap, CompareAndDelete or Delete.
	Action Action
	// Path is decoded and cleaned as by Clean.
	Path  string
	Value string
	// Dir asks set and create for a directory, and allows delete to remove an empty one.
	Dir bool
	// Recursive lets delete remove a directory with all it holds.
	Recursive bool
	// InOrder makes create choose the child's name: its index in 20 digits.
	InOrder bool
	// Refresh keeps the value, and wakes no watcher.
	Refresh bool
	// PrevValue and PrevIndex are the conditions of the compare actions.
	PrevValue string
	PrevIndex uint64
	// Expires is an absolute time in Unix nanoseconds; 0 means permanent.
	Expires int64
}

// Write is an operation as its sender asks for it: with the life of the node instead of the end of
// it, which only the log entry's time decides.
type Write struct {
	Op
	// TTL is in seconds, and counts only if HasTTL is set. A TTL of 0 is due at once.
	TTL    uint64
	HasTTL bool
}

// Clean returns the path in the one form in which the tree knows it: with a leading slash, without
// a trailing one, and without empty, "." or ".." components.
func Clean(p string) string {
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	return path.Clean(p)
}
