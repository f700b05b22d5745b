//go:build linux

package clients

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

var kindFlag = flag.String("kind", string(cluster.Quorate), "the `program` to test: quorate or etcd")

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	cluster.Clean()
	os.Exit(code)
}

func start(t *testing.T, size int) *cluster.Cluster {
	t.Helper()
	c := cluster.Start(t, cluster.Options{Kind: cluster.Kind(*kindFlag), Size: size})
	c.WaitLeader()
	return c
}

// limit is a context that ends only what would never end.
func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
