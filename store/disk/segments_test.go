package disk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// segmented makes a log of several segments, of which the first was cut at its beginning and another
// one at its end, and returns what is in it. It is open.
func segmented(t testing.TB) (*Dir, []*raft.Log) {
	t.Helper()
	d := openMember(t, Options{LogStore: WAL, DataDir: t.TempDir(), NoSync: true, CacheBytes: 1, segmentSize: 2048})
	l, s := d.LogStore(), d.StableStore()
	for i := uint64(1); i <= 20; i++ {
		mustStore(t, l, entriesOf(3*i-2, 3*i, 1))
	}
	saveSnapshot(t, d, 1, 30, "x")
	if err := errors.Join(
		s.SetUint64([]byte("CurrentTerm"), 2),
		l.DeleteRange(50, 60),
		l.StoreLogs(entriesOf(50, 55, 2)),
		l.DeleteRange(1, 20),
		l.StoreLogs(entriesOf(56, 60, 2)),
		l.StoreLogs(entriesOf(61, 75, 2)), // four sectors
	); err != nil {
		t.Fatal(err)
	}
	return d, append(entriesOf(21, 49, 1), entriesOf(50, 75, 2)...)
}

func segmentPaths(t testing.TB, o Options) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(o.DataDir, "member", "wal", segmentsDir, "*.wal"))
	if err != nil || len(paths) < 3 {
		t.Fatalf("segments: %q, %v", paths, err)
	}
	return paths
}

// Many segments, with both ends cut, are the same log after a stop and after a crash. It can be
// written to in both cases.
func TestSegments(t *testing.T) {
	d, want := segmented(t)
	wantLog(t, d.LogStore(), want)
	for _, o := range []Options{killed(t, d), d.opts} {
		if o.DataDir == d.opts.DataDir {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := readAll(t, o); err != nil || !sameLogs(got, want) {
			t.Fatalf("offline: %d entries, %v", len(got), err)
		}
		o.segmentSize, o.CacheBytes = 2048, 1
		again := openMember(t, o)
		wantLog(t, again.LogStore(), want)
		more := append(append([]*raft.Log{}, want...), entriesOf(76, 90, 3)...)
		for _, e := range more[len(want):] {
			mustStore(t, again.LogStore(), []*raft.Log{e})
		}
		wantLog(t, again.LogStore(), more)
		wantLog(t, reopen(t, again).LogStore(), more)
	}
}

// What raft-wal writes down of its segments in the background is not undone by what we add to it.
func TestTableChangedAtOnce(t *testing.T) {
	d := openMember(t, Options{LogStore: WAL, DataDir: t.TempDir(), NoSync: true})
	s := d.LogStore().segments
	for i := range uint64(300) {
		state, err := s.Load("")
		if err != nil {
			t.Fatal(err)
		}
		state.NextSegmentID = 100 + i
		s.mu.Lock()
		s.last = i
		s.mu.Unlock()
		var both sync.WaitGroup
		var errs [2]error
		both.Go(func() { errs[0] = s.CommitState(state) })
		both.Go(func() { errs[1] = s.mark() })
		both.Wait()
		if err := errors.Join(errs[:]...); err != nil {
			t.Fatal(err)
		}
		value, _, err := d.LogStore().getSetting(segmentsKey)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeSegmentTable(value); err != nil || got.NextID != 100+i || got.Known != i {
			t.Fatalf("table %+v (%v), want next segment %d and entry %d", got, err, 100+i, i)
		}
	}
	s.last = 0
}

// One damaged bit in a segment is found, or is where it does not matter.
func TestFlipSegments(t *testing.T) {
	d, want := segmented(t)
	crashed := killed(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{d.opts, crashed} {
		var refused, harmless int
		for _, path := range segmentPaths(t, o) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			flipBits(t, path, info.Size(), 31, func(bit int64) {
				got, err := readAll(t, o)
				switch {
				case errors.Is(err, ErrDamaged):
					refused++
				case err != nil:
					t.Fatalf("%s, bit %d: %v", path, bit, err)
				case !sameLogs(got, want):
					t.Fatalf("%s, bit %d: %d entries, want %d", path, bit, len(got), len(want))
				default:
					harmless++
				}
			})
		}
		t.Logf("%d bits: %d refused, %d harmless", refused+harmless, refused, harmless)
		if refused == 0 || harmless == 0 {
			t.Error("the test did not reach both outcomes")
		}
	}
}

// The last batch, of which any of its sectors did not reach the disk, was never acknowledged. What
// is left of it is removed, and never comes back.
func TestTornBatch(t *testing.T) {
	d, want := segmented(t)
	o := killed(t, d)
	paths := segmentPaths(t, o)
	path := paths[len(paths)-1]
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(whole, "\x00"))
	b := readBatches(whole)
	start := 0
	for at, done := segmentHeaderSize, false; !done; {
		_, _, next, ok := readBatch(whole, start, at)
		if done = !ok || next == b.end; !done {
			start, at = next, next
		}
	}
	first, last := start/sectorSize, (end-1)/sectorSize
	if last-first < 2 {
		t.Fatalf("the last batch has the sectors %d to %d", first, last)
	}
	for lost := 1; lost < 1<<(last-first+1); lost++ {
		torn := bytes.Clone(whole)
		for i := range last - first + 1 {
			if lost&(1<<i) != 0 {
				from := max((first+i)*sectorSize, start)
				clear(torn[from : (first+i+1)*sectorSize])
			}
		}
		if err := os.WriteFile(path, torn, fileMode); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(t, o); err != nil || !sameLogs(got, want[:len(want)-15]) {
			t.Fatalf("sectors lost %b: %d entries, %v", lost, len(got), err)
		}
		if lost%5 != 0 {
			continue
		}
		again := openMember(t, Options{DataDir: copyDir(t, o.DataDir), NoSync: true, CacheBytes: 1})
		mustStore(t, again.LogStore(), entriesOf(61, 61, 4))
		wantLog(t, reopen(t, again).LogStore(), append(append([]*raft.Log{}, want[:len(want)-15]...), entry(61, 4)))
	}
}

