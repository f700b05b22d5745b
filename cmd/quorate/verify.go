package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/disk"
)

// verifyCommand checks a data directory.
func verifyCommand() *cobra.Command {
	var walDir string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify DATA-DIR",
		Short: "Check the data directory of a member that is not running",
		Long: `Check everything in the data directory of a member that is not running: identity,
log, snapshots, and that they belong together and lead to one state. Nothing is
changed. Exit status 0 when all is well, 1 when not; what is wrong is named with
its file and index.`,
		Args:    cobra.ExactArgs(1),
		GroupID: offlineGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := filepath.Clean(args[0])
			v, err := store.Verify(dir, walDir)
			if err != nil {
				return refusal(err)
			}
			write := writeVerification
			if asJSON {
				write = writeVerificationJSON
			}
			if err := write(cmd.OutOrStdout(), dir, v); err != nil {
				return refusal(err)
			}
			if len(v.Problems) > 0 {
				return &cli.ExitError{Code: configs.ExitRefused}
			}
			return nil
		},
	}
	c.Flags().StringVar(&walDir, "wal-dir", "", "the member's --wal-dir, if it has one")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func writeVerification(w io.Writer, dir string, v *store.Verification) error {
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(w, format+"\n", args...)
		}
	}
	line("%s: member %s (%s) of cluster %s", dir, api.FormatID(v.Identity.Member), v.Identity.Name, api.FormatID(v.Identity.Cluster))
	switch {
	case v.LastIndex > 0:
		line("log: entries %d to %d, the last of term %d; %d bytes", v.FirstIndex, v.LastIndex, v.LastTerm, v.LogBytes)
	default:
		line("log: no entries")
	}
	for _, s := range v.Snapshots {
		line("snapshot %s: up to entry %d of term %d; %d bytes", filepath.Base(disk.SnapshotPath(dir, s.ID)), s.Index, s.Term, s.Size)
	}
	line("state: key index %d after entry %d, %d members, checksum %016x", v.KeyIndex, v.RaftIndex, len(v.Members.Members), v.Checksum)
	if v.Compared > 0 {
		line("%d of %d snapshots were compared with what the log leads to", v.Compared, len(v.Snapshots))
	}
	for _, problem := range v.Problems {
		line("PROBLEM: %v", problem)
	}
	if len(v.Problems) == 0 {
		line("everything is as it was written")
	}
	return err
}

// verification is the result as JSON. IDs and the checksum are hex, as everywhere else.
type verification struct {
	DataDir   string           `json:"dataDir"`
	OK        bool             `json:"ok"`
	Problems  []verifyProblem  `json:"problems"`
	Member    string           `json:"memberID"`
	Cluster   string           `json:"clusterID"`
	Name      string           `json:"name"`
	Epoch     string           `json:"epoch"`
	Log       verifyLog        `json:"log"`
	Snapshots []verifySnapshot `json:"snapshots"`
	Compared  int              `json:"comparedSnapshots"`
	RaftIndex uint64           `json:"raftIndex"`
	KeyIndex  uint64           `json:"index"`
	Checksum  string           `json:"checksum"`
	Members   []api.Member     `json:"members"`
}

type verifyProblem struct {
	File string `json:"file,omitempty"`
	Text string `json:"text"`
}

type verifyLog struct {
	First   uint64 `json:"firstIndex"`
	Last    uint64 `json:"lastIndex"`
	Term    uint64 `json:"lastTerm"`
	Entries uint64 `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

type verifySnapshot struct {
	File  string `json:"file"`
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Bytes int64  `json:"bytes"`
}

func writeVerificationJSON(w io.Writer, dir string, v *store.Verification) error {
	out := verification{
		DataDir:   dir,
		OK:        len(v.Problems) == 0,
		Problems:  []verifyProblem{},
		Member:    api.FormatID(v.Identity.Member),
		Cluster:   api.FormatID(v.Identity.Cluster),
		Name:      v.Identity.Name,
		Epoch:     api.FormatID(v.Identity.Epoch),
		Log:       verifyLog{v.FirstIndex, v.LastIndex, v.LastTerm, v.Entries, v.LogBytes},
		Snapshots: []verifySnapshot{},
		Compared:  v.Compared,
		RaftIndex: v.RaftIndex,
		KeyIndex:  v.KeyIndex,
		Checksum:  fmt.Sprintf("%016x", v.Checksum),
		Members:   v.Members.APIMembers(),
	}
	for _, s := range v.Snapshots {
		out.Snapshots = append(out.Snapshots, verifySnapshot{disk.SnapshotPath(dir, s.ID), s.Index, s.Term, s.Size})
	}
	for _, err := range v.Problems {
		p := verifyProblem{Text: err.Error()}
		if damage, ok := errors.AsType[*disk.DamageError](err); ok {
			p.File = damage.File
		}
		out.Problems = append(out.Problems, p)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(out)
}
