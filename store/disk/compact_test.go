package disk

import (
	"errors"
	"os"
	"testing"
)

// A file that is mostly free pages becomes small at the next start, and nothing else changes.
func TestCompaction(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, compactAbove: 1 << 20})
	l := d.LogStore()
	saveSnapshot(t, d, 1, 6000, "x")
	for i := uint64(1); i <= 6000; i += 500 {
		logs := entriesOf(i, i+499, 1)
		for _, e := range logs {
			e.Data = append(e.Data, make([]byte, 2000)...)
		}
		mustStore(t, l, logs)
	}
	if err := errors.Join(l.DeleteRange(1, 5990), d.StableStore().SetUint64([]byte("CurrentTerm"), 9)); err != nil {
		t.Fatal(err)
	}
	want := observe(t, d)
	before := fileSize(t, d.wal(logFile))
	d = reopen(t, d)
	if after := fileSize(t, d.wal(logFile)); after >= before {
		t.Errorf("size = %d, was %d", after, before)
	}
	for range 2 {
		if got := observe(t, d); !got.equal(want) {
			t.Errorf("after compaction: %v, want %v", got, want)
		}
		d = reopen(t, d)
	}
	mustStore(t, d.LogStore(), entriesOf(6001, 6002, 9))
	d = reopen(t, d)
	wantFiles(t, d.opts.WALDir, logFile)
}

// A compaction that did not finish leaves a file that is removed.
func TestCompactionInterrupted(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	mustStore(t, d.LogStore(), entriesOf(1, 3, 1))
	touch(t, d.opts.WALDir, logFile+compactSuffix)
	d = reopen(t, d)
	wantLog(t, d.LogStore(), entriesOf(1, 3, 1))
	wantFiles(t, d.opts.WALDir, logFile)
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
