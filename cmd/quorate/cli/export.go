package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/client"
)

// exportFormat names the form of an export; a later one gets another number.
const exportFormat = "quorate-export/1"

// export is a file that export writes and import and diff read.
type export struct {
	Format  string    `json:"format" yaml:"format"`
	Cluster string    `json:"cluster,omitempty" yaml:"cluster,omitempty"`
	Index   uint64    `json:"index,omitempty" yaml:"index,omitempty"`
	Time    time.Time `json:"time,omitzero" yaml:"time,omitempty"`
	// Prefix is the directory that was exported; Nodes have their full keys.
	Prefix string       `json:"prefix" yaml:"prefix"`
	Nodes  []exportNode `json:"nodes" yaml:"nodes"`
}

// exportNode is a key or a directory that is empty or has a time to live.
type exportNode struct {
	Key        string     `json:"key" yaml:"key"`
	Value      *string    `json:"value,omitempty" yaml:"value,omitempty"`
	Dir        bool       `json:"dir,omitempty" yaml:"dir,omitempty"`
	Expiration *time.Time `json:"expiration,omitempty" yaml:"expiration,omitempty"`
}

func newExport(found entries, r *client.Response, prefix string) export {
	e := export{Format: exportFormat, Cluster: r.ClusterID, Index: r.Index, Time: time.Now().UTC().Truncate(time.Second), Prefix: path.Join("/", prefix), Nodes: []exportNode{}}
	for _, key := range found.keys() {
		x := found[key]
		if x.implied {
			continue
		}
		n := exportNode{Key: key, Dir: x.dir}
		if !x.dir {
			n.Value = &x.value
		}
		if !x.expires.IsZero() {
			at := x.expires.UTC().Truncate(time.Second)
			n.Expiration = &at
		}
		e.Nodes = append(e.Nodes, n)
	}
	return e
}

// WriteExport writes what is below a directory in the form of "quorate export", as JSON or YAML. The
// node is the recursive listing of prefix, read at the given index of the cluster.
func WriteExport(w io.Writer, format, prefix string, node *api.Node, cluster string, index uint64) error {
	if err := checkExportFormat(format); err != nil {
		return err
	}
	found := entries{}
	found.add(node, time.Now())
	return newExport(found, &client.Response{ClusterID: cluster, Index: index}, prefix).encode(w, format)
}

func checkExportFormat(format string) error {
	if format != "json" && format != "yaml" {
		return usagef("--format must be json or yaml")
	}
	return nil
}

// entries checks an export and moves it from its prefix to another, unless that is "". Nodes that
// have expired are left out; their number is returned.
func (e export) entries(prefix string) (found entries, expired int, err error) {
	if e.Format != exportFormat {
		return nil, 0, fmt.Errorf("format %q, want %q: this is no export, or one of a later version", e.Format, exportFormat)
	}
	from := path.Join("/", e.Prefix)
	found = entries{}
	for i, n := range e.Nodes {
		switch {
		case n.Key == "" || n.Key != path.Join("/", n.Key) || n.Key == "/":
			return nil, 0, fmt.Errorf("node %d: %q is no key", i, n.Key)
		case n.Key != from && !strings.HasPrefix(n.Key, strings.TrimSuffix(from, "/")+"/"):
			return nil, 0, fmt.Errorf("node %d: key %s is not below %s", i, n.Key, from)
		case n.Dir == (n.Value != nil):
			return nil, 0, fmt.Errorf("node %d: %s needs either a value or dir", i, n.Key)
		}
		key := n.Key
		if prefix != "" {
			key = path.Join("/", prefix, strings.TrimPrefix(key, strings.TrimSuffix(from, "/")))
		}
		if _, twice := found[key]; twice || key == "/" {
			return nil, 0, fmt.Errorf("node %d: key %s cannot be used, or is there twice", i, key)
		}
		x := entry{dir: n.Dir}
		if n.Value != nil {
			x.value = *n.Value
		}
		if n.Expiration != nil {
			x.expires = *n.Expiration
			if !x.expires.After(time.Now()) {
				expired++
				continue
			}
		}
		found[key] = x
	}
	above := found.dirsAbove()
	for key, x := range found {
		if !x.dir && above[key] {
			return nil, 0, fmt.Errorf("%s is a key and a directory", key)
		}
	}
	return found, expired, nil
}

