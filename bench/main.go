//go:build linux

// Bench measures Quorate and etcd 3.4 side by side: both run on this machine at the same time, they are
// measured in turn, round after round, and what counts is the ratio of the medians. Absolute figures
// drift with the machine; a ratio taken within one run hardly does.
//
//	go run ./bench                     every line, five rounds
//	go run ./bench -only 'put|get'     some lines
//	go run ./bench -quick              every line once and small, in about a minute
//	go run ./bench -list               what lines there are
//	go run ./bench -json > result.json for machines
//	go run ./bench -growth -docs docs  draws docs/growth/*.svg, in less than six minutes
//
// The load comes from this process over plain TCP connections with requests written by hand, since on
// a small machine a comfortable HTTP client would be most of what is measured.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
}

// config is what the flags say.
type config struct {
	rounds   int
	duration time.Duration
	only     *regexp.Regexp
	systems  []string
	json     bool
	markdown bool
	list     bool
	growth   string // where the curves go; empty for the lines

	members int // at most, in the curves

	// The sizes of single lines.
	keys, listed, expiring, watchers int
	// idle is how long an idle cluster is looked at.
	idle time.Duration
	// settle is how long a server is left alone so that it can end what it does by itself.
	settle time.Duration
}

// hurry makes everything small: the figures mean little, but each line is run.
func (c *config) hurry() {
	c.rounds, c.duration = 1, 200*time.Millisecond
	c.keys, c.listed, c.expiring, c.watchers = 1000, 1000, 1000, 100
	c.members = 3
	c.idle, c.settle = 500*time.Millisecond, time.Second
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&c.rounds, "rounds", 5, "how often each line is measured on each system")
	flags.DurationVar(&c.duration, "duration", 3*time.Second, "how long one throughput measurement lasts")
	only := flags.String("only", "", "measure only lines whose name matches this `regexp`")
	systems := flags.String("systems", "etcd,quorate", "what to measure, in this `list`: etcd, quorate; ratios compare the last with the first")
	flags.IntVar(&c.keys, "keys", 1_000_000, "how many keys the lines about memory, restart and snapshots load")
	flags.IntVar(&c.listed, "listed", 100_000, "how many keys the long list has")
	flags.IntVar(&c.expiring, "expiring", 100_000, "how many keys expire in one second")
	flags.IntVar(&c.watchers, "watchers", 10_000, "how many watchers there are")
	flags.DurationVar(&c.idle, "idle", time.Minute, "how long an idle cluster is looked at")
	flags.DurationVar(&c.settle, "settle", 10*time.Second, "how long a server is left alone before it is looked at")
	growth := flags.Bool("growth", false, "measure how cost grows with keys, sizes, watchers and members, and draw it")
	docs := flags.String("docs", "docs", "with -growth: the `directory` that gets growth/*.svg")
	flags.IntVar(&c.members, "members", 9, "with -growth: the largest cluster")
	quick := flags.Bool("quick", false, "run everything once and small, to see that it runs; wins over the flags for sizes")
	flags.BoolVar(&c.json, "json", false, "print JSON instead of a table")
	flags.BoolVar(&c.markdown, "markdown", false, "print the table as Markdown")
	flags.BoolVar(&c.list, "list", false, "print the names of the lines and measure nothing")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if *quick {
		c.hurry()
	}
	if *growth {
		c.growth = filepath.Join(*docs, "growth")
	}
	if min(c.rounds, c.keys, c.listed, c.expiring, c.watchers, c.members) < 1 || min(c.duration, c.idle, c.settle) <= 0 {
		return c, errors.New("numbers and durations must be positive")
	}
	var err error
	if c.only, err = regexp.Compile(*only); err != nil {
		return c, err
	}
	c.systems = strings.Split(*systems, ",")
	for _, s := range c.systems {
		if s != string(cluster.Etcd) && s != string(cluster.Quorate) {
			return c, fmt.Errorf("unknown system %q", s)
		}
	}
	return c, nil
}

