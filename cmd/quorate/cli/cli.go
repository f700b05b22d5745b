// Package cli is the client side of the quorate program: the verbs of etcdctl (v2), one for one, and
// those that operators miss there. It speaks the v2 API only, so it works with etcd too.
//
// Flags, output and exit codes are those of etcdctl 3.4 with ETCDCTL_API=2 (spec cli.md), apart from
// its bugs. Nothing here ends the process: verbs return errors that know their exit code, and main
// hands them to [Report].
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// The exit codes (spec cli.md 1). Those of lock are the command's own.
const (
	exitUsage     = 1 // bad arguments, and any failure of member, user, role and auth
	exitConnect   = 2 // no connection during sync
	exitServer    = 4 // refused by the server, or no endpoint answered
	exitUnhealthy = 5 // the cluster is not healthy
)

// Register adds the client's verbs and its global flags to root. Errors are left to [Report], so
// cobra's own printing of errors and usage is switched off. offline are verbs below "snapshot" that work
// on what is inside a backup, which is beyond a client.
func Register(root *cobra.Command, offline ...*cobra.Command) {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.AddGroup(
		&cobra.Group{ID: groupKeys, Title: "Keys:"},
		&cobra.Group{ID: groupCluster, Title: "Cluster:"},
		&cobra.Group{ID: groupData, Title: "Data:"},
	)
	g := &globals{getenv: os.Getenv, lookupSRV: net.DefaultResolver.LookupSRV}
	g.addFlags(root.PersistentFlags())
	for group, commands := range map[string][]*cobra.Command{
		groupKeys: {
			g.getCommand(), g.lsCommand(),
			g.setCommand(), g.mkCommand(), g.updateCommand(), g.rmCommand(), g.rmdirCommand(),
			g.mkdirCommand(), g.setdirCommand(), g.updatedirCommand(),
			g.watchCommand(), g.execWatchCommand(), g.lockCommand(),
		},
		groupCluster: {
			g.memberCommand(), g.clusterHealthCommand(), g.statusCommand(), g.healthCommand(),
			g.userCommand(), g.roleCommand(), g.authCommand(), g.discoveryCommand(), g.benchCommand(),
		},
		groupData: {
			g.exportCommand(), g.importCommand(), g.diffCommand(), g.migrateCommand(), g.snapshotCommand(offline),
		},
	} {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
}

const (
	groupKeys    = "keys"
	groupCluster = "cluster"
	groupData    = "data"
)

// Report prints err, unless it is nil or silent, and returns the exit code of the process.
func Report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	var exit *ExitError
	if errors.As(err, &exit) {
		if exit.Text != "" {
			fmt.Fprintln(stderr, exit.Text)
		}
		return exit.Code
	}
	// What cobra finds: unknown commands and flags.
	fmt.Fprintf(stderr, "Error:  %v\n", err)
	return exitUsage
}

// ExitError ends the process with a code, after Text was printed on standard error as it is.
type ExitError struct {
	Code int
	Text string
	Err  error // what it came from, if anything
}

// Error returns Text, which is empty when everything was said on standard output already.
func (e *ExitError) Error() string { return e.Text }

func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode returns the code of the process.
func (e *ExitError) ExitCode() int { return e.Code }

// exitf makes an error that prints the text alone.
func exitf(code int, format string, args ...any) error {
	return &ExitError{Code: code, Text: fmt.Sprintf(format, args...)}
}

// usagef makes an error about arguments in etcdctl's form, with two spaces.
func usagef(format string, args ...any) error {
	return exitf(exitUsage, "Error:  "+format, args...)
}

// failure renders an error as etcdctl does for keys: "Error:  100: Key not found (/a) [5]".
func failure(code int, err error) error {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &ExitError{Code: code, Text: "Error:  " + describe(err), Err: err}
}

// adminFailure renders the failure of a verb that changes the cluster: the server's message alone.
func adminFailure(err error) error {
	var exit *ExitError
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &ExitError{Code: exitUsage, Text: err.Error(), Err: err}
}

// describe adds to an error of connection one line per endpoint, in etcdctl's layout.
func describe(err error) string {
	var failed *client.ConnectError
	if !errors.As(err, &failed) {
		return err.Error()
	}
	var b strings.Builder
	b.WriteString("client: etcd cluster is unavailable or misconfigured")
	for i, err := range failed.Errors {
		fmt.Fprintf(&b, "; error #%d: %v\n", i, err)
	}
	return b.String() + "\n" + failed.Detail()
}

// unknown tells whether a write that failed like this may still have taken effect.
func unknown(err error) bool {
	var failed *client.ConnectError
	if errors.As(err, &failed) {
		return failed.Sent
	}
	return errors.Is(err, api.RaftInternal) || errors.Is(err, context.DeadlineExceeded)
}

// untilSignal returns a context that also ends with Ctrl-C or a polite kill.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}
