//go:build linux && e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/cluster"
)

const (
	// crowdSize is how many watchers there are, and connections on which nothing is asked, where the limit
	// of open files allows it.
	crowdSize = 10_000
	// crowdMemory is what one watcher may cost a member, in bytes. Most of it are stacks and buffers of
	// its connection.
	crowdMemory = 64 << 10
	// otherFiles is what the test and the member need besides.
	otherFiles = 600
)

// crowd returns how many watchers and idle connections there can be: each takes a file here and one in the
// member, which has the limits of this process.
func crowd(t *testing.T) (watchers, idle int) {
	t.Helper()
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if want := uint64(2*crowdSize + otherFiles); files.Cur < want {
		raised := unix.Rlimit{Cur: max(files.Cur, min(want, files.Max)), Max: files.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err != nil {
			t.Fatalf("raise the limit of open files: %v", err)
		}
		files = raised
	}
	room := int(min(files.Cur, 1<<20)) - otherFiles
	if room < crowdSize/5 {
		t.Skipf("only %d files may be open", files.Cur)
	}
	watchers = min(crowdSize, room*3/5)
	return watchers, min(crowdSize, room-watchers)
}

// each does something n times, several at a time, and fails the test if any of it fails.
func each(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var all sync.WaitGroup
	const workers = 16
	errs := make(chan error, workers)
	for w := range workers {
		all.Go(func() {
			for i := w; i < n; i += workers {
				if err := do(i); err != nil {
					errs <- fmt.Errorf("number %d: %w", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-errs:
		t.Fatal(err)
	default:
	}
}

// TestCrowd has 10,000 streams and 10,000 idle connections on a member: writes go on, all streams get each
// event, memory is bounded, and a stop is as orderly as ever.
func TestCrowd(t *testing.T) {
	quorateOnly(t, "it measures Quorate")
	watching, idle := crowd(t)
	m := start(t, 1, "--max-connections-per-address=50000").Members[0]
	address := strings.TrimPrefix(m.ClientURL, "http://")
	var conns sync.Map
	defer conns.Range(func(_, c any) bool { c.(net.Conn).Close(); return true })
	dial := func() (net.Conn, error) {
		c, err := net.DialTimeout("tcp", address, cluster.Deadline)
		if err == nil {
			conns.Store(c, c)
		}
		return c, err
	}
	measure := func() usage {
		var u usage
		cluster.Eventually(t, "the usage of "+m.Name, func(ctx context.Context) (err error) {
			u, err = usageOf(ctx, m)
			return err
		})
		return u
	}

	before := measure()
	watchers := make([]*bufio.Reader, watching)
	each(t, watching, func(i int) error {
		c, err := dial()
		if err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(5 * cluster.Deadline)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET /v2/keys/crowd?wait=true&stream=true HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			return err
		}
		watchers[i] = bufio.NewReaderSize(c, 1<<10)
		return until(watchers[i], "\r\n")
	})
	watched := measure()
	each(t, idle, func(int) error { _, err := dial(); return err })
	full := measure()
	perStream := (watched.memory - before.memory) / watching
	t.Logf("%d streams take %d bytes each, %d connections that are not used %d; %d goroutines, %d files",
		watching, perStream, idle, (full.memory-watched.memory)/idle, full.goroutines, full.files)
	if perStream > crowdMemory {
		t.Errorf("a stream takes %d bytes, more than %d", perStream, crowdMemory)
	}

	const events = 3
	for n := range events {
		mustPut(t, m, "/crowd", fmt.Sprintf("event%d", n))
	}
	each(t, watching, func(i int) error {
		for n := range events {
			if err := until(watchers[i], fmt.Sprintf(`"value":"event%d"`, n)); err != nil {
				return fmt.Errorf("event %d: %w", n, err)
			}
		}
		return nil
	})
	mustPut(t, m, "/other", "1")

	if exit := m.Stop(); exit.Signal != syscall.SIGTERM {
		t.Errorf("with a crowd it ended with %v, want the end by SIGTERM", exit)
	}
	each(t, watching, func(i int) error {
		if _, err := io.Copy(io.Discard, watchers[i]); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("the end of the stream: %w", err)
		}
		return nil
	})
}

// until reads lines up to one that has a text in it, or is one that is only a line end.
func until(r *bufio.Reader, text string) error {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		if line == text || len(text) > 2 && strings.Contains(line, text) {
			return nil
		}
	}
}
