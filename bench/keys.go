//go:build linux

package main

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// manyKeysLine fills a fresh member, looks at its memory, kills it and times its return, and then lets it
// make snapshots while somebody writes.
func manyKeysLine(c config) line {
	name := fmt.Sprintf("keys/nodes=1/keys=%d", c.keys)
	return line{name: name, rounds: 1, run: func(tb *progress, c config, t *target) []value {
		m := t.cluster.Members[0]
		before := residentBytes(tb, m.Pid())
		began := time.Now()
		must(tb, "fill", fill(t, "/many", c.keys))
		filled := time.Since(began)
		time.Sleep(c.duration) // what was needed for the writes alone is given back
		memory := float64(residentBytes(tb, m.Pid())-before) / float64(c.keys)

		m.Kill()
		restart := served(tb, m, request("GET", "/v2/keys"+pathOf("/many", c.keys-1)+"?quorum=true", ""))
		calm, busy := snapshotStall(tb, c, m)
		return []value{
			{suffix: "/fill", unit: "req/s", number: float64(c.keys) / filled.Seconds()},
			{suffix: "/memory", unit: "B/key", number: memory, lowerBetter: true, goal: ratio(1 / 0.35)},
			{suffix: "/restart", unit: "ms", number: milliseconds(restart), lowerBetter: true, goal: ratio(1 / 0.3)},
			{suffix: "/write-stall", unit: "ms", number: milliseconds(calm), lowerBetter: true},
			{suffix: "/write-stall/snapshot", unit: "ms", number: milliseconds(busy), lowerBetter: true, goal: atMost(20)},
		}
	}}
}

// snapshotStall restarts a member so that it makes a snapshot every few writes, and returns how long the
// longest write took while there was none, and while there was one.
func snapshotStall(tb *progress, c config, m *cluster.Member) (calm, busy time.Duration) {
	every := min(2000, c.keys) // writes between two snapshots: some seconds of probes
	m.Stop()
	m.Start(fmt.Sprintf("--snapshot-count=%d", every))
	key := func(n int) []byte { return set(fmt.Sprintf("/probe/%d", n%100), text) }
	began := time.Now()
	for once(addrOf(m), key(0), soon) != nil {
		if time.Since(began) > lineLimit {
			tb.Fatalf("%s takes no writes after its restart", m.Name)
		}
		time.Sleep(pace)
	}
	// Both systems begin with a snapshot of what they found in the log. The next one comes later.
	settled := snapshots(tb, m)
	for last := time.Now(); time.Since(last) < c.settle; time.Sleep(c.settle / 10) {
		if now := snapshots(tb, m); now != settled {
			settled, last = now, time.Now()
		}
	}
	longest := func(until func() bool) time.Duration {
		p := probe(addrOf(m), key)
		for began := time.Now(); !until() && time.Since(began) < lineLimit; {
			time.Sleep(c.settle / 100)
		}
		took, err := p.end()
		must(tb, "probe", err)
		if len(took) == 0 {
			return 0
		}
		return took[len(took)-1]
	}
	began = time.Now()
	calm = longest(func() bool { return time.Since(began) > c.settle/2 || snapshots(tb, m) != settled })
	busy = longest(func() bool { return snapshots(tb, m) != settled })
	return calm, busy
}

// snapshots names the finished snapshots of a member.
func snapshots(tb *progress, m *cluster.Member) string {
	var names []string
	err := filepath.WalkDir(m.DataDir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".snap" { // files come and go meanwhile
			names = append(names, e.Name())
		}
		return nil
	})
	must(tb, "look for snapshots", err)
	return strings.Join(names, " ")
}
