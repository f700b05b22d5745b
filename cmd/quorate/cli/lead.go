package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
)

func (g *globals) memberTransferCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "transfer-leader [ID]",
		Short: "Let another member lead",
		Long: `Let another member lead, and print which one does: the one with this ID, or whichever has
the longest log. Writes that are under way go on under the new leader.`,
		Example: `  quorate member transfer-leader
  quorate member transfer-leader 3760a4ec3b84f7fa`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exitf(exitUsage, "Provide at most one member ID")
			}
			return g.onCluster(cmd, func(ctx context.Context, s *session) error {
				leader, err := s.client.Members().TransferLeadership(ctx, strings.Join(args, ""))
				if err != nil {
					return err
				}
				if s.format == "json" {
					return s.printJSON(leader)
				}
				fmt.Fprintf(s.out, "Member %s leads (name=%s)\n", leader.ID, leader.Name)
				return nil
			})
		},
	}
}

// promotePoll is the pause between two looks at a member that does not vote yet.
const promotePoll = 100 * time.Millisecond

func (g *globals) memberPromoteCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "promote ID",
		Short: "Wait until a new member votes, and say what it waits for",
		Long: `Wait until a member that was added has a vote, and say what it waits for. Nothing has to be
done by hand: the leader gives a vote to each member that has caught up with the log.`,
		Example: `  quorate member promote 1b44ae42cbe11694`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return exitf(exitUsage, "Provide a single member ID")
			}
			s, err := g.bulk(cmd)
			if err != nil {
				return err
			}
			deadline, last := time.Now().Add(wait), ""
			for {
				ctx, cancel := context.WithTimeout(cmd.Context(), g.totalTimeout)
				voter, reason, err := s.vote(ctx, args[0])
				cancel()
				switch {
				case err != nil:
					return adminFailure(err)
				case voter:
					fmt.Fprintf(cmd.OutOrStdout(), "Member %s votes\n", args[0])
					return nil
				case !time.Now().Before(deadline):
					return exitf(exitUsage, "Member %s does not vote yet: %s", args[0], reason)
				case reason != last:
					last = reason
					fmt.Fprintf(cmd.ErrOrStderr(), "Member %s does not vote yet: %s\n", args[0], reason)
				}
				time.Sleep(promotePoll)
			}
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "wait this long for the vote")
	return cmd
}

// vote says whether a member votes, and if not why.
func (s *session) vote(ctx context.Context, text string) (voter bool, reason string, err error) {
	members, err := s.client.Members().List(ctx)
	if err != nil {
		return false, "", err
	}
	id, ok := findMember(members, text)
	if !ok {
		return false, "", exitf(exitUsage, "Couldn't find a member in the cluster with an ID of %s.", text)
	}
	cluster, err := s.client.Status(ctx)
	if err != nil {
		return false, "", err
	}
	if slices.Contains(cluster.Voters, id) {
		return true, "", nil
	}
	started := slices.ContainsFunc(members, func(m api.Member) bool { return m.ID == id && len(m.ClientURLs) > 0 })
	switch {
	case cluster.Leader == "":
		return false, "there is no leader to give it a vote", nil
	case !started:
		return false, "it has not started, or does not reach the leader", nil
	}
	return false, "it has not caught up with the log", nil
}