// decodeExport reads JSON or YAML.
func decodeExport(b []byte) (export, error) {
	var e export
	if trimmed := bytes.TrimLeft(b, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		err := d.Decode(&e)
		return e, err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	err := d.Decode(&e)
	if errors.Is(err, io.EOF) {
		err = errors.New("the file is empty")
	}
	return e, err
}

func (e export) encode(w io.Writer, format string) error {
	if format == "yaml" {
		enc := yaml.NewEncoder(w)
		enc.SetIndent(2)
		if err := enc.Encode(e); err != nil {
			return err
		}
		return enc.Close()
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(e)
}

// readExport reads a file or a tree, or standard input for "-". The prefix is where its keys are to
// be, or "".
func readExport(in io.Reader, name, prefix string) (e export, err error) {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		if e, err = readTree(name, prefix); err != nil {
			return e, usagef("read %s: %v", name, err)
		}
		return e, nil
	}
	var b []byte
	if name == "-" {
		b, err = io.ReadAll(in)
	} else {
		b, err = os.ReadFile(name)
	}
	if err == nil && backup.Begins(b) {
		err = fmt.Errorf("this is a snapshot: quorate snapshot export %s | quorate import -", name)
	}
	if err == nil {
		e, err = decodeExport(b)
	}
	if err != nil {
		return e, usagef("read %s: %v", name, err)
	}
	return e, nil
}

func (g *globals) exportCommand() *cobra.Command {
	var format, to string
	cmd := &cobra.Command{
		Use:   "export [PREFIX]",
		Short: "Write all keys below a prefix to a file or a directory",
		Long: `Write all keys below a prefix, by default the root, to standard output, as JSON or YAML. It is
one consistent state, with times to live as the moments at which they run out.

With --format tree it goes to the directory DIR, new or empty: every key is a file with exactly its
value, every directory a directory. Times to live are in DIR/.quorate.yaml. In names a leading dot,
%, \ and control characters are written as %2E, %25, %5C and so on. Only you can read the files.

Hidden keys, those with a leading underscore, are not part of it unless the underscore is in
PREFIX. Indexes, users and roles are not either: this is no backup of a cluster.`,
		Example: `  quorate export > all.json
  quorate export --format yaml /app > app.yaml
  quorate export --format tree --to app /app`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case format != "tree" && to != "":
				return usagef("--to is for --format tree; json and yaml go to standard output")
			case format == "tree" && to == "":
				return usagef("--format tree needs --to DIR")
			case format == "tree":
				if err := checkTreeTarget(to); err != nil {
					return usagef("%v", err)
				}
			case format != "json" && format != "yaml":
				return usagef("--format must be json, yaml or tree")
			}
			if len(args) == 0 {
				args = []string{"/"}
			}
			prefix, err := oneKey(args)
			if err != nil {
				return err
			}
			s, err := g.bulk(cmd)
			if err != nil {
				return err
			}
			found, r, err := readEntries(cmd.Context(), s.keys, prefix)
			if err != nil {
				return failure(exitServer, err)
			}
			e := newExport(found, r, prefix)
			if format != "tree" {
				return e.encode(s.out, format)
			}
			if err := e.writeTree(cmd.Context(), to); err != nil {
				return usagef("write %s: %v", to, err)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "json", "json, yaml or tree")
	cmd.Flags().StringVar(&to, "to", "", "with --format tree, the directory to write")
	return cmd
}

func (g *globals) importCommand() *cobra.Command {
	var prefix, snap string
	var hidden []string
	var dryRun, prune bool
	var parallel int
	cmd := &cobra.Command{
		Use:   "import [FILE | DIR]",
		Short: "Make the keys as a file says",
		Long: `Make the keys as an export says, read from FILE or standard input. Keys that are right already are
not written. Keys that the file does not mention are left alone unless --prune is given.

DIR is a tree of "export --format tree", or one made by hand, which needs --prefix. A file is its
value to the last byte, with a newline at its end if it has one. Names that begin with a dot are
left out; links and special files are refused.

Every write is conditional on what was read before: if somebody else changes a key meanwhile,
that change stays, and the import fails for this key. It can be repeated.

With --snap, FILE is one of etcd: a .snap file of its v2 store, or the JSON inside. It lacks what
was written after it, which is in etcd's log; from an etcd that still runs, use "migrate". Times to
live below 300 s are extended to that.`,
		Example: `  quorate import --dry-run app.yaml
  quorate import app.yaml
  quorate import --prefix /copy app.yaml
  quorate import --prune ./app
  quorate export /app | quorate -C http://10.0.0.1:2379 import -
  quorate import --snap default.etcd/member/snap/0000000000000002-0000000000000016.snap`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var name string
			var file export
			var err error
			if snap != "" {
				if len(args) > 0 {
					return usagef("--snap and FILE exclude each other")
				}
				name = snap
				for i := range hidden {
					hidden[i] = path.Join("/", hidden[i])
				}
				file, err = readEtcdSnapshot(snap, hidden, func(key string) {
					fmt.Fprintf(cmd.ErrOrStderr(), "extending key %s's ttl to %d seconds\n", key, int(minImportTTL.Seconds()))
				})
			} else if name, err = oneFile(args); err == nil {
				file, err = readExport(cmd.InOrStdin(), name, prefix)
			}
			if err != nil {
				return err
			}
			want, expired, err := file.entries(prefix)
			if err != nil {
				return usagef("read %s: %v", name, err)
			}
			s, err := g.bulk(cmd)
			if err != nil {
				return err
			}
			root := file.Prefix
			if prefix != "" {
				root = prefix
			}
			have, _, err := readEntries(cmd.Context(), s.keys, root)
			if err != nil {
				return failure(exitServer, err)
			}
			for _, h := range hidden { // which no listing of what is above shows
				also, _, err := readEntries(cmd.Context(), s.keys, path.Join("/", prefix, h))
				if err != nil {
					return failure(exitServer, err)
				}
				maps.Copy(have, also)
			}
			changes := compare(have, want, prune)
			if snap != "" {
				fmt.Fprintf(s.out, "starting to import snapshot %s with %d clients\n", snap, parallel)
			}
			if dryRun {
				for _, c := range changes {
					fmt.Fprintln(s.out, c.paint(s.out))
				}
				fmt.Fprintf(s.out, "%d changes; nothing was written\n", len(changes))
				return nil
			}
			made, err := apply(cmd.Context(), s.err, s.keys, changes, parallel)
			if snap != "" {
				fmt.Fprintf(s.out, "finished importing %d keys\n", made)
			} else {
				fmt.Fprintf(s.out, "%d of %d changes made, %d keys and directories were right already\n", made, len(changes), unchanged(want, changes))
			}
			if expired > 0 {
				fmt.Fprintf(s.out, "%d left out, their time to live is over\n", expired)
			}
			return failure(exitServer, err)
		},
	}
	f := cmd.Flags()
	f.StringVar(&prefix, "prefix", "", "put the keys below this directory instead of where they came from")
	f.BoolVar(&dryRun, "dry-run", false, "show what would be changed, and change nothing")
	f.BoolVar(&prune, "prune", false, "remove keys below the prefix that the file does not have")
	f.StringVar(&snap, "snap", "", "read this snapshot file of etcd in place of FILE")
	f.StringArrayVar(&hidden, "hidden", nil, "with --snap, also the hidden keys at this prefix; may be given several times")
	addParallelFlag(cmd, "c", &parallel)
	return cmd
}

