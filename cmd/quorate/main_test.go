package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// deadline is how long a test waits for what must happen; it only ends tests that have failed.
const deadline = 60 * time.Second

// asProgram makes the test binary be the program.
const asProgram = "QUORATE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Unsetenv(asProgram)
		main()
	}
	os.Exit(m.Run())
}

func TestExitStatus(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	both := t.TempDir()
	for _, name := range []string{"member", "proxy"} {
		if err := os.Mkdir(filepath.Join(both, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // contained
	}{
		{"help of serve", []string{"serve", "--help"}, 0, "--initial-cluster-state 'new'", ""},
		{"version of serve", []string{"serve", "--version"}, 0, "quorate ", ""},
		{"version", []string{"version"}, 0, "as etcd 3.4", ""},
		{"help", []string{"help"}, 0, "serve", ""},
		{"unknown verb", []string{"frobnicate"}, 1, "", `unknown command "frobnicate"`},
		{"unknown flag", []string{"serve", "--nonsense"}, 2, "", "flag provided but not defined: -nonsense\nUsage:"},
		{"wrong combination", []string{"serve", "--heartbeat-interval", "300"}, 1, "", "error verifying flags, --election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]. See 'quorate serve --help'."},
		{"backup too often", serveArgs(t.TempDir(), "--backup-dir", "x", "--backup-interval", "1ms"), 1, "", "--backup-interval[1ms] should be at least 1s and --backup-keep[24] at least 1"},
		{"hint", []string{"serve", "--listen-client-urls", "http://127.0.0.1:1"}, 1, "", "When listening on specific address(es)"},
		{"address taken", []string{"serve", "--data-dir", t.TempDir(), "--listen-client-urls", "http://" + taken.Addr().String(), "--advertise-client-urls", "http://localhost:1"}, 1, "",
			fmt.Sprintf("listen tcp %s: bind: address already in use", taken.Addr())},
		{"member and proxy", []string{"serve", "--data-dir", both}, 1, "", "invalid datadir. Both member and proxy directories exist."},
		{"own name missing", serveArgs(t.TempDir(), "--initial-cluster", "x=http://127.0.0.1:2380"), 1, "", `couldn't find local name \"default\" in the initial cluster configuration`},
		{"certificate missing", serveArgs(t.TempDir(), "--cert-file", "nope.crt", "--key-file", "nope.key"), 1, "", "open nope.crt: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), tt.args, nil, &stdout, &stderr)
			if code != tt.code || !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s\nwant %q, %q", code, tt.code, &stdout, &stderr, tt.stdout, tt.stderr)
			}
		})
	}
}

// serveArgs is a command line for one member that uses ports of the kernel's choice.
func serveArgs(dir string, more ...string) []string {
	return append([]string{
		"serve", "--data-dir", dir, "--log-format", "json",
		"--listen-client-urls", "http://127.0.0.1:0", "--advertise-client-urls", "http://127.0.0.1:1",
		"--listen-peer-urls", "http://127.0.0.1:0",
	}, more...)
}

// running is a server in this process.
type running struct {
	address string // of its clients
	peer    string // where it listens for members; empty for a proxy
	metrics string // where it listens for /metrics only, if anywhere
	stop    context.CancelFunc
	code    chan int
	log     text
}

// text is what was logged so far.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (t *text) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.Write(b)
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.b.String()
}

// serving finds the address in a line of the log, in either format.
var serving = regexp.MustCompile(`serving (clients|members|metrics)\b.*\baddress"?[:=]"?([0-9.]+:[0-9]+)`)

