package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/client"
)

func (g *globals) setCommand() *cobra.Command {
	var opts client.SetOptions
	var ttl int64
	cmd := &cobra.Command{
		Use:   "set KEY [VALUE]",
		Short: "Set the value of a key",
		Long: `Set the value of a key, whether it exists or not. Directories above it are made.

Without VALUE the value is read from standard input, to its end and with its newlines.
A VALUE that begins with a dash comes after "--".

With --swap-with-value or --swap-with-index the key is written only if it exists and
holds that value or has that modified index: no other writer's change is lost.`,
		Example: `  quorate set /app/port 8080
  quorate set --ttl 30 /app/host-1 10.0.0.1
  quorate set --swap-with-value 8080 /app/port 9090
  quorate set /app/config < config.json
  quorate set -- /app/offset -5`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, value, err := keyAndValue(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			opts.TTL = seconds(ttl)
			return g.write(cmd, func(ctx context.Context, s *session) error {
				r, err := s.keys.Set(ctx, key, value, opts)
				if err != nil {
					return err
				}
				return s.print(r)
			})
		},
	}
	addTTLFlag(cmd, &ttl)
	cmd.Flags().StringVar(&opts.PrevValue, "swap-with-value", "", "only if the key has this value")
	cmd.Flags().Uint64Var(&opts.PrevIndex, "swap-with-index", 0, "only if the key has this modified index")
	explainDash(cmd)
	return cmd
}

func (g *globals) mkCommand() *cobra.Command {
	var inOrder bool
	var ttl int64
	cmd := &cobra.Command{
		Use:   "mk KEY [VALUE]",
		Short: "Make a key that must not exist yet",
		Long: `Make a key that must not exist yet.

With --in-order KEY is a directory, and the new key below it gets a name that sorts after
all earlier ones: a queue. "-o extended" and "-o json" show the name.`,
		Example: `  quorate mk /app/leader host-1
  quorate -o extended mk --in-order /queue job`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, value, err := keyAndValue(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return g.write(cmd, func(ctx context.Context, s *session) error {
				make := s.keys.Create
				if inOrder {
					make = s.keys.CreateInOrder
				}
				r, err := make(ctx, key, value, seconds(ttl))
				if err != nil {
					return err
				}
				return s.print(r)
			})
		},
	}
	addTTLFlag(cmd, &ttl)
	cmd.Flags().BoolVar(&inOrder, "in-order", false, "make a key with a name in ascending order below directory KEY")
	explainDash(cmd)
	return cmd
}

func (g *globals) updateCommand() *cobra.Command {
	var ttl int64
	cmd := &cobra.Command{
		Use:   "update KEY [VALUE]",
		Short: "Set the value of a key that must exist",
		Long: `Set the value of a key that must exist. Without --ttl a key that had a time to live
becomes permanent.`,
		Example: `  quorate update /app/port 9090`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, value, err := keyAndValue(args, cmd.InOrStdin())
			if err != nil {
				return err
			}
			return g.write(cmd, func(ctx context.Context, s *session) error {
				r, err := s.keys.Update(ctx, key, value, seconds(ttl))
				if err != nil {
					return err
				}
				return s.print(r)
			})
		},
	}
	addTTLFlag(cmd, &ttl)
	explainDash(cmd)
	return cmd
}

func (g *globals) rmCommand() *cobra.Command {
	var opts client.DeleteOptions
	cmd := &cobra.Command{
		Use:   "rm KEY",
		Short: "Remove a key or a directory",
		Example: `  quorate rm /app/port
  quorate rm --recursive /app
  quorate rm --with-value host-1 /app/leader`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.remove(cmd, args, opts)
		},
	}
	cmd.Flags().BoolVar(&opts.Dir, "dir", false, "remove an empty directory too")
	cmd.Flags().BoolVarP(&opts.Recursive, "recursive", "r", false, "remove a directory with everything below it")
	cmd.Flags().StringVar(&opts.PrevValue, "with-value", "", "only if the key has this value")
	cmd.Flags().Uint64Var(&opts.PrevIndex, "with-index", 0, "only if the key has this modified index")
	return cmd
}

func (g *globals) rmdirCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "rmdir KEY",
		Short:   "Remove an empty directory or a key",
		Example: `  quorate rmdir /app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.remove(cmd, args, client.DeleteOptions{Dir: true})
		},
	}
}

func (g *globals) remove(cmd *cobra.Command, args []string, opts client.DeleteOptions) error {
	key, err := oneKey(args)
	if err != nil {
		return err
	}
	return g.write(cmd, func(ctx context.Context, s *session) error {
		r, err := s.keys.Delete(ctx, key, opts)
		if err != nil {
			return err
		}
		if r.Node.Dir {
			return s.printDir(r)
		}
		return s.print(r)
	})
}

func (g *globals) mkdirCommand() *cobra.Command {
	return g.dirCommand(new(bool), &cobra.Command{
		Use:     "mkdir KEY",
		Short:   "Make a directory that must not exist yet",
		Example: `  quorate mkdir /app`,
	})
}

func (g *globals) setdirCommand() *cobra.Command {
	return g.dirCommand(nil, &cobra.Command{
		Use:   "setdir KEY",
		Short: "Make a directory, in place of a key if there is one",
		Long: `Make a directory, in place of a key if there is one. A directory that exists is refused
with "Not a file": updatedir changes its time to live.`,
		Example: `  quorate setdir /app`,
	})
}

func (g *globals) updatedirCommand() *cobra.Command {
	exist := true
	return g.dirCommand(&exist, &cobra.Command{
		Use:   "updatedir KEY",
		Short: "Set the time to live of a directory",
		Long: `Set the time to live of a directory; without --ttl it becomes permanent. When it runs out
the directory goes with everything below it.`,
		Example: `  quorate updatedir --ttl 60 /app`,
	})
}

// dirCommand makes the three verbs that write a directory out of their names.
func (g *globals) dirCommand(exist *bool, cmd *cobra.Command) *cobra.Command {
	var ttl int64
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		key, err := oneKey(args)
		if err != nil {
			return err
		}
		return g.write(cmd, func(ctx context.Context, s *session) error {
			r, err := s.keys.Set(ctx, key, "", client.SetOptions{Dir: true, PrevExist: exist, TTL: seconds(ttl)})
			if err != nil {
				return err
			}
			return s.printDir(r)
		})
	}
	addTTLFlag(cmd, &ttl)
	return cmd
}

// write is onKeys for a verb whose outcome matters even when nobody saw it.
func (g *globals) write(cmd *cobra.Command, run func(context.Context, *session) error) error {
	return g.onKeys(cmd, func(ctx context.Context, s *session) error {
		s.writing = true
		return run(ctx, s)
	})
}

func addTTLFlag(cmd *cobra.Command, ttl *int64) {
	cmd.Flags().Int64Var(ttl, "ttl", 0, "time to live in seconds; 0 is for ever")
}

// seconds turns --ttl into a duration; what is not positive means for ever, and so does what no
// clock can reach.
func seconds(ttl int64) time.Duration {
	if ttl <= 0 || ttl > int64(1<<63-1)/int64(time.Second) {
		return 0
	}
	return time.Duration(ttl) * time.Second
}

// explainDash tells how to write a value that was taken for a flag.
func explainDash(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%v\nA value that begins with a dash comes after \"--\": quorate %s -- KEY -VALUE", err, cmd.Name())
	})
}
