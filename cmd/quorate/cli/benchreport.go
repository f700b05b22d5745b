package cli

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quorate/quorate/client"
)

// worker is one connection with what it has measured.
type worker struct {
	client        *client.Client
	keys          *client.Keys
	reads, writes measured
	failed        error // the last failure
}

// measured is what became of requests of one kind.
type measured struct {
	latency *hdrhistogram.Histogram // of those that were answered, in microseconds
	errors  int64
}

// Latencies are kept up to a minute, with three digits.
func newMeasured() measured {
	return measured{latency: hdrhistogram.New(1, time.Minute.Microseconds(), 3)}
}

func newWorker(c *client.Client) *worker {
	return &worker{client: c, keys: c.Keys(""), reads: newMeasured(), writes: newMeasured()}
}

// send sends one request after the other until there are enough or ctx ends.
func (w *worker) send(ctx context.Context, b *bench) {
	defer w.client.CloseIdleConnections()
	for b.left.Add(-1) >= 0 && ctx.Err() == nil {
		key := b.key(rand.IntN(b.keys))
		kind := &w.writes
		start := time.Now()
		var err error
		if rand.IntN(100) < b.reads {
			kind = &w.reads
			_, err = w.keys.Get(ctx, key, client.GetOptions{Quorum: b.quorum})
		} else {
			_, err = w.keys.Set(ctx, key, b.value, client.SetOptions{})
		}
		if err != nil && ctx.Err() != nil {
			return // cut off by the end
		}
		b.done.Add(1)
		if err != nil {
			kind.errors++
			w.failed = err
			// Whoever is refused at once would otherwise only measure how fast.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		took := min(time.Since(start), time.Minute)
		_ = kind.latency.RecordValue(took.Microseconds()) // it is within the bounds
	}
}

// benchReport is the outcome of a run, and its JSON.
type benchReport struct {
	Connections int     `json:"connections"`
	Keys        int     `json:"keys"`
	ValueSize   int     `json:"valueSize"`
	Quorum      bool    `json:"quorum"`
	Seconds     float64 `json:"seconds"`
	// Rows are reads, writes and all, without those that there were none of.
	Rows []benchRow `json:"results"`
	// LastError is one of the failures, if there were any.
	LastError string `json:"lastError,omitempty"`

	all *hdrhistogram.Histogram
}

// benchRow sums up requests of a kind. Latencies are in milliseconds, of those that were answered.
type benchRow struct {
	Kind      string  `json:"kind"`
	Requests  int64   `json:"requests"`
	Errors    int64   `json:"errors"`
	PerSecond float64 `json:"perSecond"`
	Mean      float64 `json:"meanMs"`
	P50       float64 `json:"p50Ms"`
	P90       float64 `json:"p90Ms"`
	P99       float64 `json:"p99Ms"`
	P999      float64 `json:"p999Ms"`
	Max       float64 `json:"maxMs"`
}

func newBenchReport(b *bench, workers []*worker, took time.Duration) *benchReport {
	r := &benchReport{Connections: b.connections, Keys: b.keys, ValueSize: b.valueSize, Quorum: b.quorum, Seconds: took.Seconds()}
	reads, writes, all := newMeasured(), newMeasured(), newMeasured()
	for _, w := range workers {
		reads.add(w.reads)
		writes.add(w.writes)
		if w.failed != nil {
			r.LastError = describe(w.failed)
		}
	}
	all.add(reads)
	all.add(writes)
	r.all = all.latency
	for _, kind := range []struct {
		name string
		m    measured
	}{{"reads", reads}, {"writes", writes}, {"all", all}} {
		if row := kind.m.row(kind.name, took); row.Requests+row.Errors > 0 || kind.name == "all" {
			r.Rows = append(r.Rows, row)
		}
	}
	return r
}

func (m *measured) add(o measured) {
	m.latency.Merge(o.latency)
	m.errors += o.errors
}

func (m *measured) row(kind string, took time.Duration) benchRow {
	ms := func(us int64) float64 { return float64(us) / 1000 }
	h := m.latency
	return benchRow{
		Kind: kind, Requests: h.TotalCount(), Errors: m.errors,
		PerSecond: float64(h.TotalCount()) / took.Seconds(),
		Mean:      h.Mean() / 1000,
		P50:       ms(h.ValueAtQuantile(50)), P90: ms(h.ValueAtQuantile(90)), P99: ms(h.ValueAtQuantile(99)),
		P999: ms(h.ValueAtQuantile(99.9)), Max: ms(h.Max()),
	}
}

// printBench shows the outcome in the chosen format. A run in which nothing was answered is a failure.
func (s *session) printBench(r *benchReport) error {
	if s.format == "json" {
		if err := s.printJSON(r); err != nil {
			return err
		}
	} else {
		r.print(s)
	}
	if all := r.Rows[len(r.Rows)-1]; all.Requests == 0 && all.Errors > 0 {
		return exitf(exitServer, "Error:  no request was answered: %s", r.LastError)
	}
	return nil
}

func (r *benchReport) print(s *session) {
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\trequests\terrors\trequests/s\tmean\tp50\tp90\tp99\tp99.9\tmax\tms\t")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\t\n", row.Kind, row.Requests, row.Errors, row.PerSecond,
			row.Mean, row.P50, row.P90, row.P99, row.P999, row.Max)
	}
	_ = w.Flush() // to s.out, as all other output
	if s.format == "extended" {
		r.printHistogram(s)
	}
	if r.LastError != "" {
		fmt.Fprintln(s.err, "the last error was:", r.LastError)
	}
}

// printHistogram shows how many requests took how long, in steps that double.
func (r *benchReport) printHistogram(s *session) {
	total := r.all.TotalCount()
	if total == 0 {
		return
	}
	fmt.Fprintln(s.out, "\nlatency of all requests:")
	counts := make(map[int64]int64)
	for _, bar := range r.all.Distribution() {
		counts[bucketOf(bar.From)] += bar.Count
	}
	for from := bucketOf(r.all.Min()); from <= r.all.Max(); from *= 2 {
		const width = 50
		n := counts[from]
		fmt.Fprintf(s.out, "%10.3f ms  %9d  %5.1f%%  %s\n", float64(from)/1000, n, 100*float64(n)/float64(total),
			strings.Repeat("#", int(width*n/total)))
	}
}

// bucketOf returns the greatest power of two, in microseconds, that is not above a latency.
func bucketOf(us int64) int64 {
	from := int64(1)
	for from*2 <= us {
		from *= 2
	}
	return from
}
