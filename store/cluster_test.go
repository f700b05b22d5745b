package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/fsm/tree"
)

// patience is how long a test waits for what must happen. It only ends tests that fail.
const patience = 60 * time.Second

// testCluster runs members in this process, on loopback, with data in temporary directories.
type testCluster struct {
	t       *testing.T
	initial []Initial
	nodes   []*testNode
}

type testNode struct {
	cluster *testCluster
	options Options
	address string
	store   *Store
}

func newTestCluster(t *testing.T, size int, adjust ...func(i int, o *Options)) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	listeners := make([]net.Listener, size)
	for i := range size {
		listeners[i] = listen(t, "127.0.0.1:0")
		c.initial = append(c.initial, Initial{Name: fmt.Sprint("n", i), PeerURLs: []string{"http://" + listeners[i].Addr().String()}})
	}
	for i := range size {
		n := c.node(i, c.initial)
		n.address = listeners[i].Addr().String()
		for _, f := range adjust {
			f(i, &n.options)
		}
		n.open(listeners[i])
	}
	return c
}

func (c *testCluster) node(i int, initial []Initial) *testNode {
	n := &testNode{cluster: c, options: Options{
		Name:            fmt.Sprint("n", i),
		ClientURLs:      []string{fmt.Sprintf("http://127.0.0.1:%d", 10000+i)},
		DataDir:         c.t.TempDir(),
		Initial:         initial,
		Token:           "test",
		ElectionTimeout: 700 * time.Millisecond,
		EventHistory:    1000,
		MaxSnapshots:    2,
		StrictReconfig:  true,
		FastFailover:    true,
		Logger:          testLogger(fmt.Sprint("n", i)),
	}}
	n.options.AdvertisePeerURLs = initial[i].PeerURLs
	n.options.ListenPeerURLs = initial[i].PeerURLs
	c.nodes = append(c.nodes, n)
	return n
}

func testLogger(name string) hclog.Logger {
	if os.Getenv("QUORATE_TEST_LOG") == "" {
		return hclog.NewNullLogger()
	}
	return hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Debug, Output: os.Stderr})
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var l net.Listener
	var err error
	// A port that was just closed may be busy for a moment.
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if l, err = net.Listen("tcp", address); err == nil {
			return l
		}
	}
	t.Fatal(err)
	return nil
}

func (n *testNode) open(l net.Listener) {
	n.cluster.t.Helper()
	n.options.Listeners = []net.Listener{l}
	s, err := Open(context.Background(), n.options)
	if err != nil {
		n.cluster.t.Fatalf("open %s: %v", n.options.Name, err)
	}
	n.store = s
	n.cluster.t.Cleanup(func() { s.Close() })
}

// restart starts the member again on its data.
func (n *testNode) restart() {
	n.cluster.t.Helper()
	n.open(listen(n.cluster.t, n.address))
}

func (n *testNode) close() {
	n.cluster.t.Helper()
	if err := n.store.Close(); err != nil {
		n.cluster.t.Errorf("close %s: %v", n.options.Name, err)
	}
}

// crash stops the member without handing anything over.
func (n *testNode) crash() {
	n.store.stop(errors.New("crash"))
	n.close()
}

// await waits until f is true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
	}
}

func (c *testCluster) leader() *testNode {
	c.t.Helper()
	var leader *testNode
	await(c.t, "a leader", func() bool {
		for _, n := range c.nodes {
			if n.store.leaderID() == n.store.self && n.store.pipeline.currentRoute().open {
				leader = n
			}
		}
		return leader != nil
	})
	return leader
}

func (c *testCluster) follower() *testNode {
	c.t.Helper()
	leader := c.leader()
	for _, n := range c.nodes {
		if n != leader {
			return n
		}
	}
	c.t.Fatal("no follower")
	return nil
}

func (n *testNode) set(key, value string) {
	n.cluster.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := n.store.Do(ctx, tree.Write{Op: tree.Op{Action: tree.Set, Path: key, Value: value}})
	if err != nil {
		n.cluster.t.Fatalf("set %s through %s: %v", key, n.options.Name, err)
	}
}

// get reads without asking anyone.
func (n *testNode) get(key string) string {
	answer, err := n.store.Tree().Get(key, false, false)
	if err != nil {
		return err.Error()
	}
	return answer.Node.Value
}

// awaitEqual waits until all members hold the same state.
func (c *testCluster) awaitEqual(nodes ...*testNode) {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = c.nodes
	}
	await(c.t, "equal trees", func() bool {
		sum, index := nodes[0].store.Tree().Checksum()
		for _, n := range nodes[1:] {
			if s, i := n.store.Tree().Checksum(); s != sum || i != index {
				return false
			}
		}
		return true
	})
}
