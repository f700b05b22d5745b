//go:build linux

package clients

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// etcdctl makes a command of etcdctl 3.4 that speaks the v2 API with all members.
func etcdctl(t *testing.T, c *cluster.Cluster, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("etcdctl is not installed")
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"--endpoints", strings.Join(c.Endpoints(), ",")}, args...)...)
	cmd.Env = []string{"ETCDCTL_API=2", "PATH=" + os.Getenv("PATH")}
	return cmd
}

// TestEtcdctl runs commands and compares what they print with what they print when they speak with etcd.
func TestEtcdctl(t *testing.T) {
	c := start(t, 3)
	tests := []run{
		{"set /app/port 80", "80\n", 0},
		{"get /app/port", "80\n", 0},
		{"get /app", "/app: is a directory\n", 1},
		{"get /nope", `Error:  100: Key not found \(/nope\) \[\d+\]\n`, 4},
		{"mk /app/port 81", `Error:  105: Key already exists \(/app/port\) \[\d+\]\n`, 4},
		{"mk /app/host h", "h\n", 0},
		{"mk --in-order /app/q job", "job\n", 0},
		{"mkdir /app/dir", "", 0},
		{"setdir /app/dir2", "", 0},
		{"update /app/host g", "g\n", 0},
		{"set --swap-with-value nope /app/host f", `Error:  101: Compare failed \(\[nope != g\]\) \[\d+\]\n`, 4},
		{"ls --sort /app", "/app/dir\n/app/dir2\n/app/host\n/app/port\n/app/q\n", 0},
		{"ls -p --sort /app", "/app/dir/\n/app/dir2/\n/app/host\n/app/port\n/app/q/\n", 0},
		{"ls -r --sort /", `/app\n/app/dir\n/app/dir2\n/app/host\n/app/port\n/app/q\n/app/q/\d{20}\n`, 0},
		{"-o extended get /app/port", `Key: /app/port\nCreated-Index: \d+\nModified-Index: \d+\nTTL: 0\nIndex: \d+\n\n80\n`, 0},
		{"rmdir /app", `Error:  108: Directory not empty \(/app\) \[\d+\]\n`, 4},
		{"rm /app/dir2", `Error:  102: Not a file \(/app/dir2\) \[\d+\]\n`, 4},
		{"rmdir /app/dir2", "", 0},
		{"rm /app/port", "PrevNode.Value: 80\n", 0},
		{"rm --recursive /app", "", 0},
		{"member list", "(" + `[0-9a-f]+: name=m\d peerURLs=http://\S+ clientURLs=http://\S+ isLeader=(true|false)\n` + "){3}", 0},
		{"cluster-health", "(" + `member [0-9a-f]+ is healthy: got healthy result from http://\S+\n` + "){3}cluster is healthy\n", 0},
	}
	for _, tt := range tests {
		tt.check(t, c)
	}
}

// TestEtcdctlAuth switches authentication on and off.
func TestEtcdctlAuth(t *testing.T) {
	c := start(t, 3)
	for _, tt := range []run{
		{"user add root:secret", "User root created\n", 0},
		{"auth enable", "Authentication Enabled\n", 0},
		{"-u root:secret set /x 1", "1\n", 0},
		{"-u root:secret role get guest", `Role: guest\nKV Read:\n\t/\*\nKV Write:\n\t/\*\n`, 0},
		{"-u root:wrong set /x 1", `Error:  110: The request requires user authentication \(Insufficient credentials\) \[0\]\n`, 4},
		{"-u root:secret auth disable", "Authentication Disabled\n", 0},
	} {
		tt.check(t, c)
	}
}

// run is one call of etcdctl.
type run struct {
	args string
	want string // a regular expression for the whole output
	code int
}

func (r run) check(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	out, err := etcdctl(t, c, strings.Fields(r.args)...).CombinedOutput()
	code := 0
	if exit, ok := err.(*exec.ExitError); ok {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile("^(" + r.want + ")$").Match(out) {
		t.Errorf("etcdctl %s printed %q, want %q", r.args, out, r.want)
	}
	if code != r.code {
		t.Errorf("etcdctl %s ended with %d, want %d", r.args, code, r.code)
	}
}

// lines starts a command and returns the lines it prints.
func lines(t *testing.T, cmd *exec.Cmd) <-chan string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ch := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(ch)
		s := bufio.NewScanner(out)
		for s.Scan() {
			ch <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-done
		_ = cmd.Wait() // its status says that it was killed
	})
	return ch
}

func wantLine(t *testing.T, ch <-chan string, want string) {
	t.Helper()
	select {
	case line := <-ch:
		if line != want {
			t.Errorf("printed %q, want %q", line, want)
		}
	case <-time.After(cluster.Deadline):
		t.Fatalf("nothing printed in %v, want %q", cluster.Deadline, want)
	}
}

// TestEtcdctlWatch has watch and exec-watch print changes, from the past so that none can be missed.
func TestEtcdctlWatch(t *testing.T) {
	c := start(t, 1)
	m := c.Members[0]
	put := func(key, value string) uint64 {
		t.Helper()
		resp, err := m.Put(limit(t), key, value)
		if err != nil || !resp.OK() {
			t.Fatalf("PUT %s: %v (%v)", key, resp, err)
		}
		return resp.Index()
	}
	before := put("/before", "0")
	after := []string{"--after-index", strconv.FormatUint(before, 10)}
	put("/w/a", "1")
	watch := lines(t, etcdctl(t, c, append(append([]string{"watch", "--recursive", "--forever"}, after...), "/w")...))
	wantLine(t, watch, "[set] /w/a")
	wantLine(t, watch, "1")
	put("/w/b", "2")
	wantLine(t, watch, "[set] /w/b")
	wantLine(t, watch, "2")

	// etcdctl takes its arguments apart rightly only when a switch comes last before the key.
	exec := lines(t, etcdctl(t, c, append(append([]string{"exec-watch"}, after...), "--recursive", "/w", "--", "sh", "-c",
		"echo $ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE")...))
	got := map[string]bool{} // the commands run side by side
	for range 2 {
		select {
		case line := <-exec:
			got[line] = true
		case <-time.After(cluster.Deadline):
			t.Fatalf("exec-watch printed only %v", got)
		}
	}
	for _, want := range []string{"set /w/a 1", "set /w/b 2"} {
		if !got[want] {
			t.Errorf("exec-watch printed %v, want %q", got, want)
		}
	}
}
