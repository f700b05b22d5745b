//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

// residentBytes is the memory that a process uses now.
func residentBytes(tb *progress, pid int) int {
	return procField(tb, pid, "status", "VmRSS:") << 10
}

// writtenBytes is what a process has had written to disks.
func writtenBytes(tb *progress, pid int) int { return procField(tb, pid, "io", "write_bytes:") }

// procField reads a number from a file of lines that begin with names.
func procField(tb *progress, pid int, file, name string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	must(tb, "look at the process", err)
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, name); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			must(tb, "look at the process", err)
			return n
		}
	}
	tb.Fatalf("/proc/%d/%s has no %s", pid, file, name)
	return 0
}

// processorTime is what a process has used of processors, to a hundredth of a second.
func processorTime(tb *progress, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(tb, "look at the process", err)
	// The name, in parentheses, may have spaces; user and system time are the 12th and 13th field after it.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(string(f))
		must(tb, "look at the process", err)
		ticks += n
	}
	const perSecond = 100 // USER_HZ
	return time.Duration(ticks) * time.Second / perSecond
}

// idleLine measures a cluster that nobody asks anything.
func idleLine() line {
	const name = "idle/nodes=3"
	return line{name: name, rounds: 1, run: func(tb *progress, c config, t *target) []value {
		t.cluster.WaitEqual()
		sum := func() (used time.Duration, written int) {
			for _, m := range t.cluster.Members {
				used += processorTime(tb, m.Pid())
				written += writtenBytes(tb, m.Pid())
			}
			return used, written
		}
		time.Sleep(c.idle / 10) // what was asked before has been put away
		usedBefore, writtenBefore := sum()
		time.Sleep(c.idle)
		used, written := sum()
		return []value{
			{suffix: "/cpu", unit: "% of a core", number: 100 * (used - usedBefore).Seconds() / c.idle.Seconds(), lowerBetter: true, goal: ratio(1)},
			{suffix: "/written", unit: "B/s", number: float64(written-writtenBefore) / c.idle.Seconds(), lowerBetter: true, goal: atMost(0)},
		}
	}}
}

// served starts a member that is down and returns how long it takes until it answers a request.
func served(tb *progress, m *cluster.Member, req []byte) time.Duration {
	began := time.Now()
	m.Start()
	for {
		err := once(addrOf(m), req, soon)
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > lineLimit || !m.Running() {
			tb.Fatalf("%s does not serve after its restart: %v", m.Name, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// idleRestartLine stops a member that has little to read and starts it again.
func idleRestartLine() line {
	return line{name: "restart/nodes=1/keys=1", run: func(tb *progress, c config, t *target) []value {
		m := t.cluster.Members[0]
		prepare(tb, t)
		m.Stop()
		took := served(tb, m, request("GET", "/v2/keys/one?quorum=true", ""))
		return []value{{unit: "ms", number: milliseconds(took), lowerBetter: true, goal: atMost(100)}}
	}}
}
