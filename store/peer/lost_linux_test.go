package peer

import (
	"crypto/tls"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Both ends of a connection have the kernel give up what is lost, with TLS and without.
func TestLostConnection(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	wantCall(t, a, 0xb, "a to b: 7 hi")
	for _, p := range []*testPeer{a, b} {
		p.mu.RLock()
		for c := range p.conns {
			if got := userTimeout(t, c.Conn); got != 5*time.Second {
				t.Errorf("%x gives up after %v, want 5s", p.id, got)
			}
		}
		p.mu.RUnlock()
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	giveUpLost(tls.Client(raw, &tls.Config{ServerName: "x"}))
	if got := userTimeout(t, raw); got != 5*time.Second {
		t.Errorf("below TLS it is %v, want 5s", got)
	}
	one, other := net.Pipe() // no connection of a kernel
	giveUpLost(one)
	one.Close()
	other.Close()
}

func userTimeout(t *testing.T, c net.Conn) time.Duration {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var millis int
	if e := raw.Control(func(fd uintptr) {
		millis, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return time.Duration(millis) * time.Millisecond
}