func TestDamagedSegments(t *testing.T) {
	cut := func(n int64) func(*testing.T, string, []string) error {
		return func(_ *testing.T, _ string, paths []string) error { return os.Truncate(paths[len(paths)-1], n) }
	}
	tests := []struct {
		name   string
		damage func(t *testing.T, dir string, paths []string) error
		want   string
	}{
		{"the first is missing", func(_ *testing.T, _ string, p []string) error { return os.Remove(p[0]) }, "it is missing, with the entries from 21 on"},
		{"the last is missing", func(_ *testing.T, _ string, p []string) error { return os.Remove(p[len(p)-1]) }, "it is missing, with the entries from "},
		{"all are missing", func(_ *testing.T, dir string, _ []string) error {
			return os.RemoveAll(filepath.Join(dir, "member", "wal", segmentsDir))
		}, "it is missing, with the entries from 21 on"},
		{"the last is empty", cut(0), "it is empty; the entries from "},
		{"the last ends early", cut(1500), "is damaged"},
		{"the last has lost its zeros", cut(2040), "it is cut off: it was made with 2048 bytes"},
		{"one of another member", func(_ *testing.T, _ string, p []string) error {
			data, err := os.ReadFile(p[0])
			return errors.Join(err, os.WriteFile(p[1], data, fileMode))
		}, "is damaged"},
		{"one that raft.db cannot know", func(_ *testing.T, _ string, p []string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p[0]), "00000000000000000099-0000000000000099.wal"), nil, fileMode)
		}, "it is older than the log beside it"},
		{"a strange name", func(_ *testing.T, _ string, p []string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(p[0]), "x.wal"), nil, fileMode)
		}, "its name is not that of a segment"},
	}
	d, _ := segmented(t)
	crashed := killed(t, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		for _, from := range []string{d.opts.DataDir, crashed.DataDir} {
			t.Run(tt.name, func(t *testing.T) {
				o := Options{DataDir: copyDir(t, from)}
				if err := tt.damage(t, o.DataDir, segmentPaths(t, o)); err != nil {
					t.Fatal(err)
				}
				d, err := Open(o)
				if err == nil {
					_ = d.Close()
				}
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Open: %v, want %q", err, tt.want)
				}
				if r, err := Verify(o.DataDir, ""); err != nil || len(r.Problems) == 0 {
					t.Errorf("Verify: %v, %v", r.Problems, err)
				}
			})
		}
	}
}

// An old copy of raft.db has forgotten votes, so it is refused.
func TestOldSettingsBesideSegments(t *testing.T) {
	d := openMember(t, Options{LogStore: WAL, DataDir: t.TempDir(), NoSync: true})
	mustStore(t, d.LogStore(), entriesOf(1, 3, 1))
	old := filepath.Join(t.TempDir(), "old")
	if err := errors.Join(copyFile(old, d.wal(logFile)),
		d.StableStore().SetUint64([]byte("CurrentTerm"), 7),
		d.LogStore().StoreLogs(entriesOf(4, 4, 7)), d.Close(), copyFile(d.wal(logFile), old)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d.opts); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "it is older than the log beside it: a state it once had") {
		t.Errorf("Open: %v", err)
	}
}

