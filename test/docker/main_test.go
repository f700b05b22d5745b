//go:build linux && docker

package docker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/sandbox"
)

// What the process outside tells the one in the sandbox, and TestMain the tests.
const (
	// binaryVariable names the static binary that the image is made around.
	binaryVariable = "DOCKER_TEST_BINARY"
	// runVariable is the name of this run: the process ID of the first process.
	runVariable = "DOCKER_TEST_RUN"
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
		stop, err := startEngine()
		if err != nil {
			unable = err
			return m.Run(), nil
		}
		defer stop()
		return m.Run(), nil
	}
	if _, err := exec.LookPath("docker"); err != nil {
		unable = err
		return m.Run(), nil
	}
	answers := exec.Command("docker", "version").Run() == nil
	if !answers {
		if unable = engineAvailable(); unable != nil {
			return m.Run(), nil
		}
	}
	// A name that the next run knows, should this one be killed.
	dir, err := os.MkdirTemp("", fmt.Sprintf("quorate-docker-%d-", os.Getpid()))
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	binary, err := buildBinary(dir)
	if err != nil {
		return 1, err
	}
	name := strconv.Itoa(os.Getpid())
	if answers {
		removeLeftovers()
		os.Setenv(binaryVariable, binary)
		os.Setenv(runVariable, name)
		defer func() { _ = exec.Command("docker", "image", "rm", "-f", prefix+name).Run() }()
		return m.Run(), nil
	}
	removeControlGroups(func(pid int) bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
	defer removeControlGroups(func(pid int) bool { return pid == os.Getpid() })
	return sandbox.Box{
		Name:      "docker",
		Processes: true,
		Env:       []string{binaryVariable + "=" + binary, runVariable + "=" + name},
	}.Run()
}

// buildBinary builds the server without C, so that it needs nothing else in its image.
func buildBinary(dir string) (string, error) {
	path, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "quorate")
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/quorate")
	cmd.Dir = path
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	return binary, nil
}

// engineAvailable says why no engine can be started, if so.
func engineAvailable() error {
	if _, err := exec.LookPath("dockerd"); err != nil {
		return fmt.Errorf("no container engine answers, and none can be started: %w", err)
	}
	return sandbox.Available()
}

// startEngine starts dockerd in the sandbox, in the first way that works, and has the docker command use it.
func startEngine() (stop func(), err error) {
	const socket = "unix:///run/docker.sock"
	os.Setenv("DOCKER_HOST", socket)
	for _, variable := range []string{"DOCKER_CONTEXT", "DOCKER_TLS_VERIFY"} {
		os.Unsetenv(variable)
	}
	args := []string{
		"--host", socket,
		"--cgroup-parent", controlGroup + os.Getenv(runVariable),
		"--exec-opt", "native.cgroupdriver=cgroupfs",
		"--data-root", filepath.Join(os.TempDir(), "engine"),
	}
	var errs []error
	for _, more := range [][]string{
		nil, // the best storage driver that works
		{"--storage-driver", "vfs"},
		{"--storage-driver", "vfs", "--iptables=false"},
	} {
		stop, err := startDockerd(append(args, more...))
		if err == nil {
			return stop, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// engineTimeout is how long dockerd may take to answer, and to end.
const engineTimeout = 30 * time.Second

func startDockerd(args []string) (stop func(), err error) {
	logPath := filepath.Join(os.TempDir(), "dockerd.log")
	log, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(engineTimeout):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	for {
		if exec.CommandContext(ctx, "docker", "version").Run() == nil {
			return stop, nil
		}
		select {
		case err = <-ended:
			ended <- err
		case <-ctx.Done():
			err = fmt.Errorf("no answer in %v", engineTimeout)
		case <-time.After(100 * time.Millisecond):
			continue
		}
		stop()
		text, _ := os.ReadFile(logPath)
		return nil, fmt.Errorf("dockerd %s: %w\n%s", strings.Join(args, " "), err, tail(string(text), 15))
	}
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// controlGroup and the name of the run are the name of the control group that contains all containers. No
// namespace hides these.
const controlGroup = "quorate-docker-"

// removeControlGroups removes what dockerd left of the control groups of a run.
func removeControlGroups(ended func(pid int) bool) {
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		groups, err := filepath.Glob(pattern + controlGroup + "*")
		if err != nil {
			continue
		}
		for _, group := range groups {
			pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(group), controlGroup))
			if err != nil || !ended(pid) {
				continue
			}
			below, _ := filepath.Glob(group + "/*")
			for _, dir := range append(below, group) {
				_ = os.Remove(dir) // fails while in use, and for files
			}
		}
	}
}

// prefix begins the names of all that is made in an engine; the name of the run follows.
const prefix = "quorate-test-"

// removeLeftovers removes what a killed run left in an engine that is not ours.
func removeLeftovers() {
	for _, kind := range []struct{ list, remove []string }{
		{[]string{"ps", "-a", "--format", "{{.Names}}"}, []string{"rm", "-f", "-v"}},
		{[]string{"network", "ls", "--format", "{{.Name}}"}, []string{"network", "rm"}},
		{[]string{"volume", "ls", "--format", "{{.Name}}"}, []string{"volume", "rm"}},
		{[]string{"image", "ls", "--format", "{{.Repository}}"}, []string{"image", "rm", "-f"}},
	} {
		out, err := exec.Command("docker", kind.list...).Output()
		if err != nil {
			continue
		}
		for name := range strings.FieldsSeq(string(out)) {
			rest, ours := strings.CutPrefix(name, prefix)
			owner, _, _ := strings.Cut(rest, "-")
			pid, err := strconv.Atoi(owner)
			if !ours || err != nil || syscall.Kill(pid, 0) != syscall.ESRCH {
				continue
			}
			_ = exec.Command("docker", append(kind.remove, name)...).Run()
		}
	}
}
