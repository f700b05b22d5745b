package disk

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

var (
	_ raft.LogStore          = (*LogStore)(nil)
	_ raft.MonotonicLogStore = (*LogStore)(nil)
)

// A log without holes: what may be appended, and what may be deleted.
func TestLogBounds(t *testing.T) { eachKind(t, testLogBounds) }

func testLogBounds(t *testing.T, kind Kind) {
	tests := []struct {
		name     string
		snapshot uint64 // index of the newest, 0 for none
		from, to uint64 // already in the log
		do       func(*LogStore) error
		wantErr  string
		want     []*raft.Log
	}{
		{name: "append next", from: 1, to: 5, do: storing(6, 7), want: entriesOf(1, 7, 1)},
		{name: "append nothing", from: 1, to: 5, do: func(l *LogStore) error { return l.StoreLogs(nil) }, want: entriesOf(1, 5, 1)},
		{name: "append leaves a hole", from: 1, to: 5, do: storing(7, 8), wantErr: "entry 7 cannot follow entry 5", want: entriesOf(1, 5, 1)},
		{name: "append over an entry", from: 1, to: 5, do: storing(5, 5), wantErr: "entry 5 cannot follow entry 5", want: entriesOf(1, 5, 1)},
		{name: "append out of order", from: 1, to: 5, do: func(l *LogStore) error {
			return l.StoreLogs([]*raft.Log{entry(6, 1), entry(8, 1)})
		}, wantErr: "entry 8 cannot follow entry 6", want: entriesOf(1, 5, 1)},
		{name: "first is not 1", do: storing(2, 3), wantErr: "entry 2 does not follow the newest snapshot, which ends with entry 0"},
		{name: "first is 0", do: storing(0, 0), wantErr: "empty log"},
		{name: "first after the snapshot", snapshot: 9, do: storing(10, 11), want: entriesOf(10, 11, 1)},
		{name: "first too far after it", snapshot: 9, do: storing(11, 12), wantErr: "entry 11 does not follow the newest snapshot, which ends with entry 9"},

		{name: "delete the beginning", snapshot: 5, from: 1, to: 9, do: deleting(1, 4), want: entriesOf(5, 9, 1)},
		{name: "delete from before the beginning", snapshot: 5, from: 1, to: 9, do: deleting(0, 4), want: entriesOf(5, 9, 1)},
		{name: "delete the end", from: 1, to: 9, do: deleting(6, 9), want: entriesOf(1, 5, 1)},
		{name: "delete beyond the end", from: 1, to: 9, do: deleting(6, 100), want: entriesOf(1, 5, 1)},
		{name: "delete all", from: 1, to: 9, do: deleting(1, 9)},
		{name: "delete more than all", from: 1, to: 9, do: deleting(0, 1<<63)},
		{name: "delete one", from: 1, to: 1, do: deleting(1, 1)},
		{name: "delete nothing", from: 1, to: 9, do: deleting(5, 4), want: entriesOf(1, 9, 1)},
		{name: "delete what is not there", from: 1, to: 9, do: deleting(10, 20), want: entriesOf(1, 9, 1)},
		{name: "delete from an empty log", do: deleting(1, 20)},
		{name: "delete in the middle", from: 1, to: 9, do: deleting(3, 4), wantErr: "leave a hole", want: entriesOf(1, 9, 1)},
		{name: "delete and append", from: 1, to: 9, do: func(l *LogStore) error {
			return errors.Join(l.DeleteRange(6, 9), l.StoreLogs(entriesOf(6, 7, 2)))
		}, want: append(entriesOf(1, 5, 1), entriesOf(6, 7, 2)...)},
		{name: "delete all and begin again", snapshot: 20, from: 1, to: 30, do: func(l *LogStore) error {
			return errors.Join(l.DeleteRange(1, 30), l.StoreLogs(entriesOf(21, 22, 2)))
		}, want: entriesOf(21, 22, 2)},
	}
	for _, cache := range []int64{0, 1} { // all in the cache, nothing in it
		for _, tt := range tests {
			t.Run(fmt.Sprintf("%s/cache=%d", tt.name, cache), func(t *testing.T) {
				d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, CacheBytes: cache})
				if tt.to > 0 {
					mustStore(t, d.LogStore(), entriesOf(tt.from, tt.to, 1))
				}
				if tt.snapshot > 0 {
					saveSnapshot(t, d, 1, tt.snapshot, "x")
				}
				err := tt.do(d.LogStore())
				if (err == nil) != (tt.wantErr == "") || (err != nil && !strings.Contains(err.Error(), tt.wantErr)) {
					t.Errorf("error = %v, want %q", err, tt.wantErr)
				}
				wantLog(t, d.LogStore(), tt.want)
				wantLog(t, reopen(t, d).LogStore(), tt.want)
			})
		}
	}
}

