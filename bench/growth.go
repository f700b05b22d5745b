//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
)

// curve is a figure as one quantity grows.
type curve struct {
	name  string // of its file
	title string
	x, y  string // what grows, and what is measured
	// rate says that more is better; the cost is then one over it.
	rate   bool
	series []*series
}

// series is one line of a curve.
type series struct {
	name string
	x, y []float64
}

// at adds a point to the series of a name.
func (c *curve) at(name string, x, y float64) {
	for _, s := range c.series {
		if s.name == name {
			s.x, s.y = append(s.x, x), append(s.y, y)
			return
		}
	}
	c.series = append(c.series, &series{name: name, x: []float64{x}, y: []float64{y}})
}

// slope is the exponent with which the cost grows between the last two points: 1 is linear.
func (s *series) slope(rate bool) float64 {
	n := len(s.x)
	if n < 2 {
		return math.NaN()
	}
	slope := math.Log(s.y[n-1]/s.y[n-2]) / math.Log(s.x[n-1]/s.x[n-2])
	if rate {
		return -slope
	}
	return slope
}

// powers returns 10^from to 10^to, without those above limit.
func powers(from, to, limit int) []int {
	var out []int
	for e := from; e <= to; e++ {
		if n := int(math.Pow10(e)); n <= limit {
			out = append(out, n)
		}
	}
	return out
}

// grow measures all curves on all systems.
func grow(tb *progress, c config) []*curve {
	var curves []*curve
	for _, measure := range []func(*progress, config) []*curve{growKeys, growValues, growWidth, growDepth, growWatchers, growMembers} {
		found := measure(tb, c)
		for _, f := range found {
			for _, s := range f.series {
				tb.Logf("%s, %s: %s %.4g, %s %.4g", f.name, s.name, f.x, s.x, f.y, s.y)
			}
		}
		curves = append(curves, found...)
	}
	return curves
}

// onEach runs f on a fresh cluster of each system.
func onEach(tb *progress, c config, nodes int, f func(system string, t *target)) {
	for _, system := range c.systems {
		tb.scope(func() { f(system, start(tb, system, group{nodes: nodes})) })
	}
}

// rateOf is the rate at which requests are answered.
func rateOf(tb *progress, c config, t *target, conns int, next func() []byte) float64 {
	n, err := load{t.addrs, conns, func(int, int) []byte { return next() }}.runFor(c.duration)
	must(tb, "load", err)
	return n
}

const growConns = 64

func growKeys(tb *progress, c config) []*curve {
	rates := &curve{name: "keys-rate", title: "Single keys, as the store grows", x: "keys", y: "requests/s", rate: true}
	memory := &curve{name: "keys-memory", title: "Memory (RSS), as the store grows", x: "keys", y: "bytes"}
	restart := &curve{name: "keys-restart", title: "From kill -9 to serving, as the store grows", x: "keys", y: "ms"}
	onEach(tb, c, 1, func(system string, t *target) {
		m := t.cluster.Members[0]
		have := 0
		for _, n := range powers(3, 6, c.keys) {
			must(tb, "fill", fillWith(t, n-have, func(i int) []byte { return set(pathOf("/many", have+i), text) }))
			have = n
			memory.at(system, float64(n), float64(residentBytes(tb, m.Pid())))
			some := func() string { return pathOf("/many", rand.IntN(n)) }
			rates.at(system+" GET", float64(n), rateOf(tb, c, t, growConns, func() []byte { return request("GET", "/v2/keys"+some(), "") }))
			rates.at(system+" PUT", float64(n), rateOf(tb, c, t, growConns, func() []byte { return set(some(), text) }))
			m.Kill()
			took := served(tb, m, request("GET", "/v2/keys"+pathOf("/many", n-1)+"?quorum=true", ""))
			restart.at(system, float64(n), milliseconds(took))
		}
	})
	return []*curve{rates, memory, restart}
}

func growValues(tb *progress, c config) []*curve {
	v := &curve{name: "value-rate", title: "Single keys, by the size of the value", x: "bytes", y: "requests/s", rate: true}
	onEach(tb, c, 1, func(system string, t *target) {
		for size := 16; size <= 1<<20; size *= 16 {
			put := set("/sized", strings.Repeat("v", size))
			v.at(system+" PUT", float64(size), rateOf(tb, c, t, 16, func() []byte { return put }))
			get := request("GET", "/v2/keys/sized", "")
			v.at(system+" GET", float64(size), rateOf(tb, c, t, 16, func() []byte { return get }))
		}
	})
	return []*curve{v}
}

