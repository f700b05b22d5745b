package main

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/store/disk"
)

// convertCommand changes what holds the log of a member.
func convertCommand() *cobra.Command {
	var walDir, to string
	c := &cobra.Command{
		Use:   "convert-log DATA-DIR --to boltdb|wal",
		Short: "Change the kind of log of a member that is not running",
		Long: `Change what holds the log of a member that is not running: see --log-store of
"quorate serve", which has to name the new kind from then on. Entries, votes and
snapshots stay as they are. The new log is made beside the old one, which needs
room for both, and takes its place when it is complete and checked: when this is
interrupted the member has its old log.`,
		Example: `  quorate convert-log /var/lib/quorate --to wal
  quorate serve --data-dir /var/lib/quorate --log-store wal`,
		Args:    cobra.ExactArgs(1),
		GroupID: offlineGroup,
		RunE: func(cmd *cobra.Command, args []string) error {
			if to != configs.LogStoreBoltDB && to != configs.LogStoreWAL {
				return refusal(fmt.Errorf("--to must be %s or %s", configs.LogStoreBoltDB, configs.LogStoreWAL))
			}
			dir := filepath.Clean(args[0])
			log := hclog.New(&hclog.LoggerOptions{Name: "convert-log", Level: hclog.Warn, Output: cmd.ErrOrStderr()})
			converted, err := disk.Convert(disk.ConvertOptions{DataDir: dir, WALDir: walDir, To: disk.Kind(to), Logger: log})
			if errors.Is(err, disk.ErrLocked) {
				err = fmt.Errorf("%s is in use by a running member, which has to be stopped first: %w", dir, err)
			}
			if err != nil {
				return refusal(err)
			}
			format := "the log of %s is of the kind %s now: start the member with --log-store=%[2]s\n"
			if !converted {
				format = "the log of %s is of the kind %s already\n"
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), format, dir, to); err != nil {
				return &cli.ExitError{Code: configs.ExitRefused, Err: err}
			}
			return nil
		},
	}
	c.Flags().StringVar(&walDir, "wal-dir", "", "the member's --wal-dir, if it has one")
	c.Flags().StringVar(&to, "to", "", "the new kind: boltdb or wal")
	_ = c.MarkFlagRequired("to") // it exists
	return c
}
