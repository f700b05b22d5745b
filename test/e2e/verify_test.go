//go:build linux

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

const (
	replaceMember = "; restore this member by removing it and adding it again"
	setAside      = "; a start sets it aside, and refuses only if older snapshots and the log do not make up for it"
	lostIdentity  = "there is a log at DATA/member/wal/raft.db, but no identity at DATA/member/identity.json. Does the --wal-dir belong to another member? " +
		"If the identity is gone, restore this member by removing it and adding it again with an empty data directory and an empty --wal-dir"
	lostLog = "DATA/member/identity.json says who this member is, but there is no log at DATA/member/wal/raft.db. Was it started with another --wal-dir? " +
		"If the log is gone, restore this member by removing it and adding it again with an empty data directory"
)

// damages says what quorate makes of each file that is flipped, cut or gone: the first problem that verify
// names, or nothing when it finds none, and the first error of a start, which serves if serves is set.
var damages = []struct {
	file, how     string
	verify, serve string
	serves        bool
}{
	{"identity", "flipped", "DATA/member/identity.json is damaged: checksum does not match" + replaceMember, "same", false},
	{"identity", "cut", "DATA/member/identity.json is damaged: not JSON (unexpected end of JSON input)" + replaceMember, "same", false},
	{"identity", "gone", lostIdentity, "same", false},
	{"log", "flipped", "DATA/member/wal/raft.db is damaged: entry N: checksum does not match" + replaceMember, "same", false},
	{"log", "cut", "DATA/member/wal/raft.db is damaged: ", "same", false},
	{"log", "gone", lostLog, "same", false},
	{"journal", "flipped", "DATA/member/wal/journal-N is damaged: ", "same", false},
	{"journal", "cut", "DATA/member/wal/journal-N is damaged: it was made with N bytes and has N" + replaceMember, "same", false},
	{"journal", "gone", "DATA/member/wal/journal-N is damaged: it is missing", "same", false},
	{"newest snapshot", "flipped", "DATA/member/snap/N-N.snap is damaged: checksum does not match" + setAside,
		"corrupted snapshot file DATA/member/snap/N-N.snap: checksum does not match: renamed-to=DATA/member/snap/N-N.snap.broken", true},
	{"newest snapshot", "cut", "DATA/member/snap/N-N.snap is damaged: it is cut off" + setAside,
		"corrupted snapshot file DATA/member/snap/N-N.snap: it is cut off: renamed-to=DATA/member/snap/N-N.snap.broken", true},
	{"newest snapshot", "gone", "", "", true},
	{"older snapshot", "flipped", "DATA/member/snap/N-N.snap is damaged: checksum does not match" + setAside, "", true},
	{"older snapshot", "gone", "", "", true},
	{"all snapshots", "flipped", "DATA/member/snap/N-N.snap is damaged: checksum does not match" + setAside,
		"corrupted snapshot file DATA/member/snap/N-N.snap: checksum does not match: renamed-to=DATA/member/snap/N-N.snap.broken", false},
	{"all snapshots", "gone", "DATA/member/wal/raft.db is damaged: the log begins with entry N and no snapshot has those before" + replaceMember,
		"DATA/member/wal/raft.db is damaged: the log begins with entry N and no snapshot in DATA/member/snap can be used for those before" + replaceMember, false},
	{"nothing", "", "", "", true},
}

// TestDamageTable damages each file of a member that was killed. The short round asks verify only.
func TestDamageTable(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "its files are others")
	whole := killedMember(t)
	for _, tt := range damages {
		t.Run(tt.file+" "+tt.how, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			for _, path := range filesOf(t, dir, tt.file) {
				if err := ruin(path, tt.how); err != nil {
					t.Fatal(err)
				}
			}
			stdout, stderr, code := offline(t, "verify", dir)
			got := firstWith(stdout+stderr, "PROBLEM: ", dir)
			if got == "" {
				got = firstWith(stderr, "", dir)
			}
			wantCode := 0
			if tt.verify != "" {
				wantCode = 1
			}
			if code != wantCode || !matches(got, tt.verify) {
				t.Errorf("verify ended with %d and said %q, want %d and %q", code, got, wantCode, tt.verify)
			}
			if !long {
				return
			}
			m := cluster.New(t, cluster.Options{Kind: kind()}).Members[0]
			m.DataDir = dir
			m.Start()
			cluster.Eventually(t, "an end or a start", serving(m))
			if m.Running() != tt.serves {
				t.Errorf("it serves: %v, want %v", m.Running(), tt.serves)
			}
			want := tt.serve
			if want == "same" {
				want = tt.verify
			}
			if got := firstWith(m.Log(), "[ERROR] ", dir); !matches(got, want) {
				t.Errorf("it said %q, want %q", got, want)
			}
			if !tt.serves {
				wantRefusal(t, m)
				return
			}
			wantValue(t, m, "/canary", canary)
			wantValue(t, m, "/last", canary)
		})
	}
}

