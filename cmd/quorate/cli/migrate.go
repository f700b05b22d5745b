package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

func (g *globals) migrateCommand() *cobra.Command {
	var m migration
	var from, fromUser string
	var dryRun, verifyOnly, follow bool
	cmd := &cobra.Command{
		Use:   "migrate --from URL[,URL...] [PREFIX]",
		Short: "Copy all keys of another cluster, and keep following it",
		Long: `Copy all keys below a prefix, by default the root, from another cluster that speaks the etcd v2
API to the one at the endpoints, with their times to live. Then compare both.

With --follow go on copying every change until Ctrl-C; then make the times to live exact, compare
both, and end. That allows a move in these steps: start with --follow, wait until it follows, move
the readers, stop the writers, Ctrl-C, and let the writers go to the new cluster. Meanwhile nobody
else should write there, and times to live are longer there than at the source, by a minute or two.

Hidden keys, those with a leading underscore, are not copied unless the underscore is in PREFIX.
Indexes start anew; users, roles and members are not copied. Certificates are those of the
global flags for both clusters.

The exit code is 0 if both clusters have the same keys in the end, and 1 if not.`,
		Example: `  quorate migrate --from http://old:2379 --dry-run
  quorate -C http://new:2379 migrate --from http://old:2379 --follow
  quorate -C http://new:2379 migrate --from http://old:2379 --verify-only`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"/"}
			}
			var err error
			if m.prefix, err = oneKey(args); err != nil {
				return err
			}
			if from == "" {
				return usagef("--from URL required")
			}
			if m.resync < time.Second {
				return usagef("--resync must be at least 1s")
			}
			if m.session, err = g.bulk(cmd); err != nil {
				return err
			}
			m.to, m.seen = m.session.keys, map[string]bool{}
			if m.from, err = g.source(cmd, m.session, from, fromUser); err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			if err := m.check(ctx); err != nil {
				return failure(exitServer, err)
			}
			switch {
			case dryRun:
				return failure(exitServer, m.plan(ctx))
			case verifyOnly:
			default:
				if _, err := m.copy(ctx, follow); err != nil {
					return failure(exitServer, err)
				}
				if follow {
					if err := m.follow(ctx); err != nil {
						return failure(exitServer, err)
					}
					// The signal has ended the following, not what comes after it.
					stop()
					ctx = cmd.Context()
					if ctx.Err() != nil {
						ctx = context.WithoutCancel(ctx)
					}
					if _, err := m.copy(ctx, false); err != nil {
						return failure(exitServer, err)
					}
				}
			}
			return failure(exitServer, m.verify(ctx))
		},
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "client URLs of the source, comma-separated")
	f.StringVar(&fromUser, "from-username", "", "user, or user:password, at the source")
	f.BoolVar(&follow, "follow", false, "go on copying changes until Ctrl-C")
	f.BoolVar(&m.prune, "prune", false, "remove keys that the source does not have")
	f.BoolVar(&dryRun, "dry-run", false, "show what would be written, and write nothing")
	f.BoolVar(&verifyOnly, "verify-only", false, "only compare")
	f.DurationVar(&m.resync, "resync", 30*time.Second, "with --follow, compare everything this often")
	addParallelFlag(cmd, "", &m.parallel)
	return cmd
}

// source makes a client of the cluster to copy from.
func (g *globals) source(cmd *cobra.Command, s *session, from, user string) (*client.Keys, error) {
	source := *g
	source.username = cmp.Or(user, g.username)
	config, err := source.config(cmd)
	if err != nil {
		return nil, err
	}
	for e := range strings.SplitSeq(from, ",") {
		config.Endpoints = append(config.Endpoints, strings.TrimSpace(e))
	}
	c, err := client.New(config)
	if err != nil {
		return nil, usagef("--from: %v", err)
	}
	return c.Keys(""), nil
}

// migration copies the keys below a prefix from one cluster to another.
type migration struct {
	session  *session
	from, to *client.Keys
	prefix   string
	prune    bool
	parallel int
	resync   time.Duration

	seen map[string]bool // every key that the source had while we looked
}

// check refuses to copy a cluster to itself.
func (m *migration) check(ctx context.Context) error {
	from, err := m.from.Indexes(ctx)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	to, err := m.to.Indexes(ctx)
	if err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	if from.ClusterID != "" && from.ClusterID == to.ClusterID {
		return usagef("source and destination are the same cluster, %s", from.ClusterID)
	}
	return nil
}

// read reads both sides. index is the source's. With grace, keys with a time to live are to live longer
// at the destination.
func (m *migration) read(ctx context.Context, grace time.Duration) (have, want entries, index uint64, err error) {
	want, r, err := readEntries(ctx, m.from, m.prefix)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("source: %w", err)
	}
	have, _, err = readEntries(ctx, m.to, m.prefix)
	if err != nil {
		return nil, nil, 0, fmt.Errorf("destination: %w", err)
	}
	for key, x := range want {
		if !x.expires.IsZero() {
			x.expires = x.expires.Add(grace)
			want[key] = x
		}
	}
	return have, want, r.Index, nil
}

