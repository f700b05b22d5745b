// Command quorate is the server and its client in one binary: `quorate serve` runs a member of a
// cluster, all other verbs talk to one.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/cmd/quorate/cli"
	"github.com/quorate/quorate/store"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}

// run does what the command line says and returns the exit status of the process.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:   "quorate",
		Short: "A replicated configuration store that speaks the etcd v2 API",
		Long: `Quorate is a replicated configuration store: small, strongly consistent, HTTP and JSON.
It serves the etcd v2 API. "quorate serve" runs a server, the other commands are its client.`,
		Example: `  quorate serve
  quorate set /greeting hello
  quorate get /greeting
  quorate member list`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(&cobra.Command{
		Use:                "serve [flags]",
		Short:              "Run a server: a member of a cluster, or a proxy in front of one",
		DisableFlagParsing: true, // the flags are etcd's, with one dash or two
		RunE: func(cmd *cobra.Command, args []string) error {
			return serve(cmd.Context(), args, environ, stdout, stderr)
		},
	}, &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return writeVersion(stdout)
		},
	}, recoverCommand(), verifyCommand(), convertCommand(), backupCommand())
	cli.Register(root, snapshotVerifyCommand(), snapshotRestoreCommand(), snapshotExportCommand())

	return cli.Report(stderr, root.ExecuteContext(ctx))
}

func writeVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "quorate %s\nAPI: etcd v2, as etcd %s\nGo: %s %s/%s\n", version(), store.ServerVersion, goVersion, goOS, goArch)
	return err
}
