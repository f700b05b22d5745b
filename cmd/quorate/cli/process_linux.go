package cli

import "syscall"

// diesWithUs makes a command that the kernel kills when the thread that started it ends. With group,
// signals reach its own children as well; a command on a terminal stays in the terminal's group.
func diesWithUs(group bool) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: group, Pdeathsig: syscall.SIGKILL}
}
