//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
)

// address is where one member listens.
type address struct {
	client, peer string
	lease        io.Closer
}

// leasePort is held open on every address in use, by the test and not by its servers, so that no other
// test takes the address. It lies outside the range that the kernel gives out by itself.
const leasePort = 65117

var addressCount atomic.Uint32

// newAddress finds a loopback address that nobody has, takes a lease on it, and lets the kernel choose
// two ports on it. Connections that others make come from 127.0.0.1, so they cannot take these ports,
// not even while the member is down.
func newAddress() (address, error) {
	for range 1000 {
		// 127.16.0.0 and up: away from what people configure by hand.
		n := uint32(os.Getpid())*7919 + addressCount.Add(1)
		host := fmt.Sprintf("127.%d.%d.%d", 16+n/62500%200, 1+n/250%250, 1+n%250)
		lease, err := net.Listen("tcp", fmt.Sprintf("%s:%d", host, leasePort))
		if err != nil {
			continue
		}
		client, err := net.Listen("tcp", host+":0")
		if err != nil {
			lease.Close()
			return address{}, err
		}
		defer client.Close()
		peer, err := net.Listen("tcp", host+":0")
		if err != nil {
			lease.Close()
			return address{}, err
		}
		defer peer.Close()
		return address{client.Addr().String(), peer.Addr().String(), lease}, nil
	}
	return address{}, errors.New("no free loopback address in 1000 tries")
}