func storing(from, to uint64) func(*LogStore) error {
	return func(l *LogStore) error { return l.StoreLogs(entriesOf(from, to, 1)) }
}

func deleting(from, to uint64) func(*LogStore) error {
	return func(l *LogStore) error { return l.DeleteRange(from, to) }
}

// A long beginning is cut while entries are appended and read. Nobody sees a hole or a wrong entry.
func TestDeleteRangeUnderLoad(t *testing.T) { eachKind(t, testDeleteRangeUnderLoad) }

func testDeleteRangeUnderLoad(t *testing.T, kind Kind) {
	const old, added, batch = 10 * deleteChunk, 2000, 20
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, CacheBytes: 1})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, old, 1))
	saveSnapshot(t, d, 1, old, "x")

	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := uint64(old + 1); i <= old+added; i += batch {
			mustStore(t, l, entriesOf(i, i+batch-1, 2))
		}
	})
	for range 2 {
		wg.Go(func() {
			for n := uint64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				first, _ := l.FirstIndex()
				last, _ := l.LastIndex()
				index := first + n*7919%(last-first+1)
				var got raft.Log
				err := l.GetLog(index, &got)
				switch now, _ := l.FirstIndex(); {
				case err == raft.ErrLogNotFound && index < now:
				case err != nil || got.Index != index:
					t.Errorf("GetLog(%d) = %+v, %v with %d..%d", index, got, err, first, last)
					return
				}
			}
		})
	}
	// Snapshots cut the log a few times.
	for _, max := range []uint64{old / 2, old - 500} {
		first, _ := l.FirstIndex()
		if err := l.DeleteRange(first, max); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()

	want := append(entriesOf(old-499, old, 1), entriesOf(old+1, old+added, 2)...)
	wantLog(t, l, want)
	wantLog(t, reopen(t, d).LogStore(), want)
}

// What was deleted does not stay in the file.
func TestDeleteRangeFreesFile(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	l := d.LogStore()
	saveSnapshot(t, d, 1, 1<<40, "x")
	var pages []uint64
	for round := uint64(1); round <= 4; round++ {
		mustStore(t, l, entriesOf(1, 3*deleteChunk+7, round))
		if err := l.DeleteRange(1, 3*deleteChunk+7); err != nil {
			t.Fatal(err)
		}
		d = reopen(t, d)
		l = d.LogStore()
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		c, err := readLogFile(d.wal(logFile), 1<<30, true)
		if err != nil {
			t.Fatal(err)
		}
		if c.garbage != 0 || c.head.trim != 0 {
			t.Errorf("round %d: %d entries are left, trim %d", round, c.garbage, c.head.trim)
		}
		pages = append(pages, c.usedSize)
		d = openMember(t, d.opts)
		l = d.LogStore()
	}
	if pages[3] > pages[0]+64<<10 {
		t.Errorf("bytes in use grow from round to round: %d", pages)
	}
}

func TestEntriesWithin(t *testing.T) { eachKind(t, testEntriesWithin) }

func testEntriesWithin(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true})
	logs := entriesOf(1, 10, 1)
	logs[7].Data = make([]byte, 1<<20)
	mustStore(t, d.LogStore(), logs)
	for range 2 {
		l := d.LogStore()
		for _, tt := range []struct {
			bytes int64
			want  uint64
		}{{0, 0}, {100 << 10, 2}, {1 << 20, 2}, {2 << 20, 10}, {1 << 40, 10}} {
			if got := l.EntriesWithin(tt.bytes); got != tt.want {
				t.Errorf("EntriesWithin(%d) = %d, want %d", tt.bytes, got, tt.want)
			}
		}
		d = reopen(t, d)
	}
}

