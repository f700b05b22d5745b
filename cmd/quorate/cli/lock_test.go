//go:build linux

package cli_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
	"github.com/quorate/quorate/internal/cluster"
)

func TestLock(t *testing.T) {
	k, ctx := keys(t), t.Context()
	tests := []struct {
		name string
		args []string
		want result
	}{
		{"exit code 0", []string{"a", "--", "sh", "-c", "echo $QUORATE_LOCK_KEY; test $QUORATE_LOCK_INDEX -gt 0"}, result{0, "/locks/a\n", ""}},
		{"no dashes", []string{"--prefix", "/other", "a", "sh", "-c", "echo $QUORATE_LOCK_KEY"}, result{0, "/other/a\n", ""}},
		{"exit code of the command", []string{"a", "--", "sh", "-c", "exit 9"}, result{9, "", ""}},
		{"signal of the command", []string{"a", "--", "sh", "-c", "kill -KILL $$"}, result{137, "", ""}},
		{"no such command", []string{"a", "--", "/does/not/exist"}, result{1, "", "fork/exec /does/not/exist: no such file or directory\n"}},
		{"no command", []string{"a"}, result{1, "", "Error:  name and command required\n"}},
		{"time to live too short", []string{"--ttl", "1", "a", "true"}, result{1, "", "Error:  --ttl must be at least 2\n"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := quorate(t, "", append([]string{"-C", etcd(t), "lock"}, tt.args...)...)
			if got != tt.want {
				t.Errorf("%v\nwant %v", got, tt.want)
			}
			if _, err := k.Get(ctx, "/locks/a", client.GetOptions{}); !errors.Is(err, api.KeyNotFound) {
				t.Errorf("the lock was not released: %v", err)
			}
		})
	}
}

func TestLockWaits(t *testing.T) {
	k, ctx := keys(t), t.Context()
	held, err := k.Create(ctx, "/locks/wait", "somebody", 0)
	if err != nil {
		t.Fatal(err)
	}
	got := quorate(t, "", "-C", etcd(t), "lock", "--wait", "0s", "wait", "--", "echo", "no")
	if want := (result{4, "", "Error:  lock /locks/wait is held by someone else\n"}); got != want {
		t.Errorf("%v\nwant %v", got, want)
	}
	r := start(t, "-C", etcd(t), "lock", "wait", "--", "sh", "-c", "echo token $QUORATE_LOCK_INDEX")
	// A write to the key is not its end.
	if _, err := k.Set(ctx, "/locks/wait", "somebody else", client.SetOptions{PrevIndex: held.Index}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Delete(ctx, "/locks/wait", client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := r.end(t); code != 0 || !strings.HasPrefix(r.out.String(), "token ") {
		t.Errorf("exit code %d, output %q, %s", code, r.out, r.err)
	}
}

func TestLockLost(t *testing.T) {
	k, ctx := keys(t), t.Context()
	// The shell's child must die with it.
	pidFile := filepath.Join(t.TempDir(), "pid")
	r := start(t, "-C", etcd(t), "lock", "lost", "--",
		"sh", "-c", "sleep 1000 & echo $! > "+pidFile+"; echo started; wait")
	r.out.wait(t, "started")
	if _, err := k.Set(ctx, "/locks/lost", "thief", client.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	if code := r.end(t); code != 4 || !strings.Contains(r.err.String(), "lock /locks/lost was lost, the command was killed: set of the key by someone else\n") {
		t.Errorf("exit code %d, want 4; %s", code, r.err)
	}
	got, err := k.Get(ctx, "/locks/lost", client.GetOptions{})
	if err != nil || *got.Node.Value != "thief" {
		t.Errorf("the other holder's lock was touched: %v, %v", got, err)
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, "the command's child is gone", func(context.Context) error {
		if state := processState(strings.TrimSpace(string(b))); state != "" && state != "Z" {
			return errors.New("process " + strings.TrimSpace(string(b)) + " is in state " + state)
		}
		return nil
	})
}

// processState returns the letter that the kernel shows, and "" for a process that is not there.
func processState(pid string) string {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	state, _, _ := strings.Cut(rest, " ")
	return state
}

func TestLockIsRefreshed(t *testing.T) {
	t.Parallel()
	k, ctx := keys(t), t.Context()
	r := start(t, "-C", etcd(t), "lock", "--ttl", "8", "fresh", "--", "sh", "-c", "echo started; sleep 1000")
	r.out.wait(t, "started")
	first, err := k.Get(ctx, "/locks/fresh", client.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cluster.Eventually(t, "the lock is refreshed", func(ctx context.Context) error {
		now, err := k.Get(ctx, "/locks/fresh", client.GetOptions{})
		if err == nil && !now.Node.Expiration.After(*first.Node.Expiration) {
			return errors.New("same expiration")
		}
		return err
	})
	r.stop()
	r.end(t)
	if _, err := k.Get(ctx, "/locks/fresh", client.GetOptions{}); !errors.Is(err, api.KeyNotFound) {
		t.Errorf("the lock was not released: %v", err)
	}
}

// A signal goes to the command, whose exit code counts.
func TestLockForwardsSignals(t *testing.T) {
	etcd(t)
	r := start(t, "-C", etcd(t), "lock", "signal", "--", "sh", "-c", "trap 'exit 23' TERM; echo started; while :; do sleep 0.01; done")
	r.out.wait(t, "started")
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := r.end(t); code != 23 {
		t.Errorf("exit code %d, want 23; %s", code, r.err)
	}
}

// Cut off from the cluster, the command is killed when the lock runs out.
func TestLockCutOff(t *testing.T) {
	t.Parallel()
	proxy := newProxy(t, etcd(t))
	r := start(t, "-C", proxy.URL, "--no-sync", "lock", "--ttl", "2", "cut", "--", "sh", "-c", "echo started; sleep 1000")
	r.out.wait(t, "started")
	proxy.cut()
	code := r.end(t)
	if code != 4 || !strings.Contains(r.err.String(), "it could not be refreshed in time") {
		t.Errorf("exit code %d, want 4; %s", code, r.err)
	}
}
