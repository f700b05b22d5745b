//go:build linux

package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

// spawn starts a process that dies with this one. The kernel ties that to the thread which started the
// process, so all are started by one thread that lives as long as we do.
func spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	reply := make(chan error)
	spawner() <- func() { reply <- cmd.Start() }
	return <-reply
}

var spawner = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

// cleanEnv is our environment without the variables that configure a server.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCD") && !strings.HasPrefix(v, "QUORATE") {
			env = append(env, v)
		}
	}
	return env
}

// binary returns the program of a cluster, and its arguments that come before the flags.
func binary(opts Options) (path string, lead []string, err error) {
	path = opts.Binary
	switch opts.Kind {
	case Quorate:
		if path == "" {
			path, err = QuorateBinary()
		}
		return path, []string{"serve"}, err
	case Etcd:
		if path == "" {
			path = EtcdBinary()
		}
		if path == "" {
			return "", nil, errors.New("no etcd 3.4 in PATH")
		}
		return path, []string{"--enable-v2"}, nil
	}
	return "", nil, fmt.Errorf("unknown kind of server %q", opts.Kind)
}

// EtcdBinary returns the path of etcd, from ETCD_BINARY or PATH, and "" when there is none.
func EtcdBinary() string {
	if path := os.Getenv("ETCD_BINARY"); path != "" {
		return path
	}
	path, err := exec.LookPath("etcd")
	if err != nil {
		return ""
	}
	return path
}

// QuorateBinary returns the path of quorate: QUORATE_BINARY, or one that is built from this module, once
// per process. With a test that runs under the race detector it is built with it too.
func QuorateBinary() (string, error) {
	if path := os.Getenv("QUORATE_BINARY"); path != "" {
		return path, nil
	}
	b := build()
	return b.path, b.err
}

type built struct {
	dir, path string
	err       error
}

var build = sync.OnceValue(func() built {
	dir, err := os.MkdirTemp("", "quorate-build-")
	if err != nil {
		return built{err: err}
	}
	b := built{dir: dir, path: filepath.Join(dir, "quorate")}
	buildDirs.add(dir)
	args := []string{"build", "-o", b.path}
	if raceEnabled {
		args = append(args, "-race")
	}
	// The tests of another module build it too, with the versions that this module has chosen.
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/quorate/quorate").Output()
	if err != nil {
		b.err = fmt.Errorf("find the module to build quorate: %w", err)
		return b
	}
	cmd := exec.Command("go", append(args, "./cmd/quorate")...)
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		b.err = fmt.Errorf("build quorate: %w\n%s", err, out)
	}
	return b
})

// Clean removes what the package built for this process. A TestMain calls it after the tests.
func Clean() { buildDirs.remove() }

// dirs is a set of directories to remove; guarded by its mutex.
type dirs struct {
	mu   sync.Mutex
	list []string
}

var buildDirs dirs

func (d *dirs) add(dir string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, dir)
}

func (d *dirs) remove() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, dir := range d.list {
		_ = os.RemoveAll(dir)
	}
	d.list = nil
}
