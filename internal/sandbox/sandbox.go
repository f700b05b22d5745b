//go:build linux

// Package sandbox runs a test binary again in Linux namespaces of its own, for tests that make networks,
// mounts and daemons.
//
// The namespaces have no names: whatever is made in them is invisible outside, and the kernel removes it
// when the process inside has ended, however that happened. Files go to a directory that is removed by the
// process outside, or else by the next one.
//
// A TestMain first asks [Inside]. If not, it asks [Available] and calls [Box.Run]; if so, it calls [Enter]
// and goes on with the tests.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Values of the variable that tells a process where it is.
const (
	variable = "QUORATE_SANDBOX"
	first    = "first"  // the first process in a new process namespace
	inside   = "inside" // where the tests run
)

// Box says what a test binary needs.
type Box struct {
	// Name is the beginning of the name of the directory for files, quorate-Name-PID-….
	Name string
	// Processes gives it a process namespace as well, so that daemons that it leaves behind end with it.
	Processes bool
	// Args come before the arguments of this process, so that these win, and Over after them.
	Args, Over []string
	// Env is added to the environment.
	Env []string
}

// Available says why there can be no sandbox here, if so.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("not root: namespaces need it")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return err
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("namespaces cannot be made: %w", err)
	}
	return nil
}

// Inside says whether this process is in a sandbox.
func Inside() bool { return os.Getenv(variable) != "" }

// Run runs this program again, with its arguments, in a new sandbox, and returns its exit status. It dies
// with this process. TMPDIR is a directory of its own there.
func (b Box) Run() (code int, err error) {
	dir, err := b.makeDir()
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	flags, stage := uintptr(syscall.CLONE_NEWNET|syscall.CLONE_NEWNS), inside
	if b.Processes {
		flags, stage = flags|syscall.CLONE_NEWPID, first
	}
	cmd := self(slices.Concat(b.Args, os.Args[1:], b.Over), append(b.Env, variable+"="+stage, "TMPDIR="+dir))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL}
	// The kernel ties the child's life to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// An interrupt reaches the child as well, which is in our process group, and ends it first.
	signal.Ignore(syscall.SIGINT)
	defer signal.Reset(syscall.SIGINT)
	return status(cmd.Run())
}

// TB is what Test needs of a test.
type TB interface {
	Helper()
	Name() string
	Fatalf(format string, args ...any)
}

// Test is for a single test that needs a sandbox, in a binary whose others do not. Outside it runs the
// test, which must not be a subtest, once more in a sandbox, and returns false: the test is over. Inside it
// returns true when the sandbox is fit to live in.
func (b Box) Test(t TB) bool {
	t.Helper()
	if Inside() {
		if err := Enter(); err != nil {
			t.Fatalf("%v", err)
		}
		return true
	}
	b.Over = append(b.Over, "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.testlogfile=", "-test.coverprofile=")
	code, err := b.Run()
	if err != nil || code != 0 {
		t.Fatalf("in the sandbox: exit status %d, error %v", code, err)
	}
	return false
}

// makeDir makes a directory for this process and removes those of processes that were killed.
func (b Box) makeDir() (string, error) {
	prefix := "quorate-" + b.Name + "-"
	left, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return "", err
	}
	for _, dir := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		_ = os.RemoveAll(dir) // it is another's, and only in the way
	}
	return os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid()))
}

// Enter makes the sandbox fit to live in: mounts do not reach outside, /run is empty and private, /proc
// shows the processes that there are, and the loopback interface is up. In a process namespace it returns
// in a child of the first process, which waits for all that end, as the first process has to.
func Enter() error {
	if os.Getenv(variable) == first {
		os.Exit(lead())
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("bring up the loopback interface: %w\n%s", err, out)
	}
	return nil
}

// lead is the life of the first process. When it ends, so do all others.
func lead() int {
	// The child may be interrupted; this process waits for it.
	signal.Ignore(syscall.SIGINT)
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Fprintf(os.Stderr, "mount /proc: %v\n", err)
		return 1
	}
	cmd := self(os.Args[1:], []string{variable + "=" + inside})
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for {
		var s syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &s, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			fmt.Fprintf(os.Stderr, "wait for the tests: %v\n", err)
			return 1
		case pid != cmd.Process.Pid:
		case s.Exited():
			return s.ExitStatus()
		case s.Signaled():
			fmt.Fprintf(os.Stderr, "the tests were ended by signal %v\n", s.Signal())
			return 1
		}
	}
}

func self(args, env []string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd
}

func status(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		return max(1, exit.ExitCode()), nil
	default:
		return 1, err
	}
}
