package disk

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrDamaged is matched by every error that means: what is on disk is not what was written.
var ErrDamaged = errors.New("damaged")

// DamageError says which file is damaged and how. It matches [ErrDamaged].
type DamageError struct {
	File   string
	Reason string
}

func (e *DamageError) Error() string {
	advice := "restore this member by removing it and adding it again"
	if strings.HasSuffix(e.File, snapSuffix) {
		advice = "a start sets it aside, and refuses only if older snapshots and the log do not make up for it"
	}
	return fmt.Sprintf("%s is damaged: %s; %s", e.File, e.Reason, advice)
}

func (e *DamageError) Is(target error) bool { return target == ErrDamaged }

func damaged(file, format string, args ...any) error {
	return &DamageError{File: file, Reason: fmt.Sprintf(format, args...)}
}

// shielded runs fn, which reads a memory-mapped file. A page that cannot be read is a fault, and
// bolt panics on pages that make no sense: both become an error here.
func shielded(file string, fn func() error) (panicked bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			panicked, err = true, damaged(file, "%v", p)
		}
	}()
	return false, fn()
}

// lockFile opens a file and locks it without waiting. Closing it gives the lock up.
func lockFile(path string, flag int, exclusive bool) (*os.File, error) {
	f, err := os.OpenFile(path, flag, fileMode)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_SH | unix.LOCK_NB
	if exclusive {
		how = unix.LOCK_EX | unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}
