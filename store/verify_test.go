package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/store/disk"
)

// write is a log entry that sets a key.
func write(t *testing.T, key string) []byte {
	t.Helper()
	entry, err := fsm.AppendCommand(fsm.AppendEntry(nil, time.Now().UnixNano()), &fsm.Command{
		Kind: fsm.KindWrite, Write: tree.Write{Op: tree.Op{Action: tree.Set, Path: key, Value: "1"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

func testSurvey(t *testing.T, dataDir string) {
	first, err := Survey(dataDir, "")
	if err != nil {
		t.Fatal(err)
	}
	if first.Name() == "" || first.Keys != 2 || len(first.Members.Members) != 3 {
		t.Errorf("Survey = %+v", first)
	}
	last, term := first.Last()
	tests := []struct {
		name    string
		terms   []uint64 // of entries behind those of the first
		compare int      // with the first
		lacks   uint64   // how many of the first's entries
		lacked  uint64   // how many entries the first lacks
	}{
		{"equal", nil, 0, 0, 0},
		{"longer", []uint64{term, term}, 1, 0, 2},
		{"longer and newer", []uint64{term, term + 1}, 1, 0, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyOf(t, dataDir)
			for _, term := range tt.terms {
				appendEntry(t, dir, term, write(t, "/more"))
			}
			s, err := Survey(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Compare(first); got != tt.compare {
				t.Errorf("Compare = %d, want %d", got, tt.compare)
			}
			if from, to := s.Lacks(first); to+1-from != tt.lacks || to != last {
				t.Errorf("it lacks %d to %d, want %d entries", from, to, tt.lacks)
			}
			if from, to := first.Lacks(s); to+1-from != tt.lacked {
				t.Errorf("the first lacks %d to %d, want %d entries", from, to, tt.lacked)
			}
			if want := first.KeyIndex + uint64(len(tt.terms)); s.KeyIndex != want {
				t.Errorf("key index is %d, want %d", s.KeyIndex, want)
			}
		})
	}

	t.Run("forked", func(t *testing.T) {
		left, right := copyOf(t, dataDir), copyOf(t, dataDir)
		for range 3 {
			appendEntry(t, left, term+1, write(t, "/left"))
		}
		appendEntry(t, right, term+2, write(t, "/right"))
		l, err := Survey(left, "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := Survey(right, "")
		if err != nil {
			t.Fatal(err)
		}
		if l.Compare(r) >= 0 {
			t.Error("the longer log of an older term is called more advanced")
		}
		if from, to := l.Lacks(r); from != last+1 || to != last+1 {
			t.Errorf("the left lacks %d to %d, want %d alone", from, to, last+1)
		}
		if from, to := r.Lacks(l); from != last+1 || to != last+3 {
			t.Errorf("the right lacks %d to %d, want %d to %d", from, to, last+1, last+3)
		}
	})

	t.Run("recovered", func(t *testing.T) {
		dir := copyOf(t, dataDir)
		mustRecover(t, dir)
		s, err := Survey(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SameCluster(first); err == nil || !strings.Contains(err.Error(), dataDir+" was left behind") {
			t.Errorf("SameCluster = %v, want that %s was left behind", err, dataDir)
		}
	})
}

// snapshot takes a snapshot of a member that is down, of its state after the entry at index, and
// lets change alter that state first.
func snapshot(t *testing.T, dataDir string, index uint64, change func(*replica)) {
	t.Helper()
	machine := newReplica(1000)
	var meta raft.Log
	err := disk.ReadLog(dataDir, "", func(entry *raft.Log) error {
		if entry.Index > index {
			return nil
		}
		meta = *entry
		return machine.apply(entry)
	})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(machine)
	}
	openDisk(t, dataDir, func(d *disk.Dir) error {
		sink, err := d.Snapshots().Create(1, index, meta.Term, raft.Configuration{}, 1, nil)
		if err != nil {
			return err
		}
		s, err := machine.Snapshot()
		if err != nil {
			return err
		}
		defer s.Release()
		return s.Persist(sink)
	})
}

// rewrite changes a file of a directory.
func rewrite(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func testVerify(t *testing.T, dataDir string) {
	whole, err := Survey(dataDir, "")
	if err != nil {
		t.Fatal(err)
	}
	last, middle := whole.LastIndex, whole.LastIndex/2
	oneSnapshot := func(t *testing.T, dir string) string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "member", "snap", "*.snap"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no snapshot in %s: %v", dir, err)
		}
		return files[len(files)-1]
	}
	tests := []struct {
		name     string
		change   func(t *testing.T, dir string)
		compared int
		problem  string // contained in one; none is expected when empty
	}{
		{"as it is", func(*testing.T, string) {}, 0, ""},
		{"snapshots", func(t *testing.T, dir string) {
			snapshot(t, dir, middle, nil)
			snapshot(t, dir, last-1, nil)
			snapshot(t, dir, last, nil)
		}, 3, ""},
		{"snapshots and the end of the log", func(t *testing.T, dir string) {
			snapshot(t, dir, middle, nil)
			snapshot(t, dir, last, nil)
			openDisk(t, dir, func(d *disk.Dir) error { return d.LogStore().DeleteRange(1, middle-1) })
		}, 1, ""},
		{"snapshot alone", func(t *testing.T, dir string) {
			snapshot(t, dir, last, nil)
			openDisk(t, dir, func(d *disk.Dir) error { return d.LogStore().DeleteRange(1, last) })
		}, 0, ""},
		{"snapshot with another state", func(t *testing.T, dir string) {
			snapshot(t, dir, middle, func(r *replica) {
				b := r.Tree().Begin(r.Tree().Clock())
				if _, err := b.Do(tree.Op{Action: tree.Set, Path: "/intruder", Value: "1"}); err != nil {
					t.Error(err)
				}
				b.End()
			})
		}, 0, ".snap: its state differs from that to which the log leads"},
		{"damaged snapshot", func(t *testing.T, dir string) {
			snapshot(t, dir, last, nil)
			rewrite(t, oneSnapshot(t, dir), func(b []byte) []byte { b[len(b)-30] ^= 1; return b })
		}, 0, ".snap is damaged: checksum does not match"},
		{"snapshot of something else", func(t *testing.T, dir string) {
			openDisk(t, dir, func(d *disk.Dir) error {
				sink, err := d.Snapshots().Create(1, last, whole.LastTerm, raft.Configuration{}, 1, nil)
				if err != nil {
					return err
				}
				if _, err := io.WriteString(sink, "not a state machine of ours at all"); err != nil {
					return err
				}
				return sink.Close()
			})
		}, 0, ".snap: read snapshot: this is no snapshot of quorate"},
		{"entry that cannot be applied", func(t *testing.T, dir string) {
			appendEntry(t, dir, whole.LastTerm, []byte{250})
		}, 0, "the log cannot be applied: log entry"},
		{"damaged log", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, "member", "wal", "raft.db"), func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte("/ttl"), []byte("/ttx"))
			})
		}, 0, "raft.db is damaged: entry "},
		{"damaged identity", func(t *testing.T, dir string) {
			rewrite(t, filepath.Join(dir, "member", "identity.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte("format"), []byte("fromat"), 1)
			})
		}, 0, "identity.json is damaged: checksum does not match"},
		{"damaged roster", func(t *testing.T, dir string) {
			rewrite(t, rosterPath(dir), func(b []byte) []byte { return b[:len(b)/2] })
		}, 0, "roster.json is damaged"},
		{"identity of another cluster", func(t *testing.T, dir string) {
			openDisk(t, dir, func(d *disk.Dir) error {
				id, _ := d.Identity()
				id.Cluster++
				return d.WriteIdentity(*id)
			})
		}, 0, "identity.json is of cluster "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyOf(t, dataDir)
			tt.change(t, dir)
			v, err := Verify(dir, "")
			if err != nil {
				t.Fatal(err)
			}
			problems := errors.Join(v.Problems...)
			if tt.problem == "" {
				if problems != nil {
					t.Errorf("problems: %v", problems)
				}
				if v.RaftIndex != last || v.KeyIndex != whole.KeyIndex || len(v.Members.Members) != 3 {
					t.Errorf("Verify = %+v, want raft index %d, key index %d", v, last, whole.KeyIndex)
				}
				if v.Compared != tt.compared {
					t.Errorf("%d snapshots were compared with the log, want %d", v.Compared, tt.compared)
				}
			} else if problems == nil || !strings.Contains(problems.Error(), tt.problem) {
				t.Errorf("problems: %v, want %q", problems, tt.problem)
			}
		})
	}
}
