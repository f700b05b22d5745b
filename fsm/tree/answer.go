package tree

import (
	"cmp"
	"slices"
	"strings"

	"github.com/quorate/quorate/api"
)

// Answer is the result of a read: a node and what a listing shows below it, all at one index.
type Answer struct {
	Node  *Node
	Index uint64

	offset int64 // the tree's
	// below has every node that is shown, a directory before its descendants and those together, so
	// that the keys alone tell where each belongs.
	below []*Node
}

// Len returns how many nodes the answer shows, Node included.
func (a *Answer) Len() int { return 1 + len(a.below) }

// sort puts the children of each directory in byte order of their names.
func (a *Answer) sort() {
	same := len(a.Node.Key) // all keys below begin alike
	slices.SortFunc(a.below, func(x, y *Node) int { return compareKeys(x.Key[same:], y.Key[same:]) })
}

// compareKeys orders keys so that a directory comes right before its descendants: as bytes, but with
// the slash below all others.
func compareKeys(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return cmp.Compare(a[i], b[i])
	}
	return cmp.Compare(len(a), len(b))
}

// parentLen is the length of the key of the parent, which for the root counts as 0.
func parentLen(key string) int { return strings.LastIndexByte(key, '/') }

// keyLen is the length of a key as parentLen means it.
func keyLen(n *Node) int {
	if n.Key == "/" {
		return 0
	}
	return len(n.Key)
}

// size returns about how many bytes the answer takes as JSON, judged by its first nodes: a long listing
// is then written into one piece of memory. A wrong guess only costs time.
func (a *Answer) size() int {
	const (
		sample = 64
		fields = 100 // names, punctuation and numbers of one node
	)
	n := min(len(a.below), sample)
	if n < sample {
		return 0
	}
	bytes := 0
	for _, node := range a.below[:n] {
		bytes += len(node.Key) + len(node.Value) + fields
	}
	return bytes/n*len(a.below) + bytes
}

// piece is how much of a large answer is handed on at a time, in bytes: little enough to stay in a
// processor's cache from its making to its sending.
const piece = 64 << 10

// Large says that the answer is worth sending in pieces.
func (a *Answer) Large() bool { return a.size() > 2*piece }

// AppendJSON appends the answer as one line of JSON with its newline. Remaining lifetimes are shown
// as of now, the time of day in Unix nanoseconds.
func (a *Answer) AppendJSON(dst []byte, now int64) []byte {
	return a.appendJSON(slices.Grow(dst, a.size()), now, nil)
}

// SendJSON is AppendJSON for large answers: it hands what it has so far to send, again and again, and
// goes on with the buffer that send returns. The rest is in the buffer that it returns itself.
func (a *Answer) SendJSON(dst []byte, now int64, send func([]byte) []byte) []byte {
	return a.appendJSON(dst, now, send)
}

func (a *Answer) appendJSON(dst []byte, now int64, send func([]byte) []byte) []byte {
	type opened struct {
		node   *Node
		filled bool // has a child
	}
	// open is the directory being written and those around it; its room covers most trees.
	open := make([]opened, 1, 32)
	open[0].node = a.Node

	dst = append(dst, `{"action":"get","node":`...)
	dst = appendFields(dst, a.Node, now, a.offset, true)
	closeOne := func(dst []byte) []byte {
		last := open[len(open)-1]
		open = open[:len(open)-1]
		if last.filled {
			dst = append(dst, ']')
		}
		return appendIndexes(dst, last.node)
	}
	for _, n := range a.below {
		for parent := parentLen(n.Key); keyLen(open[len(open)-1].node) != parent; {
			dst = closeOne(dst)
		}
		if in := &open[len(open)-1]; in.filled {
			dst = append(dst, ',')
		} else {
			dst = append(dst, `,"nodes":[`...)
			in.filled = true
		}
		dst = appendFields(dst, n, now, a.offset, true)
		if n.Dir {
			open = append(open, opened{node: n})
		} else {
			dst = appendIndexes(dst, n)
		}
		if send != nil && len(dst) >= piece {
			dst = send(dst)
		}
	}
	for len(open) > 0 {
		dst = closeOne(dst)
	}
	return append(dst, "}\n"...)
}

// Event returns the answer in the types of package api, as AppendJSON would write it.
func (a *Answer) Event(now int64) *api.Event {
	open := []*api.Node{wireNode(a.Node, now, a.offset)}
	for _, n := range a.below {
		for parent := parentLen(n.Key); len(open[len(open)-1].Key) != parent; {
			open = open[:len(open)-1]
		}
		in, child := open[len(open)-1], wireNode(n, now, a.offset)
		in.Nodes = append(in.Nodes, child)
		if n.Dir {
			open = append(open, child)
		}
	}
	return &api.Event{Action: Get.String(), Node: open[0]}
}
