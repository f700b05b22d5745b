package peer

import "testing"

// A member is gone when it has ended its connections, its port refuses new ones, and raft has read all that
// it had sent.
func TestGone(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	wantCall(t, b, 0xa, "b to a: 7 hi")
	from, to := b.StreamLayer(), a.StreamLayer()
	if _, err := from.Dial("a", patience); err != nil {
		t.Fatal(err)
	}
	feed, err := to.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if a.Gone(0xb) {
		t.Error("gone while it is connected")
	}
	// The process of b ends, except for what it has sent to raft.
	b.cancel()
	b.server.Close()
	l := b.link(0xa, false)
	l.mu.Lock()
	for _, c := range []*rpcConn{l.dialed, l.accepted} {
		if c != nil {
			c.conn.Close()
		}
	}
	l.mu.Unlock()
	link := a.link(0xb, false)
	eventually(t, "b refuses connections", link.refused)
	if a.Gone(0xb) {
		t.Error("gone while raft reads what it has sent")
	}
	feed.Close()
	if !a.Gone(0xb) {
		t.Error("not gone although nothing is left of it")
	}

	again := open(t, Config{Self: 0xb})
	introduce(a, again)
	wantCall(t, again, 0xa, "b to a: 7 hi")
	if a.Gone(0xb) {
		t.Error("gone although it is back")
	}
}

// A connection that we have ended says nothing, nor does a member that was never there.
func TestNotGone(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	b.Close()
	link := a.link(0xb, false)
	eventually(t, "b is gone", func() bool { return a.Gone(0xb) })
	link.mu.Lock()
	link.ended = false // as after Drop
	link.mu.Unlock()
	if a.Gone(0xb) {
		t.Error("gone after a connection that was ended here")
	}
	if a.Gone(0xc) {
		t.Error("gone without having been there")
	}
}
