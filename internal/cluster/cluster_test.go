//go:build linux

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// script makes a program that stands in for quorate.
func script(t *testing.T, lines string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "quorate")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("QUORATE_BINARY", path)
}

func TestExit(t *testing.T) {
	for _, tt := range []struct {
		name, program string
		end           func(*Member) Exit
		want          Exit
	}{
		{"by itself", "exit 3", (*Member).Wait, Exit{Code: 3, Signal: -1}},
		{"terminated", "echo up; exec sleep 1000", (*Member).Stop, Exit{-1, syscall.SIGTERM}},
		{"killed", "echo up; exec sleep 1000", func(m *Member) Exit { m.Kill(); return m.Wait() }, Exit{-1, syscall.SIGKILL}},
		{"killed while paused", "echo up; exec sleep 1000", func(m *Member) Exit { m.Pause(); m.Kill(); return m.Wait() }, Exit{-1, syscall.SIGKILL}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script(t, tt.program)
			m := New(t, Options{}).Members[0]
			m.Start()
			if strings.Contains(tt.program, "up") {
				m.WaitLog("up")
			}
			if got := tt.end(m); got != tt.want {
				t.Errorf("it ended with %v, want %v", got, tt.want)
			}
			if m.Running() {
				t.Error("it is said to run still")
			}
		})
	}
}

func TestLogIsOfTheLastStart(t *testing.T) {
	script(t, `echo "got $*"`)
	m := New(t, Options{Names: []string{"infra"}, Flags: []string{"--all"}}).Members[0]
	for _, extra := range []string{"--first", "--second"} {
		m.Start(extra)
		m.Wait()
	}
	log := m.Log()
	if want := "got serve --name infra "; !strings.HasPrefix(log, want) {
		t.Errorf("the log is %q, want it to begin with %q", log, want)
	}
	if want := " --all --second\n"; !strings.HasSuffix(log, want) || strings.Contains(log, "--first") {
		t.Errorf("the log is %q, want it to end with %q and to lack --first", log, want)
	}
}

func TestEnvironmentIsClean(t *testing.T) {
	t.Setenv("ETCD_NAME", "wrong")
	script(t, `env | grep -e ETCD -e ADDED`)
	m := New(t, Options{Env: []string{"ADDED=1"}}).Members[0]
	m.Start()
	m.Wait()
	if got := m.Log(); got != "ADDED=1\n" {
		t.Errorf("the environment has %q, want ADDED=1 only", got)
	}
}

// recorder is a TB that notes failures instead of failing.
type recorder struct {
	*testing.T
	failures []string
	cleanups []func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}
func (r *recorder) Failed() bool     { return len(r.failures) > 0 }
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func TestCrashIsReported(t *testing.T) {
	for _, tt := range []struct {
		name, program string
		opts          Options
		want          int
	}{
		{"panic", "echo 'panic: oh no'; exit 2", Options{}, 1},
		{"race", "echo 'WARNING: DATA RACE'", Options{}, 1},
		{"expected", "echo 'panic: oh no'; exit 2", Options{CrashOK: true}, 0},
		{"refusal", "echo 'no such file'; exit 1", Options{}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			script(t, tt.program)
			r := &recorder{T: t}
			m := New(r, tt.opts).Members[0]
			m.Start()
			m.Wait()
			for i := len(r.cleanups) - 1; i >= 0; i-- {
				r.cleanups[i]()
			}
			if len(r.failures) != tt.want {
				t.Errorf("failures are %q, want %d", r.failures, tt.want)
			}
		})
	}
}

func TestAddressesAreLeased(t *testing.T) {
	first, err := newAddress()
	if err != nil {
		t.Fatal(err)
	}
	defer first.lease.Close()
	second, err := newAddress()
	if err != nil {
		t.Fatal(err)
	}
	defer second.lease.Close()
	host, _, err := net.SplitHostPort(first.client)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(second.client, host+":") {
		t.Errorf("%s was given out twice", host)
	}
	if l, err := net.Listen("tcp", first.client); err != nil {
		t.Errorf("nobody can listen on %s: %v", first.client, err)
	} else {
		l.Close()
	}
	if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(leasePort))); err == nil {
		l.Close()
		t.Errorf("%s can be leased twice", host)
	}
}

// TestProcessesDieWithTheTest starts a copy of this test that starts a process and is killed.
func TestProcessesDieWithTheTest(t *testing.T) {
	const marker = "CLUSTER_TEST_CHILD"
	if os.Getenv(marker) != "" {
		m := New(t, Options{}).Members[0]
		m.Start()
		m.WaitLog("up")
		fmt.Printf("pid %d\n", m.Pid())
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	script(t, "echo up; exec sleep 1000")
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), marker+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if err == nil {
		t.Fatalf("the copy was not killed: %s", out)
	}
	_, rest, ok := strings.Cut(string(out), "pid ")
	if !ok {
		t.Fatalf("the copy printed %q (%v)", out, err)
	}
	pid, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the end of the process", func(context.Context) error {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || strings.Contains(string(stat), ") Z ") {
			return nil
		}
		return fmt.Errorf("process %d is still there: %s", pid, stat)
	})
}
