//go:build linux

package cluster

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Member is one server process, or the place of one while it is down.
type Member struct {
	Name      string
	ClientURL string
	PeerURL   string
	DataDir   string
	// Boot are the flags about finding the others. Change them before a start to test what happens.
	Boot []string
	// Flags are the member's own, after all others, so that they win.
	Flags []string
	// Wrap is a command that becomes the process, such as ip netns exec NAME. Empty means none.
	Wrap []string

	cluster *Cluster
	logPath string
	leases  []io.Closer            // of the addresses it has had
	target  atomic.Pointer[string] // ClientURL, for goroutines that send while the member moves
	run     atomic.Pointer[run]
}

// run is one life of the process.
type run struct {
	cmd      *exec.Cmd
	logStart int64 // where its output starts in the log file
	done     chan struct{}
	exit     Exit // set before done is closed
}

// Exit says how a process ended: by itself with a code, or by a signal.
type Exit struct {
	Code   int            // -1 when a signal ended it
	Signal syscall.Signal // -1 when it ended by itself
}

func (e Exit) String() string {
	if e.Code < 0 {
		return fmt.Sprintf("signal %v", e.Signal)
	}
	return fmt.Sprintf("exit status %d", e.Code)
}

// Move gives the member, which must be down, a new address, as if it went to another machine. Its data
// directory and its name stay.
func (m *Member) Move() {
	m.cluster.tb.Helper()
	addr, err := newAddress()
	if err != nil {
		m.cluster.tb.Fatalf("find an address for %s: %v", m.Name, err)
	}
	m.ClientURL, m.PeerURL = "http://"+addr.client, "http://"+addr.peer
	m.aim()
	m.leases = append(m.leases, addr.lease)
}

// aim lets requests go to ClientURL.
func (m *Member) aim() {
	target := m.ClientURL
	m.target.Store(&target)
}

// Args are the flags that Start gives to the process.
func (m *Member) Args() []string {
	args := []string{
		"--name", m.Name,
		"--data-dir", m.DataDir,
		"--listen-client-urls", m.ClientURL,
		"--advertise-client-urls", m.ClientURL,
		"--listen-peer-urls", m.PeerURL,
		"--initial-advertise-peer-urls", m.PeerURL,
	}
	return slices.Concat(args, m.Boot, m.cluster.opts.Flags, m.Flags)
}

// Start starts the process, with extra flags for this run only, and does not wait for it to serve.
func (m *Member) Start(extra ...string) {
	m.cluster.tb.Helper()
	if m.Running() {
		m.cluster.tb.Fatalf("%s runs already", m.Name)
	}
	if err := m.start(append(m.Args(), extra...)); err != nil {
		m.cluster.tb.Fatalf("start %s: %v", m.Name, err)
	}
}

// StartArgs is Start with exactly these flags.
func (m *Member) StartArgs(args ...string) {
	m.cluster.tb.Helper()
	if err := m.start(args); err != nil {
		m.cluster.tb.Fatalf("start %s: %v", m.Name, err)
	}
}

func (m *Member) start(args []string) error {
	m.aim() // a test may have chosen the address by itself
	path, lead, err := binary(m.cluster.opts)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(m.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Fprintf(log, "--- %s %s\n", m.Name, strings.Join(args, " "))
	info, err := log.Stat()
	if err != nil {
		return err
	}
	argv := slices.Concat(m.Wrap, []string{path}, lead, args)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(cleanEnv(), m.cluster.opts.Env...)
	if err := spawn(cmd); err != nil {
		return err
	}
	r := &run{cmd: cmd, logStart: info.Size(), done: make(chan struct{})}
	m.run.Store(r)
	go func() {
		_ = cmd.Wait() // its answer is in ProcessState
		status := cmd.ProcessState.Sys().(syscall.WaitStatus)
		r.exit = Exit{Code: cmd.ProcessState.ExitCode(), Signal: status.Signal()}
		close(r.done)
	}()
	return nil
}

// Running says whether the process runs (or is paused).
func (m *Member) Running() bool {
	r := m.run.Load()
	if r == nil {
		return false
	}
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// Pid is the process ID of the last start.
func (m *Member) Pid() int {
	r := m.run.Load()
	if r == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

// Signal sends a signal to the process. One that has ended is left alone.
func (m *Member) Signal(sig syscall.Signal) {
	if r := m.run.Load(); r != nil && m.Running() {
		_ = r.cmd.Process.Signal(sig) // it may end in between
	}
}

// Stop asks the process to stop with SIGTERM and returns how it ended.
func (m *Member) Stop() Exit {
	m.cluster.tb.Helper()
	m.Signal(syscall.SIGTERM)
	return m.Wait()
}

// Kill ends the process with SIGKILL and waits for that.
func (m *Member) Kill() {
	m.cluster.tb.Helper()
	m.signalKill()
	m.Wait()
}

func (m *Member) signalKill() { m.Signal(syscall.SIGKILL) }

// Pause stops the process from running (SIGSTOP) without ending it; its connections stay open.
func (m *Member) Pause() { m.Signal(syscall.SIGSTOP) }

// Continue lets a paused process run again.
func (m *Member) Continue() { m.Signal(syscall.SIGCONT) }

// Restart kills the process if it runs, starts it again and waits until it serves.
func (m *Member) Restart() {
	m.cluster.tb.Helper()
	if m.Running() {
		m.Kill()
	}
	m.Start()
	m.cluster.WaitReady(m)
}

// Wait waits for the process to end and returns how it did.
func (m *Member) Wait() Exit {
	m.cluster.tb.Helper()
	r := m.run.Load()
	if r == nil {
		m.cluster.tb.Fatalf("%s was never started", m.Name)
	}
	select {
	case <-r.done:
		return r.exit
	case <-time.After(Deadline):
		m.cluster.tb.Fatalf("%s (process %d) did not end in %v", m.Name, r.cmd.Process.Pid, Deadline)
		return Exit{}
	}
}

// Log is what the process wrote since its last start, on both of its outputs.
func (m *Member) Log() string {
	all, err := os.ReadFile(m.logPath)
	r := m.run.Load()
	if err != nil || r == nil || r.logStart > int64(len(all)) {
		return ""
	}
	return string(all[r.logStart:])
}

// cleanup ends the process and reads its log for what a test may have missed.
func (m *Member) cleanup() {
	if m.Running() {
		r := m.run.Load()
		m.Continue()
		m.signalKill()
		<-r.done
	}
	for _, l := range m.leases {
		l.Close()
	}
	m.leases = nil
	tb := m.cluster.tb
	all, err := os.ReadFile(m.logPath)
	if err != nil {
		return // never started
	}
	log := string(all)
	if !m.cluster.opts.CrashOK && m.cluster.opts.Kind == Quorate {
		for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE"} {
			if i := strings.Index(log, sign); i >= 0 {
				tb.Errorf("%s crashed:\n%s", m.Name, clip(log[i:], 8000))
				break
			}
		}
	}
	if tb.Failed() {
		tb.Logf("end of the log of %s:\n%s", m.Name, lastLines(log, 25))
	}
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
