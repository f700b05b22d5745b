//go:build linux

package clients

import (
	"strings"
	"testing"
	"time"

	"github.com/kvtools/etcdv2"
	"github.com/kvtools/valkeyrie/store"
	"github.com/kvtools/valkeyrie/testsuite"

	"github.com/quorate/quorate/internal/cluster"
	"github.com/quorate/quorate/internal/sandbox"
)

// inSandbox runs a test in a sandbox, see sandbox.Box.Test. The server is built outside, where a network is at hand
// should that need one.
func inSandbox(t *testing.T) bool {
	t.Helper()
	box := sandbox.Box{Name: "clients"}
	if !sandbox.Inside() && *kindFlag == string(cluster.Quorate) {
		path, err := cluster.QuorateBinary()
		if err != nil {
			t.Fatal(err)
		}
		box.Env = []string{"QUORATE_BINARY=" + path}
	}
	return box.Test(t)
}

// TestValkeyrie runs the test suite that all stores of the valkeyrie library have to pass, through its etcd v2 store:
// puts, atomic puts, lists, watches, locks and TTLs as applications use them. The server is where the library's own
// tests look for it, 127.0.0.1:4001, in a network of its own; without the right to make one, it is anywhere.
func TestValkeyrie(t *testing.T) {
	c := cluster.New(t, cluster.Options{Kind: cluster.Kind(*kindFlag)})
	if err := sandbox.Available(); sandbox.Inside() || err == nil {
		if !inSandbox(t) {
			return
		}
		c.Members[0].ClientURL = "http://127.0.0.1:4001"
	} else {
		t.Logf("not at port 4001: %v", err)
	}
	c.StartAll()
	c.WaitReady()
	addr := strings.TrimPrefix(c.Members[0].ClientURL, "http://")
	open := func() store.Store {
		// Credentials are sent and not needed, as in the library's own tests.
		kv, err := etcdv2.New(limit(t), []string{addr}, &etcdv2.Config{ConnectionTimeout: 30 * time.Second, Username: "test", Password: "very-secure"})
		if err != nil {
			t.Fatal(err)
		}
		return kv
	}
	kv, lockKV, ttlKV := open(), open(), open()
	testsuite.RunTestCommon(t, kv)
	testsuite.RunTestAtomic(t, kv)
	testsuite.RunTestWatch(t, kv)
	testsuite.RunTestLock(t, kv)
	testsuite.RunTestLockTTL(t, kv, lockKV)
	testsuite.RunTestListLock(t, kv)
	testsuite.RunTestTTL(t, kv, ttlKV)
	testsuite.RunCleanup(t, kv)
}
