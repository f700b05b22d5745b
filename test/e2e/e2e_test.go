//go:build linux

package e2e

import (
	"context"
	"flag"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

var kindFlag = flag.String("kind", string(cluster.Quorate), "the `program` to test: quorate, or etcd to see whether a test is fair")

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for processes, so more of them run at a time than there are processors.
	parallel := flag.Lookup("test.parallel").Value
	if parallel.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Set("4") // a number, so it is accepted
	}
	code := m.Run()
	cluster.Clean()
	os.Exit(code)
}

func kind() cluster.Kind { return cluster.Kind(*kindFlag) }

// quorateOnly skips tests of what etcd 3.4 does differently, or not at all, when they are run on it.
func quorateOnly(t *testing.T, why string) {
	t.Helper()
	if kind() != cluster.Quorate {
		t.Skip("not so in etcd: " + why)
	}
}

// start starts a cluster of this many members and waits until it serves.
func start(t *testing.T, size int, flags ...string) *cluster.Cluster {
	t.Helper()
	return cluster.Start(t, cluster.Options{Kind: kind(), Size: size, Flags: flags})
}

// limit is a context for one request. Its deadline is above the server's own of 7 s, so that it ends only
// what would never end.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// mustPut sets a key and fails the test unless that is acknowledged.
func mustPut(t *testing.T, m *cluster.Member, key, value string, fields ...string) cluster.Response {
	t.Helper()
	resp, err := m.Put(limit(t), key, value, fields...)
	if err != nil || !resp.OK() {
		t.Fatalf("PUT %s = %q on %s: %v (%v)", key, value, m.Name, resp, err)
	}
	return resp
}

// wantValue fails the test unless a linearizable read finds the value.
func wantValue(t *testing.T, m *cluster.Member, key, want string) {
	t.Helper()
	resp, err := m.QuorumGet(limit(t), key)
	if err != nil || resp.Status != http.StatusOK || resp.Value() != want {
		t.Errorf("GET %s on %s = %v (%v), want value %q", key, m.Name, resp, err, want)
	}
}

// eventuallyPut repeats a write until it is acknowledged; the value may be written more than once.
func eventuallyPut(t *testing.T, m *cluster.Member, key, value string) {
	t.Helper()
	cluster.Eventually(t, "a write through "+m.Name, func(ctx context.Context) error {
		resp, err := m.Put(ctx, key, value)
		return answered(resp, err)
	})
}

// serving is a condition: the member is healthy, or its process has ended.
func serving(m *cluster.Member) func(context.Context) error {
	return func(ctx context.Context) error {
		if !m.Running() {
			return nil
		}
		resp, err := m.Do(ctx, http.MethodGet, "/health", "", "")
		return answered(resp, err)
	}
}
