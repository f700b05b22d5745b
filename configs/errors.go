package configs

import (
	"errors"
	"fmt"
)

// Exit codes of a process that could not start (spec bootstrap 10).
const (
	ExitRefused = 1 // parsed, but wrong: configuration or bootstrap
	ExitUsage   = 2 // the command line could not be parsed
)

// What [Parse] returns when the command line asks for information instead of a server.
var (
	ErrHelp    = errors.New("help requested")
	ErrVersion = errors.New("version requested")
)

// Error is a refusal of a configuration. Match it with errors.As.
type Error struct {
	// Exit is ExitUsage when the command line could not be parsed, else ExitRefused.
	Exit int
	// Reason is the bare reason, without a final period.
	Reason string
	// Hint is a further line for the operator; usually empty.
	Hint string
}

// Error is the line to show: the bare reason, which the short usage follows, or etcd's sentence
// about verifying flags.
func (e *Error) Error() string {
	if e.Exit == ExitUsage {
		return e.Reason
	}
	return fmt.Sprintf("error verifying flags, %s. See 'quorate serve --help'.", e.Reason)
}

// ExitCode is the code that the process ends with.
func (e *Error) ExitCode() int { return e.Exit }

func usagef(format string, args ...any) *Error {
	return &Error{Exit: ExitUsage, Reason: fmt.Sprintf(format, args...)}
}

func refusef(format string, args ...any) *Error {
	return &Error{Exit: ExitRefused, Reason: fmt.Sprintf(format, args...)}
}

// Notice is something that happened while the configuration was read. The caller logs it, because
// how to log is itself configured.
type Notice struct {
	// Warn separates warnings from information.
	Warn bool
	Text string
}

func infof(format string, args ...any) Notice { return Notice{Text: fmt.Sprintf(format, args...)} }
func warnf(format string, args ...any) Notice {
	return Notice{Warn: true, Text: fmt.Sprintf(format, args...)}
}
