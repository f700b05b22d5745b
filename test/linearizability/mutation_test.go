//go:build linux && faults

package linearizability

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	mutationsFlag = flag.String("mutations", "", "build broken servers and see whether runs find out: all, ci for the quick ones, or the names of some, separated by commas")
	attemptsFlag  = flag.Int("attempts", 4, "runs after which a mutation is said to stay unnoticed")
)

// mutation breaks the server by a change of its source.
type mutation struct {
	name string
	// file is where the source is changed: in this module, or in another one with its path and a colon
	// in front. from is there once.
	file, from, to string
	// plan is a run that brings it to light, in which nothing but the named faults is injected.
	plan plan
	// strace says that the faults of the plan need it.
	strace bool
	// test is a test that fails with it, by package and name: for what no run of bearable length shows.
	test string
}

// quiet is a run without faults.
func quiet(d time.Duration) plan { return plan{duration: d, only: []string{"none"}} }

// directed is a run with these faults alone.
func directed(d time.Duration, faults ...string) plan {
	return plan{duration: d, only: faults, proxied: true}
}

// fallenBehind is a run with logs so short that who is away for a while needs a snapshot.
func fallenBehind(d time.Duration) plan {
	p := directed(d, "a follower is cut off and falls far behind")
	p.snapshots = 10
	return p
}

// withoutPower is a run in which the power of all disks fails.
func withoutPower(logStore string) plan {
	p := directed(12*time.Second, "power failure of all")
	p.lossy, p.logStore = true, logStore
	return p
}

// mutations break one promise each. What they change is looked up in the source as it is, so a mutation
// has to follow when that line does.
var mutations = []mutation{
	{name: "read-unconfirmed", file: "store/read.go",
		from: "needed := voters/2 + 1\n", to: "needed := 0 * voters\n",
		plan: directed(9*time.Second, "pause the leader with readers waiting")},
	{name: "read-verify-leader", file: "store/read.go",
		from: "	needed := voters/2 + 1\n", to: "	if err := r.VerifyLeader().Error(); err != nil {\n		return 0, err\n	}\n	needed := 0 * voters\n",
		plan: directed(20*time.Second, "pause the leader with readers waiting")},
	{name: "read-before-term", file: "store/read.go",
		from: "s.readyTerm.Load() != term", to: "term == 0",
		plan: directed(12*time.Second, "reads before a term has begun"), strace: true},
	{name: "apply-twice", file: "fsm/requests.go",
		from: "if _, ok := o.applied[id.Sequence]; ok {", to: "if _, ok := o.applied[id.Sequence]; ok && false {",
		plan: directed(12*time.Second, "requests sent again")},
	{name: "reuse-sequences", file: "store/store.go",
		from: "if s.boot, err = s.dir.NextBoot(); err != nil {", to: "s.boot = 1\n	if _, err = s.dir.NextBoot(); err != nil {",
		plan: directed(6*time.Second, "kill -9 a follower")},
	{name: "acknowledge-before-disk", file: "store/parallel.go",
		from: "if durable >= index {", to: "if durable >= index || true {",
		plan: directed(10*time.Second, "leader killed while its disk hangs"), strace: true},
	{name: "skip-fsync", file: "store/disk/journalfile.go",
		from: "for !f.noSync {", to: "for false {",
		plan: withoutPower("boltdb")},
	{name: "skip-fsync-of-segments", file: "store/disk/journalfile.go",
		from: "for !f.noSync {", to: "for false {",
		plan: withoutPower("wal")},
	{name: "acknowledge-before-commit", file: "github.com/hashicorp/raft:commitment.go",
		from: "matched[(len(matched)-1)/2]", to: "matched[len(matched)-1]",
		plan: directed(6*time.Second, "leader alone")},
	{name: "watch-drops-an-event", file: "fsm/tree/watch.go",
		from: "	if len(w.queue) < watcherQueue {", to: "	if e.Index%37 == 0 {\n		return true\n	}\n	if len(w.queue) < watcherQueue {",
		plan: quiet(6 * time.Second)},
	{name: "watch-skips-what-a-snapshot-brought", file: "fsm/tree/hub.go",
		from: "	if first > last {\n", to: "	if first > last || true {\n",
		plan: fallenBehind(14 * time.Second)},
	{name: "expire-by-local-clock", file: "fsm/fsm.go",
		from: "clock := max(now, f.tree.Clock())", to: "clock := max(now, f.tree.Clock(), wallclock.Now().UnixNano())",
		plan: directed(8*time.Second, "clocks of all +1 h")},
	{name: "time-of-the-leaders-own-clock", file: "store/clock.go",
		from: "if now := c.read(); now != 0 {", to: "if now := c.read(); now < 0 {",
		plan: directed(10*time.Second, "clocks of all +1 h")},
	{name: "expire-early", file: "fsm/fsm.go",
		from: "return now + int64(ttl)*second", to: "return now + int64(ttl)*second - second/4",
		plan: quiet(6 * time.Second)},
	{name: "expire-only-with-writes", file: "store/leader.go",
		from: "ok && due <= s.clock.now() {", to: "ok && due <= s.clock.now() && false {",
		plan: quiet(4 * time.Second)},

	{name: "snapshot-forgets-requests", file: "fsm/requests.go",
		from: "	r := make(requests, len(state))\n	for _, s := range state {", to: "	r := make(requests, len(state))\n	for _, s := range state[:0] {",
		test: "./fsm TestSnapshotHoldsEverything"},
	{name: "requests-of-removed-members", file: "fsm/fsm.go",
		from: "members.IsRemoved(c.ID.Member) ||", to: "false ||",
		test: "./fsm TestRequestsOfRemovedMembers"},
	{name: "heartbeats-beside-the-main-loop", file: "store/peer/transport.go",
		from: "func (t *Transport) SetHeartbeatHandler(func(raft.RPC)) {}", to: "func (t *Transport) SetHeartbeatHandler(h func(raft.RPC)) { t.NetworkTransport.SetHeartbeatHandler(h) }",
		test: "./store/peer TestHeartbeatGoesToTheMainLoop"},
	{name: "commit-index-not-cut-down", file: "store/peer/transport.go",
		from: "min(req.LeaderCommitIndex, req.PrevLogEntry+uint64(len(req.Entries)))", to: "max(req.LeaderCommitIndex, 0)",
		test: "./store/peer TestClampCommit"},
	{name: "acknowledgements-of-pipelines-not-held", file: "store/peer/append.go",
		from: "p.transport.answered(p.ctx, p.id, f.req, f.resp, f.start, err)", to: "_ = f.start",
		test: "./store/peer TestPipelineHook"},
	{name: "any-cluster", file: "store/peer/handshake.go",
		from: "case h.cluster != p.cfg.Cluster:", to: "case h.cluster != h.cluster:",
		test: "./store/peer TestHandshake"},
	{name: "snapshot-leaves-overruled-entries", file: "store/raft.go",
		from: "	if last, err := overruled(r.logs, request); err != nil || last == 0 {", to: "	if last, err := overruled(r.logs, request); err != nil || last >= 0 {",
		test: "./store TestSnapshotOverrulesEntries"},
	{name: "transfer-without-end", file: "store/raft.go",
		from: "s.transferSince.CompareAndSwap(since, 0) {", to: "false {",
		test: "./store TestTransferThatNeverEnds"},
	{name: "vote-in-two-steps", file: "store/disk/stable.go",
		from: "		s.voteTerm = value\n		return nil\n", to: "",
		test: "./store/disk TestCrashAnywhere"},
	{name: "disk-stall-unnoticed", file: "store/disk/watchdog.go",
		from: "w.limit <= 0 ||", to: "w.limit > 0 ||",
		test: "./store/disk TestStall"},
	{name: "journal-not-synced", file: "store/disk/journalfile.go",
		from: "	if err := j.file.Sync(); err != nil {\n		return err\n	}\n	j.record", to: "	j.record",
		test: "./store/disk TestCrashJournal"},
}

