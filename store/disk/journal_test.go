package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// manual is a journal of small segments from which nothing is moved until the test says so.
func manual() journalOptions {
	return journalOptions{manual: true, firstSegment: 16 * sectorSize, maxSegment: 16 * sectorSize}
}

// killed returns options for a copy of a directory that is in use, as if its process had been
// killed.
func killed(t testing.TB, d *Dir) Options {
	t.Helper()
	return Options{DataDir: copyDir(t, d.opts.DataDir), NoSync: true, CacheBytes: 1, journal: manual()}
}

// copyDir copies a directory, without filling the holes of its files: raft.db is mostly that.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := t.TempDir()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(from, path)
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), dirMode)
		}
		return copyFile(filepath.Join(to, name), path)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func copyFile(to, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fileMode)
	if err == nil {
		err = dst.Truncate(info.Size())
	}
	for at := int64(0); err == nil && at < info.Size(); {
		var end int64
		if at, err = src.Seek(at, unix.SEEK_DATA); errors.Is(err, syscall.ENXIO) {
			err = nil // no more data
			break
		}
		if err == nil {
			end, err = src.Seek(at, unix.SEEK_HOLE)
		}
		if err == nil {
			_, err = io.Copy(io.NewOffsetWriter(dst, at), io.NewSectionReader(src, at, end-at))
		}
		at = end
	}
	return errors.Join(err, dst.Close())
}

func (o Options) segment(number uint64) string {
	return segmentPath(filepath.Join(o.DataDir, "member", "wal", logFile), number)
}

func (o Options) logFile() string { return filepath.Join(o.DataDir, "member", "wal", logFile) }

// readAll returns what the offline readers see.
func readAll(t testing.TB, o Options) ([]*raft.Log, error) {
	t.Helper()
	var logs []*raft.Log
	err := ReadLog(o.DataDir, "", func(l *raft.Log) error { logs = append(logs, l); return nil })
	return logs, err
}

func sameLogs(a, b []*raft.Log) bool { return model{logs: a}.equal(model{logs: b}) }

// Entries in the journal only are there for everyone.
func TestJournal(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, CacheBytes: 1, journal: manual()})
	l := d.LogStore()
	var want []*raft.Log
	for i := uint64(1); i <= 40; i += 4 {
		mustStore(t, l, entriesOf(i, i+3, 1))
		want = append(want, entriesOf(i, i+3, 1)...)
		wantLog(t, l, want)
		if i == 13 {
			if err := moveAll(l); err != nil {
				t.Fatal(err)
			}
			wantLog(t, l, want)
		}
	}
	if l.head.last != 16 || l.Durable() != 40 || l.EntriesWithin(1<<20) != 40 {
		t.Errorf("raft.db ends with %d, the log with %d, want 16, 40", l.head.last, l.Durable())
	}

	o := killed(t, d)
	before := treeHash(t, o.DataDir)
	if got, err := readAll(t, o); err != nil || !sameLogs(got, want) {
		t.Errorf("ReadLog = %d entries, %v", len(got), err)
	}
	if s, err := Summarize(o.DataDir, ""); err != nil || s.FirstIndex != 1 || s.LastIndex != 40 || s.LastTerm != 1 {
		t.Errorf("Summarize = %+v, %v", s, err)
	}
	if r, err := Verify(o.DataDir, ""); err != nil || len(r.Problems) > 0 || r.Entries != 40 || r.LogBytes == 0 {
		t.Errorf("Verify = %+v, %v", r, err)
	}
	if treeHash(t, o.DataDir) != before {
		t.Error("a reader has changed something")
	}
	k := openMember(t, o)
	wantLog(t, k.LogStore(), want)
	wantFiles(t, filepath.Dir(o.logFile()), logFile)

	wantLog(t, reopen(t, d).LogStore(), want)
	wantFiles(t, d.opts.WALDir, logFile)
}

