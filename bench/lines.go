//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// target is what a line is measured on.
type target struct {
	cluster *cluster.Cluster // nil for a baseline
	addrs   []string
}

// at returns the target with one of its addresses only.
func (t *target) at(m *cluster.Member) *target {
	return &target{cluster: t.cluster, addrs: []string{addrOf(m)}}
}

func addrOf(m *cluster.Member) string { return strings.TrimPrefix(m.ClientURL, "http://") }

// goal is what a figure is to reach. The zero goal is none.
type goal struct {
	ratio           float64 // times better than the first system
	atMost, atLeast float64 // for the figure itself
	bounded         bool    // atMost counts, even if it is 0
}

func ratio(n float64) goal   { return goal{ratio: n} }
func atMost(n float64) goal  { return goal{atMost: n, bounded: true} }
func atLeast(n float64) goal { return goal{atLeast: n} }

// value is one figure of one measurement. Its suffix tells apart the figures of a line that has several.
type value struct {
	suffix, unit string
	number       float64
	lowerBetter  bool
	goal         goal
}

// line is one thing to measure.
type line struct {
	name     string
	run      func(*progress, config, *target) []value
	baseline func(*progress) *target // something to compare both systems with; nil for none
	rounds   int                     // at most so many, because it takes long; 0 for as many as there are
}

// group is a set of lines measured on one pair of clusters, or each on fresh ones.
type group struct {
	nodes int
	fresh bool
	flags []string // Quorate's only
	needs string   // a flag that Quorate may not have; without it the group is left out
	lines []line
}

const (
	valueSize = 128
	keyCount  = 10_000   // keys that the write lines choose from
	listCount = 5_000    // keys in the directory that the short list line reads
	largeSize = 64 << 10 // bytes of the large values
)

var (
	text  = strings.Repeat("v", valueSize)
	large = strings.Repeat("v", largeSize)
)

func groups(c config) []group {
	return []group{
		{nodes: 1, lines: []line{
			putLine(1, 1, 1), putLine(1, 64, 1.5), putLine(1, 256, 1.5),
			getLine(1), listLine(listCount), listLine(c.listed), fanOutLine(c),
		}},
		{nodes: 3, lines: []line{
			latencyLine("leader", "", 1/0.7), latencyLine("follower", "", 1/0.8),
			putLine(3, 64, 3), putLine(3, 256, 3), largeLine(), getLine(3), quorumLine(), mixedLine(), idleLine(),
		}},
		{nodes: 3, flags: []string{"--log-store=wal"}, needs: "--log-store", lines: []line{
			latencyLine("leader", "/log-store=wal", 1/0.5), latencyLine("follower", "/log-store=wal", 1/0.6),
		}},
		{nodes: 1, fresh: true, lines: []line{watchedKeysLine(c), expiryLine(c), authLine(), idleRestartLine()}},
		{nodes: 3, fresh: true, lines: []line{leaderKillLine(), rollingRestartLine()}},
		{nodes: 1, fresh: true, lines: []line{manyKeysLine(c)}},
	}
}

func perSecond(n float64, g goal) []value { return []value{{unit: "req/s", number: n, goal: g}} }

// must ends the run when a measurement failed: a rate with errors in it means nothing.
func must(tb *progress, what string, err error) {
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// set is a write of a value to a key.
func set(key, value string) []byte { return request("PUT", "/v2/keys"+key, "value="+value) }

// put is a write to one of keyCount keys.
func put() []byte { return set(fmt.Sprintf("/bench/%05d", rand.IntN(keyCount)), text) }

func putLine(nodes, conns int, times float64) line {
	name := fmt.Sprintf("put/nodes=%d/value=%dB/conns=%d", nodes, valueSize, conns)
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		n, err := load{t.addrs, conns, func(int, int) []byte { return put() }}.runFor(c.duration)
		must(tb, name, err)
		return perSecond(n, ratio(times))
	}}
}

// latencyLine measures single writes, one after the other, at the leader or at a follower.
func latencyLine(at, suffix string, times float64) line {
	name := "put-latency/nodes=3/at=" + at + suffix
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		m := t.cluster.WaitLeader()
		if at == "follower" {
			m = t.cluster.Followers()[0]
		}
		took, err := load{t.at(m).addrs, 1, func(int, int) []byte { return put() }}.latencies(c.duration)
		must(tb, name, err)
		return []value{
			{suffix: "/p50", unit: "ms", number: quantile(took, 0.5), lowerBetter: true, goal: ratio(times)},
			{suffix: "/p99", unit: "ms", number: quantile(took, 0.99), lowerBetter: true},
		}
	}}
}

