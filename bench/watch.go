//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// audience is a large number of stream watchers. All are read by one thread that waits for all of them at
// once: a goroutine for each would be more work than that of the servers that are measured.
type audience struct {
	poll    int
	fds     []int
	partial map[int]byte // the last byte that came, by file descriptor, if an event may end with the next

	// heard is told of each event, with the time at which it was read. It must be set before listen.
	heard func(at time.Time)
	done  chan error // gets the result of listen
}

// gather begins n watches and returns once the server has answered all.
func gather(addr string, n int, path func(i int) string) (*audience, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	to := &unix.SockaddrInet4{}
	copy(to.Addr[:], net.ParseIP(host).To4())
	if to.Port, err = strconv.Atoi(port); err != nil {
		return nil, err
	}
	a := &audience{partial: make(map[int]byte), done: make(chan error, 1)}
	if a.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for i := range n {
		if err := a.join(to, request("GET", "/v2/keys"+path(i)+"?wait=true&stream=true", "")); err != nil {
			a.close()
			return nil, fmt.Errorf("watcher %d: %w", i, err)
		}
	}
	return a, nil
}

// join begins one watch.
func (a *audience) join(to unix.Sockaddr, request []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	a.fds = append(a.fds, fd)
	limit := unix.NsecToTimeval(int64(time.Minute))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return err
	}
	if err := unix.Connect(fd, to); err != nil {
		return err
	}
	if _, err := unix.Write(fd, request); err != nil {
		return err
	}
	head := make([]byte, 0, 1024)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		n, err := unix.Read(fd, head[len(head):cap(head)])
		if err == unix.EINTR { // a limited read is not begun again by itself
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("the answer breaks off: %q", head)
		}
		head = head[:len(head)+n]
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("unwelcome answer %q", head)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return err
	}
	return unix.EpollCtl(a.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// listen reads until until is closed.
func (a *audience) listen(until <-chan struct{}) {
	go func() { a.done <- a.read(until) }()
}

func (a *audience) read(until <-chan struct{}) error {
	events := make([]unix.EpollEvent, 4096)
	buf := make([]byte, 64<<10)
	for {
		select {
		case <-until:
			return nil
		default:
		}
		// A reader that wakes for each event costs the sender more than the event itself does, and takes
		// processors from it. So this one looks a thousand times a second.
		time.Sleep(time.Millisecond)
		n, err := unix.EpollWait(a.poll, events, 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, e := range events[:max(n, 0)] {
			fd := int(e.Fd)
			m, err := unix.Read(fd, buf)
			switch {
			case err == unix.EAGAIN || err == unix.EINTR:
				continue
			case err != nil:
				return err
			case m == 0:
				return fmt.Errorf("the server has ended a watch")
			}
			for range a.ends(fd, buf[:m]) {
				a.heard(time.Now())
			}
		}
	}
}

// ends counts the events that end in what was read: with a brace and a new line, which no event has inside.
func (a *audience) ends(fd int, b []byte) int {
	n := bytes.Count(b, []byte("}\n"))
	if a.partial[fd] == '}' && b[0] == '\n' {
		n++
	}
	if last := b[len(b)-1]; last == '}' {
		a.partial[fd] = last
	} else {
		delete(a.partial, fd)
	}
	return n
}

func (a *audience) close() {
	for _, fd := range a.fds {
		_ = unix.Close(fd)
	}
	_ = unix.Close(a.poll)
}

// fanOutLine measures how long after the start of a PUT each of many stream watchers has its event.
func fanOutLine(c config) line {
	name := fmt.Sprintf("watch-fan-out/nodes=1/watchers=%d", c.watchers)
	return line{name: name, baseline: bareFanOut, run: func(tb *progress, c config, t *target) []value {
		delays, err := fanOut(t.addrs[0], c.watchers, 20)
		must(tb, name, err)
		return []value{
			{suffix: "/p50", unit: "ms", number: quantile(delays, 0.5), lowerBetter: true},
			{suffix: "/p99", unit: "ms", number: quantile(delays, 0.99), lowerBetter: true, goal: ratio(1 / 0.3)},
		}
	}}
}

// bareFanOut does nothing but write the same bytes to all watchers, one system call for each: the most that
// can be done on this machine with a connection for each watcher.
func bareFanOut(tb *progress) *target {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, "bare fan-out", err)
	var watchers []net.Conn // of the one goroutine that accepts
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, w := range watchers {
				w.Close()
			}
		}()
		event := fmt.Sprintf(`{"action":"set","node":{"key":"/fan","value":%q,"modifiedIndex":10000,"createdIndex":10000}}`+"\n", text)
		chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event)
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			method := make([]byte, len("GET"))
			if _, err := io.ReadFull(c, method); err != nil {
				c.Close()
				continue
			}
			if string(method) == "GET" {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") // the client notices
				watchers = append(watchers, c)
				continue
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			for _, w := range watchers {
				_, _ = w.Write(chunk)
			}
			c.Close()
		}
	}()
	tb.Cleanup(func() { l.Close(); <-done })
	return &target{addrs: []string{l.Addr().String()}}
}

// fanOut writes a key with many watchers some times, and returns the times from the start of a write to the
// delivery to each watcher, in order.
func fanOut(addr string, watchers, writes int) ([]time.Duration, error) {
	a, err := gather(addr, watchers, func(int) string { return "/fan" })
	if err != nil {
		return nil, err
	}
	defer a.close()
	var delays []time.Duration
	heard := make(chan []time.Time, 1)
	var times []time.Time
	a.heard = func(at time.Time) {
		if times = append(times, at); len(times) == watchers {
			heard <- times
			times = nil
		}
	}
	until := make(chan struct{})
	a.listen(until)
	for range writes {
		sent := time.Now()
		if err := once(addr, set("/fan", text), surely); err != nil {
			return nil, err
		}
		select {
		case all := <-heard:
			for _, at := range all {
				delays = append(delays, at.Sub(sent))
			}
		case err := <-a.done:
			return nil, err
		case <-time.After(time.Minute):
			return nil, fmt.Errorf("not all watchers have heard of a write after a minute")
		}
	}
	close(until)
	if err := <-a.done; err != nil {
		return nil, err
	}
	slices.Sort(delays)
	return delays, nil
}

// watchedKeysLine measures what many watchers, each of a key of its own, take from the rate of writes.
func watchedKeysLine(c config) line {
	name := fmt.Sprintf("watched-keys/nodes=1/watchers=%d/conns=64", c.watchers)
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		rate := func() float64 {
			n, err := load{t.addrs, 64, func(int, int) []byte {
				return set(fmt.Sprintf("/watched/%05d", rand.IntN(c.watchers)), text)
			}}.runFor(c.duration)
			must(tb, name, err)
			return n
		}
		rate() // makes the keys
		alone := rate()
		a, err := gather(t.addrs[0], c.watchers, func(i int) string { return fmt.Sprintf("/watched/%05d", i) })
		must(tb, name, err)
		defer a.close()
		a.heard = func(time.Time) {}
		until := make(chan struct{})
		a.listen(until)
		watched := rate()
		close(until)
		must(tb, name, <-a.done)
		return []value{
			{unit: "req/s", number: watched},
			{suffix: "/kept", unit: "%", number: 100 * watched / alone, goal: atLeast(90)},
		}
	}}
}
