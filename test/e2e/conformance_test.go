//go:build linux

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/test/conformance"
)

// TestConformance replays what a real etcd answered, against one member with a history as long as etcd's.
func TestConformance(t *testing.T) {
	t.Parallel()
	conformance.Dir(t) // skips the test where the corpus is missing
	c := start(t, 1, historyFlags()...)
	conformance.Replay(t, c.Members[0].ClientURL, conformance.SkipBetter...)
}

// TestConformanceOfFollower replays through a follower of three: nothing shows that somebody else decides. A part of
// the corpus is enough for that; the long rounds have all of it.
func TestConformanceOfFollower(t *testing.T) {
	t.Parallel()
	dir := conformance.Dir(t)
	c := start(t, 3, historyFlags()...)
	c.WaitLeader()
	url := c.Followers()[0].ClientURL
	if !long {
		files := []string{"set-get.json", "dirs.json", "post-inorder.json", "cas.json", "cad.json", "watch.json", "errors.json"}
		conformance.Replay(t, url, slices.Concat(conformance.SkipBetter, files)...)
		return
	}
	conformance.Replay(t, url, slices.Concat(conformance.SkipBetter, conformance.Files(t, "stats.json", "auth.json"))...)
	// Only a leader has statistics of a leader, which these ask for.
	forLeaders := []string{"stats/leader", "stats/parameters-are-ignored", "auth/members-and-stats-under-auth"}
	for _, name := range []string{"stats.json", "auth.json"} {
		file := filepath.Join(dir, "cases", name)
		var names []string
		for _, name := range caseNames(t, file) {
			if !slices.Contains(forLeaders, name) {
				names = append(names, regexp.QuoteMeta(name))
			}
		}
		conformance.Replay(t, url, slices.Concat(conformance.SkipBetter, []string{"--run", "^(" + strings.Join(names, "|") + ")$", file})...)
	}
}

func historyFlags() []string {
	if kind() == "etcd" {
		return nil
	}
	return []string{"--event-history=1000"}
}

// caseNames lists the cases of a file of the corpus.
func caseNames(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var corpus struct{ Cases []struct{ Name string } }
	if err := json.Unmarshal(b, &corpus); err != nil {
		t.Fatalf("read %s: %v", file, err)
	}
	var names []string
	for _, c := range corpus.Cases {
		names = append(names, c.Name)
	}
	return names
}
