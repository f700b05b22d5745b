package fsm

import "io"

// Backup is the state at one moment, for a file. Of what it shares memory with nothing is changed
// while the state machine goes on. It lacks which requests have been applied: they are of the members
// of this cluster, and a backup becomes another one.
type Backup struct{ *snapshot }

// Backup takes the state. Unlike Snapshot it may be called from any goroutine. It copies pointers, for
// which entries wait; writing it comes later and holds nobody up.
func (f *FSM) Backup() (*Backup, error) {
	f.step.Lock()
	defer f.step.Unlock()
	if f.broken {
		return nil, errBroken
	}
	s := f.snapshot()
	s.head.Requests = nil
	return &Backup{s}, nil
}

// RaftIndex returns the last log entry in the state.
func (b *Backup) RaftIndex() uint64 { return b.head.Applied }

// Index returns the tree's index.
func (b *Backup) Index() uint64 { return b.tree.Index() }

// Count returns how many keys and directories there are, without the root.
func (b *Backup) Count() (keys, dirs int) { return b.tree.Count() }

// WriteTo writes what Restore reads.
func (b *Backup) WriteTo(w io.Writer) (int64, error) {
	counted := &countingWriter{w: w}
	err := b.write(counted)
	return counted.n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Refound makes the state that of another cluster, which begins with it: with these members, and
// without a memory of the requests of the old ones. It is not for a running member.
func (f *FSM) Refound(m Membership) {
	f.step.Lock()
	defer f.step.Unlock()
	f.requests = make(requests)
	f.membership.Store(&m)
}
