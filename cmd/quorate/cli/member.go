package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
)

func (g *globals) memberCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "member",
		Short: "List, add, remove and update members, and choose the leader",
		RunE:  needsSubcommand,
	}
	cmd.AddCommand(g.memberListCommand(), g.memberAddCommand(), g.memberRemoveCommand(), g.memberUpdateCommand(),
		g.memberPromoteCommand(), g.memberTransferCommand())
	return cmd
}

// needsSubcommand prints the help of a command that only groups others, and refuses unknown ones.
func needsSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return exitf(exitUsage, "unknown command %q for %q\nRun '%s --help' for usage.", args[0], cmd.CommandPath(), cmd.CommandPath())
	}
	return cmd.Help()
}

func (g *globals) memberListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the members and show which one leads",
		Example: `  quorate member list
  quorate -o json member list`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exitf(exitUsage, "No arguments accepted")
			}
			return g.onCluster(cmd, func(ctx context.Context, s *session) error {
				members, err := s.client.Members().List(ctx)
				if err != nil {
					return err
				}
				leader, err := s.client.Members().Leader(ctx)
				if err != nil {
					return exitf(exitUsage, "Failed to get leader:  %s", describe(err))
				}
				if s.format == "json" {
					return s.printMembers(members, leader)
				}
				for _, m := range members {
					if m.Name == "" {
						fmt.Fprintf(s.out, "%s[unstarted]: peerURLs=%s\n", m.ID, strings.Join(m.PeerURLs, ","))
						continue
					}
					fmt.Fprintf(s.out, "%s: name=%s peerURLs=%s clientURLs=%s isLeader=%v\n", m.ID, m.Name,
						strings.Join(m.PeerURLs, ","), strings.Join(m.ClientURLs, ","), m.ID == leader.ID)
				}
				return nil
			})
		},
	}
}

// printMembers is "-o json member list", which etcdctl does not have.
func (s *session) printMembers(members []api.Member, leader api.Member) error {
	type line struct {
		api.Member
		IsLeader bool `json:"isLeader"`
	}
	lines := []line{}
	for _, m := range members {
		lines = append(lines, line{m, m.ID == leader.ID})
	}
	return s.printJSON(map[string]any{"members": lines})
}

func (g *globals) memberAddCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "add NAME PEER-URL",
		Short: "Announce a new member",
		Long: `Announce a new member, and print what its process is to be started with.

With a dead member in the cluster, remove that one first: until it has started a new one
may count against the quorum.`,
		Example: `  quorate member add node4 http://10.0.0.4:2380`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return exitf(exitUsage, "Provide a name and a single member peerURL")
			}
			name, url := args[0], args[1]
			return g.onCluster(cmd, func(ctx context.Context, s *session) error {
				added, err := s.client.Members().Add(ctx, []string{url})
				if err != nil {
					return unsure(err)
				}
				fmt.Fprintf(s.out, "Added member named %s with ID %s to cluster\n", name, added.ID)
				members, err := s.client.Members().List(ctx)
				if err != nil {
					return err
				}
				var initial []string
				for _, m := range members {
					for _, u := range m.PeerURLs {
						if m.ID == added.ID {
							m.Name = name
						}
						initial = append(initial, m.Name+"="+u)
					}
				}
				fmt.Fprintf(s.out, "\nETCD_NAME=%q\nETCD_INITIAL_CLUSTER=%q\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
					name, strings.Join(initial, ","))
				return nil
			})
		},
	}
}

func (g *globals) memberRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "remove ID",
		Aliases: []string{"rm"},
		Short:   "Remove a member for ever",
		Long: `Remove a member for ever. Its process ends, and its data directory is of no more use: to
come back it is added again and starts with an empty one.`,
		Example: `  quorate member remove 1b44ae42cbe11694`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exitf(exitUsage, "Provide a single member ID")
			}
			return g.onCluster(cmd, func(ctx context.Context, s *session) error {
				members, err := s.client.Members().List(ctx)
				if err != nil {
					return err
				}
				if id, ok := findMember(members, args[0]); ok {
					if err := s.client.Members().Remove(ctx, id); err != nil {
						return unsure(err)
					}
					fmt.Fprintf(s.out, "Removed member %s from cluster\n", id)
					return nil
				}
				for _, m := range members {
					if m.Name == args[0] {
						fmt.Fprintf(s.err, "Found a member named %s; if this is correct, please use its ID, eg:\n\tquorate member remove %s\n", m.Name, m.ID)
						fmt.Fprintf(s.err, "Names need not be unique, IDs are.\n\n")
						break
					}
				}
				return exitf(exitUsage, "Couldn't find a member in the cluster with an ID of %s.", args[0])
			})
		},
	}
}

func (g *globals) memberUpdateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "update ID PEER-URL[,PEER-URL...]",
		Short: "Change the peer URLs of a member",
		Long: `Change the peer URLs of a member, as when it moves to another machine: stop it, copy its data
directory, update its URLs here, start it at the new place.`,
		Example: `  quorate member update 3760a4ec3b84f7fa http://10.0.0.9:2380`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return exitf(exitUsage, "Provide an ID and a list of comma separated peerURL (0xabcd http://example.com,http://example1.com)")
			}
			return g.onCluster(cmd, func(ctx context.Context, s *session) error {
				if err := s.client.Members().Update(ctx, args[0], strings.Split(args[1], ",")); err != nil {
					return unsure(err)
				}
				fmt.Fprintf(s.out, "Updated member with ID %s in cluster\n", args[0])
				return nil
			})
		},
	}
}

// findMember looks an ID up as the server does: in either case, with or without leading zeros.
func findMember(members []api.Member, id string) (string, bool) {
	want, err := api.ParseID(id)
	if err != nil {
		return "", false
	}
	at := slices.IndexFunc(members, func(m api.Member) bool {
		have, err := api.ParseID(m.ID)
		return err == nil && have == want
	})
	if at < 0 {
		return "", false
	}
	return members[at].ID, true
}

// unsure adds to a failed change of the membership that it may happen all the same.
func unsure(err error) error {
	if !unknown(err) && !internal(err) {
		return err
	}
	return &ExitError{Code: exitUsage, Err: err,
		Text: err.Error() + "\nThe outcome may be unknown (the member's log has the reason): see 'quorate member list'."}
}

// internal tells whether the server refused without a reason.
func internal(err error) bool {
	var status *api.StatusError
	return asStatus(err, &status) && status.Status >= 500
}