// slowMutations are those that -mutations ci leaves out.
var slowMutations = []string{"read-verify-leader", "transfer-without-end", "snapshot-leaves-overruled-entries"}

// chosen says whether -mutations names it.
func (m mutation) chosen() bool {
	switch *mutationsFlag {
	case "all":
		return true
	case "ci":
		return !slices.Contains(slowMutations, m.name)
	}
	return slices.Contains(strings.Split(*mutationsFlag, ","), m.name)
}

// TestMutationsFollowTheSource takes no time, and says which mutation a change of the server has left behind.
func TestMutationsFollowTheSource(t *testing.T) {
	for _, m := range mutations {
		m.rewrite(t, m.path(t), filepath.Join(t.TempDir(), "changed.go"))
	}
}

// TestMutations shows that servers which are broken on purpose are found out.
func TestMutations(t *testing.T) {
	if *mutationsFlag == "" {
		t.Skip("-mutations says which")
	}
	places := make(chan struct{}, *clustersFlag)
	var all sync.WaitGroup
	for _, m := range mutations {
		if !m.chosen() {
			continue
		}
		if err := lossyDisks(); m.plan.lossy && err != nil {
			t.Logf("%s: left out, as there are no disks whose power can fail: %v", m.name, err)
			continue
		}
		if err := straceWorks(); m.strace && err != nil {
			t.Logf("%s: left out, as strace cannot hold processes here: %v", m.name, err)
			continue
		}
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			begin := time.Now()
			by := m.findOut(t)
			if by == "" {
				t.Errorf("%s: not found out", m.name)
				return
			}
			t.Logf("%s: found out in %v by %s", m.name, time.Since(begin).Round(time.Second), by)
		})
	}
	all.Wait()
}