// start runs a server until the test ends, or stop is called, and waits until it listens.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{stop: cancel, code: make(chan int, 1)}
	logs, stderr := io.Pipe()
	go func() {
		r.code <- run(ctx, args, nil, io.Discard, stderr)
		stderr.Close()
	}()
	wanted := 1
	for _, flag := range []string{"--listen-peer-urls", "--listen-metrics-urls"} {
		if slices.Contains(args, flag) {
			wanted++
		}
	}
	listening := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(io.TeeReader(logs, &r.log))
		for lines.Scan() {
			if wanted == 0 {
				continue
			}
			at := serving.FindStringSubmatch(lines.Text())
			if at == nil {
				continue
			}
			switch at[1] {
			case "clients":
				r.address = at[2]
			case "members":
				r.peer = at[2]
			case "metrics":
				r.metrics = at[2]
			}
			wanted--
			if wanted == 0 {
				close(listening)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	select {
	case <-listening:
	case <-ended:
		t.Fatalf("the server ended:\n%s", &r.log)
	case <-time.After(deadline):
		t.Fatal("the server does not listen")
	}
	return r
}

// wait asks until the answer has the status, and returns it.
func wait(t *testing.T, method, url, form string, status int) string {
	t.Helper()
	for end := time.Now().Add(deadline); ; {
		req, err := http.NewRequest(method, url, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		got := 0
		var body []byte
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			got = resp.StatusCode
		}
		if err == nil && got == status {
			return string(body)
		}
		if time.Now().After(end) {
			t.Fatalf("%s %s = %d %s, %v, want %d", method, url, got, body, err, status)
		}
		time.Sleep(20 * time.Millisecond) // between two questions; the answer decides
	}
}

func TestServeAndProxy(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	args := serveArgs(t.TempDir(), "--listen-metrics-urls", "http://127.0.0.1:0")
	member := start(t, args...)
	wait(t, "PUT", "http://"+member.address+"/v2/keys/greeting", "value=hello", 201)
	if body := wait(t, "GET", "http://"+member.metrics+"/metrics", "", 200); !strings.Contains(body, "# HELP ") {
		t.Errorf("metrics: %.200s", body)
	}
	wait(t, "GET", "http://"+member.metrics+"/v2/keys/greeting", "", 404)

	// The member advertises an address that nobody listens on, so the proxy knows it, and fails.
	proxyDir := t.TempDir()
	proxyArgs := []string{"serve", "--data-dir", proxyDir, "--log-format", "json", "--proxy", "on",
		"--listen-client-urls", "http://127.0.0.1:0", "--initial-cluster", "m=http://" + member.peer}
	p := start(t, proxyArgs...)
	wait(t, "GET", "http://"+p.address+"/v2/config/local/proxy", "", 200)
	p.stop()
	if code := <-p.code; code != 0 {
		t.Errorf("the proxy ended with %d", code)
	}
	if _, err := os.Stat(filepath.Join(proxyDir, "proxy", "cluster")); err != nil {
		t.Error(err)
	}

	member.stop()
	if code := <-member.code; code != 0 {
		t.Errorf("the member ended with %d", code)
	}

	// Its data outlives it.
	member = start(t, args...)
	if body := wait(t, "GET", "http://"+member.address+"/v2/keys/greeting", "", 200); !strings.Contains(body, `"value":"hello"`) {
		t.Errorf("after the restart: %s", body)
	}
}

// An https URL with a self-signed certificate is enough for HTTP/2; the pair is made once.
func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	args := []string{
		"serve", "--data-dir", dir, "--log-format", "json", "--auto-tls", "--peer-auto-tls",
		"--listen-client-urls", "https://127.0.0.1:0", "--advertise-client-urls", "https://127.0.0.1:1",
		"--listen-peer-urls", "https://127.0.0.1:0", "--initial-advertise-peer-urls", "https://127.0.0.1:2380",
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // nobody vouches for it
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: deadline}
	var pairs []string
	for range 2 {
		r := start(t, args...)
		resp, err := client.Get("https://" + r.address + "/version")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("answered with %s, want HTTP/2", resp.Proto)
		}
		r.stop()
		if code := <-r.code; code != 0 {
			t.Errorf("ended with %d", code)
		}
		pair, err := os.ReadFile(filepath.Join(dir, "fixtures", "client", "cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, string(pair))
	}
	if pairs[0] != pairs[1] {
		t.Error("the second start made another certificate")
	}
}

func TestNotifyReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := notifyReady(); err != nil {
		t.Fatal(err)
	}
	manager.SetReadDeadline(time.Now().Add(deadline))
	got := make([]byte, 64)
	n, err := manager.Read(got)
	if err != nil || string(got[:n]) != "READY=1" {
		t.Errorf("the manager was told %q, %v", got[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notifyReady(); err != nil {
		t.Errorf("without a manager: %v", err)
	}
}

// A server that is stopped by a signal ends by that signal, so that a shell shows 143.
func TestEndsBySignal(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, serveArgs(t.TempDir())...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(deadline, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	said := false
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		if strings.Contains(lines.Text(), `"serving clients"`) {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
		}
		said = said || strings.Contains(lines.Text(), "received terminated signal, shutting down...")
	}
	_ = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() || status.Signal() != syscall.SIGTERM || !said {
		t.Errorf("ended with %v, said so: %v, want the end by SIGTERM", cmd.ProcessState, said)
	}
}
