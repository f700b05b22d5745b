package cli

import (
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/term"
)

// endedBy returns the signal that ended a command, if one did.
func endedBy(e *exec.ExitError) (syscall.Signal, bool) {
	status, ok := e.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, false
	}
	return status.Signal(), true
}

func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// signalTo sends a signal to a process, or to all of its group. That it has ended already is fine.
func signalTo(pid int, group bool, sig syscall.Signal) {
	if group {
		pid = -pid
	}
	_ = syscall.Kill(pid, sig)
}
