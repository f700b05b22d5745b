//go:build linux && faults

package linearizability

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

var (
	seedsFlag    = flag.String("seeds", "", "seeds of the runs, such as 1-20,33; empty for a few fixed ones")
	durationFlag = flag.Duration("duration", 12*time.Second, "how long each run injects faults")
	membersFlag  = flag.Int("members", 0, "members of each cluster; 0 lets the seed decide")
	clustersFlag = flag.Int("clusters", 2, "how many runs go on at a time")
	outFlag      = flag.String("out", filepath.Join(os.TempDir(), "quorate-faults"), "where runs leave what they found")
	keepFlag     = flag.Bool("keep", false, "keep what good runs leave, too")
	faultsFlag   = flag.String("faults", "", "the faults to choose from, by name, separated by semicolons; empty for all")
	resumeFlag   = flag.Bool("resume", false, "leave out seeds that are in runs.jsonl already, and add up all that is there")
	logStoreFlag = flag.String("log-store", "", "--log-store of all members; empty lets the seed decide")
	historyFlag  = flag.String("history", "", "check this history again instead of running anything")
)

// fixed are a few seeds: with and without a network that fails, with and without many snapshots.
const fixed = "1-6"

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	cluster.Clean()
	os.Exit(code)
}

// TestFaults runs a cluster for each seed.
func TestFaults(t *testing.T) {
	if *historyFlag != "" {
		checkAgain(t, *historyFlag)
		return
	}
	text := *seedsFlag
	if text == "" {
		text = fixed
	}
	seeds, err := parseSeeds(text)
	if err != nil {
		t.Fatal(err)
	}
	binary := os.Getenv("QUORATE_BINARY")
	if binary == "" {
		binary = mutation{}.build(t)
	}
	if err := lossyDisks(); err != nil {
		if *disksFlag == "lossy" {
			t.Skipf("no disks whose power can fail: %v", err)
		}
		t.Logf("without disks whose power can fail, as a file system cannot be mounted here: %v", err)
	}
	if err := os.MkdirAll(*outFlag, 0o700); err != nil {
		t.Fatal(err)
	}
	var noted []summary
	if *resumeFlag {
		noted, err = readSummaries()
		if err != nil {
			t.Fatal(err)
		}
		seeds = slices.DeleteFunc(seeds, func(seed int64) bool {
			return slices.ContainsFunc(noted, func(s summary) bool { return s.Seed == seed })
		})
	}
	results := make(chan *result)
	go func() {
		defer close(results)
		places := make(chan struct{}, *clustersFlag)
		var all sync.WaitGroup
		defer all.Wait()
		for _, seed := range seeds {
			places <- struct{}{}
			all.Go(func() {
				dir := filepath.Join(*outFlag, fmt.Sprintf("seed-%d-%d", seed, os.Getpid()))
				p := newPlan(seed, *membersFlag, *durationFlag)
				p.binary = binary
				if *faultsFlag != "" {
					p.only = strings.Split(*faultsFlag, ";")
				}
				results <- executeOnceStarted(t, p, dir)
				<-places
			})
		}
	}()
	for res := range results {
		report(t, res)
		noted = append(noted, summaryOf(res))
	}
	total := map[string]int{}
	for _, n := range noted {
		for name, times := range n.Faults {
			total[name] += times
		}
		total["operations"] += n.Operations
		total["installed snapshots"] += n.Installs
		total["undecided keys"] += n.Undecided
		total["violations"] += n.Violations + n.Failures
	}
	for _, name := range slices.Sorted(maps.Keys(total)) {
		t.Logf("total %7d %s", total[name], name)
	}
	t.Logf("total %7d kinds of faults", kinds(total))
	if len(noted) >= 40 && *faultsFlag == "" && kinds(total) < 25 {
		t.Errorf("only %d kinds of faults were injected", kinds(total))
	}
	t.Logf("total %7d runs", len(noted))
}

// kinds counts the kinds of faults. What is in brackets is what came of one.
func kinds(total map[string]int) int {
	n := 0
	for _, f := range slices.Concat(processFaults, networkFaults, diskFaults) {
		if total[f.name] > 0 {
			n++
		}
	}
	return n
}

// executeOnceStarted is execute, again when the machine was too busy to begin.
func executeOnceStarted(t *testing.T, p plan, dir string) *result {
	for attempt := 1; ; attempt++ {
		res := execute(p, dir)
		if !res.unstarted || attempt == 3 {
			return res
		}
		t.Logf("seed %d: not counted, for it has not begun: %s", p.seed, res.failures[0])
		_ = os.RemoveAll(dir)
	}
}

