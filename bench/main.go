//go:build linux

// Bench measures Quorate and etcd 3.4 side by side: both run on this machine at the same time, they are
// measured in turn, round after round, and what counts is the ratio of the medians. Absolute figures
// drift with the machine; a ratio taken within one run hardly does.
//
//	go run ./bench                     every line, five rounds
//	go run ./bench -only 'put|get'     some lines
//	go run ./bench -json > result.json for machines
//	go run ./bench -docs docs          also writes docs/performance.md
//
// The load comes from this process over plain TCP connections with requests written by hand, since on
// a small machine a comfortable HTTP client would be most of what is measured.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
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
	keys     int
	watchers int
	json     bool
	docs     string
}

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&c.rounds, "rounds", 5, "how often each line is measured on each system")
	flags.DurationVar(&c.duration, "duration", 3*time.Second, "how long one throughput measurement lasts")
	only := flags.String("only", "", "measure only lines whose name matches this `regexp`")
	systems := flags.String("systems", "etcd,quorate", "what to measure, in this `list`: etcd, quorate; ratios compare the last with the first")
	flags.IntVar(&c.keys, "keys", 200_000, "how many keys the memory and restart lines load")
	flags.IntVar(&c.watchers, "watchers", 1000, "how many watchers the fan-out line has")
	flags.BoolVar(&c.json, "json", false, "print JSON instead of a table")
	flags.StringVar(&c.docs, "docs", "", "also write performance.md into this `directory`")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	if flags.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if c.rounds < 1 || c.duration <= 0 || c.keys < 1 || c.watchers < 1 {
		return c, errors.New("-rounds, -duration, -keys and -watchers must be positive")
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
	report := newReport(c)
	err = withTB(stderr, func(tb *progress) {
		defer cluster.Clean()
		measure(tb, c, report)
	})
	if err != nil {
		return err
	}
	if c.docs != "" {
		if err := os.WriteFile(filepath.Join(c.docs, "performance.md"), []byte(report.markdown()), 0o644); err != nil {
			return err
		}
	}
	if c.json {
		return report.writeJSON(stdout)
	}
	_, err = io.WriteString(stdout, report.table())
	return err
}

// measure runs all chosen lines, grouped by the clusters they need.
func measure(tb *progress, c config, report *report) {
	for _, g := range groups(c) {
		g.lines = chosen(g.lines, c.only)
		if len(g.lines) == 0 {
			continue
		}
		measureGroup(tb, c, g, report)
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

func measureGroup(tb *progress, c config, g group, report *report) {
	if g.fresh {
		for _, l := range g.lines {
			for round := range c.rounds {
				for _, i := range order(len(c.systems), round) {
					tb.scope(func() {
						target := start(tb, c.systems[i], g.nodes)
						record(tb, report, l, i, round, l.run(tb, c, target))
					})
				}
			}
		}
		return
	}
	tb.scope(func() {
		var targets []*target
		for _, s := range c.systems {
			targets = append(targets, start(tb, s, g.nodes))
		}
		for _, l := range g.lines {
			for round := range c.rounds {
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
		tb.Logf("round %d  %-34s %-8s %12.1f %s", round+1, l.name+v.suffix, report.systemName(system), v.number, v.unit)
	}
}

func start(tb *progress, system string, nodes int) *target {
	cl := cluster.Start(tb, cluster.Options{Kind: cluster.Kind(system), Size: nodes})
	cl.WaitLeader()
	t := &target{cluster: cl}
	for _, u := range cl.Endpoints() {
		t.addrs = append(t.addrs, strings.TrimPrefix(u, "http://"))
	}
	return t
}
