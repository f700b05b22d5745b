//go:build unix && !linux

package cli

import "syscall"

// diesWithUs cannot be promised here: a command outlives us if we are killed.
func diesWithUs(group bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: group}
}
