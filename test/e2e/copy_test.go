//go:build linux

package e2e

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

var migrateKeys = flag.Int("migrate-keys", 0, "how many `keys` TestMigrateFromEtcd copies (0: 1000, or 5000 in long rounds)")

// output is what a process has printed so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// TestMigrateFromEtcd moves from a running etcd 3.4 to a cluster of three, while somebody keeps writing to the
// former: keys, directories, times to live and deletions. The program that does it is killed on the way and started
// again. In the end both hold the same, as two readings show that have nothing to do with that program.
func TestMigrateFromEtcd(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it has no migrate")
	if cluster.EtcdBinary() == "" {
		t.Skip("no etcd 3.4 in PATH")
	}
	binary, err := cluster.QuorateBinary()
	if err != nil {
		t.Fatal(err)
	}
	old := cluster.Start(t, cluster.Options{Kind: cluster.Etcd}).Members[0]
	c := start(t, 3)
	n := *migrateKeys
	switch {
	case n == 0 && long:
		n = 5000
	case n == 0:
		n = 1000
	}
	fillSource(t, old, n)

	run := func() (*exec.Cmd, *output) {
		cmd := exec.Command(binary, "-C", c.Members[0].ClientURL, "migrate", "--from", old.ClientURL, "--follow", "--resync", "5s")
		out := &output{}
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		return cmd, out
	}

	// The writer goes through a few hundred keys, again and again.
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	written := 0
	writing.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			key := fmt.Sprintf("/live/%d/%d", i%7, i%301)
			var resp cluster.Response
			var err error
			switch {
			case i%11 == 10:
				resp, err = old.Delete(t.Context(), key)
			case i%5 == 4:
				resp, err = old.Put(t.Context(), key, fmt.Sprint(i), "ttl=1000")
			default:
				resp, err = old.Put(t.Context(), key, fmt.Sprint(i))
			}
			if err != nil || resp.Status >= 500 {
				t.Errorf("write to etcd: %v, %v", resp, err)
				return
			}
			written = i
		}
	})

	began := time.Now()
	cmd, _ := run()
	cluster.Eventually(t, "a third of the keys at the destination", func(ctx context.Context) error {
		values, _, err := c.Members[0].Listing(ctx, "/")
		if err == nil && len(values) < n/3 {
			err = fmt.Errorf("%d of %d", len(values), n)
		}
		return err
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait() // it was killed
	cmd, out := run()
	for !strings.Contains(out.String(), "following") {
		if time.Since(began) > 5*time.Minute {
			t.Fatalf("it does not follow:\n%s", out)
		}
		time.Sleep(20 * time.Millisecond) // between two looks; what is printed decides
	}
	copied := time.Since(began)
	// A change that comes now arrives by the watch.
	mustPut(t, old, "/live/last", "x")
	cluster.Eventually(t, "a change to be followed", func(ctx context.Context) error {
		resp, err := c.Members[1].QuorumGet(ctx, "/live/last")
		if err == nil && resp.Value() != "x" {
			err = fmt.Errorf("%v", resp)
		}
		return err
	})
	stop()
	writing.Wait()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "verified: ") {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	t.Logf("%d keys copied in %v with a break, all done in %v, %d writes meanwhile\n%s", n, copied.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), written, out)
	compareNodes(t, old, c.Members[2])
}

// fillSource writes n keys in 100 directories; each tenth has a time to live, and each directory something in it that is
// no plain key.
func fillSource(t *testing.T, m *cluster.Member, n int) {
	t.Helper()
	const workers = 16
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for i := w; i < n; i += workers {
				var fields []string
				if i%10 == 0 {
					fields = []string{fmt.Sprint("ttl=", 3000+i%1000)}
				}
				if resp, err := m.Put(t.Context(), fmt.Sprintf("/d%d/k%d", i%100, i), fmt.Sprintf("value %d <&> ü\n", i), fields...); err != nil || !resp.OK() {
					t.Errorf("fill: %v, %v", resp, err)
					return
				}
			}
		})
	}
	work.Wait()
	mustPut(t, m, "/d0/empty", "")
	for _, dir := range []string{"/empty", "/timed"} {
		fields := "dir=true"
		if dir == "/timed" {
			fields = "dir=true&ttl=5000"
		}
		if resp, err := m.Do(limit(t), "PUT", "/v2/keys"+dir+"?"+fields, "", ""); err != nil || !resp.OK() {
			t.Fatalf("make %s: %v, %v", dir, resp, err)
		}
	}
	mustPut(t, m, "/timed/k", "x")
}

// compareNodes fails the test unless both hold the same keys and directories with the same values, and with times to live
// that differ by a few seconds at most.
func compareNodes(t *testing.T, want, got *cluster.Member) {
	t.Helper()
	read := func(m *cluster.Member) map[string]*api.Node {
		resp, err := m.Do(limit(t), "GET", "/v2/keys/?recursive=true&quorum=true", "", "")
		if err != nil {
			t.Fatal(err)
		}
		event, err := resp.Event()
		if err != nil {
			t.Fatal(err)
		}
		nodes := map[string]*api.Node{}
		var add func(*api.Node)
		add = func(n *api.Node) {
			nodes[n.Key] = n
			for _, child := range n.Nodes {
				add(child)
			}
		}
		add(event.Node)
		return nodes
	}
	const margin = 30 // seconds; what a busy machine may put between two readings
	a, b := read(want), read(got)
	wrong := 0
	for key, x := range a {
		y := b[key]
		var problem string
		switch {
		case y == nil:
			problem = "lost"
		case x.Dir != y.Dir || (x.Value == nil) != (y.Value == nil) || x.Value != nil && *x.Value != *y.Value:
			problem = fmt.Sprintf("is %+v, want %+v", y, x)
		case (x.Expiration == nil) != (y.Expiration == nil) || x.TTL-y.TTL > margin || y.TTL-x.TTL > margin:
			problem = fmt.Sprintf("lives for %d s, want %d s", y.TTL, x.TTL)
		}
		if problem != "" {
			if wrong++; wrong < 10 {
				t.Errorf("%s: %s", key, problem)
			}
		}
	}
	for key := range b {
		if a[key] == nil {
			t.Errorf("%s: not at the source", key)
		}
	}
	t.Logf("%d nodes compared, %d wrong", len(a), wrong)
}
