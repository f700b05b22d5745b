//go:build linux

package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/internal/cluster"
)

// terminal opens a pseudo-terminal: the side of who types, and that of the program.
func terminal(t *testing.T) (keyboard, tty *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("unlock a pseudo-terminal: %v", err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("name of a pseudo-terminal: %v", err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	t.Cleanup(func() { tty.Close() })
	return keyboard, tty
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// shown returns all that a terminal shows, with a mark at its end.
func shown(t *testing.T, keyboard, tty *os.File) []byte {
	t.Helper()
	io.WriteString(tty, "END")
	var screen []byte
	for some := make([]byte, 100); !bytes.HasSuffix(screen, []byte("END")); {
		n, err := keyboard.Read(some)
		if err != nil {
			t.Fatal(err)
		}
		screen = append(screen, some[:n]...)
	}
	return screen
}

// A password that is typed is not shown, for logins and for new users alike, and the terminal shows again
// afterwards what is typed.
func TestPasswordPrompt(t *testing.T) {
	var login, body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			b, _ := io.ReadAll(r.Body)
			body = string(b)
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"user":"bob","roles":null}`)
		case strings.HasPrefix(r.URL.Path, "/v2/auth/users/"):
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"auth: User bob does not exist."}`)
		default:
			name, password, _ := r.BasicAuth()
			login = name + ":" + password
			w.Header().Set("X-Etcd-Index", "4")
			io.WriteString(w, `{"action":"get","node":{"key":"/a","value":"v","modifiedIndex":4,"createdIndex":4}}`)
		}
	}))
	defer server.Close()
	for _, tt := range []struct{ args, out, prompt string }{
		{"-u root get /a", "v\n", "Password: \n"},
		{"user add bob", "User bob created\n", "New password: \n"},
	} {
		keyboard, tty := terminal(t)
		var out, errs bytes.Buffer
		root := newRoot()
		root.SetArgs(append([]string{"-C", server.URL, "--no-sync"}, strings.Fields(tt.args)...))
		root.SetIn(tty)
		root.SetOut(&out)
		root.SetErr(&errs)
		code := make(chan int, 1)
		go func() { code <- cli.Report(&errs, root.ExecuteContext(t.Context())) }()
		for end := time.Now().Add(cluster.Deadline); echoes(t, tty); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the terminal still shows what is typed", tt.args)
			}
		}
		io.WriteString(keyboard, "typed secret\n")
		if got := <-code; got != 0 || out.String() != tt.out || errs.String() != tt.prompt {
			t.Errorf("%s: exit code %d, out %q, err %q", tt.args, got, &out, &errs)
		}
		if !echoes(t, tty) {
			t.Errorf("%s: the terminal does not show what is typed any more", tt.args)
		}
		if screen := shown(t, keyboard, tty); bytes.Contains(screen, []byte("secret")) {
			t.Errorf("%s: the terminal shows %q", tt.args, screen)
		}
	}
	server.Close()
	if login != "root:typed secret" || body != `{"user":"bob","password":"typed secret","roles":null}` {
		t.Errorf("login %q, new user %s", login, body)
	}
}

// On a terminal, verbs that make many changes show how far they are; elsewhere they do not.
func TestBar(t *testing.T) {
	quorate(t, "", "-C", etcd(t), "set", "/bar/a", "1")
	export := quorate(t, "", "-C", etcd(t), "export", "/bar")
	if export.code != 0 {
		t.Fatal(export)
	}
	quorate(t, "", "-C", etcd(t), "rm", "/bar/a")
	if got := quorate(t, export.out, "-C", etcd(t), "import", "-"); got.code != 0 || strings.Contains(got.err, "%") {
		t.Errorf("import: %v", got)
	}
	quorate(t, "", "-C", etcd(t), "rm", "/bar/a")
	keyboard, tty := terminal(t)
	root := newRoot()
	root.SetArgs([]string{"-C", etcd(t), "import", "-"})
	root.SetIn(strings.NewReader(export.out))
	root.SetOut(io.Discard)
	root.SetErr(tty)
	if code := cli.Report(tty, root.ExecuteContext(t.Context())); code != 0 {
		t.Errorf("exit code %d", code)
	}
	screen := shown(t, keyboard, tty)
	if !bytes.Contains(screen, []byte("\r[###")) || !bytes.HasSuffix(screen, []byte("\r\033[KEND")) {
		t.Errorf("the terminal shows %q", screen)
	}
}

// Colours are for terminals, and for people who want them.
func TestColours(t *testing.T) {
	file := func(nodes string) string {
		name := filepath.Join(t.TempDir(), "export.json")
		if err := os.WriteFile(name, []byte(`{"format":"quorate-export/1","prefix":"/","nodes":[`+nodes+`]}`), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	one := file(`{"key":"/a","value":"1"},{"key":"/b","value":"1"}`)
	two := file(`{"key":"/b","value":"2"},{"key":"/c","value":"1"}`)
	for _, tt := range []struct {
		name, noColor string
		painted       bool
	}{{"a terminal", "", true}, {"nobody wants them", "1", false}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("NO_COLOR", tt.noColor)
			t.Setenv("TERM", "xterm")
			keyboard, tty := terminal(t)
			root := newRoot()
			root.SetArgs([]string{"diff", one, two})
			root.SetOut(tty)
			if code := cli.Report(io.Discard, root.Execute()); code != 1 {
				t.Errorf("exit status %d", code)
			}
			screen := string(shown(t, keyboard, tty))
			if strings.Contains(screen, "\x1b[") != tt.painted {
				t.Errorf("a terminal shows %q", screen)
			}
		})
	}
	if got := quorate(t, "", "diff", one, two); strings.Contains(got.out, "\x1b") || strings.Count(got.out, "\n") != 3 {
		t.Errorf("no terminal gets %q", got.out)
	}
}
