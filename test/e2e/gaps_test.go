//go:build linux && gaps

package e2e

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// The tests in this file hold Quorate to what it does not do yet; they fail, and run only with the tag gaps.

// TestRestartAlone starts one member of three again after all were killed: what it has on disk is there, or it says
// that it cannot tell. It must not say that there is nothing.
func TestRestartAlone(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	mustPut(t, c.Members[0], "/x", "1")
	c.WaitEqual()
	c.KillAll()
	m := c.Members[0]
	m.Start()
	cluster.Eventually(t, "the member to answer", func(ctx context.Context) error {
		_, err := m.MemberList(ctx)
		return err
	})
	resp, err := m.Get(limit(t), "/x")
	if err != nil || resp.Value() != "1" && resp.Status < http.StatusInternalServerError {
		t.Errorf("GET /x = %v (%v), want the value, or a server error", resp, err)
	}
}

// TestStaleCopy starts a member from a copy of its directory that is older than what it has acknowledged since. Its
// vote would count for what it no longer knows, so it must not take part.
func TestStaleCopy(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it crashes, or not")
	c := start(t, 3)
	m := c.Followers()[0]
	mustPut(t, m, "/before", "1")
	m.Stop()
	stale := filepath.Join(c.Dir(), "stale")
	if err := os.CopyFS(stale, os.DirFS(m.DataDir)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	c.WaitReady()
	putMany(t, c.Members, "/after", 100)
	c.WaitEqual()
	m.Stop()
	m.DataDir = stale
	m.Start()
	wantRefusal(t, m)
	mustPut(t, c.WaitLeader(), "/and-on", "1")
}
