package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/quorate/quorate/backup"
)

// snapshotCommand has the verbs on backups that need a running member or nothing at all; offline are
// those that work on what is inside.
func (g *globals) snapshotCommand(offline []*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot",
		Short: "Save the state of a cluster to a file, and make a new cluster of it",
		Long: `Save the state of a running cluster to a file, look at such files, and make the members of a
new cluster of one. A file holds all keys with their indices, the history of events, the times
at which keys expire, users and roles, and a checksum over all of it.`,
		Example: `  quorate snapshot save backup.snap
  quorate snapshot info backup.snap
  quorate snapshot verify backup.snap
  quorate snapshot restore backup.snap --data-dir /var/lib/quorate`,
	}
	cmd.AddCommand(g.snapshotSaveCommand(), g.snapshotInfoCommand())
	cmd.AddCommand(offline...)
	return cmd
}

func (g *globals) snapshotSaveCommand() *cobra.Command {
	var force, quorum bool
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save the state of a running member to a file",
		Long: `Save the state of the member at the endpoint to FILE, while it goes on. Of several endpoints the
first that answers is taken. Any member will do: a follower has all that was acknowledged but
perhaps the last moments, and with --quorum those too.

FILE is there once it is complete, on disk and checked, and not before. With users and roles in
force this is for root.`,
		Example: `  quorate snapshot save backup.snap
  quorate -C http://10.0.0.2:2379 snapshot save --quorum "$(date +%F).snap"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := onePath(args)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("timeout") {
				g.timeout = bulkTimeout
			}
			s, err := g.open(cmd)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			content, err := backup.Save(path, force, func(w io.Writer) error {
				body, err := s.client.Snapshot(ctx, quorum)
				if err != nil {
					return err
				}
				p := newProgress(s.err)
				_, err = io.Copy(w, io.TeeReader(body, p))
				p.end()
				return errors.Join(err, body.Close())
			})
			switch {
			case errors.Is(err, backup.ErrExists):
				return usagef("%v; --force replaces it", err)
			case errors.Is(err, backup.ErrDamaged):
				return failure(exitServer, fmt.Errorf("the answer broke off, nothing was saved: %w", err))
			case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
				return failure(exitUsage, err)
			case err != nil:
				return failure(exitServer, err)
			}
			if s.format == "json" {
				return s.printJSON(summarize(path, content))
			}
			fmt.Fprintf(s.out, "saved %s: index %d, %d keys, %d bytes, of member %s of cluster %s\n", path,
				content.Info.Index, content.Info.Keys, content.Bytes, content.Info.Member, content.Info.Cluster)
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it is there")
	cmd.Flags().BoolVar(&quorum, "quorum", false, "a state that is at least as new as this moment; it takes a majority")
	return cmd
}

func onePath(args []string) (string, error) {
	if len(args) != 1 || args[0] == "" {
		return "", usagef("one file expected, got %d arguments: %q", len(args), args)
	}
	return args[0], nil
}

func (g *globals) snapshotInfoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "info FILE...",
		Short: "Show what snapshots say of themselves",
		Long: `Show what files of "snapshot save" and scheduled backups say of themselves, once their checksums
were found right. A file that is cut off or altered is refused.`,
		Example: `  quorate snapshot info backup.snap
  quorate -o json snapshot info /var/backups/quorate/*.snap`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("a file is expected")
			}
			if err := g.checkOutput(); err != nil {
				return err
			}
			var all []snapshotSummary
			for _, path := range args {
				f, err := backup.Open(path)
				if err != nil {
					return failure(exitUsage, err)
				}
				all = append(all, summarize(path, f.Content))
				if err := f.Close(); err != nil {
					return failure(exitUsage, err)
				}
			}
			out := cmd.OutOrStdout()
			if g.output == "json" {
				e := json.NewEncoder(out)
				for _, one := range all {
					if err := e.Encode(one); err != nil {
						return err
					}
				}
				return nil
			}
			t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "FILE\tINDEX\tRAFT INDEX\tTERM\tKEYS\tDIRECTORIES\tBYTES\tCLUSTER\tMEMBER\tTIME\tSHA-256")
			for _, one := range all {
				fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n", one.File, one.Index, one.RaftIndex, one.Term, one.Keys, one.Dirs,
					one.Bytes, one.Cluster, one.Member, one.Time.Format(time.RFC3339), one.SHA256)
			}
			return t.Flush()
		},
	}
}

// snapshotSummary is what info and save print as JSON.
type snapshotSummary struct {
	File string `json:"file"`
	backup.Info
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func summarize(path string, c *backup.Content) snapshotSummary {
	return snapshotSummary{path, c.Info, c.Bytes, c.Sum}
}

// progress shows on a terminal how many bytes have come. How many there will be nobody knows.
type progress struct {
	out   io.Writer // nil: it is no terminal
	start time.Time
	shown time.Time
	bytes int64
}

func newProgress(out io.Writer) *progress {
	p := &progress{start: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.out = out
	}
	return p
}

func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	if p.out != nil && time.Since(p.shown) > 200*time.Millisecond {
		p.shown = time.Now()
		const mib = 1 << 20
		fmt.Fprintf(p.out, "\r%.1f MiB, %.1f MiB/s ", float64(p.bytes)/mib, float64(p.bytes)/mib/time.Since(p.start).Seconds())
	}
	return len(b), nil
}

// end clears the line.
func (p *progress) end() {
	if p.out != nil && !p.shown.IsZero() {
		fmt.Fprint(p.out, "\r\033[K")
	}
}