// killedMember returns the data directory of a member that was killed: with a journal, three snapshots or
// more, and a log that does not reach back to its beginning.
func killedMember(t *testing.T) (dir string) {
	t.Helper()
	m := start(t, 1, "--snapshot-count=10", "--max-snapshots=3").Members[0]
	mustPut(t, m, "/canary", canary)
	// Of the log 100 entries stay behind a snapshot. So the snapshots must not be far apart, or the log
	// would not reach back to an older one.
	last := ""
	for range 8 {
		for i := range 20 {
			mustPut(t, m, fmt.Sprintf("/key%d", i), canary)
		}
		cluster.Eventually(t, "one more snapshot", func(context.Context) error {
			snaps := finished(t, filepath.Join(m.DataDir, "member", "snap"))
			if len(snaps) == 0 || snaps[len(snaps)-1] == last {
				return fmt.Errorf("there are %q", snaps)
			}
			last = snaps[len(snaps)-1]
			return nil
		})
	}
	mustPut(t, m, "/last", canary)
	m.Kill()
	return m.DataDir
}

// filesOf returns the files that a line of the table is about.
func filesOf(t *testing.T, dir, name string) []string {
	t.Helper()
	snaps := finished(t, filepath.Join(dir, "member", "snap"))
	for i, s := range snaps {
		snaps[i] = filepath.Join(dir, "member", "snap", s)
	}
	newest := len(snaps) - 1
	switch name {
	case "identity":
		return []string{filepath.Join(dir, "member", "identity.json")}
	case "log":
		return []string{filepath.Join(dir, "member", "wal", "raft.db")}
	case "journal":
		all, err := filepath.Glob(filepath.Join(dir, "member", "wal", "journal-*[0-9]"))
		if err != nil || len(all) == 0 {
			t.Fatalf("journals: %q (%v)", all, err)
		}
		return all[len(all)-1:]
	case "newest snapshot":
		return snaps[newest:]
	case "older snapshot":
		return snaps[newest-1 : newest]
	case "all snapshots":
		return snaps
	}
	return nil
}

// ruin damages a file.
func ruin(path, how string) error {
	if how == "gone" {
		return os.Remove(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if how == "cut" {
		return os.WriteFile(path, b[:min(len(b)/3, 20_000)], 0o600)
	}
	if !bytes.Contains(b, []byte(canary)) {
		b[len(b)/2] ^= 1
	}
	// Every copy, since files keep what was there before.
	b = bytes.ReplaceAll(b, []byte(canary), []byte("C"+canary[1:]))
	return os.WriteFile(path, b, 0o600)
}

// numbers are what differs from run to run: indexes, offsets, names of snapshots.
var numbers = regexp.MustCompile(`\b[0-9a-f]*[0-9][0-9a-f]*\b`)

// firstWith returns what follows a mark in the first line that has it, without what differs from run to run.
func firstWith(text, mark, dir string) string {
	for line := range strings.Lines(text) {
		if _, said, ok := strings.Cut(line, mark); ok {
			return numbers.ReplaceAllString(strings.ReplaceAll(strings.TrimSpace(said), dir, "DATA"), "N")
		}
	}
	return ""
}

// matches says whether a message is the wanted one. One that ends with a colon, or with a fault that has
// several forms, is the beginning.
func matches(got, want string) bool {
	if slices.ContainsFunc([]string{": ", "is missing"}, func(end string) bool { return strings.HasSuffix(want, end) }) {
		return strings.HasPrefix(got, want)
	}
	return got == want
}