func run(args []string, stdout, stderr io.Writer) error {
	c, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if c.list {
		for _, g := range groups(c) {
			for _, l := range chosen(g.lines, c.only) {
				fmt.Fprintln(stdout, l.name)
			}
		}
		return nil
	}
	if c.growth != "" {
		return draw(c, stdout, stderr)
	}
	report := newReport(c)
	err = withTB(stderr, func(tb *progress) {
		defer cluster.Clean()
		measure(tb, c, report)
	})
	// What was measured before a failure is worth having.
	return errors.Join(err, report.write(stdout, c))
}

// draw measures and draws the curves.
func draw(c config, stdout, stderr io.Writer) error {
	if err := os.MkdirAll(c.growth, 0o755); err != nil {
		return err
	}
	var curves []*curve
	err := withTB(stderr, func(tb *progress) {
		defer cluster.Clean()
		curves = grow(tb, c)
	})
	if err != nil {
		return err
	}
	return writeCurves(stdout, c.growth, curves)
}

// measure runs all chosen lines, grouped by the clusters they need.
func measure(tb *progress, c config, report *report) {
	for _, g := range groups(c) {
		g.lines = chosen(g.lines, c.only)
		switch {
		case len(g.lines) == 0:
		case g.needs != "" && !hasFlag(tb, g.needs):
			tb.Logf("left out, since this Quorate has no %s: %s", g.needs, g.lines[0].name)
		case g.fresh:
			measureFresh(tb, c, g, report)
		default:
			measureTogether(tb, c, g, report)
		}
	}
}

func chosen(lines []line, only *regexp.Regexp) []line {
	var out []line
	for _, l := range lines {
		if only.MatchString(l.name) {
			out = append(out, l)
		}
	}
	return out
}

// hasFlag says whether the help of quorate serve has a flag.
func hasFlag(tb *progress, flag string) bool {
	path, err := cluster.QuorateBinary()
	must(tb, "build quorate", err)
	help, _ := exec.Command(path, "serve", "--help").CombinedOutput() // what matters is what it says
	return bytes.Contains(help, []byte(flag))
}

func (l line) roundsOf(c config) int {
	if l.rounds > 0 {
		return min(l.rounds, c.rounds)
	}
	return c.rounds
}

// measureFresh starts a cluster for each measurement, one system at a time.
func measureFresh(tb *progress, c config, g group, report *report) {
	for _, l := range g.lines {
		for round := range l.roundsOf(c) {
			for _, i := range order(len(c.systems), round) {
				tb.scope(func() {
					record(tb, report, l, i, round, l.run(tb, c, start(tb, c.systems[i], g)))
				})
			}
		}
	}
}

// measureTogether starts one cluster of each system and measures them in turn.
func measureTogether(tb *progress, c config, g group, report *report) {
	tb.scope(func() {
		var targets []*target
		for _, s := range c.systems {
			targets = append(targets, start(tb, s, g))
		}
		for _, l := range g.lines {
			for round := range l.roundsOf(c) {
				for _, i := range order(len(targets), round) {
					record(tb, report, l, i, round, l.run(tb, c, targets[i]))
				}
				if l.baseline != nil {
					tb.scope(func() { record(tb, report, l, baselineSystem, round, l.run(tb, c, l.baseline(tb))) })
				}
			}
		}
	})
}

// order returns 0..n-1, backwards in every second round, so that nobody is always first.
func order(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
		if round%2 == 1 {
			out[i] = n - 1 - i
		}
	}
	return out
}

func record(tb *progress, report *report, l line, system, round int, values []value) {
	for _, v := range values {
		report.add(l, v, system)
		tb.Logf("%s  round %d  %-52s %-8s %12.1f %s", time.Now().Format(time.TimeOnly), round+1,
			l.name+v.suffix, report.systemName(system), v.number, v.unit)
	}
}

func start(tb *progress, system string, g group) *target {
	options := cluster.Options{Kind: cluster.Kind(system), Size: g.nodes}
	if options.Kind == cluster.Quorate {
		options.Flags = g.flags
	}
	cl := cluster.Start(tb, options)
	cl.WaitLeader()
	t := &target{cluster: cl}
	for _, m := range cl.Members {
		t.addrs = append(t.addrs, addrOf(m))
	}
	return t
}
