//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// target is what a line is measured on.
type target struct {
	cluster *cluster.Cluster // nil for a baseline
	addrs   []string
}

// value is one figure of one measurement. Its suffix tells apart the figures of a line that has several.
type value struct {
	suffix, unit string
	number       float64
	lowerBetter  bool
}

// line is one thing to measure.
type line struct {
	name     string
	run      func(*progress, config, *target) []value
	baseline func(*progress) *target // something to compare both systems with; nil for none
}

// group is a set of lines measured on one pair of clusters, or each on fresh ones.
type group struct {
	nodes int
	fresh bool
	lines []line
}

const (
	valueSize = 128
	keyCount  = 10_000 // keys that the write lines choose from
	listCount = 5_000  // keys in the directory that the list line reads
)

var text = strings.Repeat("v", valueSize)

func groups(c config) []group {
	return []group{
		{nodes: 1, lines: []line{
			putLine(1, 1), putLine(1, 64), putLine(1, 256), getLine(1), listLine(), watchLine(),
		}},
		{nodes: 3, lines: []line{
			putLine(3, 1), putLine(3, 64), putLine(3, 256), getLine(3), quorumLine(), mixedLine(),
		}},
		{nodes: 1, fresh: true, lines: []line{{
			name: fmt.Sprintf("keys/nodes=1/keys=%d", c.keys),
			run:  manyKeys,
		}}},
	}
}

func perSecond(n float64) []value { return []value{{unit: "req/s", number: n}} }

// must ends the run when a measurement failed: a rate with errors in it means nothing.
func must(tb *progress, what string, err error) {
	if err != nil {
		tb.Fatalf("%s: %v", what, err)
	}
}

// put is a write to one of keyCount keys.
func put() []byte {
	return request("PUT", fmt.Sprintf("/v2/keys/bench/%05d", rand.IntN(keyCount)), "value="+text)
}

func putLine(nodes, conns int) line {
	name := fmt.Sprintf("put/nodes=%d/value=%dB/conns=%d", nodes, valueSize, conns)
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		n, err := load{t.addrs, conns, func(int, int) []byte { return put() }}.runFor(c.duration)
		must(tb, name, err)
		return perSecond(n)
	}}
}

// prepare writes one key before a read line.
func prepare(tb *progress, t *target) {
	if t.cluster != nil {
		must(tb, "write the key to read", load{t.addrs[:1], 1, func(_, n int) []byte {
			if n > 0 {
				return nil
			}
			return request("PUT", "/v2/keys/one", "value="+text)
		}}.runAll())
		t.cluster.WaitEqual()
	}
}

func readLine(name, path string) line {
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		prepare(tb, t)
		req := request("GET", path, "")
		n, err := load{t.addrs, 64, func(int, int) []byte { return req }}.runFor(c.duration)
		must(tb, name, err)
		return perSecond(n)
	}}
}

func getLine(nodes int) line {
	l := readLine(fmt.Sprintf("get/nodes=%d/conns=64", nodes), "/v2/keys/one")
	if nodes == 1 {
		l.baseline = bareServer
	}
	return l
}

func quorumLine() line {
	return readLine("get-quorum/nodes=3/conns=64", "/v2/keys/one?quorum=true")
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
		return perSecond(n)
	}}
}

func listLine() line {
	name := fmt.Sprintf("list/nodes=1/keys=%d/conns=8", listCount)
	ready := map[*target]bool{}
	return line{name: name, run: func(tb *progress, c config, t *target) []value {
		if !ready[t] {
			must(tb, name, fill(t, "/list", listCount))
			ready[t] = true
		}
		req := request("GET", "/v2/keys/list?recursive=true", "")
		n, err := load{t.addrs, 8, func(int, int) []byte { return req }}.runFor(c.duration)
		must(tb, name, err)
		return perSecond(n)
	}}
}

// fill writes n keys, a hundred to a directory.
func fill(t *target, dir string, n int) error {
	const conns = 128
	return load{t.addrs, conns, func(i, k int) []byte {
		key := k*conns + i
		if key >= n {
			return nil
		}
		return request("PUT", fmt.Sprintf("/v2/keys%s/%04d/%02d", dir, key/100, key%100), "value="+text)
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

// manyKeys fills a fresh member, looks at its memory, then kills it and times its return.
func manyKeys(tb *progress, c config, t *target) []value {
	m := t.cluster.Members[0]
	before := residentBytes(tb, m.Pid())
	began := time.Now()
	must(tb, "fill", fill(t, "/many", c.keys))
	filled := time.Since(began)
	memory := float64(residentBytes(tb, m.Pid())-before) / float64(c.keys)

	m.Kill()
	last := request("GET", fmt.Sprintf("/v2/keys/many/%04d/%02d?quorum=true", (c.keys-1)/100, (c.keys-1)%100), "")
	began = time.Now()
	m.Start()
	for {
		err := once(t.addrs[0], last)
		if err == nil {
			break
		}
		if time.Since(began) > 5*time.Minute {
			tb.Fatalf("%s does not serve after its restart: %v", m.Name, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
	return []value{
		{suffix: "/fill", unit: "req/s", number: float64(c.keys) / filled.Seconds()},
		{suffix: "/memory", unit: "B/key", number: memory, lowerBetter: true},
		{suffix: "/restart", unit: "ms", number: float64(time.Since(began).Milliseconds()), lowerBetter: true},
	}
}

// once sends one request on a connection of its own; no answer in a second counts as none.
func once(addr string, req []byte) error {
	c, err := dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	return c.roundTrip(req)
}

func residentBytes(tb *progress, pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(tb, "read the memory in use", err)
	for l := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
			must(tb, "read the memory in use", err)
			return n << 10
		}
	}
	tb.Fatalf("process %d has no VmRSS", pid)
	return 0
}

// watchLine measures how long after the start of a PUT each of many stream watchers has its event.
func watchLine() line {
	return line{name: "watch-fan-out/nodes=1", run: func(tb *progress, c config, t *target) []value {
		const writes = 20
		delays := make([][]time.Duration, c.watchers)
		sent := make([]time.Time, writes) // each set before the write that lets watchers read it
		ready, got := make(chan struct{}, c.watchers), make(chan struct{}, c.watchers)
		go func() {
			for range c.watchers {
				<-ready
			}
			for w := range writes {
				sent[w] = time.Now()
				if err := once(t.addrs[0], request("PUT", "/v2/keys/fan", "value="+text)); err != nil {
					tb.Logf("write for the watchers: %v", err)
				}
				for range c.watchers {
					<-got
				}
			}
		}()
		err := load{addrs: t.addrs, conns: c.watchers}.each(func(i int, cn *conn) error {
			if err := cn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
				return err
			}
			if _, err := cn.Write(request("GET", "/v2/keys/fan?wait=true&stream=true", "")); err != nil {
				return err
			}
			if _, err := cn.readHead(); err != nil {
				return err
			}
			ready <- struct{}{}
			for w := range writes {
				if _, err := cn.readChunk(); err != nil {
					return err
				}
				delays[i] = append(delays[i], time.Since(sent[w]))
				got <- struct{}{}
			}
			return nil
		})
		must(tb, "watch fan-out", err)
		all := slices.Concat(delays...)
		slices.Sort(all)
		at := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
		suffix := fmt.Sprintf("/watchers=%d", c.watchers)
		return []value{
			{suffix: suffix + "/p50", unit: "ms", number: at(0.5), lowerBetter: true},
			{suffix: suffix + "/p99", unit: "ms", number: at(0.99), lowerBetter: true},
		}
	}}
}