func TestEntryCache(t *testing.T) {
	c := newEntryCache(10 * cost(entry(1, 1)))
	has := func(from, to uint64) {
		t.Helper()
		for i := uint64(0); i < 60; i++ {
			var got raft.Log
			if ok := c.get(i, &got); ok != (i >= from && i <= to) || (ok && got.Index != i) {
				t.Fatalf("get(%d) = %v %+v, want %d..%d", i, ok, got, from, to)
			}
		}
		var bytes int64
		for _, e := range c.entries {
			bytes += cost(e)
		}
		if bytes != c.bytes || bytes > c.limit {
			t.Fatalf("holds %d bytes, counted %d, limit %d", bytes, c.bytes, c.limit)
		}
	}
	has(1, 0)
	c.add(entriesOf(1, 4, 1))
	has(1, 4)
	c.add(entriesOf(5, 12, 1)) // over the limit: the oldest go (two-digit entries are larger)
	has(4, 12)
	c.keep(6, 10)
	has(6, 10)
	c.add(entriesOf(11, 12, 2))
	has(6, 12)
	c.keep(1, 100)
	has(6, 12)
	c.keep(20, 30)
	has(1, 0)
	c.add(entriesOf(30, 31, 2))
	c.add(entriesOf(40, 41, 2)) // not next to those before
	has(40, 41)
	c.keep(0, 0)
	has(1, 0)
	c.add([]*raft.Log{{Index: 50, Data: make([]byte, 10000)}}) // larger than the cache
	has(1, 0)
	c.add(entriesOf(51, 52, 2))
	has(51, 52)
}

func TestClosedLog(t *testing.T) { eachKind(t, testClosedLog) }

func testClosedLog(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, OnCorrupt: func(err error) { t.Errorf("OnCorrupt(%v)", err) },
		OnFailure: func(err error) { t.Errorf("OnFailure(%v)", err) }})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 3, 1))
	if err := errors.Join(d.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	_, firstErr := l.FirstIndex()
	_, lastErr := l.LastIndex()
	_, bootErr := d.NextBoot()
	for name, err := range map[string]error{
		"FirstIndex": firstErr, "LastIndex": lastErr, "NextBoot": bootErr,
		"GetLog": l.GetLog(1, &raft.Log{}), "StoreLogs": l.StoreLogs(entriesOf(4, 4, 1)),
		"DeleteRange": l.DeleteRange(1, 1), "WriteIdentity": d.WriteIdentity(testIdentity()),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s after Close = %v, want %v", name, err, ErrClosed)
		}
	}
}

// Every kind of log entry comes back as it went in.
func TestEntryRoundTrip(t *testing.T) { eachKind(t, testEntryRoundTrip) }

func testEntryRoundTrip(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, CacheBytes: 1})
	logs := entriesOf(1, 9, 5)
	logs[0].Data, logs[1].Data = nil, []byte{}
	logs[2].Data = make([]byte, 70_000)
	logs[3].Extensions = make([]byte, 300)
	logs[4].Type = raft.LogConfiguration
	logs[5].AppendedAt = logs[5].AppendedAt.AddDate(-3000, 0, 0)
	logs[6].AppendedAt = logs[6].AppendedAt.Local()
	logs[7].Term, logs[8].Term = 1<<40, 1<<63
	for i := range logs {
		before := *logs[i]
		mustStore(t, d.LogStore(), logs[i:i+1])
		if !sameEntry(&before, logs[i]) {
			t.Errorf("StoreLogs changed entry %d to %+v", i+1, *logs[i])
		}
	}
	wantLog(t, d.LogStore(), logs)
	wantLog(t, reopen(t, d).LogStore(), logs)
}

// A log too long to be read at the start is checked entry by entry.
func TestVerifyBytes(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, VerifyBytes: 1})
	logs := entriesOf(1, 50, 1)
	mustStore(t, d.LogStore(), logs)
	wantLog(t, reopen(t, d).LogStore(), logs)
}
