package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
)

// healthInterval is the pause of cluster-health --forever.
const healthInterval = 10 * time.Second

func (g *globals) clusterHealthCommand() *cobra.Command {
	var forever bool
	cmd := &cobra.Command{
		Use:   "cluster-health",
		Short: "Ask every member whether it is healthy",
		Long: `Ask every member whether it is healthy. The exit code is 0 if all are, and 5 if not.

--forever asks again every ten seconds, until Ctrl-C.`,
		Example: `  quorate cluster-health`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			s, err := g.open(cmd)
			if err != nil {
				return err
			}
			for {
				err := g.clusterHealth(ctx, s)
				if ctx.Err() != nil {
					return nil
				}
				if !forever {
					return err
				}
				if err != nil {
					Report(s.err, err)
				}
				fmt.Fprintf(s.out, "\nnext check after 10 second...\n\n")
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(healthInterval):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&forever, "forever", "f", false, "check again every 10 seconds, until Ctrl-C")
	return cmd
}

// clusterHealth makes one round: all members at once, the answers in the order of the members.
func (g *globals) clusterHealth(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(ctx, g.totalTimeout)
	defer cancel()
	members, err := s.client.Members().List(ctx)
	if err != nil {
		fmt.Fprintln(s.out, "cluster may be unhealthy: failed to list members")
		return failure(exitServer, err)
	}
	reports := make([]string, len(members))
	healthy := make([]bool, len(members))
	var wait sync.WaitGroup
	for i, m := range members {
		wait.Go(func() { reports[i], healthy[i] = s.memberHealth(ctx, m) })
	}
	wait.Wait()

	count := 0
	for i := range members {
		fmt.Fprintln(s.out, paint(s.out, health(healthy[i]), strings.TrimSuffix(reports[i], "\n")))
		if healthy[i] {
			count++
		}
	}
	switch count {
	case len(members):
		fmt.Fprintln(s.out, paint(s.out, good, "cluster is healthy"))
		return nil
	case 0:
		fmt.Fprintln(s.out, paint(s.out, bad, "cluster is unavailable"))
	default:
		fmt.Fprintln(s.out, paint(s.out, warn, "cluster is degraded"))
	}
	return &ExitError{Code: exitUnhealthy}
}

// memberHealth asks one member; the first of its URLs that answers decides.
func (s *session) memberHealth(ctx context.Context, m api.Member) (report string, healthy bool) {
	if len(m.ClientURLs) == 0 {
		return fmt.Sprintf("member %s is unreachable: no available published client urls\n", m.ID), false
	}
	var b strings.Builder
	for _, url := range m.ClientURLs {
		healthy, err := s.client.Health(ctx, url)
		switch {
		case err != nil:
			fmt.Fprintf(&b, "failed to check the health of member %s on %s: %v\n", m.ID, url, err)
		case healthy:
			fmt.Fprintf(&b, "member %s is healthy: got healthy result from %s\n", m.ID, url)
			return b.String(), true
		default:
			fmt.Fprintf(&b, "member %s is unhealthy: got unhealthy result from %s\n", m.ID, url)
			return b.String(), false
		}
	}
	fmt.Fprintf(&b, "member %s is unreachable: %v are all unreachable\n", m.ID, m.ClientURLs)
	return b.String(), false
}
