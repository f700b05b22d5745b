//go:build linux && partition

package partition

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// inside is set in the environment of the test binary that runs in namespaces of its own.
const inside = "PARTITION_INSIDE"

// unable is why nothing can be tested here, if so.
var unable error

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(inside) != "" {
		if err := prepare(); err != nil {
			fmt.Fprintf(os.Stderr, "prepare the namespaces: %v\n", err)
			return 1
		}
		go noticeStalls()
		return m.Run()
	}
	if unable = able(); unable != nil {
		return m.Run()
	}
	// The binary is built out here, where a network is at hand should go need one.
	defer cluster.Clean()
	quorate, err := cluster.QuorateBinary()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	err = again(quorate)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	default:
		fmt.Fprintf(os.Stderr, "start again in a namespace: %v\n", err)
		return 1
	}
}

// able says what is missing to make networks.
func able() error {
	if os.Geteuid() != 0 {
		return errors.New("not root: network namespaces need it")
	}
	for _, tool := range []string{"ip", "iptables-restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: namespaces}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("namespaces cannot be made: %w", err)
	}
	return nil
}

const namespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS

// again runs this test binary, with its arguments, in a network and a mount namespace of its own. It dies
// with this process.
func again(quorate string) error {
	runtime.LockOSThread() // the kernel ties the child's life to the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", append(parallel(), os.Args[1:]...)...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), inside+"=1", "QUORATE_BINARY="+quorate)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: namespaces, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// parallel is how many networks there are at a time unless the caller says so. Most of a test is waiting
// for requests that nobody can answer, so there may be more than there are processors.
func parallel() []string {
	args := []string{fmt.Sprintf("-test.parallel=%d", 2*runtime.NumCPU())}
	flag.Visit(func(f *flag.Flag) {
		if f.Name == "test.parallel" {
			args = nil
		}
	})
	return args
}

// prepare makes the new namespaces fit to live in. A private /run keeps the names of ours out of sight.
func prepare() error {
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	return command("ip", "link", "set", "lo", "up")
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
