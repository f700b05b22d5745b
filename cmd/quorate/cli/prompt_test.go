//go:build linux

package cli_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
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
		// All that the terminal would show, up to a mark.
		io.WriteString(tty, "END")
		var screen []byte
		for one := make([]byte, 100); !bytes.Contains(screen, []byte("END")); {
			n, err := keyboard.Read(one)
			if err != nil {
				t.Fatal(err)
			}
			screen = append(screen, one[:n]...)
		}
		if bytes.Contains(screen, []byte("secret")) {
			t.Errorf("%s: the terminal shows %q", tt.args, screen)
		}
	}
	server.Close()
	if login != "root:typed secret" || body != `{"user":"bob","password":"typed secret","roles":null}` {
		t.Errorf("login %q, new user %s", login, body)
	}
}
