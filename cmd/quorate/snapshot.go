package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/disk"
)

// withBackup opens a backup for a verb, and ends the process with status 1 for anything that is wrong.
func withBackup(path string, run func(*backup.Content) error) error {
	f, err := backup.Open(path)
	if err != nil {
		return refusal(err)
	}
	err = run(f.Content)
	var exit *cli.ExitError
	if err != nil && !errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w", path, err)
	}
	if err = errors.Join(err, f.Close()); errors.As(err, &exit) {
		return exit
	}
	return refusal(err)
}

// snapshotVerifyCommand decodes all of a backup.
func snapshotVerifyCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a snapshot, down to every key in it",
		Long: `Check a file of "snapshot save" or of scheduled backups: the checksum over all of it, and that
everything in it can be read. Exit status 0 when all is well, 1 when not.

The checksum of the keys that is shown is the one that a member has at the same index, see
/quorate/v1/status?checksum=true.`,
		Example: `  quorate snapshot verify backup.snap
  quorate snapshot verify --json backup.snap`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withBackup(args[0], func(b *backup.Content) error {
				state, err := store.ReadBackup(b)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(verifiedBackup{
						File: args[0], Info: b.Info, Bytes: b.Bytes, SHA256: b.Sum,
						Checksum: checksumText(state), FirstEvent: state.FirstEvent, Members: state.Members.APIMembers(),
						Users: len(state.Auth.Users()), AuthEnabled: state.Auth.Enabled(),
					})
				}
				return writeVerifiedBackup(cmd.OutOrStdout(), args[0], b, state)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

type verifiedBackup struct {
	File string `json:"file"`
	backup.Info
	Bytes       int64        `json:"bytes"`
	SHA256      string       `json:"sha256"`
	Checksum    string       `json:"checksum"`
	FirstEvent  uint64       `json:"firstEvent"`
	Members     []api.Member `json:"members"`
	Users       int          `json:"users"`
	AuthEnabled bool         `json:"authEnabled"`
}

// checksumText is written as the status of a member has it.
func checksumText(state *store.BackupContents) string { return fmt.Sprintf("%016x", state.Checksum) }

func writeVerifiedBackup(w io.Writer, path string, b *backup.Content, state *store.BackupContents) error {
	auth := "not in force"
	if state.Auth.Enabled() {
		auth = "in force"
	}
	_, err := fmt.Fprintf(w, `%s: taken %s by member %s (%s) of cluster %s
state: key index %d after entry %d of term %d; %d keys, %d directories, checksum %s
events: from index %d on
members: %d; users: %d, %s
file: %d bytes, SHA-256 %s
everything is as it was written
`, path, b.Info.Time.Format(time.RFC3339), b.Info.Member, b.Info.Name, b.Info.Cluster,
		b.Info.Index, b.Info.RaftIndex, b.Info.Term, b.Info.Keys, b.Info.Dirs, checksumText(state),
		state.FirstEvent, len(state.Members.Members), len(state.Auth.Users()), auth, b.Bytes, b.Sum)
	return err
}

// snapshotRestoreCommand makes the directory of a member of a new cluster.
func snapshotRestoreCommand() *cobra.Command {
	var o store.RestoreOptions
	var initial, logStore string
	c := &cobra.Command{
		Use:   "restore FILE --data-dir DIR",
		Short: "Make the data directory of one member of a new cluster",
		Long: `Make the data directory of one member of a new cluster that begins with the state in FILE. No
server may run on it. Repeat this for each member, on its own machine, with the same FILE, the
same --initial-cluster and the same --initial-cluster-token; then start all members as usual.

Keys keep their indices and the moments at which they expire, users and roles stay, and watches
go on from the indices that clients have. The new cluster has new IDs, made from FILE among other
things: members of the old cluster, or of one that was restored from another file, are refused.

Restore a member once. One that has lost its data later is removed and added again, with an empty
directory: what it has acknowledged is in no backup.`,
		Example: `  quorate snapshot restore backup.snap --data-dir /var/lib/quorate

  ALL=a=http://10.0.0.1:2380,b=http://10.0.0.2:2380,c=http://10.0.0.3:2380
  quorate snapshot restore backup.snap --name a --initial-cluster $ALL --data-dir /var/lib/quorate`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.DataDir == "" {
				return refusal(errors.New("--data-dir is required"))
			}
			o.DataDir = filepath.Clean(o.DataDir)
			if logStore != configs.LogStoreBoltDB && logStore != configs.LogStoreWAL {
				return refusal(fmt.Errorf("--log-store must be %s or %s", configs.LogStoreBoltDB, configs.LogStoreWAL))
			}
			o.LogStore = disk.Kind(logStore)
			if initial == "" {
				initial = o.Name + "=" + configs.Default().InitialAdvertisePeerURLs.String()
			}
			cluster, err := configs.ParseInitialCluster(initial)
			if err == nil {
				err = cluster.CheckDistinct()
			}
			if err != nil {
				return refusal(fmt.Errorf("--initial-cluster: %w", err))
			}
			for _, name := range cluster.Names() {
				o.Initial = append(o.Initial, store.Initial{Name: name, PeerURLs: cluster[name]})
			}
			o.Logger = hclog.New(&hclog.LoggerOptions{Output: cmd.ErrOrStderr(), Level: hclog.Warn})
			return withBackup(args[0], func(b *backup.Content) error {
				o.Backup = b
				identity, err := store.Restore(o)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s now holds member %s (%s) of the new cluster %s, with the %d keys of index %d.\n",
					o.DataDir, api.FormatID(identity.Member), o.Name, api.FormatID(identity.Cluster), b.Info.Keys, b.Info.Index)
				if others := len(o.Initial) - 1; err == nil && others > 0 {
					_, err = fmt.Fprintf(cmd.OutOrStdout(), "Do the same for the other %d with this file (SHA-256 %s...), then start all.\n", others, b.Sum[:16])
				}
				return err
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.DataDir, "data-dir", "", "data directory of the new member; it must hold none")
	f.StringVar(&o.WALDir, "wal-dir", "", "its --wal-dir, if it is to have one")
	f.StringVar(&logStore, "log-store", configs.Default().LogStore, "its --log-store: boltdb or wal")
	f.StringVar(&o.Name, "name", configs.Default().Name, "name of this member in --initial-cluster")
	f.StringVar(&initial, "initial-cluster", "", "all members of the new cluster, as name=url[,name=url]... (default this one alone, at "+strings.Join(configs.Default().InitialAdvertisePeerURLs, ",")+")")
	f.StringVar(&o.Token, "initial-cluster-token", configs.Default().InitialClusterToken, "sets two clusters apart that are made of one file")
	return c
}

// snapshotExportCommand turns a backup into what "quorate import" reads.
func snapshotExportCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "export FILE [PREFIX]",
		Short: "Write the keys in a snapshot as quorate export does, for import and diff",
		Long: `Write the keys in FILE below a prefix, by default the root, to standard output in the form of
"quorate export": for a cluster that runs, and is to get some keys back, or for a look at what
has changed. Hidden keys are not part of it unless the underscore is in PREFIX.`,
		Example: `  quorate snapshot export backup.snap /app | quorate diff -
  quorate snapshot export backup.snap /app | quorate import --dry-run -
  quorate snapshot export --format yaml backup.snap | less`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := "/"
			if len(args) == 2 {
				prefix = args[1]
			}
			return withBackup(args[0], func(b *backup.Content) error {
				state, err := store.ReadBackup(b)
				if err != nil {
					return err
				}
				found, err := state.Tree.Get(prefix, true, true)
				if err != nil {
					return err
				}
				node := found.Event(time.Now().UnixNano()).Node
				return cli.WriteExport(cmd.OutOrStdout(), format, prefix, node, b.Info.Cluster, b.Info.Index)
			})
		},
	}
	c.Flags().StringVar(&format, "format", "json", "json or yaml")
	return c
}
