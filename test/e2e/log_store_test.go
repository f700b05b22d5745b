//go:build linux

package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// TestConvertLog changes the kind of log of one member of three, under a --wal-dir, back and forth: members
// with different kinds are one cluster, and nothing is lost.
func TestConvertLog(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it has one kind of log")
	c := cluster.New(t, cluster.Options{Kind: kind(), Size: 3})
	for _, m := range c.Members {
		m.Flags = []string{"--wal-dir", filepath.Join(c.Dir(), m.Name+".log"), "--log-store=wal"}
	}
	c.StartAll()
	c.WaitReady()
	mustPut(t, c.Members[0], "/first", "with segments")
	c.KillAll()

	m := c.Members[0]
	walDir := filepath.Join(c.Dir(), m.Name+".log")
	m.Start("--log-store=boltdb")
	wantRefusal(t, m, `of the kind "wal"`, "quorate convert-log "+m.DataDir+" --to boltdb --wal-dir "+walDir)
	for _, to := range []string{"boltdb", "wal", "boltdb"} {
		mustOffline(t, "convert-log", m.DataDir, "--to", to, "--wal-dir", walDir)
		if out := mustOffline(t, "verify", m.DataDir, "--wal-dir", walDir); !strings.Contains(out, "everything is as it was written") {
			t.Errorf("after convert-log to %s:\n%s", to, out)
		}
	}
	m.Flags[2] = "--log-store=boltdb"
	c.StartAll()
	c.WaitReady()
	for _, m := range c.Members {
		wantValue(t, m, "/first", "with segments")
		mustPut(t, m, "/second", m.Name)
	}
	c.KillAll()
	// Whatever holds the log, one member can go on alone.
	for _, m := range []*cluster.Member{c.Members[0], c.Members[1]} {
		m.Start("--force-new-cluster")
		c.WaitReady(m)
		wantValue(t, m, "/second", "m2")
		m.Stop()
	}
}

// TestDamagedSegment changes one byte of a log in segments.
func TestDamagedSegment(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "its files are others")
	m := stopped(t, "--log-store=wal")
	if damage(t, m.DataDir, "*.wal") == 0 {
		t.Fatal("the log does not hold what was written")
	}
	m.Start()
	wantRefusal(t, m, ".wal is damaged")
	_, _, code := offline(t, "verify", m.DataDir)
	if code != 1 {
		t.Errorf("quorate verify ended with %d", code)
	}
}
