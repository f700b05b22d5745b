//go:build linux

package cli_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/client"
	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/internal/cluster"
)

func TestWatchLikeEtcdctl(t *testing.T) {
	ctx, k, endpoint := t.Context(), keys(t), etcd(t)
	etcdctl(t)
	set := func(key, value string, o client.SetOptions) func() (*client.Response, error) {
		return func() (*client.Response, error) { return k.Set(ctx, key, value, o) }
	}
	tests := []struct {
		name  string
		event func() (*client.Response, error)
		args  []string
	}{
		{"set", set("/watch/a", "1", client.SetOptions{}), []string{"/watch/a"}},
		{"set again", set("/watch/a", "2", client.SetOptions{}), []string{"watch/a"}},
		{"recursive", set("/watch/b/c", "3", client.SetOptions{}), []string{"--recursive", "/watch"}},
		{"recursive, flag behind", set("/watch/b/c", "3", client.SetOptions{TTL: time.Hour}), []string{"/watch", "-r"}},
		{"swap", set("/watch/b/c", "4", client.SetOptions{PrevValue: "3"}), []string{"-r", "/watch"}},
		{"delete", func() (*client.Response, error) {
			return k.Delete(ctx, "/watch/a", client.DeleteOptions{})
		}, []string{"-r", "/watch"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tt.event()
			if err != nil {
				t.Fatal(err)
			}
			for _, format := range []string{"simple", "extended", "json"} {
				args := []string{"-C", endpoint, "--no-sync", "-o", format, "watch", "--after-index", strconv.FormatUint(r.Index-1, 10)}
				args = append(args, tt.args...)
				want := runEtcdctl(t, "", args...)
				if got := quorate(t, "", args...); got != want {
					t.Errorf("-o %s: %v\netcdctl: %v", format, got, want)
				}
			}
		})
	}
}

// output collects what a verb prints and lets a test wait for a part of it.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait returns once the output contains text.
func (o *output) wait(t *testing.T, text string) {
	t.Helper()
	deadline := time.After(cluster.Deadline)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.changed:
		case <-deadline:
			t.Fatalf("no %q in the output:\n%s", text, o)
		}
	}
}

// running is a verb that goes on until it is told to stop.
type running struct {
	out, err *output
	stop     context.CancelFunc
	code     chan int
}

func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{newOutput(), newOutput(), cancel, make(chan int, 1)}
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(""))
	root.SetOut(r.out)
	root.SetErr(r.err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.code <- cli.Report(r.err, root.ExecuteContext(ctx))
	}()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

// end waits for the verb to end by itself.
func (r *running) end(t *testing.T) int {
	t.Helper()
	select {
	case code := <-r.code:
		return code
	case <-time.After(cluster.Deadline):
		t.Fatalf("the verb did not end\n%s%s", r.out, r.err)
		return -1
	}
}

func TestWatchForever(t *testing.T) {
	k, ctx := keys(t), t.Context()
	first, err := k.Set(ctx, "/forever/a", "1", client.SetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, "-C", etcd(t), "watch", "-f", "-r", "--after-index", fmt.Sprint(first.Index-1), "/forever")
	r.out.wait(t, "[set] /forever/a\n1\n")
	// A directory is passed over.
	if _, err := k.Set(ctx, "/forever/d", "", client.SetOptions{Dir: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Set(ctx, "/forever/d/b", "2", client.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Delete(ctx, "/forever/d/b", client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.out.wait(t, "[delete]")
	r.out.wait(t, "PrevNode.Value: 2\n")
	r.stop()
	if code := r.end(t); code != 0 {
		t.Errorf("exit code %d after Ctrl-C, want 0; stderr %s", code, r.err)
	}
	want := "[set] /forever/a\n1\n[set] /forever/d/b\n2\n[delete] /forever/d/b\nPrevNode.Value: 2\n"
	if got := r.out.String(); got != want {
		t.Errorf("printed %q\nwant    %q", got, want)
	}
}

func TestWatchOfLostIndex(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [304/11]","index":1303}`)
	}))
	defer s.Close()
	got := quorate(t, "", "-C", s.URL, "--no-sync", "watch", "-f", "--after-index", "10", "/a")
	want := result{4, "", "Error:  401: The event in requested index is outdated and cleared (the requested history has been cleared [304/11]) [1303]\n"}
	if got != want {
		t.Errorf("%v\nwant %v", got, want)
	}
}

func TestExecWatch(t *testing.T) {
	k, ctx, dir := keys(t), t.Context(), t.TempDir()
	script := `echo "$ETCD_WATCH_ACTION $ETCD_WATCH_KEY $ETCD_WATCH_VALUE $0 $1" > ` + dir + `/$ETCD_WATCH_MODIFIED_INDEX.tmp && mv ` +
		dir + `/$ETCD_WATCH_MODIFIED_INDEX.tmp ` + dir + `/$ETCD_WATCH_MODIFIED_INDEX`
	tests := []struct {
		name string
		args []string // KEY and AFTER stand for the key and an index
	}{
		{"with dashes", []string{"--after-index", "AFTER", "KEY", "--", "sh", "-c", script, "x", "-y"}},
		{"without dashes", []string{"--after-index", "AFTER", "KEY", "sh", "-c", script, "x", "-y"}},
		{"flags behind the key", []string{"KEY", "--after-index", "AFTER", "--", "sh", "-c", script, "x", "-y"}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			key := fmt.Sprintf("/exec/%d", i)
			e, err := k.Set(ctx, key, "hello", client.SetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			args := []string{"-C", etcd(t), "exec-watch"}
			for _, a := range tt.args {
				switch a {
				case "KEY":
					a = key
				case "AFTER":
					a = fmt.Sprint(e.Index - 1)
				}
				args = append(args, a)
			}
			r := start(t, args...)
			cluster.Eventually(t, "the command runs", func(context.Context) error {
				b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(e.Index)))
				if want := "set " + key + " hello x -y\n"; err == nil && string(b) != want {
					return fmt.Errorf("the command saw %q, want %q", b, want)
				}
				return err
			})
			r.stop()
			if code := r.end(t); code != 0 {
				t.Errorf("exit code %d after Ctrl-C, want 0; stderr %s", code, r.err)
			}
		})
	}
}

func TestExecWatchOfDirectory(t *testing.T) {
	k := keys(t)
	e, err := k.Set(t.Context(), "/exec/dir", "", client.SetOptions{Dir: true})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, "-C", etcd(t), "exec-watch", "--after-index", fmt.Sprint(e.Index-1), "-r", "/exec/dir", "--", "/does/not/exist")
	r.err.wait(t, "Ignored dir /exec/dir change\n")
	if _, err := k.Set(t.Context(), "/exec/dir/a", "", client.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := r.end(t); code != 1 || !strings.Contains(r.err.String(), "/does/not/exist: no such file or directory") {
		t.Errorf("exit code %d, want 1; stderr %s", code, r.err)
	}
}

func TestWatchExec(t *testing.T) {
	k, ctx := keys(t), t.Context()
	first, err := k.Set(ctx, "/wexec/a", "1", client.SetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Set(ctx, "/wexec/b", "2", client.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	after := fmt.Sprint(first.Index - 1)
	got := quorate(t, "", "-C", etcd(t), "watch", "-f", "-r", "--after-index", after,
		"--exec", `echo $ETCD_WATCH_KEY=$ETCD_WATCH_VALUE; test $ETCD_WATCH_VALUE = 1 || exit 7`, "/wexec")
	want := result{7, "/wexec/a=1\n/wexec/b=2\n", "Error:  command for /wexec/b: exit status 7\n"}
	if got != want {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