// report says what a run has come to. What it has left stays when something is wrong.
func report(t *testing.T, res *result) {
	t.Logf("%v: %s, installed snapshots %d", res.plan, res.report.Summary(res.history), res.installs)
	if len(res.report.Registers.Undecided) > 0 {
		t.Logf("seed %d: undecided in time: %v", res.seed, res.report.Registers.Undecided)
	}
	note(t, res)
	if !res.ok() || *keepFlag {
		save(t, res)
	}
	if res.ok() {
		if !*keepFlag {
			_ = os.RemoveAll(res.dir)
		}
		return
	}
	for _, f := range res.failures {
		t.Errorf("seed %d: %s", res.seed, f)
	}
	for _, v := range res.report.Violations {
		t.Errorf("seed %d: %v", res.seed, v)
	}
	t.Errorf("seed %d failed. Its history, the logs and data of all members, and a picture of each broken key are in\n  %s\nThis repeats it:\n  go test -tags faults ./test/linearizability -count=1 -run TestFaults -v -seeds %d -members %d -duration %v -log-store %s -disks %s",
		res.seed, res.dir, res.seed, res.size, res.duration, res.logStore, res.disks())
}

// disks is the value of -disks with which a plan has the disks it has.
func (p plan) disks() string {
	if p.lossy {
		return "lossy"
	}
	return "real"
}

// save leaves the history, what is wrong with it, and what was done.
func save(t *testing.T, res *result) {
	if err := res.report.Save(res.history, res.dir); err != nil {
		t.Errorf("save the history: %v", err)
	}
	if err := os.WriteFile(filepath.Join(res.dir, "run.log"), []byte(res.log), 0o600); err != nil {
		t.Errorf("save the log: %v", err)
	}
}

// summary is a line of runs.jsonl.
type summary struct {
	Time       time.Time      `json:"time"`
	Seed       int64          `json:"seed"`
	Members    int            `json:"members"`
	Duration   string         `json:"duration"`
	Proxied    bool           `json:"proxied"`
	Snapshots  uint64         `json:"snapshots"`
	LogStore   string         `json:"logStore"`
	Lossy      bool           `json:"lossyDisks"`
	Operations int            `json:"operations"`
	Faults     map[string]int `json:"faults"`
	Installs   int            `json:"installs"`
	Undecided  int            `json:"undecided"`
	Violations int            `json:"violations"`
	Failures   int            `json:"failures"`
	Summary    string         `json:"summary"`
}

func summaryOf(res *result) summary {
	return summary{
		Time: time.Now().UTC(), Seed: res.seed, Members: res.size, Duration: res.duration.String(),
		Proxied: res.proxied, Snapshots: res.snapshots, LogStore: res.logStore, Lossy: res.lossy, Operations: len(res.history.Ops), Faults: res.faults,
		Installs: res.installs, Undecided: len(res.report.Registers.Undecided),
		Violations: len(res.report.Violations), Failures: len(res.failures), Summary: res.report.Summary(res.history),
	}
}

func summaries() string { return filepath.Join(*outFlag, "runs.jsonl") }

// note adds one line about a run to the list of all runs.
func note(t *testing.T, res *result) {
	line, err := json.Marshal(summaryOf(res))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(summaries(), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// readSummaries reads what runs before this one have noted.
func readSummaries() ([]summary, error) {
	var all []summary
	for line := range strings.Lines(readFile(summaries())) {
		var s summary
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return nil, fmt.Errorf("read %s: %w", summaries(), err)
		}
		all = append(all, s)
	}
	return all, nil
}

// checkAgain checks a history that a run has left.
func checkAgain(t *testing.T, path string) {
	h, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	r := Check(h, time.Minute)
	t.Log(r.Summary(h))
	for _, v := range r.Violations {
		t.Error(v)
	}
}

// parseSeeds reads 1-20,33.
func parseSeeds(text string) ([]int64, error) {
	var seeds []int64
	for part := range strings.SplitSeq(text, ",") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		first, err := strconv.ParseInt(from, 10, 64)
		if err != nil {
			return nil, err
		}
		last, err := strconv.ParseInt(to, 10, 64)
		if err != nil {
			return nil, err
		}
		for s := first; s <= last; s++ {
			seeds = append(seeds, s)
		}
	}
	return seeds, nil
}
