package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/client"
)

// watchFlags are what watch and exec-watch have in common.
type watchFlags struct {
	afterIndex uint64
	recursive  bool
}

func (f *watchFlags) add(cmd *cobra.Command) {
	cmd.Flags().Uint64Var(&f.afterIndex, "after-index", 0, "begin after this index instead of now")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "r", false, "watch everything below KEY as well")
}

func (g *globals) watchCommand() *cobra.Command {
	var flags watchFlags
	var forever bool
	var command string
	cmd := &cobra.Command{
		Use:   "watch KEY",
		Short: "Wait for a change of a key and print it",
		Long: `Wait for a change of a key, print it, and end; --forever goes on until Ctrl-C.
Changes of directories themselves are passed over.

With --exec each change is handed to a shell command, one at a time and in order. It finds
ETCD_WATCH_ACTION, ETCD_WATCH_KEY, ETCD_WATCH_MODIFIED_INDEX and ETCD_WATCH_VALUE in its
environment. A command that fails ends the watch with its exit code. (exec-watch does not
wait for one command before it starts the next.)`,
		Example: `  quorate watch /app/port
  quorate watch --recursive --forever /app
  quorate watch --forever --after-index 1234 --recursive /app
  quorate watch --forever --exec 'nginx -s reload' /app/nginx`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := oneKey(args)
			if err != nil {
				return err
			}
			return g.watch(cmd, key, flags, func(ctx context.Context, s *session, r *client.Response) (bool, error) {
				if r.Node.Dir {
					return false, nil
				}
				if command != "" {
					return !forever, s.runOnEvent(ctx, command, r)
				}
				if flags.recursive {
					fmt.Fprintf(s.out, "[%s] %s\n", r.Action, r.Node.Key)
				}
				return !forever, s.print(r)
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVarP(&forever, "forever", "f", false, "go on after the first change, until Ctrl-C")
	cmd.Flags().StringVar(&command, "exec", "", "run this shell command instead of printing")
	return cmd
}

// watch hands the events of a key to handle until it says that it is done. Ctrl-C is a normal end.
func (g *globals) watch(cmd *cobra.Command, key string, flags watchFlags, handle func(context.Context, *session, *client.Response) (done bool, err error)) error {
	ctx, stop := untilSignal(cmd.Context())
	defer stop()
	s, err := g.open(cmd)
	if err != nil {
		return err
	}
	connecting, cancel := context.WithTimeout(ctx, g.totalTimeout)
	defer cancel()
	if err := g.connect(connecting, s); err != nil {
		return err
	}
	w := s.keys.Watcher(key, client.WatchOptions{AfterIndex: flags.afterIndex, Recursive: flags.recursive})
	for {
		r, err := w.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return failure(exitServer, err)
		}
		done, err := handle(ctx, s, r)
		if done || err != nil {
			return failure(exitServer, err)
		}
	}
}

// runOnEvent runs a shell command for an event and waits for it. A signal to us is passed on.
func (s *session) runOnEvent(ctx context.Context, command string, r *client.Response) error {
	c := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.Env = eventEnv(r)
	c.Stdin, c.Stdout, c.Stderr = s.in, s.out, s.err
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil || err == nil:
		return nil
	case errors.As(err, &exit):
		return &ExitError{Code: exitCode(exit), Text: fmt.Sprintf("Error:  command for %s: %v", r.Node.Key, exit), Err: err}
	}
	return usagef("%v", err)
}

func (g *globals) execWatchCommand() *cobra.Command {
	var flags watchFlags
	cmd := &cobra.Command{
		Use:   "exec-watch KEY [--] COMMAND [ARGS...]",
		Short: "Run a command at every change of a key",
		Long: `Run a command at every change of a key, until Ctrl-C. The next command does not wait for
the one before it; see "watch --exec" for one that does. Changes of directories themselves
are reported and passed over.

The command finds ETCD_WATCH_ACTION, ETCD_WATCH_KEY, ETCD_WATCH_MODIFIED_INDEX and
ETCD_WATCH_VALUE in its environment. Its exit code is ignored.`,
		Example: `  quorate exec-watch /app/port -- sh -c 'echo $ETCD_WATCH_KEY=$ETCD_WATCH_VALUE'
  quorate exec-watch --recursive /app -- systemctl reload app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, command, err := splitCommand(cmd, args)
			if err != nil {
				return err
			}
			return g.watch(cmd, key, flags, func(ctx context.Context, s *session, r *client.Response) (bool, error) {
				if r.Node.Dir {
					fmt.Fprintf(s.err, "Ignored dir %s change\n", r.Node.Key)
					return false, nil
				}
				c := exec.Command(command[0], command[1:]...)
				c.Env = eventEnv(r)
				c.Stdout, c.Stderr = s.out, s.err
				if err := c.Start(); err != nil {
					return false, exitf(exitUsage, "%v", err)
				}
				go func() { _ = c.Wait() }() // only so that it does not stay as a zombie
				return false, nil
			})
		},
	}
	flags.add(cmd)
	cmd.Flags().SetInterspersed(false) // flags after KEY are the command's
	return cmd
}

// splitCommand takes KEY [FLAGS] [--] COMMAND... apart. Between KEY and "--" flags are still ours.
func splitCommand(cmd *cobra.Command, args []string) (key string, command []string, err error) {
	if len(args) == 0 {
		return "", nil, usagef("key and command to exec required")
	}
	key, command = args[0], args[1:]
	if dash := slices.Index(command, "--"); dash >= 0 {
		ours := command[:dash]
		if dash == 0 || strings.HasPrefix(ours[0], "-") {
			command = command[dash+1:]
			if err := cmd.Flags().Parse(ours); err != nil {
				return "", nil, err
			}
			if rest := cmd.Flags().Args(); len(rest) > 0 {
				return "", nil, usagef("one key expected, got also %q", rest)
			}
		}
	}
	if len(command) == 0 {
		return "", nil, usagef("key and command to exec required")
	}
	return key, command, nil
}

// eventEnv is our own environment and what a command is told about an event.
func eventEnv(r *client.Response) []string {
	return append(os.Environ(),
		"ETCD_WATCH_ACTION="+r.Action,
		"ETCD_WATCH_KEY="+r.Node.Key,
		"ETCD_WATCH_MODIFIED_INDEX="+strconv.FormatUint(r.Node.ModifiedIndex, 10),
		"ETCD_WATCH_VALUE="+strings.ReplaceAll(value(r.Node), "\x00", ""),
	)
}

// exitCode is the exit code of a command as a shell counts it: 128 and the signal that ended it.
func exitCode(e *exec.ExitError) int {
	if signal, ok := endedBy(e); ok {
		return 128 + int(signal)
	}
	return e.ExitCode()
}
