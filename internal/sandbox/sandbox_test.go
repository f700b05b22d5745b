//go:build linux

package sandbox

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain runs this binary again as the tests of others do. What it is to do there is in the environment.
func TestMain(m *testing.M) {
	if !Inside() {
		os.Exit(m.Run())
	}
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := os.WriteFile(os.Getenv("SANDBOX_REPORT"), []byte(look()), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(3)
}

// look says what is to be seen from here.
func look() string {
	var b strings.Builder
	links, err := net.Interfaces()
	for _, l := range links {
		fmt.Fprintf(&b, "interface %s up=%v\n", l.Name, l.Flags&net.FlagUp != 0)
	}
	entries, err2 := os.ReadDir("/run")
	fmt.Fprintf(&b, "files in /run: %d\n", len(entries))
	fmt.Fprintf(&b, "parent is first: %v\n", os.Getppid() == 1)
	err3 := os.WriteFile(filepath.Join(os.TempDir(), "file"), nil, 0o600)
	var err4 error
	if os.Getppid() == 1 { // leave a daemon behind
		err4 = exec.Command("sh", "-c", "sleep 1000 > "+os.Getenv("SANDBOX_REPORT")+".pipe &").Run()
	}
	fmt.Fprintf(&b, "errors: %v %v %v %v\n", err, err2, err3, err4)
	return b.String()
}

func TestRun(t *testing.T) {
	if err := Available(); err != nil {
		t.Skip(err)
	}
	for _, tt := range []struct {
		name      string
		processes bool
	}{
		{"network and mounts", false},
		{"processes too", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			report := filepath.Join(t.TempDir(), "report")
			killed := filepath.Join(os.TempDir(), "quorate-test-999999999-x") // no such process
			others := filepath.Join(os.TempDir(), fmt.Sprintf("quorate-test-%d-x", os.Getpid()))
			for _, dir := range []string{killed, others} {
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := syscall.Mkfifo(report+".pipe", 0o600); err != nil {
				t.Fatal(err)
			}
			pipe, err := os.OpenFile(report+".pipe", os.O_RDONLY|syscall.O_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer pipe.Close()
			code, err := Box{Name: "test", Processes: tt.processes, Env: []string{"SANDBOX_REPORT=" + report}}.Run()
			if err != nil || code != 3 {
				t.Fatalf("Run = %d, %v, want exit status 3", code, err)
			}
			got, err := os.ReadFile(report)
			if err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("interface lo up=true\nfiles in /run: 0\nparent is first: %v\nerrors: <nil> <nil> <nil> <nil>\n", tt.processes)
			if string(got) != want {
				t.Errorf("inside one sees\n%swant\n%s", got, want)
			}
			if err := pipe.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := pipe.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("a daemon that was started inside still runs: %v", err)
			}
			left, err := os.ReadDir(os.TempDir())
			if err != nil || len(left) != 1 || left[0].Name() != filepath.Base(others) {
				t.Errorf("left behind: %v (%v), want only %s", left, err, others)
			}
		})
	}
}