// grace is how much longer keys live at the destination while the source is followed. A refresh at the
// source wakes no watcher and is seen only at the next comparison; until then the key must not expire
// here. When it expires there, it is removed here as well.
func (m *migration) grace(following bool) time.Duration {
	if !following {
		return 0
	}
	return 2*m.resync + 10*time.Second
}

func (m *migration) plan(ctx context.Context) error {
	have, want, _, err := m.read(ctx, 0)
	if err != nil {
		return err
	}
	changes := m.compare(have, want)
	for _, c := range changes {
		fmt.Fprintln(m.session.out, c)
	}
	fmt.Fprintf(m.session.out, "%d changes; nothing was written\n", len(changes))
	return nil
}

// compare lists what is to be done. Keys that only the destination has are removed if they came from the
// source in the first place, or if --prune says so.
func (m *migration) compare(have, want entries) []change {
	changes := compare(have, want, true)
	rest := maps.Clone(have)
	for _, c := range changes {
		if c.to == nil && (m.prune || m.seen[c.key]) {
			delete(rest, c.key)
		}
	}
	holding := rest.dirsAbove() // a directory that holds something else stays too
	return slices.DeleteFunc(changes, func(c change) bool {
		_, stays := rest[c.key]
		return c.to == nil && (stays || holding[c.key])
	})
}

// copy makes the destination like the source and returns the source's index.
func (m *migration) copy(ctx context.Context, following bool) (uint64, error) {
	have, want, index, err := m.read(ctx, m.grace(following))
	if err != nil {
		return 0, err
	}
	for key := range want {
		m.seen[key] = true
	}
	changes := m.compare(have, want)
	made, err := apply(ctx, m.session.err, m.to, changes, m.parallel)
	if err != nil {
		return 0, fmt.Errorf("%d of %d changes made: %w", made, len(changes), err)
	}
	fmt.Fprintf(m.session.out, "source at index %d: %v; %d written\n", index, want, made)
	return index, nil
}

// follow copies every change until ctx ends, and compares everything from time to time. It gives up only
// when the destination refuses a write for good.
func (m *migration) follow(ctx context.Context) error {
	following := false
	for ctx.Err() == nil {
		index, err := m.copy(ctx, true)
		if err != nil {
			if ctx.Err() == nil {
				m.trouble(ctx, err)
			}
			continue
		}
		if !following {
			fmt.Fprintln(m.session.out, "following; Ctrl-C ends it")
			following = true
		}
		m.events(ctx, index)
	}
	return nil
}

// events copies events until it is time to compare again.
func (m *migration) events(ctx context.Context, index uint64) {
	round, cancel := context.WithTimeout(ctx, m.resync)
	defer cancel()
	w := m.from.Watcher(m.prefix, client.WatchOptions{AfterIndex: index, Recursive: true})
	for {
		r, err := w.Next(round)
		switch {
		case round.Err() != nil, errors.Is(err, api.EventIndexCleared):
			return
		case err == nil:
			err = m.replay(ctx, r)
		}
		if err != nil {
			// Comparing again puts right whatever was missed.
			if ctx.Err() == nil {
				m.trouble(ctx, err)
			}
			return
		}
	}
}

func (m *migration) trouble(ctx context.Context, err error) {
	fmt.Fprintf(m.session.err, "%v; trying again\n", err)
	pause(ctx, time.Second)
}

// replay does at the destination what an event says. Doing it twice does no harm.
func (m *migration) replay(ctx context.Context, r *client.Response) error {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	switch r.Action {
	case "delete", "compareAndDelete", "expire":
		_, err := m.to.Delete(ctx, r.Node.Key, client.DeleteOptions{Dir: r.Node.Dir, Recursive: r.Node.Dir})
		if errors.Is(err, api.KeyNotFound) {
			return nil
		}
		return err
	}
	m.seen[r.Node.Key] = true
	o := client.SetOptions{Dir: r.Node.Dir}
	if r.Node.Expiration != nil {
		o.TTL = time.Duration(max(r.Node.TTL, 1))*time.Second + m.grace(true)
	}
	_, err := m.to.Set(ctx, r.Node.Key, value(r.Node), o)
	if r.Node.Dir && errors.Is(err, api.NotFile) {
		exist := true
		o.PrevExist = &exist
		_, err = m.to.Set(ctx, r.Node.Key, "", o)
	}
	return err
}

// verify compares both sides and says what it found.
func (m *migration) verify(ctx context.Context) error {
	have, want, index, err := m.read(ctx, 0)
	if err != nil {
		return err
	}
	changes := compare(have, want, true)
	wrong, more := 0, 0
	for _, c := range changes {
		if c.to == nil && !m.prune {
			more++
			continue
		}
		if wrong++; wrong <= maxFailures {
			fmt.Fprintln(m.session.out, c)
		}
	}
	if more > 0 {
		fmt.Fprintf(m.session.out, "the destination has %d keys or directories more\n", more)
	}
	if wrong > 0 {
		return exitf(exitUsage, "Error:  %d differences from the source at index %d", wrong, index)
	}
	fmt.Fprintf(m.session.out, "verified: %v of the source at index %d are the same\n", want, index)
	return nil
}
