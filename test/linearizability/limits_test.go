//go:build linux && faults

package linearizability

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/cluster"
)

// limited is a fault that sets a limit of a process for some seconds, while squeeze makes it feel that.
// The member copes or ends, and is started again then.
func limited(resource int, limit func(pid int) uint64, squeeze func(*troubleMaker, context.Context, *node), who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		n := t.pick(who)[0]
		t.mu.Lock()
		down := n.down
		n.down = true // it may end
		t.mu.Unlock()
		if down {
			return
		}
		if resource == unix.RLIMIT_AS {
			t.mu.Lock()
			t.starved[n.m.Name] = true
			t.mu.Unlock()
		}
		var before unix.Rlimit
		pid := n.m.Pid()
		err := unix.Prlimit(pid, resource, nil, &before)
		if err == nil {
			err = unix.Prlimit(pid, resource, &unix.Rlimit{Cur: limit(pid), Max: before.Max}, nil)
		}
		if err != nil {
			t.Logf("no limit for %s: %v", n.m.Name, err)
		}
		squeezed, cancel := context.WithTimeout(ctx, t.between(2*time.Second, 5*time.Second))
		defer cancel()
		squeeze(t, squeezed, n)
		if err := unix.Prlimit(pid, resource, &before, nil); err != nil {
			t.Logf("the limit of %s stays: %v", n.m.Name, err)
		}
		// One that still runs may be on its way out: it has coped if it does another write.
		coped := eachUntil(context.Background(), 10*time.Second, []*node{n}, func(ctx context.Context, n *node) bool {
			return !n.m.Running() || t.put(ctx, n)
		})
		if coped && n.m.Running() {
			t.mu.Lock()
			n.down = false
			t.mu.Unlock()
			return
		}
		if !n.m.Running() {
			t.Logf("%s has ended: %v", n.m.Name, n.m.Wait())
			t.count("(ended at a limit)")
		}
		n.m.Signal(syscall.SIGKILL)
		n.m.Wait()
		t.startAgain(n)
	}
}

// openFiles are as many file descriptors as a process has, and three more.
func openFiles(pid int) uint64 {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return uint64(len(entries)) + 3
}

// addressSpace is what a process has of it, and a little more.
func addressSpace(pid int) uint64 {
	for line := range strings.SplitSeq(readFile(fmt.Sprintf("/proc/%d/status", pid)), "\n") {
		var kilobytes uint64
		if _, err := fmt.Sscanf(line, "VmSize: %d kB", &kilobytes); err == nil {
			return (kilobytes + 1<<10) << 10
		}
	}
	return unix.RLIM_INFINITY
}

// manyConnections opens and ends connections, so that new ones are asked for all the time.
func manyConnections(t *troubleMaker, ctx context.Context, n *node) {
	host := strings.TrimPrefix(n.m.ClientURL, "http://")
	t.hold(ctx, host, 30, func(c net.Conn) { fmt.Fprintf(c, "GET /health HTTP/1.1\r\nHost: a\r\n\r\n") })
}

// manyBodies sends bodies of requests that have no end, so that the member has to keep them.
func manyBodies(t *troubleMaker, ctx context.Context, n *node) {
	host := strings.TrimPrefix(n.m.ClientURL, "http://")
	body := strings.Repeat("x", 1<<20)
	t.hold(ctx, host, 150, func(c net.Conn) {
		fmt.Fprintf(c, "PUT /v2/keys%s/never HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\nvalue=%s", root, len(body)+1000, body)
	})
}

// hold opens connections, sends something on each of them and reads nothing until ctx ends.
func (t *troubleMaker) hold(ctx context.Context, host string, count int, send func(net.Conn)) {
	var all sync.WaitGroup
	defer all.Wait()
	for range count {
		all.Go(func() {
			dialer := net.Dialer{Control: smallBuffer}
			c, err := dialer.DialContext(ctx, "tcp", host)
			if err != nil {
				return
			}
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			send(c)
			<-ctx.Done()
		})
	}
}

// smallBuffer lets the kernel take little that nobody reads.
func smallBuffer(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) // or it takes more
	})
}

// deafClients ask every member for everything and for all events, and read nothing of it.
func deafClients(t *troubleMaker, ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.between(2*time.Second, 6*time.Second))
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for _, n := range t.present() {
		host := strings.TrimPrefix(n.m.ClientURL, "http://")
		all.Go(func() {
			t.hold(ctx, host, 20, func(c net.Conn) {
				fmt.Fprintf(c, "GET /v2/keys%s?recursive=true&wait=true&stream=true HTTP/1.1\r\nHost: a\r\n\r\n", root)
			})
		})
		all.Go(func() {
			t.hold(ctx, host, 20, func(c net.Conn) {
				for ctx.Err() == nil {
					c.SetWriteDeadline(time.Now().Add(time.Second))
					if _, err := fmt.Fprintf(c, "GET /v2/keys%s?recursive=true HTTP/1.1\r\nHost: a\r\n\r\n", root); err != nil {
						return
					}
				}
			})
		})
	}
}

// idlers are watchers of a key that nothing happens to until the end.
type idlers struct {
	group sync.WaitGroup
	mu    sync.Mutex
	awake int // guarded by mu: those that have seen the one event
}

const idleKey = root + "/idle"

// startIdlers begins so many, evenly on all members. One whose connection ends makes another.
func (r *run) startIdlers(ctx context.Context, count int, from uint64) *idlers {
	all := &idlers{}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err == nil {
		// This process and, if it comes to that, one server have to hold them all.
		r.idle = min(count, max(0, int(min(files.Cur, 1<<20))-3000))
	}
	count = r.idle
	for i := range count {
		all.group.Go(func() {
			for ctx.Err() == nil {
				if r.watchIdle(ctx, i%r.size, from) {
					all.mu.Lock()
					all.awake++
					all.mu.Unlock()
					return
				}
				// Not all at once: the machine has other things to do.
				sleep(ctx, time.Duration(500+i%2000)*time.Millisecond)
			}
		})
	}
	return all
}

// wake lets the event happen, which all of them have to see.
func (all *idlers) wake(r *run) {
	if r.idle == 0 {
		return
	}
	slot := 0
	cluster.Eventually(r, "a write that wakes the idle watchers", func(ctx context.Context) error {
		slot++
		if o := r.do(ctx, Op{Client: -7, Kind: Put, Key: idleKey, Value: r.unique()}, slot%r.size); o.Outcome != OK {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
	cluster.Eventually(r, "all idle watchers to see the one event", func(context.Context) error {
		all.mu.Lock()
		defer all.mu.Unlock()
		if all.awake < r.idle {
			return fmt.Errorf("%d of %d have", all.awake, r.idle)
		}
		return nil
	})
	r.Logf("%d idle watchers have seen their event", r.idle)
}

// watchIdle watches once, and says whether the event came.
func (r *run) watchIdle(ctx context.Context, slot int, from uint64) bool {
	m, _ := r.place(slot)
	c, err := (&net.Dialer{Control: smallBuffer}).DialContext(ctx, "tcp", strings.TrimPrefix(m.ClientURL, "http://"))
	if err != nil {
		return false
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	fmt.Fprintf(c, "GET /v2/keys%s?wait=true&waitIndex=%d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", idleKey, from)
	var answer strings.Builder
	_, _ = io.CopyBuffer(&answer, c, make([]byte, 512)) // whatever came is looked at
	return strings.Contains(answer.String(), idleKey)
}
