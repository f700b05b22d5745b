package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// patch overwrites part of a file; a negative offset counts from the end of the data in use.
func patch(t testing.TB, path string, at int64, data []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt(data, at)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// pageOf returns the number of the meta page that is newer, or older.
func metaPage(t testing.TB, path string, newer bool) int64 {
	t.Helper()
	b, err := openBoltFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	page := int64(b.meta.txid % 2)
	if !newer {
		page = 1 - page
	}
	return page * int64(b.pageSize)
}

// What can happen to a log file besides a flipped bit. Each is refused with a message that names
// the file, the damage and what to do.
func TestDamagedLog(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, path string)
		want   string
	}{
		{"empty file", func(t *testing.T, path string) { _ = os.Truncate(path, 0) }, "it is only 0 bytes long"},
		{"cut off in the meta pages", func(t *testing.T, path string) { _ = os.Truncate(path, 4096) }, "it is only 4096 bytes long|page size"},
		{"cut off", func(t *testing.T, path string) { _ = os.Truncate(path, 5*4096) }, "it is cut off"},
		{"zeros", func(t *testing.T, path string) { patch(t, path, 0, make([]byte, 1<<20)) }, "meta page 0: it is not a bolt file"},
		{"text", func(t *testing.T, path string) { patch(t, path, 0, bytes.Repeat([]byte("text"), 1<<15)) }, "meta page 0: it is not a bolt file"},
		// bolt would go back one transaction: the last entries, or a vote.
		{"newer meta page zeroed", func(t *testing.T, path string) { patch(t, path, metaPage(t, path, true), make([]byte, 4096)) }, "meta page"},
		{"newer meta page damaged", func(t *testing.T, path string) { patch(t, path, metaPage(t, path, true)+16+48, []byte{0xff}) }, "checksum does not match"},
		{"older meta page damaged", func(t *testing.T, path string) { patch(t, path, metaPage(t, path, false)+16+48, []byte{0xff}) }, "checksum does not match"},
		// A whole sector of the past.
		{"older meta page twice", func(t *testing.T, path string) {
			data, _ := os.ReadFile(path)
			from, to := metaPage(t, path, false), metaPage(t, path, true)
			patch(t, path, to, data[from:from+4096])
		}, "which do not follow each other"},
		{"last page lost", func(t *testing.T, path string) {
			b, err := openBoltFile(path, true)
			if err != nil {
				t.Fatal(err)
			}
			at := int64(b.meta.root * b.pageSize)
			_ = b.close()
			patch(t, path, at, make([]byte, 4096))
		}, "has the number 0"},
		{"another bolt file", func(t *testing.T, path string) {
			_ = os.Remove(path)
			if err := createOther(path, func(s *raftboltdb.BoltStore) error {
				return s.StoreLogs(entriesOf(1, 3, 1))
			}); err != nil {
				t.Fatal(err)
			}
		}, "entry 1: it has no checksum"},
		{"an empty raft-boltdb file", func(t *testing.T, path string) {
			_ = os.Remove(path)
			if err := createOther(path, func(*raftboltdb.BoltStore) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}, "the head record is missing"},
		// Somebody wrote with another program, which left the head as it was.
		{"written by another program", func(t *testing.T, path string) {
			if err := createOther(path, func(s *raftboltdb.BoltStore) error {
				return s.Set([]byte("CurrentTerm"), make([]byte, 8))
			}); err != nil {
				t.Fatal(err)
			}
		}, "the head record is of transaction"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := busyLog(t)
			path := d.wal(logFile)
			tt.damage(t, path)
			_, err := Open(d.opts)
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("Open = %v, want damage", err)
			}
			text := err.Error()
			found := false
			for want := range strings.SplitSeq(tt.want, "|") {
				found = found || strings.Contains(text, want)
			}
			if !found || !strings.HasPrefix(text, path+" is damaged: ") || !strings.HasSuffix(text, "; restore this member by removing it and adding it again") {
				t.Errorf("Open = %v, want %s is damaged: %s", err, path, tt.want)
			}
			if r, err := Verify(d.opts.DataDir, ""); err != nil || len(r.Problems) != 1 || r.Problems[0].Error() != text {
				t.Errorf("Verify = %v, %v, want the same problem", r.Problems, err)
			}
			if _, err := Summarize(d.opts.DataDir, ""); !errors.Is(err, ErrDamaged) {
				t.Errorf("Summarize = %v", err)
			}
		})
	}
}

func createOther(path string, fill func(*raftboltdb.BoltStore) error) error {
	s, err := openBolt(path, true)
	if err != nil {
		return err
	}
	return errors.Join(fill(s), s.Close())
}