// A file that is mostly free pages is compacted while entries wait in the journal.
func TestJournalCompaction(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: manual()})
	l := d.LogStore()
	logs := entriesOf(1, 4000, 1)
	for _, e := range logs {
		e.Data = append(e.Data, make([]byte, 5000)...)
	}
	mustStore(t, l, logs)
	saveSnapshot(t, d, 1, 3990, "x")
	if err := errors.Join(moveAll(l), l.DeleteRange(1, 3990)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, l, entriesOf(4001, 4010, 2))
	o := killed(t, d)
	o.compactAbove = 1 << 20
	before := fileSize(t, o.logFile())
	k := openMember(t, o)
	if after := fileSize(t, o.logFile()); after >= before {
		t.Errorf("size = %d, was %d", after, before)
	}
	wantLog(t, reopen(t, k).LogStore(), append(logs[3990:], entriesOf(4001, 4010, 2)...))
}

// fullFiles has room for so many bytes.
type fullFiles struct {
	osFiles
	mu   sync.Mutex
	room int64
}

type fullFile struct {
	journalFile
	files *fullFiles
}

func (f *fullFiles) create(path string) (journalFile, error) {
	file, err := f.osFiles.create(path)
	return &fullFile{file, f}, err
}

func (f *fullFile) WriteAt(b []byte, at int64) (int, error) {
	f.files.mu.Lock()
	defer f.files.mu.Unlock()
	if f.files.room -= int64(len(b)); f.files.room < 0 {
		return 0, &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	}
	return f.journalFile.WriteAt(b, at)
}

// A disk that is full ends the member, which loses nothing.
func TestJournalDiskFull(t *testing.T) {
	for _, room := range []int64{0, 1 * sectorSize, 17 * sectorSize, 20 * sectorSize, 60 * sectorSize} {
		for _, inBackground := range []bool{false, true} {
			t.Run(fmt.Sprintf("room=%d/background=%v", room, inBackground), func(t *testing.T) {
				var reported []error
				o := Options{DataDir: t.TempDir(), NoSync: true, journal: manual(), OnFailure: func(err error) { reported = append(reported, err) }}
				o.journal.manual = !inBackground
				o.journal.files = &fullFiles{osFiles: osFiles{true}, room: room}
				d := openMember(t, o)
				l := d.LogStore()
				var stored uint64
				var err error
				for err == nil && stored < 1000 {
					if err = l.StoreLogs(entriesOf(stored+1, stored+1, 1)); err == nil {
						stored++
					}
				}
				if !errors.Is(err, syscall.ENOSPC) || !strings.HasPrefix(err.Error(), "write to "+d.wal("journal-")) {
					t.Fatalf("StoreLogs = %v, want no space left", err)
				}
				if again := l.StoreLogs(entriesOf(stored+1, stored+1, 1)); again == nil || again.Error() != err.Error() {
					t.Errorf("StoreLogs after it = %v, want the same", again)
				}
				if set := d.StableStore().Set([]byte("k"), []byte("v")); set == nil || set.Error() != err.Error() {
					t.Errorf("Set after it = %v, want the same", set)
				}
				if len(reported) != 1 || reported[0].Error() != err.Error() {
					t.Errorf("OnFailure got %v, want %v once", reported, err)
				}
				wantLog(t, l, entriesOf(1, stored, 1)) // reading goes on
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				o.journal = journalOptions{}
				wantLog(t, openMember(t, o).LogStore(), entriesOf(1, stored, 1))
			})
		}
	}
}

// stuckFiles holds back the next write.
type stuckFiles struct {
	osFiles
	release chan struct{}
}

type stuckFile struct {
	journalFile
	files *stuckFiles
}

func (s *stuckFiles) create(path string) (journalFile, error) {
	f, err := s.osFiles.create(path)
	return &stuckFile{f, s}, err
}

func (s *stuckFile) Sync() error {
	if s.files.release != nil {
		<-s.files.release
	}
	return s.journalFile.Sync()
}

