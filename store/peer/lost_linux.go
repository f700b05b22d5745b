package peer

import (
	"crypto/tls"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lostTimeout is how long what was sent may go without the other kernel's word that it has arrived.
// When a network comes back, the kernel may not notice on the old connection for as long as it was
// gone, because it waits twice as long before every new try; a new connection is made within 2 s. A
// busy member is not taken for a lost one, unless it has not even read for as long as that.
const lostTimeout = maxSilence * beatInterval

// giveUpLost has the kernel close a connection whose network is gone. Where it cannot be asked to,
// the time limits of raft and of the beat do the same, later.
func giveUpLost(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(lostTimeout/time.Millisecond))
	})
}
