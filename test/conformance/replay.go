// Package conformance replays the transcripts of a real etcd 3.4.23 against a server.
//
// The corpus is kept outside the repository, in shared/conformance beside the project's root. Where
// it is absent, tests that need it are skipped and say so. Cases in which Quorate deliberately
// answers better than etcd (tag "better") have tests of their own in httpd and fsm/tree.
package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// SkipBetter leaves out the cases in which etcd's answer is a defect.
var SkipBetter = []string{"--skip-tags", "better"}

// Dir returns the folder with the corpus, or skips the test when there is none.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the working directory")
		}
		dir = parent
	}
	corpus := filepath.Join(filepath.Dir(dir), "shared", "conformance")
	if _, err := os.Stat(filepath.Join(corpus, "replay", "main.go")); err != nil {
		t.Skipf("no corpus at ../shared/conformance beside the project: %v", err)
	}
	return corpus
}

// Replay builds the replayer and runs it against the server at url, with args such as SkipBetter,
// and behind those the files of cases (none: all). It fails the test unless every case passes, and
// returns the summary. Nothing else may write to the server meanwhile.
//
// Some cases compare times with a tolerance of a second, and a busy machine may stand still for
// longer. So cases that fail are played again by themselves, twice at most; what is really wrong is
// wrong each time.
func Replay(t testing.TB, url string, args ...string) string {
	t.Helper()
	binary := build(t)
	summary, failed, output := play(t, binary, url, args)
	for again := 0; len(failed) > 0 && again < 2; again++ {
		t.Logf("play %d failed cases again:\n%s", len(failed), output)
		only := []string{"--run", "^(" + strings.Join(failed, "|") + ")$"}
		n := len(failed)
		var repeated string
		repeated, failed, output = play(t, binary, url, append(only, args...))
		if len(failed) == 0 && !strings.HasPrefix(repeated, fmt.Sprintf("%d passed, 0 failed", n)) {
			t.Fatalf("of %d cases to play again: %s", n, repeated)
		}
	}
	if len(failed) > 0 {
		t.Fatalf("replay against %s: %s\n%s", url, summary, output)
	}
	t.Log(summary)
	return summary
}

// Files returns the files of the corpus, without those named in except.
func Files(t testing.TB, except ...string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(Dir(t), "cases", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, f := range all {
		leaveOut := false
		for _, name := range except {
			leaveOut = leaveOut || filepath.Base(f) == name
		}
		if !leaveOut {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		t.Fatalf("no cases in %s", Dir(t))
	}
	return files
}

// build makes the replayer and returns its path.
func build(t testing.TB) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "replay")
	cmd := exec.Command("go", "build", "-o", binary, ".")
	cmd.Dir = filepath.Join(Dir(t), "replay")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the replayer: %v\n%s", err, out)
	}
	return binary
}

var failLine = regexp.MustCompile(`(?m)^FAIL ([^ :]+):`)

// play runs the replayer once and returns its last line, the cases that failed, and all it printed.
func play(t testing.TB, binary, url string, args []string) (summary string, failed []string, output string) {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"--url", url}, args...)...)
	cmd.Dir = filepath.Join(Dir(t), "replay") // where it looks for the cases
	out, err := cmd.CombinedOutput()
	output = strings.TrimSpace(string(out))
	summary = output[strings.LastIndexByte(output, '\n')+1:]
	for _, m := range failLine.FindAllStringSubmatch(output, -1) {
		if name := regexp.QuoteMeta(m[1]); !slices.Contains(failed, name) {
			failed = append(failed, name)
		}
	}
	if len(failed) == 0 && (err != nil || !strings.Contains(summary, " 0 failed")) {
		t.Fatalf("replay against %s: %v\n%s", url, err, output)
	}
	return summary, failed, output
}
