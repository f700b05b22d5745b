package disk

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"
)

// flipBits calls check with every stride-th bit of the first n bytes of a file inverted, and puts
// it back.
func flipBits(t *testing.T, path string, n, stride int64, check func(bit int64)) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	for bit := int64(0); bit < n*8; bit += stride {
		if _, err := f.ReadAt(b, bit/8); err != nil {
			t.Fatal(err)
		}
		was := b[0]
		b[0] ^= 1 << (bit % 8)
		if _, err := f.WriteAt(b, bit/8); err != nil {
			t.Fatal(err)
		}
		check(bit)
		b[0] = was
		if _, err := f.WriteAt(b, bit/8); err != nil {
			t.Fatal(err)
		}
	}
}

// busyLog makes a log file whose free pages hold old states of the log and of the settings: a
// wrong page number finds something plausible.
func busyLog(t *testing.T) *Dir {
	t.Helper()
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: journalOptions{off: true}})
	l, s := d.LogStore(), d.StableStore()
	for i := uint64(1); i <= 60; i++ {
		mustStore(t, l, entriesOf(i, i, 1))
	}
	if err := errors.Join(
		s.SetUint64([]byte("CurrentTerm"), 2),
		l.DeleteRange(41, 60),
		l.StoreLogs(entriesOf(41, 60, 2)), // the same indexes with other content
		s.SetUint64([]byte(voteTermKey), 2),
		s.Set([]byte(voteCandidateKey), []byte("706b5b4dce4b2e")),
		l.StoreLogs(entriesOf(61, 70, 2)),
		s.SetUint64([]byte("CurrentTerm"), 3),
		d.Close(),
	); err != nil {
		t.Fatal(err)
	}
	return d
}

// One damaged bit in the log file is found, or is where it does not matter. Never does it change
// what is read.
func TestFlipLog(t *testing.T) {
	d := busyLog(t)
	path := d.wal(logFile)
	want, err := readLogFile(path, 1<<30, true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := openBoltFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	inUse := int64(b.meta.limit * b.pageSize)
	if err := b.close(); err != nil {
		t.Fatal(err)
	}

	var refused, harmless int
	flipBits(t, path, inUse, 29, func(bit int64) {
		got, err := readLogFile(path, 1<<30, true)
		if errors.Is(err, ErrDamaged) {
			refused++
			return
		}
		if err != nil {
			t.Fatalf("bit %d: %v", bit, err)
		}
		got.usedSize = want.usedSize // a page may claim a free one
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("bit %d changes the log: %+v, want %+v", bit, got.head, want.head)
		}
		if harmless++; harmless%200 != 0 {
			return
		}
		// bolt agrees.
		d, err := Open(d.opts)
		if err != nil {
			t.Fatalf("bit %d: Open: %v", bit, err)
		}
		wantLog(t, d.LogStore(), append(entriesOf(1, 40, 1), entriesOf(41, 70, 2)...))
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if want, err = readLogFile(path, 1<<30, true); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%d bits: %d refused, %d harmless", refused+harmless, refused, harmless)
	if refused == 0 || harmless == 0 {
		t.Error("the test did not reach both outcomes")
	}
}

func TestFlipIdentity(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	path := d.member(identityFile)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	want := testIdentity()
	flipBits(t, path, info.Size(), 1, func(bit int64) {
		if got, err := readIdentity(path); err == nil && !reflect.DeepEqual(*got, want) {
			t.Fatalf("bit %d changes the identity to %+v", bit, got)
		}
	})
}

func TestFlipSnapshot(t *testing.T) {
	dir := t.TempDir()
	d := openMember(t, Options{DataDir: dir, NoSync: true})
	saveSnapshot(t, d, 3, 20, "snapshot data")
	list, err := d.Snapshots().List()
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %v, %v", list, err)
	}
	path := filepath.Join(dir, "member", "snap", list[0].ID+snapSuffix)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	flipBits(t, path, info.Size(), 1, func(bit int64) {
		meta, r, err := openSnapshot(path)
		if err == nil {
			data, _ := io.ReadAll(r)
			_ = r.Close()
			t.Fatalf("bit %d was not noticed: %+v %q", bit, meta, data)
		}
	})
}

// saveSnapshot writes a snapshot and returns its ID.
func saveSnapshot(t testing.TB, d *Dir, term, index uint64, data string) string {
	t.Helper()
	sink, err := d.Snapshots().Create(1, index, term, testConfiguration(), 1, nil)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if _, err := io.WriteString(sink, data); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return sink.ID()
}

func testConfiguration() raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{ID: "706b5b4dce4b2e", Address: "h:1"}}}
}