func addParallelFlag(cmd *cobra.Command, short string, parallel *int) {
	cmd.Flags().IntVarP(parallel, "parallel", short, 16, "number of writes at a time")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *parallel < 1 {
			return usagef("--parallel must be at least 1")
		}
		return nil
	}
}

// unchanged counts what needed no change.
func unchanged(want entries, changes []change) int {
	n := len(want)
	for _, c := range changes {
		if c.to != nil {
			n--
		}
	}
	return max(n, 0)
}

func oneFile(args []string) (string, error) {
	switch len(args) {
	case 0:
		return "-", nil
	case 1:
		return args[0], nil
	}
	return "", usagef("one file expected, got %d arguments: %q", len(args), args)
}

func (g *globals) diffCommand() *cobra.Command {
	var prefix string
	cmd := &cobra.Command{
		Use:   "diff FILE|DIR [FILE|DIR]",
		Short: "Compare an export with the cluster, or with another export",
		Long: `Compare an export with the cluster, or two exports. Lines with + are only in the (first) file, those
with - only in the cluster or in the second file; ~ marks a difference: "quorate import --prune
FILE" would make exactly these changes. Times to live that are within seconds count as equal.

The exit code is 0 if there is no difference and 1 if there is one.`,
		Example: `  quorate diff app.yaml
  quorate diff ./app
  quorate export /app | quorate -C http://10.0.0.1:2379 diff -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("one or two files expected")
			}
			var sides [2]entries
			root := prefix
			for i, name := range args {
				file, err := readExport(cmd.InOrStdin(), name, prefix)
				if err != nil {
					return err
				}
				if sides[i], _, err = file.entries(prefix); err != nil {
					return usagef("read %s: %v", name, err)
				}
				if root == "" {
					root = file.Prefix
				}
			}
			if len(args) == 1 {
				s, err := g.bulk(cmd)
				if err != nil {
					return err
				}
				if sides[1], _, err = readEntries(cmd.Context(), s.keys, root); err != nil {
					return failure(exitServer, err)
				}
			}
			changes := compare(sides[1], sides[0], true)
			for _, c := range changes {
				fmt.Fprintln(cmd.OutOrStdout(), c.paint(cmd.OutOrStdout()))
			}
			if len(changes) > 0 {
				return &ExitError{Code: exitUsage}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "compare below this directory instead of where the keys came from")
	return cmd
}
