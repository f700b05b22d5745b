package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/store"
)

// offlineGroup is the heading under which help lists what works on data directories.
const offlineGroup = "data"

// recoverCommand makes a cluster of one from what a lost majority has left.
func recoverCommand() *cobra.Command {
	var dataDirs, walDirs []string
	var apply bool
	c := &cobra.Command{
		Use:   "recover --data-dir DIR [--data-dir DIR...] [--apply]",
		Short: "Make a new cluster from one member, when the majority is lost for good",
		Long: `Look at the data directories of members that are not running, and show which one
has most. Nothing is changed.

With --apply, and one directory, that member becomes the only one of its cluster:
with all keys, their indices and remaining TTLs, under the old member and cluster
ID. It can then be started and others be added, with empty data directories. The
members that are left behind can never speak to it again.

All members must be stopped. Do this only when most of their disks are lost: where
they are merely down, starting them again is all it takes.`,
		Example: `  quorate recover --data-dir /var/lib/i0 --data-dir /mnt/i1/data
  quorate recover --data-dir /mnt/i1/data --apply`,
		Args:    cobra.NoArgs,
		GroupID: offlineGroup,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dirs, err := pairDirs(dataDirs, walDirs)
			if err != nil {
				return refusal(err)
			}
			if apply {
				return refusal(applyRecovery(cmd.OutOrStdout(), cmd.ErrOrStderr(), dirs))
			}
			return refusal(showSurvivors(cmd.OutOrStdout(), dirs))
		},
	}
	c.Flags().StringArrayVar(&dataDirs, "data-dir", nil, "data directory of a member; may be given several times")
	c.Flags().StringArrayVar(&walDirs, "wal-dir", nil, "its --wal-dir, if it has one: once per --data-dir, in the same order (empty: within)")
	c.Flags().BoolVar(&apply, "apply", false, "change the directory; without it nothing is changed")
	return c
}

// refusal makes an error end the process with status 1 and its text alone.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	return &cli.ExitError{Code: configs.ExitRefused, Text: err.Error(), Err: err}
}

// memberDirs is where one member keeps its data.
type memberDirs struct{ data, wal string }

func pairDirs(data, wal []string) ([]memberDirs, error) {
	if len(data) == 0 {
		return nil, errors.New("--data-dir is required")
	}
	if len(wal) > 0 && len(wal) != len(data) {
		return nil, fmt.Errorf("--wal-dir is given %d times and --data-dir %d times: give it once for each, or not at all", len(wal), len(data))
	}
	dirs := make([]memberDirs, len(data))
	for i := range data {
		dirs[i].data = filepath.Clean(data[i])
		if len(wal) > 0 {
			dirs[i].wal = wal[i]
		}
	}
	return dirs, nil
}

// showSurvivors shows what there is to choose from, and what each choice would lose.
func showSurvivors(w io.Writer, dirs []memberDirs) error {
	var survivors []*store.Survivor
	var unusable []error
	for _, d := range dirs {
		s, err := store.Survey(d.data, d.wal)
		if err != nil {
			unusable = append(unusable, err)
			continue
		}
		survivors = append(survivors, s)
	}
	if len(survivors) > 0 {
		printSurvivors(w, survivors)
	}
	if err := errors.Join(unusable...); err != nil {
		return err
	}
	best := survivors[0]
	for _, s := range survivors[1:] {
		if err := best.SameCluster(s); err != nil {
			return fmt.Errorf("there is nothing to compare: %w", err)
		}
		if s.Compare(best) > 0 {
			best = s
		}
	}
	fmt.Fprintln(w)
	if len(survivors) > 1 {
		fmt.Fprintf(w, "Most advanced: %s (member %s).\n", best.DataDir, api.FormatID(best.Identity.Member))
	}
	for _, s := range survivors {
		if s != best {
			fmt.Fprintln(w, loss(s, best))
		}
	}
	printPlan(w, best, dirs)
	return nil
}

func printSurvivors(w io.Writer, survivors []*store.Survivor) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATA DIR\tMEMBER\tNAME\tCLUSTER\tLAST INDEX\tTERM\tSNAPSHOT\tKEY INDEX\tKEYS")
	for _, s := range survivors {
		index, term := s.Last()
		snapshot := "none"
		if s.SnapshotIndex > 0 {
			snapshot = fmt.Sprint(s.SnapshotIndex)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%d\n", s.DataDir, api.FormatID(s.Identity.Member), s.Name(),
			api.FormatID(s.Identity.Cluster), index, term, snapshot, s.KeyIndex, s.Keys)
	}
	_ = table.Flush() // what w could not take, the next line cannot write either
}

// loss says what choosing s instead of best would cost.
func loss(s, best *store.Survivor) string {
	from, to := s.Lacks(best)
	if from > to {
		return fmt.Sprintf("Choosing %s instead would lose nothing.", s.DataDir)
	}
	return fmt.Sprintf("Choosing %s instead would lose log entries %d to %d (%d); its key index is %d instead of %d.",
		s.DataDir, from, to, to+1-from, s.KeyIndex, best.KeyIndex)
}

// printPlan says what --apply would do.
func printPlan(w io.Writer, s *store.Survivor, dirs []memberDirs) {
	if s.Members.IsRemoved(s.Identity.Member) {
		fmt.Fprintf(w, "Member %s was removed from its cluster, so it cannot be recovered from.\n", api.FormatID(s.Identity.Member))
		return
	}
	var left []string
	for _, m := range s.Members.Members {
		if m.ID != s.Identity.Member {
			left = append(left, fmt.Sprintf("%s (%s, %s)", api.FormatID(m.ID), m.Name, strings.Join(m.PeerURLs, " ")))
		}
	}
	command := "quorate recover --data-dir " + s.DataDir
	for _, d := range dirs {
		if d.data == s.DataDir && d.wal != "" {
			command += " --wal-dir " + d.wal
		}
	}
	if len(left) == 0 {
		fmt.Fprintf(w, "Nothing was changed. It is the only member of its cluster already: starting it should be enough.\n")
	} else {
		fmt.Fprintf(w, "Nothing was changed. To go on with it alone, leaving for ever %s:\n", strings.Join(left, ", "))
	}
	fmt.Fprintf(w, "  %s --apply\n", command)
}

func applyRecovery(stdout, stderr io.Writer, dirs []memberDirs) error {
	if len(dirs) != 1 {
		return fmt.Errorf("--apply takes one --data-dir, that of the member to go on with; %d are given", len(dirs))
	}
	d := dirs[0]
	r, err := store.Recover(store.RecoverOptions{
		DataDir:      d.data,
		WALDir:       d.wal,
		EventHistory: int(configs.Default().EventHistory),
		Logger:       hclog.New(&hclog.LoggerOptions{Output: stderr, Level: hclog.Warn}),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "%s now holds a cluster of one: member %s of cluster %s, recovery epoch %x.\n",
		d.data, api.FormatID(r.Identity.Member), api.FormatID(r.Identity.Cluster), r.Identity.Epoch)
	for _, m := range r.Left {
		fmt.Fprintf(stdout, "Left behind: %s (%s, %s).\n", api.FormatID(m.ID), m.Name, strings.Join(m.PeerURLs, " "))
	}
	_, err = fmt.Fprint(stdout, `Start it with the flags it had, then add the others one by one, each with an empty
data directory:
  quorate member add NAME PEER-URL
Delete the directories of those left behind: started together, they would go on as
the old cluster, and clients that know their addresses would follow them.
`)
	return err
}
