package cli

import (
	"os/exec"
	"syscall"
)

// endedBy returns the signal that ended a command, if one did.
func endedBy(e *exec.ExitError) (syscall.Signal, bool) {
	status, ok := e.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, false
	}
	return status.Signal(), true
}