func TestJournalStall(t *testing.T) {
	stalled := make(chan string, 10)
	stuck := &stuckFiles{osFiles: osFiles{true}}
	o := Options{DataDir: t.TempDir(), NoSync: true, journal: manual(), OnStall: func(op string, _ time.Duration) { stalled <- op }}
	o.journal.files = stuck
	d := openMember(t, o)
	mustStore(t, d.LogStore(), entriesOf(1, 1, 1))
	stuck.release = make(chan struct{})
	d.log.watchdog.limit = time.Millisecond
	done := make(chan error)
	go func() { done <- d.LogStore().StoreLogs(entriesOf(2, 2, 1)) }()
	if op := <-stalled; op != "append" {
		t.Errorf("OnStall(%q), want append", op)
	}
	close(stuck.release)
	if err := <-done; err != nil {
		t.Errorf("StoreLogs = %v", err)
	}
	wantLog(t, d.LogStore(), entriesOf(1, 2, 1))
}

// moved waits until all entries are in raft.db.
func moved(t *testing.T, l *LogStore) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		l.mu.RLock()
		waiting, failed := len(l.pending), l.failed
		l.mu.RUnlock()
		if waiting == 0 && failed == nil {
			return
		}
		if failed != nil || time.Now().After(deadline) {
			t.Fatalf("%d records were not moved, %v", waiting, failed)
		}
	}
}

// Entries go into raft.db when no more come, and then nothing happens any more.
func TestMoveWhenIdle(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 5, 1))
	moved(t, l)
	mustStore(t, l, entriesOf(6, 9, 1))
	moved(t, l)
	before := treeHash(t, d.opts.DataDir)
	time.Sleep(2 * moveIdle) // nothing to wait for: nothing should happen
	if treeHash(t, d.opts.DataDir) != before {
		t.Error("an idle log writes")
	}
	if l.head.last != 9 {
		t.Errorf("raft.db ends with entry %d, want 9", l.head.last)
	}
	wantLog(t, l, entriesOf(1, 9, 1))
}

