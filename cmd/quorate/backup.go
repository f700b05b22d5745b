package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/internal/durable"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/disk"
)

// backupCommand is etcdctl's backup, for the directory of a member that is not running.
func backupCommand() *cobra.Command {
	var from memberDirs
	var to memberDirs
	c := &cobra.Command{
		Use:   "backup --data-dir DIR --backup-dir DIR",
		Short: "Copy the data directory of a member that is not running",
		Long: `Make a data directory with the state of a member that is not running: its snapshot and all
of its log. The copy is the only member of a new cluster, with new IDs and the peer URL
http://localhost:2380, as with etcdctl; start it with "quorate serve --data-dir" and change the URL
with "quorate member update" before adding others.

For a member that runs, and for files that can become a cluster of any size, there is
"quorate snapshot save".`,
		Example: `  quorate backup --data-dir /var/lib/quorate --backup-dir /mnt/copy`,
		Args:    cobra.NoArgs,
		GroupID: offlineGroup,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from.data == "" || to.data == "" {
				return refusal(errors.New("--data-dir and --backup-dir are required"))
			}
			return refusal(copyMember(cmd.OutOrStdout(), cmd.ErrOrStderr(), from, to))
		},
	}
	f := c.Flags()
	f.StringVar(&from.data, "data-dir", "", "data directory of the member")
	f.StringVar(&from.wal, "wal-dir", "", "its --wal-dir, if it has one")
	f.StringVar(&to.data, "backup-dir", "", "directory to make; it must hold no member")
	f.StringVar(&to.wal, "backup-wal-dir", "", "the --wal-dir of the copy, if it is to have one")
	return c
}

func copyMember(stdout, stderr io.Writer, from, to memberDirs) (err error) {
	state, err := store.BackupOf(filepath.Clean(from.data), from.wal)
	if errors.Is(err, disk.ErrLocked) {
		return fmt.Errorf("%w; quorate snapshot save takes the state of a member that runs", err)
	}
	if err != nil {
		return err
	}
	defer state.Release()
	to.data = filepath.Clean(to.data)
	if err := durable.Mkdir(to.data, 0o700); err != nil {
		return err
	}
	// The way is the one by which every member is restored, over a file.
	file := filepath.Join(to.data, "copying.snap")
	if _, err := backup.Save(file, true, func(w io.Writer) error { _, err := state.WriteTo(w); return err }); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(file)) }()
	return withBackup(file, func(b *backup.Content) error {
		identity, err := store.Restore(store.RestoreOptions{
			Backup: b, DataDir: to.data, WALDir: to.wal,
			Name:    configs.Default().Name,
			Initial: []store.Initial{{Name: configs.Default().Name, PeerURLs: configs.Default().InitialAdvertisePeerURLs}},
			Token:   configs.Default().InitialClusterToken,
			Logger:  hclog.New(&hclog.LoggerOptions{Output: stderr, Level: hclog.Warn}),
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s now holds member %s of the new cluster %s, with the %d keys of index %d.\n",
			to.data, api.FormatID(identity.Member), api.FormatID(identity.Cluster), b.Info.Keys, b.Info.Index)
		return err
	})
}
