package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// childEnv names the directory that a copy of the test program holds open.
const childEnv = "QUORATE_TEST_HOLD_DIR"

// heldByChild is the other process of TestLock: it opens a directory, says so and holds it until
// its standard input ends.
func heldByChild() bool {
	dir := os.Getenv(childEnv)
	if dir == "" {
		return false
	}
	d, err := Open(Options{DataDir: dir})
	if err != nil {
		fmt.Println(err)
		return true
	}
	fmt.Println("open")
	_, _ = io.Copy(io.Discard, os.Stdin)
	_ = d.Close()
	return true
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	d := openMember(t, Options{DataDir: dir, NoSync: true})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+dir)
	stdin, err1 := child.StdinPipe()
	stdout, err2 := child.StdoutPipe()
	if err := errors.Join(err1, err2, child.Start()); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 4)
	_, err := io.ReadFull(stdout, said)
	defer func() {
		_ = stdin.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
		openMember(t, Options{DataDir: dir}) // the lock is free again
	}()
	if err != nil || string(said) != "open" {
		rest, _ := io.ReadAll(stdout)
		t.Fatalf("child: %v %s%s", err, said, rest)
	}

	const want = "open wal error: file already locked"
	if _, err := Open(Options{DataDir: dir}); !errors.Is(err, ErrLocked) || err.Error() != want {
		t.Errorf("Open = %v, want %s", err, want)
	}
	if _, err := Summarize(dir, ""); !errors.Is(err, ErrLocked) {
		t.Errorf("Summarize = %v, want %v", err, ErrLocked)
	}
	if _, err := Verify(dir, ""); !errors.Is(err, ErrLocked) {
		t.Errorf("Verify = %v, want %v", err, ErrLocked)
	}
}

// Two members with directories of their own, but one --wal-dir.
func TestLockSharedWAL(t *testing.T) {
	wal := t.TempDir()
	a := openMember(t, Options{DataDir: t.TempDir(), WALDir: wal, NoSync: true})
	dir := t.TempDir()
	touch(t, dir, "member/")
	data, err := os.ReadFile(a.member(identityFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(strings.Join([]string{dir, "member", identityFile}, "/"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{DataDir: dir, WALDir: wal}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open = %v, want %v", err, ErrLocked)
	}
}
