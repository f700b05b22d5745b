//go:build linux

package clients

import (
	"strings"
	"testing"
	"time"

	"github.com/kvtools/etcdv2"
	"github.com/kvtools/valkeyrie/store"
	"github.com/kvtools/valkeyrie/testsuite"
)

// TestValkeyrie runs the test suite that all stores of the valkeyrie library have to pass, through its etcd v2 store:
// puts, atomic puts, lists, watches, locks and TTLs as applications use them.
func TestValkeyrie(t *testing.T) {
	addr := strings.TrimPrefix(start(t, 1).Members[0].ClientURL, "http://")
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
