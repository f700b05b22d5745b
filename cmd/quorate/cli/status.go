package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

func (g *globals) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show all members in one table",
		Long: `Show all members in one table: who leads, who has no vote yet (learner), in which term, how far
each one is and how far behind the first, its version, and whether it is healthy. The exit
code is 0 if all members are healthy, and 5 if not.`,
		Example: `  quorate status
  quorate -o json status`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exitf(exitUsage, "No arguments accepted")
			}
			return g.within(cmd, func(ctx context.Context, s *session) error {
				members, err := s.client.Members().List(ctx)
				if err != nil {
					return failure(exitServer, err)
				}
				rows := s.gather(ctx, members)
				if s.format == "json" {
					if err := s.printJSON(map[string]any{"members": rows}); err != nil {
						return err
					}
				} else {
					s.printStatus(rows)
				}
				if slices.ContainsFunc(rows, func(r memberStatus) bool { return !r.Healthy }) {
					return &ExitError{Code: exitUnhealthy}
				}
				return nil
			})
		},
	}
}

// memberStatus is one line of status.
type memberStatus struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Endpoint string `json:"endpoint"`
	// State is leader, follower, learner (which has no vote yet), unstarted or unreachable.
	State   string `json:"state"`
	Healthy bool   `json:"healthy"`
	Version string `json:"version"`
	Term    uint64 `json:"term"`
	// RaftIndex is what the member knows to be committed, and Lag how many entries the most advanced
	// member was ahead of it a moment before or after.
	RaftIndex uint64 `json:"raftIndex"`
	Lag       uint64 `json:"lag"`
	Index     uint64 `json:"index"`
}

// gather asks all members at once.
func (s *session) gather(ctx context.Context, members []api.Member) []memberStatus {
	rows := make([]memberStatus, len(members))
	var wait sync.WaitGroup
	for i, m := range members {
		wait.Go(func() { rows[i] = s.statusOf(ctx, m) })
	}
	wait.Wait()
	if cluster, err := s.client.Status(ctx); err == nil { // etcd has nothing like it
		for i, r := range rows {
			if r.State == "follower" && !slices.Contains(cluster.Voters, r.ID) {
				rows[i].State = "learner"
			}
		}
	}
	var first uint64
	for _, r := range rows {
		first = max(first, r.RaftIndex)
	}
	for i := range rows {
		if rows[i].RaftIndex > 0 {
			rows[i].Lag = first - rows[i].RaftIndex
		}
	}
	return rows
}

// statusOf asks one member at the first of its URLs that answers. What it does not say stays empty.
func (s *session) statusOf(ctx context.Context, m api.Member) memberStatus {
	row := memberStatus{ID: m.ID, Name: m.Name, State: "unreachable"}
	if m.Name == "" || len(m.ClientURLs) == 0 {
		row.State = "unstarted"
	}
	for _, url := range m.ClientURLs {
		row.Endpoint = url
		one, err := s.client.At(url)
		if err != nil {
			continue
		}
		stats, err := one.SelfStats(ctx)
		if err != nil {
			continue
		}
		row.State = "follower"
		if stats.State == "StateLeader" {
			row.State = "leader"
		}
		row.Healthy, _ = s.client.Health(ctx, url)
		if v, err := one.Version(ctx); err == nil {
			row.Version = v.Server
		}
		if r, err := one.Keys(client.DefaultPrefix).Indexes(ctx); err == nil {
			row.Term, row.RaftIndex, row.Index = r.RaftTerm, r.RaftIndex, r.Index
		}
		return row
	}
	return row
}

func (s *session) printStatus(rows []memberStatus) {
	var table strings.Builder // painted as a whole: escape sequences would count as text in its columns
	t := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tENDPOINT\tSTATE\tHEALTHY\tTERM\tRAFT INDEX\tLAG\tINDEX\tVERSION")
	for _, r := range rows {
		known := func(n uint64) string {
			if r.RaftIndex == 0 {
				return "-"
			}
			return strconv.FormatUint(n, 10)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, dash(r.Name), dash(r.Endpoint), r.State, yesNo(r.Healthy),
			known(r.Term), known(r.RaftIndex), known(r.Lag), known(r.Index), dash(r.Version))
	}
	t.Flush()
	for i, line := range strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n") {
		if i > 0 && !rows[i-1].Healthy {
			line = paint(s.out, bad, line)
		}
		fmt.Fprintln(s.out, line)
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (g *globals) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask one member whether it is healthy",
		Long: `Ask the member at the endpoint whether it is healthy, without asking any other. The exit code
is 0 if it is and 1 if not, as health checks of containers want it. With several endpoints
all of them must be.`,
		Example: `  quorate health
  quorate -C http://10.0.0.1:2379 health`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exitf(exitUsage, "No arguments accepted")
			}
			if g.given() == "" && g.discoverySRV == "" && g.env("DISCOVERY_SRV") == "" {
				g.endpoints = defaultEndpoint // one member, not the list of guesses
			}
			s, err := g.open(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), g.totalTimeout)
			defer cancel()
			code := 0
			for _, endpoint := range s.client.Endpoints() {
				healthy, err := s.client.Health(ctx, endpoint)
				switch {
				case err != nil:
					fmt.Fprintf(s.out, "%s is unreachable: %v\n", endpoint, err)
					code = exitUsage
				case !healthy:
					fmt.Fprintf(s.out, "%s is unhealthy\n", endpoint)
					code = exitUsage
				default:
					fmt.Fprintf(s.out, "%s is healthy\n", endpoint)
				}
			}
			if code != 0 {
				return &ExitError{Code: code}
			}
			return nil
		},
	}
}
