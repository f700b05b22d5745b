//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/cluster"
)

// allowFiles sets how many files a member may have open, and returns how many it was allowed before.
func allowFiles(t *testing.T, m *cluster.Member, files uint64) (before uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(m.Pid(), unix.RLIMIT_NOFILE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	before = limit.Cur
	limit.Cur = files
	if err := unix.Prlimit(m.Pid(), unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		t.Skipf("the limits of another process cannot be changed here: %v", err)
	}
	return before
}

// request sends a GET on a connection and returns the status of the answer.
func request(c net.Conn, r *bufio.Reader) (int, error) {
	if err := c.SetDeadline(time.Now().Add(cluster.Deadline)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, "GET /v2/keys/x HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestNoFilesLeft takes away all file descriptors that a leader does not use: it goes on with what is open, and
// accepts connections again when it can.
func TestNoFilesLeft(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it says other things")
	c := start(t, 3)
	leader := c.WaitLeader()
	mustPut(t, leader, "/x", "1")
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(leader.ClientURL, "http://"), cluster.Deadline)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn, bufio.NewReader(conn)
	}
	open, openReader := dial()
	if status, err := request(open, openReader); err != nil || status != http.StatusOK {
		t.Fatal(status, err)
	}

	before := allowFiles(t, leader, 4)
	waiting, waitingReader := dial()
	leader.WaitLog("connections cannot be accepted at the moment")
	if status, err := request(open, openReader); err != nil || status != http.StatusOK {
		t.Errorf("a connection that was open: %d (%v)", status, err)
	}
	// What it says to the others goes over connections that are open.
	for _, m := range others(c, leader) {
		mustPut(t, m, "/x", "2")
	}

	allowFiles(t, leader, before)
	if status, err := request(waiting, waitingReader); err != nil || status != http.StatusOK {
		t.Errorf("the connection that had to wait: %d (%v)", status, err)
	}
	if n := strings.Count(leader.Log(), "connections cannot be accepted"); n > 3 {
		t.Errorf("it said so %d times", n)
	}
}

// TestDiskBecomesReadOnly lets the writes of a running member fail like those to a file system that was made
// read-only under it.
func TestDiskBecomesReadOnly(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it ends in a panic")
	if !long {
		t.Skip("it takes strace, and is one of the long rounds")
	}
	m := start(t, 1).Members[0]
	mustPut(t, m, "/x", "1")
	ctx, stop := context.WithCancel(t.Context())
	var said bytes.Buffer
	tracer := exec.CommandContext(ctx, "strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EROFS", "-p", fmt.Sprint(m.Pid()))
	tracer.Cancel = func() error { return tracer.Process.Signal(os.Interrupt) } // so that it lets go
	tracer.Stderr = &said
	if err := tracer.Start(); err != nil {
		stop()
		t.Skipf("no strace: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = tracer.Wait()
	}()
	defer func() {
		stop()
		<-ended
	}()
	for deadline := time.Now().Add(cluster.Deadline); m.Running(); {
		if time.Now().After(deadline) {
			t.Fatal("the member goes on although nothing can be written")
		}
		select {
		case <-ended:
			if m.Running() {
				t.Skipf("strace cannot be used here: %s", said.String())
			}
		default:
			one, cancel := context.WithTimeout(t.Context(), time.Second)
			_, _ = m.Put(one, "/x", "2") // only the end of the process counts
			cancel()
		}
	}
	wantRefusal(t, m, "read-only file system: a member must be able to write to "+m.DataDir+": make it writable and start the member again")
}
