package disk

import (
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
)

func TestSummarizeAndVerify(t *testing.T) { eachKind(t, testSummarizeAndVerify) }

func testSummarizeAndVerify(t *testing.T, kind Kind) {
	dir, wal := t.TempDir(), t.TempDir()
	d := openMember(t, Options{LogStore: kind, DataDir: dir, WALDir: wal, NoSync: true})
	mustStore(t, d.LogStore(), append(entriesOf(1, 30, 1), entriesOf(31, 40, 3)...))
	a, b := saveSnapshot(t, d, 1, 10, "a"), saveSnapshot(t, d, 1, 20, "b")
	if err := errors.Join(d.LogStore().DeleteRange(1, 15), d.Close()); err != nil {
		t.Fatal(err)
	}
	before := treeHash(t, dir) + treeHash(t, wal)

	s, err := Summarize(dir, wal)
	if err != nil {
		t.Fatal(err)
	}
	if s.FirstIndex != 16 || s.LastIndex != 40 || s.LastTerm != 3 || !reflect.DeepEqual(s.Identity, testIdentity()) ||
		len(s.Snapshots) != 2 || s.Snapshots[0].ID != b || s.Snapshots[1].ID != a {
		t.Errorf("Summarize = %+v", s)
	}
	if index, term := s.Last(); index != 40 || term != 3 {
		t.Errorf("Last = %d, %d, want 40, 3", index, term)
	}
	r, err := Verify(dir, wal)
	if err != nil || len(r.Problems) > 0 || r.Entries != 25 || r.LogBytes == 0 || r.LastIndex != 40 {
		t.Errorf("Verify = %+v, %v", r, err)
	}
	if after := treeHash(t, dir) + treeHash(t, wal); after != before {
		t.Error("Summarize or Verify changed something")
	}

	var read []*raft.Log
	if err := ReadLog(dir, wal, func(l *raft.Log) error { read = append(read, l); return nil }); err != nil {
		t.Error(err)
	}
	want := append(entriesOf(16, 30, 1), entriesOf(31, 40, 3)...)
	if len(read) != len(want) {
		t.Fatalf("ReadLog visits %d entries, want %d", len(read), len(want))
	}
	for i := range want {
		if !sameEntry(read[i], want[i]) {
			t.Errorf("ReadLog: %+v, want %+v", *read[i], *want[i])
		}
	}
	stop := errors.New("enough")
	if err := ReadLog(dir, wal, func(*raft.Log) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ReadLog = %v, want %v", err, stop)
	}
	var text []byte
	if err := ReadSnapshot(dir, b, func(r io.Reader) (err error) { text, err = io.ReadAll(r); return err }); err != nil || string(text) != "b" {
		t.Errorf("ReadSnapshot = %q, %v, want b", text, err)
	}

	// Everything that is wrong is named.
	patch(t, filepath.Join(dir, "member", "snap", b+snapSuffix), 20, []byte("?"))
	patch(t, filepath.Join(dir, "member", identityFile), 20, []byte("?"))
	patch(t, filepath.Join(wal, logFile), 16, []byte("?"))
	r, err = Verify(dir, wal)
	if err != nil || len(r.Problems) != 3 || len(r.Snapshots) != 1 {
		t.Errorf("Verify = %v, %v, want three problems", r.Problems, err)
	}
}

func TestSummaryLast(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	mustStore(t, d.LogStore(), entriesOf(1, 3, 1))
	saveSnapshot(t, d, 2, 50, "x")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Summarize(d.opts.DataDir, "")
	if err != nil {
		t.Fatal(err)
	}
	if index, term := s.Last(); index != 50 || term != 2 {
		t.Errorf("Last = %d, %d, want those of the snapshot, 50, 2", index, term)
	}
}

func TestSummarizeNothing(t *testing.T) {
	for name, files := range map[string][]string{"empty": nil, "proxy": {"proxy/"}, "both": {"proxy/", "member/"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			touch(t, dir, files...)
			if s, err := Summarize(dir, ""); err == nil {
				t.Errorf("Summarize = %+v", s)
			}
			if r, err := Verify(dir, ""); err == nil {
				t.Errorf("Verify = %+v", r)
			}
		})
	}
}

// treeHash covers names and contents of all files.
func treeHash(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		h.Write([]byte(path))
		h.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(h.Sum(nil))
}