// findOut says what has found the mutation out, and nothing if nothing has.
func (m mutation) findOut(t *testing.T) string {
	if m.test != "" {
		return m.findOutByTest(t)
	}
	binary := m.build(t)
	for attempt := range *attemptsFlag {
		p := m.plan
		p.binary, p.seed, p.size, p.patience = binary, int64(attempt+1), 3, 15*time.Second
		dir := filepath.Join(*outFlag, fmt.Sprintf("%s-%d-%d", m.name, attempt+1, os.Getpid()))
		res := executeOnceStarted(t, p, dir)
		if *keepFlag {
			save(t, res)
		} else {
			_ = os.RemoveAll(dir)
		}
		if !res.ok() && !res.unstarted {
			return fmt.Sprintf("run %d: %s", attempt+1, res.found())
		}
	}
	return ""
}

// found names the checks that have found something.
func (res *result) found() string {
	checks := map[string]bool{}
	for _, v := range res.report.Violations {
		checks[v.Check] = true
	}
	for _, f := range res.failures {
		line, _, _ := strings.Cut(f, "\n")
		checks[line] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(checks)), "; ")
}

// findOutByTest runs the test on the broken source.
func (m mutation) findOutByTest(t *testing.T) string {
	pkg, name, _ := strings.Cut(m.test, " ")
	cmd := exec.Command("go", slices.Concat([]string{"test", "-count=1", "-timeout=1m"}, m.change(t), []string{"-run", "^" + name + "$", pkg})...)
	cmd.Dir = moduleDir(t, "github.com/quorate/quorate")
	out, err := cmd.CombinedOutput()
	// One that waits for ever for what does not happen has failed, too.
	if err == nil || !strings.Contains(string(out), "--- FAIL: "+name) && !strings.Contains(string(out), "panic: test timed out") {
		t.Logf("%s: %v\n%s", m.name, err, out)
		return ""
	}
	return m.test
}

// moduleDir is where the source of a module is.
func moduleDir(t *testing.T, path string) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		t.Errorf("find the source of %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}

// change returns the arguments that let the go command build the broken source. A file of this module
// is overlaid; another module is copied, changed and put in the place of its original.
func (m mutation) change(t *testing.T) []string {
	if m.file == "" {
		return nil
	}
	dir := t.TempDir()
	own := moduleDir(t, "github.com/quorate/quorate")
	module, file, other := strings.Cut(m.file, ":")
	if !other {
		path := m.path(t)
		m.rewrite(t, path, filepath.Join(dir, "changed.go"))
		replaced, err := json.Marshal(map[string]map[string]string{"Replace": {path: filepath.Join(dir, "changed.go")}})
		if err != nil {
			t.Error(err)
		}
		writeFile(t, filepath.Join(dir, "overlay.json"), string(replaced))
		return []string{"-overlay", filepath.Join(dir, "overlay.json")}
	}
	if out, err := exec.Command("cp", "-r", "--no-preserve=mode", moduleDir(t, module), filepath.Join(dir, "module")).CombinedOutput(); err != nil {
		t.Errorf("copy %s: %v\n%s", module, err, out)
	}
	path := filepath.Join(dir, "module", file)
	m.rewrite(t, path, path)
	writeFile(t, filepath.Join(dir, "go.mod"), readFile(filepath.Join(own, "go.mod"))+"\nreplace "+module+" => "+filepath.Join(dir, "module")+"\n")
	writeFile(t, filepath.Join(dir, "go.sum"), readFile(filepath.Join(own, "go.sum")))
	return []string{"-modfile", filepath.Join(dir, "go.mod")}
}

// path is where the file is.
func (m mutation) path(t *testing.T) string {
	if module, file, other := strings.Cut(m.file, ":"); other {
		return filepath.Join(moduleDir(t, module), file)
	}
	return filepath.Join(moduleDir(t, "github.com/quorate/quorate"), m.file)
}

// rewrite makes the change.
func (m mutation) rewrite(t *testing.T, from, to string) {
	source := readFile(from)
	if n := strings.Count(source, m.from); n != 1 {
		t.Errorf("%s has %q %d times, want it once: the mutation has to follow the source", m.file, m.from, n)
	}
	source = strings.Replace(source, m.from, m.to, 1)
	if strings.Contains(m.to, "wallclock.") {
		source = strings.Replace(source, "import (\n", "import (\n	\"github.com/quorate/quorate/internal/wallclock\"\n", 1)
	}
	writeFile(t, to, source)
}

func writeFile(t *testing.T, path, text string) {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
}

// build makes the server, broken unless the mutation is none, with clocks that can be set wrong.
func (m mutation) build(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "quorate")
	args := slices.Concat([]string{"build", "-tags", "faults", "-o", program}, m.change(t), []string{"./cmd/quorate"})
	cmd := exec.Command("go", args...)
	cmd.Dir = moduleDir(t, "github.com/quorate/quorate")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("build the server (%s): %v\n%s", m.name, err, out)
	}
	return program
}
