package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

func (g *globals) getCommand() *cobra.Command {
	var opts client.GetOptions
	cmd := &cobra.Command{
		Use:   "get KEY",
		Short: "Print the value of a key",
		Long: `Print the value of a key.

The answer comes from the member that is asked and may be a little old; --quorum
makes sure that it is not.`,
		Example: `  quorate get /app/port
  quorate get --quorum /app/port
  quorate -o extended get /app/port`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := oneKey(args)
			if err != nil {
				return err
			}
			return g.onKeys(cmd, func(ctx context.Context, s *session) error {
				r, err := s.keys.Get(ctx, key, opts)
				if err != nil {
					return err
				}
				if r.Node.Dir {
					return exitf(exitUsage, "%s: is a directory", r.Node.Key)
				}
				return s.print(r)
			})
		},
	}
	cmd.Flags().BoolVar(&opts.Sort, "sort", false, "sort the result")
	addQuorumFlag(cmd, &opts)
	return cmd
}

func (g *globals) lsCommand() *cobra.Command {
	var opts client.GetOptions
	var slash bool
	cmd := &cobra.Command{
		Use:   "ls [KEY]",
		Short: "List the keys of a directory",
		Long: `List the keys of a directory, by default those of the root, one full key per line.

Keys that have a component with a leading underscore are hidden: they are listed only when
that component is part of KEY.`,
		Example: `  quorate ls
  quorate ls --recursive --sort -p /app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"/"}
			}
			key, err := oneKey(args)
			if err != nil {
				return err
			}
			return g.onKeys(cmd, func(ctx context.Context, s *session) error {
				r, err := s.keys.Get(ctx, key, opts)
				if err != nil {
					return err
				}
				if s.format != "simple" {
					return s.print(r)
				}
				if !r.Node.Dir {
					fmt.Fprintln(s.out, r.Node.Key)
				}
				s.list(r.Node.Nodes, slash)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&opts.Sort, "sort", false, "sort the result")
	cmd.Flags().BoolVarP(&opts.Recursive, "recursive", "r", false, "list everything below KEY")
	cmd.Flags().BoolVarP(&slash, "p", "p", false, "append a slash to directories")
	addQuorumFlag(cmd, &opts)
	return cmd
}

func addQuorumFlag(cmd *cobra.Command, opts *client.GetOptions) {
	cmd.Flags().BoolVarP(&opts.Quorum, "quorum", "q", false, "linearizable read: see every write that was answered before")
}

func (s *session) list(nodes []*api.Node, slash bool) {
	for _, n := range nodes {
		key := n.Key
		if n.Dir && slash {
			key += "/"
		}
		fmt.Fprintln(s.out, key)
		s.list(n.Nodes, slash)
	}
}
