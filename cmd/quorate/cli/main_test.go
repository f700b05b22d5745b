//go:build linux

package cli_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/client"
	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/internal/cluster"
)

// shared is one etcd for all tests, each of which keeps to a directory of its own. Nil: no etcd here.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	// The verbs read the environment; nothing of it may leak into the tests.
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "ETCDCTL_") || strings.HasPrefix(name, "QUORATE_") && name != "QUORATE_BINARY" {
			os.Unsetenv(name)
		}
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	tb := &program{}
	defer tb.end()
	if cluster.EtcdBinary() != "" {
		shared = cluster.Start(tb, cluster.Options{Kind: cluster.Etcd})
	}
	return m.Run()
}

// program is the cluster.TB of a whole test binary.
type program struct {
	failed  bool
	cleanup []func()
}

func (p *program) Helper()                   {}
func (p *program) Failed() bool              { return p.failed }
func (p *program) Cleanup(f func())          { p.cleanup = append(p.cleanup, f) }
func (p *program) Logf(f string, a ...any)   { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (p *program) Errorf(f string, a ...any) { p.failed = true; p.Logf(f, a...) }
func (p *program) Fatalf(f string, a ...any) { p.Errorf(f, a...); p.end(); os.Exit(1) }

func (p *program) end() {
	for i := len(p.cleanup) - 1; i >= 0; i-- {
		p.cleanup[i]()
	}
	p.cleanup = nil
}

// etcd returns the URL of the shared etcd, or skips the test.
func etcd(t *testing.T) string {
	t.Helper()
	if shared == nil {
		t.Skip("no etcd 3.4 in PATH, and ETCD_BINARY is not set")
	}
	return shared.Members[0].ClientURL
}

// etcdctl returns the path of etcdctl, or skips the test.
func etcdctl(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("no etcdctl in PATH to compare with")
	}
	return path
}

// keys returns direct access to the shared etcd, for setting up and checking.
func keys(t *testing.T) *client.Keys {
	t.Helper()
	c, err := client.New(client.Config{Endpoints: []string{etcd(t)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c.Keys("")
}

// result is what a run of the program left behind.
type result struct {
	code     int
	out, err string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\n--- stdout\n%s--- stderr\n%s", r.code, r.out, r.err)
}

// quorate runs the program in this process.
func quorate(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Deadline)
	defer cancel()
	var out, errs bytes.Buffer
	root := newRoot()
	if !slices.ContainsFunc(args, func(arg string) bool { return strings.HasSuffix(arg, "timeout") }) {
		// A busy machine may need longer than people want to wait.
		args = append([]string{"--timeout", "30s", "--total-timeout", "60s"}, args...)
	}
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	code := cli.Report(&errs, root.ExecuteContext(ctx))
	if ctx.Err() != nil {
		t.Errorf("quorate %q did not end", args)
	}
	return result{code, out.String(), errs.String()}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{Use: "quorate"}
	cli.Register(root)
	return root
}

// runEtcdctl runs the original.
func runEtcdctl(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), cluster.Deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, etcdctl(t), args...)
	cmd.Env = append(os.Environ(), "ETCDCTL_API=2")
	cmd.Stdin = strings.NewReader(stdin)
	cmd.WaitDelay = time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run etcdctl: %v", err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}