// A crash after a segment was sealed and before raft.db was told leaves a segment that cannot be
// written to any more. The next start begins another one.
func TestSealedWithoutTable(t *testing.T) {
	d := openMember(t, Options{LogStore: WAL, DataDir: t.TempDir(), NoSync: true, segmentSize: 2048})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 2, 1))
	before := filepath.Join(t.TempDir(), "before")
	if err := copyFile(before, d.wal(logFile)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, l, entriesOf(3, 60, 1)) // more than fits
	o := killed(t, d)
	if err := copyFile(o.logFile(), before); err != nil {
		t.Fatal(err)
	}
	// The segment that raft.db does not know yet was not made either.
	for _, path := range segmentPathsAny(t, o)[1:] {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	o.segmentSize = 2048
	again := openMember(t, o)
	wantLog(t, again.LogStore(), entriesOf(1, 60, 1))
	mustStore(t, again.LogStore(), entriesOf(61, 62, 1))
	wantLog(t, reopen(t, again).LogStore(), entriesOf(1, 62, 1))
}

func segmentPathsAny(t testing.TB, o Options) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(o.DataDir, "member", "wal", segmentsDir, "*.wal"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("segments: %q, %v", paths, err)
	}
	return paths
}

func TestWrongKind(t *testing.T) {
	for have, want := range map[Kind]Kind{BoltDB: WAL, WAL: BoltDB} {
		d := openMember(t, Options{LogStore: have, DataDir: t.TempDir(), NoSync: true})
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Options{LogStore: want, DataDir: d.opts.DataDir})
		for _, part := range []string{`of the kind "` + string(have) + `"`, `--log-store is "` + string(want) + `"`,
			"quorate convert-log " + d.opts.DataDir + " --to " + string(want)} {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("Open: %v, want %q", err, part)
			}
		}
	}
}

// A log is the same after it has become one of the other kind, and back.
func TestConvert(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		other := map[Kind]Kind{BoltDB: WAL, WAL: BoltDB}[kind]
		d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true})
		l, s := d.LogStore(), d.StableStore()
		mustStore(t, l, entriesOf(1, 5000, 1))
		saveSnapshot(t, d, 1, 500, "x")
		if err := errors.Join(l.DeleteRange(1, 400), s.SetUint64([]byte("CurrentTerm"), 4), s.Set([]byte("x"), []byte("y"))); err != nil {
			t.Fatal(err)
		}
		want := observe(t, d)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		for _, to := range []Kind{other, other, kind} {
			converted, err := Convert(ConvertOptions{DataDir: d.opts.DataDir, To: to})
			if err != nil {
				t.Fatalf("Convert to %s: %v", to, err)
			}
			o := d.opts
			o.LogStore = to
			now := openMember(t, o)
			if got := observe(t, now); !got.equal(want) {
				t.Fatalf("as %s: %v, want %v", to, got, want)
			}
			mustStore(t, now.LogStore(), entriesOf(uint64(len(want.logs))+401, uint64(len(want.logs))+401, 4))
			want = observe(t, now)
			if err := now.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := Verify(o.DataDir, ""); err != nil || len(r.Problems) > 0 {
				t.Fatalf("Verify: %v, %v", r.Problems, err)
			}
			t.Logf("to %s: %v", to, converted)
		}
	})
}

// A conversion that was interrupted leaves the old log.
func TestConvertInterrupted(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		other := map[Kind]Kind{BoltDB: WAL, WAL: BoltDB}[kind]
		d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true})
		mustStore(t, d.LogStore(), entriesOf(1, 30, 1))
		d = reopen(t, d) // the journal is in raft.db
		if err := d.copyLog(d.wal(logFile+convertSuffix), other); err != nil {
			t.Fatal(err)
		}
		wantLog(t, reopen(t, d).LogStore(), entriesOf(1, 30, 1))
	})
}

// A disk that is full ends all writing, also when it is noticed in the background.
func TestSegmentsDiskFull(t *testing.T) {
	failed := make(chan error, 8)
	d := openMember(t, Options{LogStore: WAL, DataDir: t.TempDir(), NoSync: true, segmentSize: 2048,
		OnFailure: func(err error) { failed <- err }})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 2, 1))
	// No name is left for a new segment.
	dir := d.wal(segmentsDir)
	if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, fileMode)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, l, entriesOf(3, 60, 1))
	err := <-failed
	if !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("OnFailure: %v", err)
	}
	if again := l.StoreLogs(entriesOf(61, 61, 1)); again == nil || again.Error() != err.Error() {
		t.Errorf("StoreLogs: %v, want %v", again, err)
	}
}

// An entry survives being encoded by raft-wal.
func TestParseSegmentEntry(t *testing.T) {
	if _, err := parseSegmentEntry(nil); err == nil {
		t.Error("nothing is an entry")
	}
	d, want := segmented(t)
	got, err := readAll(t, killed(t, d))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%d entries differ from %d: %v", len(got), len(want), err)
	}
}

func FuzzReadBatches(f *testing.F) {
	d, _ := segmented(f)
	for _, path := range segmentPaths(f, d.opts) {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := readBatches(data)
		if b.end > len(data) {
			t.Fatalf("it ends at %d of %d", b.end, len(data))
		}
		b.rest(data)
		for _, e := range b.entries {
			_, _ = parseSegmentEntry(e)
		}
	})
}