// largeLine writes large values to a few keys.
func largeLine() line {
	name := fmt.Sprintf("put/nodes=3/value=%dB/conns=16", largeSize)
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		n, err := load{t.addrs, 16, func(i, _ int) []byte { return set(fmt.Sprintf("/large/%d", i), large) }}.runFor(c.duration)
		must(tb, name, err)
		return []value{{unit: "MB/s", number: n * largeSize / 1e6, goal: ratio(1.5)}}
	}}
}

// prepare writes one key before a read line.
func prepare(tb *progress, t *target) {
	if t.cluster != nil {
		must(tb, "write the key to read", once(t.addrs[0], set("/one", text), surely))
		t.cluster.WaitEqual()
	}
}

func readLine(name, path string, times float64) line {
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		prepare(tb, t)
		req := request("GET", path, "")
		n, err := load{t.addrs, 64, func(int, int) []byte { return req }}.runFor(c.duration)
		must(tb, name, err)
		return perSecond(n, ratio(times))
	}}
}

func getLine(nodes int) line {
	l := readLine(fmt.Sprintf("get/nodes=%d/conns=64", nodes), "/v2/keys/one", 1.6)
	if nodes == 1 {
		l.baseline = bareServer
	}
	return l
}

func quorumLine() line {
	return readLine("get-quorum/nodes=3/conns=64", "/v2/keys/one?quorum=true", 3.5)
}

func mixedLine() line {
	const name = "mixed-90-10/nodes=3/conns=64"
	get := request("GET", "/v2/keys/one", "")
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		prepare(tb, t)
		n, err := load{t.addrs, 64, func(int, int) []byte {
			if rand.IntN(10) == 0 {
				return put()
			}
			return get
		}}.runFor(c.duration)
		must(tb, name, err)
		return perSecond(n, ratio(2))
	}}
}

// listLine reads a tree of n keys in one request.
func listLine(n int) line {
	name := fmt.Sprintf("list/nodes=1/keys=%d/conns=2", n)
	dir := fmt.Sprintf("/list%d", n)
	ready := map[*target]bool{}
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		if !ready[t] {
			must(tb, name, fill(t, dir, n))
			ready[t] = true
		}
		req := request("GET", "/v2/keys"+dir+"?recursive=true", "")
		took, err := load{t.addrs, 2, func(int, int) []byte { return req }}.latencies(c.duration)
		must(tb, name, err)
		return []value{{unit: "ms", number: quantile(took, 0.5), lowerBetter: true, goal: ratio(5)}}
	}}
}

// fill writes n keys, a hundred to a directory.
func fill(t *target, dir string, n int) error {
	return fillWith(t, n, func(key int) []byte { return set(pathOf(dir, key), text) })
}

// pathOf is where fill puts its n-th key.
func pathOf(dir string, n int) string { return fmt.Sprintf("%s/%04d/%02d", dir, n/100, n%100) }

// fillWith sends n requests as fast as the target takes them.
func fillWith(t *target, n int, request func(i int) []byte) error {
	const conns = 256
	return load{t.addrs, conns, func(i, k int) []byte {
		if i += k * conns; i < n {
			return request(i)
		}
		return nil
	}}.runAll()
}

// bareServer answers a GET with as many bytes as the real ones, and does nothing else: the most that
// net/http can do here.
func bareServer(tb *progress) *target {
	body := []byte(`{"action":"get","node":{"key":"/one","value":"` + text + `","modifiedIndex":10000,"createdIndex":10000}}` + "\n")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, "bare net/http server", err)
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("X-Etcd-Cluster-Id", "cdf818194e3a8c32")
		h.Set("X-Etcd-Index", "10000")
		h.Set("X-Raft-Index", "10000")
		h.Set("X-Raft-Term", "2")
		_, _ = w.Write(body) // the client counts
	})}
	go func() { _ = srv.Serve(l) }() // ends with Close
	tb.Cleanup(func() { srv.Close() })
	return &target{addrs: []string{l.Addr().String()}}
}

// once sends one request on a connection of its own. It is an error if there is no answer in time.
func once(addr string, req []byte, limit time.Duration) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	return c.roundTrip(req)
}

const (
	soon   = time.Second     // for those who try again
	surely = 2 * time.Minute // for those who do not
)
