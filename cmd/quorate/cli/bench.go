package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// bench is a load that measures a cluster.
type bench struct {
	connections int
	requests    int // zero means as many as duration allows
	duration    time.Duration
	valueSize   int
	keys        int
	reads       int // of a hundred requests
	quorum      bool
	prefix      string

	dir   string // of this run, below prefix
	value string
	left  atomic.Int64  // requests not yet begun
	done  atomic.Uint64 // requests that ended
}

func (g *globals) benchCommand() *cobra.Command {
	var b bench
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Put a load on a cluster and measure it",
		Long: `Put a load on a cluster and measure it.

Each connection keeps to one member and sends its next request when it has the answer to
the last one, for as long as --duration says, or until there were --requests in all.

This WRITES to the cluster: --keys keys in a directory of its own below --prefix, which is
removed at the end, also after Ctrl-C. Other keys are not touched, but whoever uses the
cluster will feel the load.`,
		Example: `  quorate bench
  quorate bench --connections 64 --reads 90 --duration 30s
  quorate bench --reads 100 --quorum --requests 100000
  quorate -o json -C http://10.0.0.1:2379 --no-sync bench --value-size 4096`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("no arguments expected, got %q", args)
			}
			if err := b.check(cmd.Flags().Changed("duration")); err != nil {
				return err
			}
			s, err := g.bulk(cmd)
			if err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return b.run(ctx, s)
		},
	}
	f := cmd.Flags()
	f.IntVar(&b.connections, "connections", 16, "number of connections, spread over the endpoints")
	f.IntVar(&b.requests, "requests", 0, "end after this many requests instead of after --duration")
	f.DurationVar(&b.duration, "duration", 10*time.Second, "how long to go on")
	f.IntVar(&b.valueSize, "value-size", 128, "size of the values in bytes")
	f.IntVar(&b.keys, "keys", 1000, "number of keys, from which each request takes one by chance")
	f.IntVar(&b.reads, "reads", 50, "how many of a hundred requests are reads")
	f.BoolVarP(&b.quorum, "quorum", "q", false, "linearizable reads")
	f.StringVar(&b.prefix, "prefix", "/quorate-bench", "directory below which keys are written")
	return cmd
}

func (b *bench) check(timed bool) error {
	switch {
	case b.connections < 1 || b.keys < 1 || b.valueSize < 0 || b.requests < 0:
		return usagef("--connections and --keys must be positive, --value-size and --requests not negative")
	case b.reads < 0 || b.reads > 100:
		return usagef("--reads is a share of a hundred, not %d", b.reads)
	case b.requests > 0 && timed:
		return usagef("--requests and --duration exclude each other")
	case b.requests == 0 && b.duration <= 0:
		return usagef("--duration must be positive")
	}
	return nil
}

// run makes the keys, measures, prints and cleans up.
func (b *bench) run(ctx context.Context, s *session) (err error) {
	b.dir = path.Join("/", b.prefix, strconv.FormatUint(rand.Uint64(), 36))
	b.value = strings.Repeat("v", b.valueSize)
	fmt.Fprintf(s.err, "writing %d keys of %d bytes below %s, which is removed at the end\n", b.keys, b.valueSize, b.dir)
	workers, err := b.workers(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cleanUp(ctx, s)) }()

	// Each key is there before any is read.
	b.left.Store(int64(b.keys))
	each(workers, func(w *worker) {
		for i := b.left.Add(-1); i >= 0 && w.failed == nil && ctx.Err() == nil; i = b.left.Add(-1) {
			_, w.failed = w.keys.Set(ctx, b.key(int(i)), b.value, client.SetOptions{})
		}
	})
	for _, w := range workers {
		if w.failed != nil && ctx.Err() == nil {
			return failure(exitServer, w.failed)
		}
	}

	load := ctx
	b.left.Store(int64(b.requests))
	if b.requests == 0 {
		b.left.Store(1 << 62)
		var cancel context.CancelFunc
		load, cancel = context.WithTimeout(ctx, b.duration)
		defer cancel()
	}
	stop := b.showProgress(s.err)
	began := time.Now()
	each(workers, func(w *worker) { w.send(load, b) })
	took := time.Since(began)
	stop()
	return s.printBench(newBenchReport(b, workers, took))
}

func (b *bench) key(i int) string { return b.dir + "/" + strconv.Itoa(i) }

// workers makes a client for each connection, bound to one member.
func (b *bench) workers(s *session) ([]*worker, error) {
	endpoints := s.client.Endpoints()
	workers := make([]*worker, b.connections)
	for i := range workers {
		config := s.config
		config.Endpoints = []string{endpoints[i%len(endpoints)]}
		c, err := client.New(config)
		if err != nil {
			return nil, usagef("%v", err)
		}
		workers[i] = newWorker(c)
	}
	return workers, nil
}

func each(workers []*worker, do func(*worker)) {
	var all sync.WaitGroup
	for _, w := range workers {
		all.Go(func() { do(w) })
	}
	all.Wait()
}

// cleanUp removes what the run has written, even when ctx has ended.
func (b *bench) cleanUp(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), bulkTimeout)
	defer cancel()
	if _, err := s.keys.Delete(ctx, b.dir, client.DeleteOptions{Recursive: true}); err != nil && !errors.Is(err, api.KeyNotFound) {
		return exitf(exitServer, "Error:  %s is left behind: %s", b.dir, describe(err))
	}
	// Other runs may be under way below the prefix; then it is not empty, and stays.
	_, _ = s.keys.Delete(ctx, path.Dir(b.dir), client.DeleteOptions{Dir: true})
	return nil
}

// showProgress says each second how far the run is, until stop is called.
func (b *bench) showProgress(w io.Writer) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		var before uint64
		for second := 1; ; second++ {
			select {
			case <-end:
				return
			case <-ticker.C:
			}
			now := b.done.Load()
			fmt.Fprintf(w, "%4ds  %8d requests/s\n", second, now-before)
			before = now
		}
	}()
	return func() { close(end); <-done }
}
