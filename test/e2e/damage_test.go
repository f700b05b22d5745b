//go:build linux

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// canary is a value that is easy to find in a file.
const canary = "canary-0d4f6c1b-in-the-coal-mine"

// damage changes every copy of the canary in the files below dir that match, and returns how many it found.
func damage(t *testing.T, dir, pattern string) int {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if ok, err := filepath.Match(pattern, e.Name()); err != nil || !ok {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found += bytes.Count(b, []byte(canary))
		return os.WriteFile(path, bytes.ReplaceAll(b, []byte(canary), []byte("C"+canary[1:])), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// stopped returns a member of one that holds a canary and is stopped.
func stopped(t *testing.T, flags ...string) *cluster.Member {
	t.Helper()
	m := start(t, 1, flags...).Members[0]
	mustPut(t, m, "/canary", canary)
	m.Stop()
	return m
}

// TestDamagedLog flips one byte in the log: the member must notice, say which file it is, and not serve.
func TestDamagedLog(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "its files are others")
	m := stopped(t)
	if damage(t, m.DataDir, "raft.db") == 0 {
		t.Fatal("the log does not hold what was written")
	}
	m.Start()
	wantRefusal(t, m, "raft.db")
}

// TestRuinedFiles overwrites or cuts whole files.
func TestRuinedFiles(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "its files are others")
	garbage := bytes.Repeat([]byte("garbage!"), 4096)
	tests := []struct {
		name, file string
		ruin       func(path string) error
	}{
		{"log is garbage", "member/wal/raft.db", func(p string) error { return os.WriteFile(p, garbage, 0o600) }},
		{"log is empty", "member/wal/raft.db", func(p string) error { return os.Truncate(p, 0) }},
		{"log is cut", "member/wal/raft.db", func(p string) error { return os.Truncate(p, 6000) }},
		{"log is gone", "member/wal/raft.db", os.Remove},
		{"identity is garbage", "member/identity.json", func(p string) error { return os.WriteFile(p, garbage, 0o600) }},
		{"identity is empty", "member/identity.json", func(p string) error { return os.Truncate(p, 0) }},
		{"identity is gone", "member/identity.json", os.Remove},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := stopped(t)
			if err := tt.ruin(filepath.Join(m.DataDir, tt.file)); err != nil {
				t.Fatal(err)
			}
			m.Start()
			wantRefusal(t, m)
			if lines := strings.Count(strings.TrimSpace(m.Log()), "\n"); lines > 40 {
				t.Errorf("it took %d lines to say so", lines)
			}
		})
	}
}

// TestDamagedSnapshots flips bytes in snapshots. A damaged one may be passed over when the rest makes up for it;
// what must never happen is that a member serves without the data, or with other data.
func TestDamagedSnapshots(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "its files are others")
	for _, tt := range []struct {
		name   string
		newest bool // damage only the newest one
	}{{"newest", true}, {"all", false}} {
		t.Run(tt.name, func(t *testing.T) {
			m := start(t, 1, "--snapshot-count=50").Members[0]
			mustPut(t, m, "/canary", canary)
			snaps := filepath.Join(m.DataDir, "member", "snap")
			// Snapshots are made in the background. With two there is one to fall back to.
			keys := 0
			cluster.Eventually(t, "two snapshots", func(context.Context) error {
				for range 100 {
					mustPut(t, m, fmt.Sprintf("/key%d", keys), "1")
					keys++
				}
				if have := finished(t, snaps); len(have) < 2 {
					return fmt.Errorf("there are %q", have)
				}
				return nil
			})
			m.Stop()
			dir := snaps
			if tt.newest {
				have := finished(t, snaps)
				dir = filepath.Join(snaps, have[len(have)-1])
			}
			if damage(t, dir, "*") == 0 {
				t.Fatalf("no snapshot in %s holds what was written", dir)
			}
			m.Start()
			cluster.Eventually(t, "an end or a start", serving(m))
			if !m.Running() {
				wantRefusal(t, m, "snapshot")
				return
			}
			wantValue(t, m, "/canary", canary)
			for i := range keys {
				wantValue(t, m, fmt.Sprintf("/key%d", i), "1")
			}
		})
	}
}

// finished lists the snapshots in a directory, the newest last, without those that are being written.
func finished(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".snap") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestOneProcessPerDirectory starts a second server on a directory in use.
func TestOneProcessPerDirectory(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "3.4 waits for ever")
	c := start(t, 1)
	second := c.Join("second")
	second.Name, second.Boot, second.DataDir = c.Members[0].Name, c.Members[0].Boot, c.Members[0].DataDir
	second.Start()
	wantRefusal(t, second, "open wal error: file already locked")
	mustPut(t, c.Members[0], "/x", "1")
}

// TestHalfDirectories has data directories that no start leaves behind.
func TestHalfDirectories(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		setUp func(dir string) error
		want  string
	}{
		{"member and proxy", func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "member"), 0o700), os.MkdirAll(filepath.Join(dir, "proxy"), 0o700))
		}, "invalid datadir. Both member and proxy directories exist."},
		{"a file", func(dir string) error { return os.WriteFile(dir, nil, 0o600) }, "error listing data dir: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := cluster.New(t, cluster.Options{Kind: kind()})
			m := c.Members[0]
			if err := tt.setUp(m.DataDir); err != nil {
				t.Fatal(err)
			}
			m.Start()
			wantRefusal(t, m, tt.want)
		})
	}
}

// TestSeparateLogDirectory runs with --wal-dir, and then forgets it: a fresh log under the old identity would be a
// member that has lost its memory.
func TestSeparateLogDirectory(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it starts with an empty log")
	c := cluster.New(t, cluster.Options{Kind: kind()})
	m := c.Members[0]
	m.Flags = []string{"--wal-dir", filepath.Join(c.Dir(), "log")}
	m.Start()
	c.WaitReady()
	mustPut(t, m, "/x", "1")
	m.Stop()
	m.Start()
	c.WaitReady()
	wantValue(t, m, "/x", "1")
	m.Stop()
	m.Flags = nil
	m.Start()
	wantRefusal(t, m)
}

// TestRestartKeepsIdentity starts a member again with other flags: those about its beginning are not looked at.
func TestRestartKeepsIdentity(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	m := c.Members[0]
	mustPut(t, m, "/x", "1")
	before, err := m.MemberList(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	m.Stop()
	m.Boot = []string{"--initial-cluster", "renamed=http://127.0.0.1:1", "--initial-cluster-state", "existing", "--initial-cluster-token", "other"}
	m.Name = "renamed"
	m.Start("--initial-advertise-peer-urls", "http://127.0.0.1:1")
	c.WaitReady()
	wantValue(t, m, "/x", "1")
	cluster.Eventually(t, "the new name", func(ctx context.Context) error {
		after, err := m.MemberList(ctx)
		if err != nil {
			return err
		}
		if len(after) != 1 || after[0].ID != before[0].ID || after[0].PeerURLs[0] != before[0].PeerURLs[0] || after[0].Name != "renamed" {
			return fmt.Errorf("the member is now %+v, was %+v; only its name should change", after, before)
		}
		return nil
	})
}