func growWidth(tb *progress, c config) []*curve {
	list := &curve{name: "width-list", title: "Listing one directory, by its width", x: "children", y: "ms"}
	one := &curve{name: "width-rate", title: "Writing one child, by the width of its directory", x: "children", y: "requests/s", rate: true}
	onEach(tb, c, 1, func(system string, t *target) {
		have := 0
		for _, n := range powers(1, 5, c.listed) {
			must(tb, "fill", fillWith(t, n-have, func(i int) []byte { return set(fmt.Sprintf("/wide/%d", have+i), text) }))
			have = n
			for _, sorted := range []string{"", " sorted"} {
				get := request("GET", "/v2/keys/wide?sorted="+fmt.Sprint(sorted != ""), "")
				took, err := load{t.addrs, 1, func(int, int) []byte { return get }}.latencies(c.duration)
				must(tb, "list", err)
				list.at(system+sorted, float64(n), quantile(took, 0.5))
			}
			one.at(system, float64(n), rateOf(tb, c, t, growConns, func() []byte { return set(fmt.Sprintf("/wide/%d", rand.IntN(n)), text) }))
		}
	})
	return []*curve{list, one}
}

func growDepth(tb *progress, c config) []*curve {
	d := &curve{name: "depth-rate", title: "Single keys, by their depth", x: "components", y: "requests/s", rate: true}
	onEach(tb, c, 1, func(system string, t *target) {
		for depth := 1; depth <= 64; depth *= 4 {
			key := strings.Repeat("/d", depth-1) + fmt.Sprintf("/k%d", depth)
			put, get := set(key, text), request("GET", "/v2/keys"+key, "")
			d.at(system+" PUT", float64(depth), rateOf(tb, c, t, growConns, func() []byte { return put }))
			d.at(system+" GET", float64(depth), rateOf(tb, c, t, growConns, func() []byte { return get }))
		}
	})
	return []*curve{d}
}

func growWatchers(tb *progress, c config) []*curve {
	w := &curve{name: "watchers", title: "Delivery of one event to all watchers of a key (p99)", x: "watchers", y: "ms"}
	onEach(tb, c, 1, func(system string, t *target) {
		for _, n := range powers(0, 4, c.watchers) {
			delays, err := fanOut(t.addrs[0], n, 10)
			must(tb, "fan-out", err)
			w.at(system, float64(n), quantile(delays, 0.99))
		}
	})
	return []*curve{w}
}

func growMembers(tb *progress, c config) []*curve {
	rates := &curve{name: "members-rate", title: "Writes, by the number of members (on one machine)", x: "members", y: "requests/s", rate: true}
	alone := &curve{name: "members-latency", title: "A single write, by the number of members (on one machine)", x: "members", y: "ms"}
	for nodes := 1; nodes <= c.members; nodes += 2 {
		onEach(tb, c, nodes, func(system string, t *target) {
			rates.at(system, float64(nodes), rateOf(tb, c, t, growConns, put))
			took, err := load{t.at(t.cluster.WaitLeader()).addrs, 1, func(int, int) []byte { return put() }}.latencies(c.duration)
			must(tb, "single writes", err)
			alone.at(system, float64(nodes), quantile(took, 0.5))
		})
	}
	return []*curve{rates, alone}
}

// writeCurves draws the curves into a directory and prints how steeply they end.
func writeCurves(w io.Writer, dir string, curves []*curve) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "curve\tseries\tfrom\tto\tcost grows with the power")
	for _, c := range curves {
		if err := os.WriteFile(filepath.Join(dir, c.name+".svg"), []byte(c.svg()), 0o644); err != nil {
			return err
		}
		for _, s := range c.series {
			last := len(s.y) - 1
			fmt.Fprintf(table, "%s\t%s\t%.4g %s\t%.4g %s\t%.2f\n", c.name, s.name, s.y[0], c.y, s.y[last], c.y, s.slope(c.rate))
		}
	}
	return table.Flush()
}