// An entry that goes bad while the member runs is found when it is read.
func TestDamageWhileRunning(t *testing.T) {
	var reported []error
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, CacheBytes: 1, journal: journalOptions{off: true},
		OnCorrupt: func(err error) { reported = append(reported, err) }})
	mustStore(t, d.LogStore(), entriesOf(1, 30, 1))
	path := d.wal(logFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("entry 17 of term 1")
	for at := 0; ; {
		i := bytes.Index(data[at:], text)
		if i < 0 {
			break
		}
		patch(t, path, int64(at+i), []byte("E"))
		at += i + 1
	}
	want := fmt.Sprintf("%s is damaged: entry 17: checksum does not match; restore this member by removing it and adding it again", path)
	for range 2 {
		if err := d.LogStore().GetLog(17, &raft.Log{}); err == nil || err.Error() != want {
			t.Errorf("GetLog(17) = %v, want %s", err, want)
		}
	}
	if len(reported) != 1 || reported[0].Error() != want {
		t.Errorf("OnCorrupt got %v, want %s once", reported, want)
	}
	var got raft.Log
	if err := d.LogStore().GetLog(16, &got); err != nil || !sameEntry(&got, entry(16, 1)) {
		t.Errorf("GetLog(16) = %+v, %v", got, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d.opts); err == nil || err.Error() != want {
		t.Errorf("Open = %v, want %s", err, want)
	}
}

// A file that was cut under our feet is a fault, not a crash.
func TestFaultWhileRunning(t *testing.T) {
	var reported error
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, CacheBytes: 1, journal: journalOptions{off: true},
		OnCorrupt: func(err error) { reported = err }})
	mustStore(t, d.LogStore(), entriesOf(1, 30, 1))
	if err := os.Truncate(d.wal(logFile), 0); err != nil {
		t.Fatal(err)
	}
	err := d.LogStore().GetLog(3, &raft.Log{})
	if !errors.Is(err, ErrDamaged) || reported != err {
		t.Errorf("GetLog = %v, OnCorrupt %v, want damage", err, reported)
	}
}

// The log and the snapshots have to fit together.
func TestLogAndSnapshots(t *testing.T) { eachKind(t, testLogAndSnapshots) }

func testLogAndSnapshots(t *testing.T, kind Kind) {
	type saved struct{ term, index uint64 }
	tests := []struct {
		name    string
		logs    []*raft.Log // written first, beginning at 1
		saved   []saved
		cut     uint64   // then the log is cut up to here
		broken  []uint64 // then these snapshots are damaged
		wantErr string
		want    []*raft.Log
	}{
		{name: "log continues the snapshot", logs: entriesOf(1, 30, 1), saved: []saved{{1, 20}}, cut: 20, want: entriesOf(21, 30, 1)},
		{name: "log reaches behind it", logs: entriesOf(1, 30, 1), saved: []saved{{1, 20}}, cut: 10, want: entriesOf(11, 30, 1)},
		{name: "newest snapshot damaged, log fills the gap", logs: entriesOf(1, 30, 1), saved: []saved{{1, 10}, {1, 20}}, cut: 10, broken: []uint64{20}, want: entriesOf(11, 30, 1)},
		{name: "newest snapshot damaged, log does not reach", logs: entriesOf(1, 30, 1), saved: []saved{{1, 10}, {1, 20}}, cut: 15, broken: []uint64{20},
			wantErr: "the log begins with entry 16, but the newest snapshot that can be used, SNAP/0000000000000001-000000000000000a.snap, ends with entry 10"},
		{name: "all snapshots damaged", logs: entriesOf(1, 30, 1), saved: []saved{{1, 10}, {1, 20}}, cut: 10, broken: []uint64{10, 20},
			wantErr: "the log begins with entry 11 and no snapshot in SNAP can be used for those before"},
		{name: "snapshot damaged, log is complete", logs: entriesOf(1, 30, 1), saved: []saved{{1, 20}}, broken: []uint64{20}, want: entriesOf(1, 30, 1)},
		// A snapshot came from the leader, and a crash before the log was deleted.
		{name: "snapshot is ahead of the log", logs: entriesOf(1, 30, 1), saved: []saved{{2, 100}}, want: nil},
		{name: "log is of another history", logs: entriesOf(1, 30, 1), saved: []saved{{2, 20}}, want: nil},
		{name: "log ends where the snapshot does", logs: entriesOf(1, 30, 1), saved: []saved{{1, 30}}, want: entriesOf(1, 30, 1)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := openMember(t, Options{LogStore: kind, DataDir: dir, NoSync: true})
			mustStore(t, d.LogStore(), tt.logs)
			for _, s := range tt.saved {
				saveSnapshot(t, d, s.term, s.index, "x")
			}
			if tt.cut > 0 {
				if err := d.LogStore().DeleteRange(1, tt.cut); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			for _, index := range tt.broken {
				patch(t, d.snapshots.path(snapshotID(1, index)), 30, []byte("damage"))
			}
			d, err := Open(d.opts)
			if tt.wantErr != "" {
				want := strings.ReplaceAll(tt.wantErr, "SNAP", dir+"/member/snap")
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), want) {
					t.Errorf("Open = %v, want %s", err, want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			wantLog(t, d.LogStore(), tt.want)
			for _, index := range tt.broken {
				if _, err := os.Stat(d.snapshots.path(snapshotID(1, index)) + brokenSuffix); err != nil {
					t.Errorf("damaged snapshot: %v", err)
				}
			}
		})
	}
}
