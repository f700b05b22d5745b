// Package conformance replays the transcripts of a real etcd 3.4.23 against a server.
//
// The corpus is kept outside the repository, in shared/conformance beside the project's root. Where
// it is absent, tests that need it are skipped and say so. Cases in which Quorate deliberately
// answers better than etcd (tag "better") have tests of their own in httpd and fsm/tree.
package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
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

// Replay builds the replayer and runs it against the server at url, with args such as SkipBetter or
// the names of files of cases. It fails the test unless every case passes, and returns what the
// replayer printed. Nothing else may write to the server meanwhile.
func Replay(t testing.TB, url string, args ...string) string {
	t.Helper()
	return run(t, Dir(t), url, args)
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

func run(t testing.TB, corpus, url string, args []string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "replay")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Dir = filepath.Join(corpus, "replay")
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the replayer: %v\n%s", err, out)
	}

	replay := exec.Command(binary, append([]string{"--url", url}, args...)...)
	replay.Dir = build.Dir // where it looks for the cases
	out, err := replay.CombinedOutput()
	text := string(out)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	summary := lines[len(lines)-1]
	if err != nil || !strings.Contains(summary, " 0 failed") {
		t.Fatalf("replay against %s: %v\n%s", url, err, text)
	}
	t.Log(summary)
	return text
}