// Appends, reads, deletions, settings and restarts, with everything in the background.
func TestJournalSoak(t *testing.T) {
	o := Options{DataDir: t.TempDir(), NoSync: true, CacheBytes: 1 << 16, journal: journalOptions{firstSegment: 1 << 14, maxSegment: 1 << 17}}
	d := openMember(t, o)
	const rounds, perRound, batch = 3, 4500, 30
	next := uint64(1)
	terms := map[uint64]uint64{} // of each entry that is there
	var first uint64
	for round := uint64(1); round <= rounds; round++ {
		l := d.LogStore()
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for reader := range uint64(2) {
			wg.Go(func() {
				for n := reader; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					first, _ := l.FirstIndex()
					last, _ := l.LastIndex()
					if first == 0 || last < first {
						continue // between the two calls everything was deleted
					}
					index := first + n*7919%(last-first+1)
					var got raft.Log
					err := l.GetLog(index, &got)
					// It may have been deleted in between.
					if err != nil && err != raft.ErrLogNotFound || err == nil && !sameEntry(&got, entry(index, got.Term)) {
						t.Errorf("GetLog(%d) = %+v, %v with %d..%d", index, got, err, first, last)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for n := uint64(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := d.StableStore().SetUint64([]byte("CurrentTerm"), round<<32|n); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
		for i := 0; i < perRound; i += batch {
			mustStore(t, l, entriesOf(next, next+batch-1, round))
			for j := next; j < next+batch; j++ {
				terms[j] = round
			}
			if first == 0 {
				first = next
			}
			next += batch
			switch i / batch % 50 {
			case 20: // the beginning, mostly in raft.db, then mostly in the journal
				max := first + (next-first)*uint64(1+i%3)/4
				saveSnapshot(t, d, terms[max], max, "so that the log may be cut")
				if err := l.DeleteRange(first, max); err != nil {
					t.Fatal(err)
				}
				first = max + 1
			case 40: // the end
				if err := l.DeleteRange(next-batch-5, next+100); err != nil {
					t.Fatal(err)
				}
				next -= batch + 5
			}
		}
		close(stop)
		wg.Wait()
		want := func(l *LogStore) {
			t.Helper()
			var logs []*raft.Log
			for i := first; i < next; i++ {
				logs = append(logs, entry(i, terms[i]))
			}
			wantLog(t, l, logs)
		}
		want(l)
		if round%2 == 0 {
			moved(t, l)
		}
		d = reopen(t, d)
		want(d.LogStore())
		wantFiles(t, d.opts.WALDir, logFile)
		if term := number(t, d.StableStore(), "CurrentTerm"); term>>32 != round {
			t.Errorf("CurrentTerm = %x after round %d", term, round)
		}
	}
}

// A member that is killed again and again, at any moment of its work, has what it has stored.
func TestJournalKilledAgain(t *testing.T) {
	o := Options{DataDir: t.TempDir(), NoSync: true, journal: manual()}
	var want []*raft.Log
	for round := uint64(1); round <= 12; round++ {
		d := openMember(t, o)
		wantLog(t, d.LogStore(), want)
		for i := range round % 5 {
			last := uint64(len(want))
			more := entriesOf(last+1, last+1+10*i, round)
			mustStore(t, d.LogStore(), more)
			want = append(want, more...)
			if round%3 == i {
				if _, err := d.LogStore().moveSome(); err != nil {
					t.Fatal(err)
				}
			}
		}
		o = killed(t, d)
	}
	wantLog(t, openMember(t, o).LogStore(), want)
}

// What is stored is what was given, whatever becomes of the slice.
func TestJournalSliceReused(t *testing.T) { eachKind(t, testJournalSliceReused) }

func testJournalSliceReused(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, CacheBytes: 1, journal: manual()})
	logs := make([]*raft.Log, 2)
	for i := uint64(1); i < 20; i += 2 {
		logs[0], logs[1] = entry(i, 1), entry(i+1, 1)
		mustStore(t, d.LogStore(), logs)
	}
	wantLog(t, d.LogStore(), entriesOf(1, 20, 1))
	wantLog(t, reopen(t, d).LogStore(), entriesOf(1, 20, 1))
}

// An entry that is changed in memory after it was stored is noticed before it gets into raft.db.
func TestJournalEntryChanged(t *testing.T) {
	var reported error
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: manual(), OnFailure: func(err error) { reported = err }})
	logs := entriesOf(1, 2, 1)
	mustStore(t, d.LogStore(), logs)
	logs[1].Data[0] ^= 1
	err := moveAll(d.LogStore())
	if err == nil || !strings.Contains(err.Error(), "entries 1 to 2 were changed after they had been stored") || reported == nil {
		t.Errorf("move = %v, OnFailure %v", err, reported)
	}
	o := killed(t, d)
	wantLog(t, openMember(t, o).LogStore(), entriesOf(1, 2, 1))
}

func TestRecordRoundTrip(t *testing.T) {
	logs := entriesOf(7, 12, 3)
	logs[0].Data, logs[1].Data = nil, []byte{}
	logs[2].Data, logs[3].Extensions = make([]byte, 3000), bytes.Repeat([]byte{markRecord}, 700)
	logs[4].Type, logs[4].Term = raft.LogConfiguration, 1<<63
	logs[5].AppendedAt = time.Time{}
	r := &record{number: 9, before: 1, serial: 1 << 40, prev: 77, logs: logs}
	r.last = r.prev
	for _, e := range logs {
		r.last = sealOf(e, r.last)
	}
	payload := r.encode(nil)
	if len(payload) > recordSize(logs) {
		t.Errorf("%d bytes, recordSize says %d", len(payload), recordSize(logs))
	}
	framed := frame(nil, payload)
	for i := 0; i < len(framed); i += sectorSize {
		if framed[i] == 0 {
			t.Errorf("sector %d has no mark", i/sectorSize)
		}
	}
	got, err := decodeRecord(unframe(framed)[:len(payload)])
	if err != nil {
		t.Fatal(err)
	}
	if got.number != 9 || got.before != 1 || got.serial != 1<<40 || got.prev != 77 || got.last != r.last || got.seal != r.seal || !sameLogs(got.logs, logs) {
		t.Errorf("record = %+v, want %+v", got, r)
	}
	if got.logs[0].Data != nil || got.logs[1].Data == nil || !got.logs[5].AppendedAt.IsZero() {
		t.Error("nil, empty or no time has become something else")
	}
}
