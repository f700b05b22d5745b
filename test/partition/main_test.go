//go:build linux && partition

package partition

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
	"github.com/quorate/quorate/internal/sandbox"
)

// unable is why nothing can be tested here, if so.
var unable error

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	if sandbox.Inside() {
		if err := sandbox.Enter(); err != nil {
			return 1, err
		}
		go noticeStalls()
		return m.Run(), nil
	}
	unable = sandbox.Available()
	if _, err := exec.LookPath("iptables-restore"); err != nil {
		unable = err
	}
	if unable != nil {
		return m.Run(), nil
	}
	// The server is built out here, where a network is at hand should that need one.
	defer cluster.Clean()
	quorate, err := cluster.QuorateBinary()
	if err != nil {
		return 1, err
	}
	// Most of a test is waiting for requests that nobody can answer, so there may be more networks at a
	// time than processors.
	return sandbox.Box{
		Name: "partition",
		Args: []string{fmt.Sprintf("-test.parallel=%d", 2*runtime.NumCPU())},
		Env:  []string{"QUORATE_BINARY=" + quorate},
	}.Run()
}

// command runs a program that says nothing unless it fails.
func command(name string, args ...string) error {
	return feed("", name, args...)
}

// feed is command with a standard input.
func feed(input, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s%s", name, strings.Join(args, " "), err, input, out)
	}
	return nil
}
