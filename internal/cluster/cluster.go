//go:build linux

// Package cluster runs real servers for tests and benchmarks: Quorate, or etcd 3.4 to compare it with.
//
// Every member is a process of its own with a loopback address of its own (127.x.y.z), as if it were
// a machine of its own, so that members of tests that run side by side never fight for a port and
// a member that is down for a while finds its port free when it comes back. Processes die with the
// test, even with one that is killed. Everything is spoken over the wire; the package knows nothing of
// Quorate's insides.
//
// Nothing here sleeps for luck: each wait polls a condition, with a deadline that only a failure reaches.
package cluster

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Kind is the program that a cluster consists of.
type Kind string

// The programs that the harness can start.
const (
	Quorate Kind = "quorate"
	// Etcd is etcd 3.4 with --enable-v2, found in PATH or named by ETCD_BINARY.
	Etcd Kind = "etcd"
)

// Deadline is how long every wait of the package lasts before it fails the test. Nothing comes near it
// on a healthy machine; it is generous because test machines are not.
const Deadline = 60 * time.Second

// TB is what the harness needs of a test; *testing.T and *testing.B have it, and so can a program.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
	Cleanup(func())
}

// Options says what a cluster is made of. The zero value is one Quorate member.
type Options struct {
	Kind Kind
	// Binary is the program. Empty means what QuorateBinary and EtcdBinary find.
	Binary string
	// Size is the number of members. Zero means 1.
	Size int
	// Token is the initial cluster token. Empty means the server's default.
	Token string
	// Discovery is the URL that members are started with in place of an initial cluster.
	Discovery string
	// Flags are given to every member, after the harness's own, so that they win.
	Flags []string
	// Env is added to the environment of every member. ETCD_* and QUORATE_* of the test's own
	// environment never reach it.
	Env []string
	// Dir holds data directories and logs. Empty means a temporary directory, removed at the end
	// unless CLUSTER_KEEP is set in the environment.
	Dir string
	// Names are the members' names. Empty means m0, m1, …
	Names []string
	// CrashOK turns off the check that no log shows a crash (panic, data race) at the end.
	CrashOK bool
}

// Cluster is a set of members that were told of each other. Its methods that can fail end the test, so
// they belong to the test's goroutine, except where they return an error.
type Cluster struct {
	Members []*Member

	tb     TB
	opts   Options
	dir    string
	client *http.Client
}

// New makes the members of a cluster, with addresses and directories. It starts none.
func New(tb TB, opts Options) *Cluster {
	tb.Helper()
	if opts.Kind == "" {
		opts.Kind = Quorate
	}
	if opts.Size == 0 {
		opts.Size = max(1, len(opts.Names))
	}
	c := &Cluster{tb: tb, opts: opts, dir: opts.Dir, client: newHTTPClient()}
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "quorate-cluster-")
		if err != nil {
			tb.Fatalf("make the cluster's directory: %v", err)
		}
		c.dir = dir
		tb.Cleanup(func() {
			if os.Getenv("CLUSTER_KEEP") != "" {
				tb.Logf("kept %s", dir)
				return
			}
			_ = os.RemoveAll(dir)
		})
	} else if err := os.MkdirAll(c.dir, 0o700); err != nil {
		tb.Fatalf("make the cluster's directory: %v", err)
	}
	tb.Cleanup(c.cleanup)
	for i := range opts.Size {
		name := fmt.Sprintf("m%d", i)
		if i < len(opts.Names) {
			name = opts.Names[i]
		}
		c.newMember(name)
	}
	for _, m := range c.Members {
		if opts.Discovery != "" {
			m.Boot = []string{"--discovery", opts.Discovery}
			continue
		}
		m.Boot = []string{"--initial-cluster", c.InitialCluster(), "--initial-cluster-state", "new"}
		if opts.Token != "" {
			m.Boot = append(m.Boot, "--initial-cluster-token", opts.Token)
		}
	}
	return c
}

// Start makes a cluster, starts all its members and returns when they serve, have a leader and know each
// other's client URLs.
func Start(tb TB, opts Options) *Cluster {
	tb.Helper()
	c := New(tb, opts)
	c.StartAll()
	c.WaitReady()
	c.waitPublished()
	return c
}

func (c *Cluster) newMember(name string) *Member {
	c.tb.Helper()
	m := &Member{
		Name:    name,
		DataDir: filepath.Join(c.dir, fmt.Sprintf("%s-%d.data", name, len(c.Members))),
		cluster: c,
		logPath: filepath.Join(c.dir, fmt.Sprintf("%s-%d.log", name, len(c.Members))),
	}
	m.Move()
	c.Members = append(c.Members, m)
	return m
}

// Join returns one more member, which is to join the cluster as it is now: state existing, and an initial
// cluster of all members of c that are not forgotten. Announcing it with a POST is the test's business.
func (c *Cluster) Join(name string) *Member {
	c.tb.Helper()
	m := c.newMember(name)
	m.Boot = []string{"--initial-cluster", c.InitialCluster(), "--initial-cluster-state", "existing"}
	return m
}

// Forget takes a member out of Members. Its process is not touched, and still ended with the test.
func (c *Cluster) Forget(m *Member) {
	c.tb.Helper()
	i := slices.Index(c.Members, m)
	if i < 0 {
		c.tb.Fatalf("%s is not a member", m.Name)
	}
	c.Members = slices.Delete(slices.Clone(c.Members), i, i+1)
	c.tb.Cleanup(m.cleanup)
}

// InitialCluster is the value of --initial-cluster for the members there are.
func (c *Cluster) InitialCluster() string {
	var pairs []string
	for _, m := range c.Members {
		pairs = append(pairs, m.Name+"="+m.PeerURL)
	}
	return strings.Join(pairs, ",")
}

// Kind returns the program that the cluster consists of.
func (c *Cluster) Kind() Kind { return c.opts.Kind }

// Dir is where the cluster's data directories and logs are.
func (c *Cluster) Dir() string { return c.dir }

// StartAll starts every member that is not running. It does not wait for them.
func (c *Cluster) StartAll() {
	c.tb.Helper()
	for _, m := range c.Members {
		if !m.Running() {
			m.Start()
		}
	}
}

// KillAll kills every running member with SIGKILL, all of them before it waits for any.
func (c *Cluster) KillAll() {
	c.tb.Helper()
	running := c.Running()
	for _, m := range running {
		m.signalKill()
	}
	for _, m := range running {
		m.Wait()
	}
}

// StopAll asks every running member to stop, one after the other, and waits for it.
func (c *Cluster) StopAll() {
	c.tb.Helper()
	for _, m := range c.Running() {
		m.Stop()
	}
}

// Running returns the members whose process runs.
func (c *Cluster) Running() []*Member {
	var running []*Member
	for _, m := range c.Members {
		if m.Running() {
			running = append(running, m)
		}
	}
	return running
}

// Endpoints are the client URLs of all members.
func (c *Cluster) Endpoints() []string {
	var urls []string
	for _, m := range c.Members {
		urls = append(urls, m.ClientURL)
	}
	return urls
}

// cleanup ends all processes, shows the end of their logs when the test failed, and looks for crashes.
func (c *Cluster) cleanup() {
	for _, m := range c.Members {
		m.cleanup()
	}
	c.client.CloseIdleConnections()
}
