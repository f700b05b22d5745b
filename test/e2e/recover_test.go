//go:build linux

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// offline runs a verb that works on data directories, and returns its output and exit code.
func offline(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	binary, err := cluster.QuorateBinary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(limit(t), binary, args...)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), errs.String(), cmd.ProcessState.ExitCode()
}

// mustOffline is offline for what has to succeed.
func mustOffline(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, code := offline(t, args...)
	if code != 0 {
		t.Fatalf("quorate %s ended with %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// nodeOf reads a key and what its indices and its lifetime are.
func nodeOf(t *testing.T, m *cluster.Member, key string) (value string, created, modified uint64, ttl int64) {
	t.Helper()
	resp, err := m.QuorumGet(limit(t), key)
	if err != nil || !resp.OK() {
		t.Fatalf("GET %s on %s: %v (%v)", key, m.Name, resp, err)
	}
	e, err := resp.Event()
	if err != nil {
		t.Fatal(err)
	}
	return resp.Value(), e.Node.CreatedIndex, e.Node.ModifiedIndex, e.Node.TTL
}

// TestRecover loses two of three members for good, goes on with the one that has most, adds two new ones, and
// finally has the lost ones come back from the dead.
func TestRecover(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it has no such tool")
	c := start(t, 3)
	for i := range 20 {
		mustPut(t, c.Members[0], fmt.Sprintf("/dir/%d", i), "1")
	}
	mustPut(t, c.Members[0], "/dir/3", "2")
	mustPut(t, c.Members[0], "/ttl", "x", "ttl", "5000")
	c.WaitEqual()
	// One member misses the end.
	behind := c.Followers()[0]
	behind.Kill()
	last := mustPut(t, c.WaitLeader(), "/last", "1").Index()
	c.WaitEqual()
	others := others(c, behind)
	left := others[0]
	id, clusterID := c.ID(left), clusterIDOf(t, left)
	type node struct {
		value             string
		created, modified uint64
	}
	nodes := map[string]node{}
	for _, key := range []string{"/dir/3", "/dir/19", "/ttl", "/last"} {
		var n node
		n.value, n.created, n.modified, _ = nodeOf(t, left, key)
		nodes[key] = n
	}

	if _, stderr, code := offline(t, "recover", "--data-dir", left.DataDir, "--apply"); code != 1 ||
		!strings.Contains(stderr, left.DataDir+" is in use by a running member, which has to be stopped first") {
		t.Errorf("recover of a running member ended with %d: %s", code, stderr)
	}
	if _, stderr, code := offline(t, "verify", left.DataDir); code != 1 || !strings.Contains(stderr, "open wal error: file already locked") {
		t.Errorf("verify of a running member ended with %d: %s", code, stderr)
	}
	c.KillAll()

	plan := mustOffline(t, "recover", "--data-dir", behind.DataDir, "--data-dir", left.DataDir)
	for _, want := range []string{
		"Most advanced: " + left.DataDir + " (member " + id + ").",
		"Choosing " + behind.DataDir + " instead would lose log entries ",
		"quorate recover --data-dir " + left.DataDir + " --apply",
	} {
		if !strings.Contains(plan, want) {
			t.Errorf("the plan lacks %q:\n%s", want, plan)
		}
	}
	if again := mustOffline(t, "recover", "--data-dir", behind.DataDir, "--data-dir", left.DataDir); again != plan {
		t.Errorf("looking has changed something; before:\n%s\nnow:\n%s", plan, again)
	}
	for _, m := range c.Members {
		wantVerified(t, m)
	}
	if out := mustOffline(t, "recover", "--data-dir", left.DataDir, "--apply"); !strings.Contains(out, "now holds a cluster of one: member "+id+" of cluster "+clusterID) {
		t.Errorf("recover --apply said:\n%s", out)
	}
	wantVerified(t, left)

	left.Start()
	c.WaitReady()
	list, err := left.MemberList(limit(t))
	if err != nil || len(list) != 1 || list[0].ID != id || list[0].PeerURLs[0] != left.PeerURL {
		t.Fatalf("members are now %+v (%v), want only %s at %s", list, err, id, left.PeerURL)
	}
	if now := clusterIDOf(t, left); now != clusterID {
		t.Errorf("the cluster's ID is now %s, was %s", now, clusterID)
	}
	if now := mustPut(t, left, "/after", "1").Index(); now <= last {
		t.Errorf("the index went back to %d, was %d", now, last)
	}

	gone := append([]*cluster.Member{behind}, others[1:]...)
	for _, m := range gone {
		c.Forget(m)
	}
	for _, name := range []string{"new0", "new1"} {
		in := c.Join(name)
		changeMembers(t, left, http.StatusCreated, http.MethodPost, "", in.PeerURL)
		in.Start()
		c.WaitReady()
		waitVoter(t, c, in)
	}
	c.WaitEqual()
	for _, m := range c.Members {
		for key, want := range nodes {
			value, created, modified, ttl := nodeOf(t, m, key)
			if got := (node{value, created, modified}); got != want {
				t.Errorf("%s on %s is %+v, was %+v", key, m.Name, got, want)
			}
			if key == "/ttl" && (ttl <= 0 || ttl > 5000) {
				t.Errorf("%s on %s has %d s to live, of 5000", key, m.Name, ttl)
			}
		}
	}

	// The lost members are back: a majority of the old cluster, which goes on without the new one.
	for _, m := range gone {
		m.Start()
	}
	eventuallyPut(t, gone[0], "/the-old-cluster", "1")
	for _, m := range c.Members {
		mustPut(t, m, "/the-new-cluster", m.Name)
	}
	for _, m := range c.Members {
		if resp, err := m.QuorumGet(limit(t), "/the-old-cluster"); err != nil || resp.Status != http.StatusNotFound {
			t.Errorf("the old cluster's data got to %s: %v (%v)", m.Name, resp, err)
		}
		if list, err := m.MemberList(limit(t)); err != nil || len(list) != 3 {
			t.Errorf("%s has the members %+v (%v), want 3", m.Name, list, err)
		}
	}
	for _, m := range gone {
		if resp, err := m.QuorumGet(limit(t), "/the-new-cluster"); err != nil || resp.Status != http.StatusNotFound {
			t.Errorf("the new cluster's data got to %s: %v (%v)", m.Name, resp, err)
		}
	}
	left.WaitLog("recovery epoch mismatch")
	// The new cluster can lose the member it was made from.
	left.Kill()
	eventuallyPut(t, c.Members[len(c.Members)-1], "/without-the-first", "1")
	if out := mustOffline(t, "recover", "--data-dir", left.DataDir); !strings.Contains(out, "To go on with it alone, leaving for ever") {
		t.Errorf("recover of the recovered member said:\n%s", out)
	}
}

// wantVerified checks the directory of a member that is down.
func wantVerified(t *testing.T, m *cluster.Member) {
	t.Helper()
	stdout, stderr, code := offline(t, "verify", m.DataDir, "--json")
	var result struct {
		OK       bool
		Problems []struct{ Text string }
	}
	if err := json.Unmarshal([]byte(stdout), &result); err != nil || code != 0 || !result.OK || len(result.Problems) > 0 {
		t.Errorf("verify %s ended with %d (%v):\n%s%s", m.DataDir, code, err, stdout, stderr)
	}
}

// TestVerifyDamage changes bytes on disk, which verify has to find and to name.
func TestVerifyDamage(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it has no such tool")
	m := stopped(t)
	wantVerified(t, m)
	if damage(t, m.DataDir, "raft.db") == 0 {
		t.Fatal("the log does not hold what was written")
	}
	stdout, stderr, code := offline(t, "verify", m.DataDir)
	if code != 1 || !strings.Contains(stdout, "PROBLEM: "+m.DataDir+"/member/wal/raft.db is damaged: entry ") {
		t.Errorf("verify of a damaged log ended with %d:\n%s%s", code, stdout, stderr)
	}
	if _, stderr, code := offline(t, "recover", "--data-dir", m.DataDir); code != 1 || !strings.Contains(stderr, "raft.db is damaged: entry ") {
		t.Errorf("recover of a damaged log ended with %d: %s", code, stderr)
	}
}
