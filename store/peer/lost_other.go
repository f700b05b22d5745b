//go:build !linux

package peer

import "net"

// giveUpLost does nothing here: the time limits of raft and of the beat close lost connections.
func giveUpLost(net.Conn) {}
