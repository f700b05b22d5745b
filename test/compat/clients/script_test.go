//go:build linux

package clients

import (
	"errors"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/quorate/quorate/internal/cluster"
)

// TestScripts runs each script in testdata/script with etcdctl and with our own program, against etcd and against
// Quorate: the four say the same, and end with the same exit code.
//
// Besides the words of testscript a script has "ctl CODE ARGS...", which runs the program against the server and
// expects the exit code, and "bare CODE ARGS...", which does so without naming the server.
func TestScripts(t *testing.T) {
	etcdctl, err := exec.LookPath("etcdctl")
	if err != nil {
		t.Skip("etcdctl is not installed")
	}
	if cluster.EtcdBinary() == "" {
		t.Skip("no etcd 3.4 in PATH")
	}
	quorate, err := cluster.QuorateBinary()
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []cluster.Kind{cluster.Etcd, cluster.Quorate} {
		c := cluster.Start(t, cluster.Options{Kind: server})
		endpoint := c.Endpoints()[0]
		for name, program := range map[string]string{"etcdctl": etcdctl, "quorate": quorate} {
			t.Run(name+" with "+string(server), func(t *testing.T) {
				testscript.RunT(sequential{t}, testscript.Params{
					Dir: "testdata/script",
					Setup: func(env *testscript.Env) error {
						env.Setenv("ETCDCTL_API", "2")
						env.Setenv("ENDPOINT", endpoint)
						return nil
					},
					Cmds: map[string]func(*testscript.TestScript, bool, []string){
						"ctl":  func(ts *testscript.TestScript, _ bool, args []string) { expect(ts, program, args, "-C", endpoint) },
						"bare": func(ts *testscript.TestScript, _ bool, args []string) { expect(ts, program, args) },
					},
				})
			})
		}
	}
}

// expect runs a program with the flags and all arguments but the first, which is its exit code.
func expect(ts *testscript.TestScript, program string, args []string, flags ...string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(program, append(flags, args[1:]...)...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d:\n%s%s", got, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// sequential runs scripts one after the other: they share a server, and one of them switches users on.
type sequential struct{ *testing.T }

func (sequential) Parallel()     {}
func (sequential) Verbose() bool { return testing.Verbose() }

func (s sequential) Run(name string, f func(testscript.T)) {
	s.T.Run(name, func(t *testing.T) { f(sequential{t}) })
}
