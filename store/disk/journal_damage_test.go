package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// A record whose write was interrupted is cut off; one that was changed afterwards is refused.
func TestTornRecord(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: manual()})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 3, 1))
	at := l.journal.at
	mustStore(t, l, entriesOf(4, 45, 1)) // three sectors
	size := l.journal.at - at
	if size != 3*sectorSize {
		t.Fatalf("the last record takes %d bytes", size)
	}
	o := killed(t, d)
	path := o.segment(1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	without, with := entriesOf(1, 3, 1), entriesOf(1, 45, 1)

	check := func(name string, data []byte) {
		t.Helper()
		patch(t, path, 0, data)
		want := with
		for s := at; s < at+size; s += sectorSize {
			if isZero(data[s : s+sectorSize]) {
				want = without
			}
		}
		c, err := readJournal(o.logFile(), l.head)
		var got []*raft.Log
		if err == nil {
			for _, r := range c.records {
				got = append(got, r.logs...)
			}
		}
		// Sectors are written whole. A part of one is refused if it lacks the mark or the length.
		half := data[at] != 0 && !bytes.Equal(data[at:at+5], whole[at:at+5])
		for s := at; s < at+size; s += sectorSize {
			half = half || data[s] == 0 && !isZero(data[s:s+sectorSize])
		}
		if half || (len(want) == len(with) && !bytes.Equal(data, whole)) {
			part := fmt.Sprintf("%s is damaged: record at byte %d, entry 4: ", path, at)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), part) {
				t.Fatalf("%s: %v, want damage", name, err)
			}
			return
		}
		if err != nil || !sameLogs(got, want) {
			t.Fatalf("%s: %d entries, %v, want %d", name, len(got), err, len(want))
		}
	}
	for n := int64(0); n <= size; n++ {
		front, back := bytes.Clone(whole), bytes.Clone(whole)
		clear(front[at+n : at+size])
		clear(back[at : at+size-n])
		check(fmt.Sprintf("only the first %d bytes written", n), front)
		check(fmt.Sprintf("only the last %d bytes written", n), back)
	}
	middle := bytes.Clone(whole)
	clear(middle[at+sectorSize : at+2*sectorSize])
	check("the middle is missing", middle)

	if got, err := readAll(t, o); err != nil || !sameLogs(got, without) {
		t.Fatalf("ReadLog = %d entries, %v", len(got), err)
	}
	// After the cut the log goes on.
	k := openMember(t, o)
	wantLog(t, k.LogStore(), without)
	mustStore(t, k.LogStore(), entriesOf(4, 5, 2))
	wantLog(t, reopen(t, k).LogStore(), append(without, entriesOf(4, 5, 2)...))
}

// A bit that is wrong, in the journal or in raft.db, is found or does not matter.
func TestFlipJournal(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: manual()})
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 12, 1))
	if err := errors.Join(moveAll(l), d.StableStore().SetUint64([]byte("CurrentTerm"), 4), l.DeleteRange(11, 12)); err != nil {
		t.Fatal(err)
	}
	mustStore(t, l, entriesOf(11, 40, 4))
	mustStore(t, l, entriesOf(41, 200, 4)) // another segment
	mustStore(t, l, entriesOf(201, 203, 4))
	want := append(entriesOf(1, 10, 1), entriesOf(11, 203, 4)...)
	o := killed(t, d)
	settings, err := readLogFile(o.logFile(), 1<<30, true)
	if err != nil {
		t.Fatal(err)
	}

	var refused, harmless int
	check := func(bit int64) {
		t.Helper()
		got, err := readAll(t, o)
		if errors.Is(err, ErrDamaged) {
			refused++
			return
		}
		if err != nil || !sameLogs(got, want) {
			t.Fatalf("bit %d: %d entries, %v", bit, len(got), err)
		}
		c, err := readLogFile(o.logFile(), 0, true)
		if err != nil || !bytes.Equal(c.head.settings, settings.head.settings) {
			t.Fatalf("bit %d: settings %q, %v", bit, c.head.settings, err)
		}
		harmless++
	}
	check(-1)
	for _, file := range []struct {
		path   string
		stride int64
	}{{o.segment(1), 61}, {o.segment(2), 131}, {o.logFile(), 251}} {
		refused, harmless = 0, 0
		n := min(fileSize(t, file.path), 10*4096)
		flipBits(t, file.path, n, file.stride, check)
		t.Logf("%s: %d refused, %d harmless", filepath.Base(file.path), refused, harmless)
		if refused == 0 {
			t.Errorf("nothing in %s was refused", file.path)
		}
	}
}

// What can happen to the files of a log besides a wrong bit. Open, Verify and ReadLog refuse it and
// name file, place and entry.
func TestDamagedJournal(t *testing.T) {
	// The member whose files are damaged: raft.db has 1..4, journal-1 up to 30, journal-2 the rest.
	// Its past is kept from time to time.
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: manual()})
	l := d.LogStore()
	past := map[string]Options{"new": killed(t, d)}
	mustStore(t, l, entriesOf(1, 2, 1))
	past["early"] = killed(t, d)
	mustStore(t, l, entriesOf(3, 4, 1))
	if err := moveAll(l); err != nil {
		t.Fatal(err)
	}
	mustStore(t, l, entriesOf(5, 6, 1))
	past["before the vote"] = killed(t, d)
	if err := d.StableStore().SetUint64([]byte("CurrentTerm"), 7); err != nil {
		t.Fatal(err)
	}
	past["after the vote"] = killed(t, d)
	at := l.journal.at
	mustStore(t, l, entriesOf(7, 10, 1))
	after := l.journal.at
	mustStore(t, l, entriesOf(11, 30, 1))
	mustStore(t, l, entriesOf(31, 200, 1))
	mustStore(t, l, entriesOf(201, 203, 1))
	end := l.journal.at - sectorSize
	if err := d.StableStore().SetUint64([]byte("CurrentTerm"), 8); err != nil {
		t.Fatal(err)
	}

	other := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: manual()})
	mustStore(t, other.LogStore(), entriesOf(1, 4, 1))
	stranger := killed(t, other)

	from := func(source, to string) {
		if err := copyFile(to, source); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		damage func(o Options)
		file   int // the segment that is blamed, 0 for raft.db
		want   string
	}{
		{"journal missing", func(o Options) { _, _ = os.Remove(o.segment(1)), os.Remove(o.segment(2)) }, 1,
			"it is missing, with the entries from 5 on"},
		{"first segment missing", func(o Options) { _ = os.Remove(o.segment(1)) }, 1, "it is missing, with the entries from 5 on"},
		{"second segment missing", func(o Options) { _ = os.Remove(o.segment(2)) }, 1,
			"it ends with record 5, but RAFTDB knows of record 7: the entries from 31 on are missing"},
		{"a segment between missing", func(o Options) { _ = os.Rename(o.segment(2), o.segment(3)) }, 2, "it is missing"},
		{"segment twice", func(o Options) { from(o.segment(2), o.segment(3)) }, 3, "it is segment 2, under a wrong name"},
		{"segments exchanged", func(o Options) {
			from(o.segment(1), o.segment(9))
			from(o.segment(2), o.segment(1))
			from(o.segment(9), o.segment(2))
			_ = os.Remove(o.segment(9))
		}, 1, "it is segment 2, under a wrong name"},
		{"journal of another member", func(o Options) { from(stranger.segment(1), o.segment(1)) }, 1,
			"it is not of the journal that RAFTDB names"},
		{"raft.db of another member", func(o Options) { from(stranger.logFile(), o.logFile()) }, 1,
			"it is not of the journal that RAFTDB names"},
		{"raft.db from before the journal", func(o Options) { from(past["new"].logFile(), o.logFile()) }, 1,
			"RAFTDB does not know of it: one of the two is of another member, or an old copy"},
		{"raft.db from before the vote", func(o Options) { from(past["before the vote"].logFile(), o.logFile()) }, 0,
			"it is older than the journal beside it: a state it once had, number "},
		{"raft.db from before a move and the vote", func(o Options) { from(past["early"].logFile(), o.logFile()) }, 0,
			"it is older than the journal beside it: a state it once had, number "},
		{"journal from before", func(o Options) { from(past["before the vote"].segment(1), o.segment(1)); _ = os.Remove(o.segment(2)) }, 1,
			"it ends with record 3, but RAFTDB knows of record 7: the entries from 7 on are missing"},
		{"journal from before the move", func(o Options) { from(past["early"].segment(1), o.segment(1)) }, 1,
			"record at byte 1024, entry 4: it is gone, but RAFTDB has taken it from there"},
		{"cut off", func(o Options) { _ = os.Truncate(o.segment(2), 5*sectorSize) }, 2, "it was made with "},
		{"longer", func(o Options) { _ = os.Truncate(o.segment(1), 32*sectorSize) }, 1, "it was made with 8192 bytes and has 16384"},
		{"empty", func(o Options) { _ = os.Truncate(o.segment(1), 0) }, 1, "the header is cut off"},
		{"zeros", func(o Options) { patch(t, o.segment(1), 0, make([]byte, 16*sectorSize)) }, 1, "header: checksum does not match"},
		{"record in the middle gone", func(o Options) { patch(t, o.segment(1), at, make([]byte, sectorSize)) }, 1,
			fmt.Sprintf("record at byte %d, entry 7: it is incomplete, and another one follows it", at)},
		{"record in the middle changed", func(o Options) { patch(t, o.segment(1), at+100, []byte("?")) }, 1,
			fmt.Sprintf("record at byte %d, entry 7: checksum does not match", at)},
		{"part of a record gone", func(o Options) { patch(t, o.segment(2), 2*sectorSize, make([]byte, sectorSize)) }, 2,
			"record at byte 512, entry 31: it is incomplete, and something follows it"},
		{"record in another place", func(o Options) {
			data, _ := os.ReadFile(o.segment(1))
			patch(t, o.segment(1), after, data[at:after])
		}, 1, fmt.Sprintf("record at byte %d, entry 11: record 4 does not follow record 4", after)},
		{"sector of something else", func(o Options) { patch(t, o.segment(1), at, []byte("text")) }, 1,
			fmt.Sprintf("record at byte %d, entry 7: a sector begins with 0x74", at)},
		{"the last record gone, which raft.db knows", func(o Options) { patch(t, o.segment(2), end, make([]byte, sectorSize)) }, 2,
			"it ends with record 6, but RAFTDB knows of record 7: the entries from 201 on are missing"},
		{"something far behind the end", func(o Options) { patch(t, o.segment(2), end+3*sectorSize, []byte{markMore, 1}) }, 2,
			""}, // as if written by a record whose beginning is missing
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := killed(t, d)
			tt.damage(o)
			file := o.logFile()
			if tt.file > 0 {
				file = o.segment(uint64(tt.file))
			}
			if tt.want == "" {
				wantLog(t, openMember(t, o).LogStore(), entriesOf(1, 203, 1))
				return
			}
			want := file + " is damaged: " + strings.ReplaceAll(tt.want, "RAFTDB", o.logFile())
			before := stamps(t, o.DataDir)
			_, err := Open(o)
			if !errors.Is(err, ErrDamaged) || !strings.HasPrefix(err.Error(), want) {
				t.Fatalf("Open = %v, want %s", err, want)
			}
			r, vErr := Verify(o.DataDir, "")
			if vErr != nil || len(r.Problems) != 1 || r.Problems[0].Error() != err.Error() {
				t.Errorf("Verify = %v, %v, want the same problem", r.Problems, vErr)
			}
			if _, sErr := Summarize(o.DataDir, ""); !errors.Is(sErr, ErrDamaged) {
				t.Errorf("Summarize = %v", sErr)
			}
			if _, rErr := readAll(t, o); rErr == nil || rErr.Error() != err.Error() {
				t.Errorf("ReadLog = %v, want the same problem", rErr)
			}
			if stamps(t, o.DataDir) != before {
				t.Error("something was changed")
			}
		})
	}
	// The same directory without damage.
	o := killed(t, d)
	k := openMember(t, o)
	wantLog(t, k.LogStore(), entriesOf(1, 203, 1))
	if term := number(t, k.StableStore(), "CurrentTerm"); term != 8 {
		t.Errorf("CurrentTerm = %d, want 8", term)
	}
	// A raft.db and a journal of the same moment are a state that once was, and cannot be told from it.
	wantLog(t, openMember(t, past["after the vote"]).LogStore(), entriesOf(1, 6, 1))
}

// stamps covers names, sizes and times of all files.
func stamps(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			fmt.Fprintln(&all, path, info.Size(), info.ModTime().UnixNano())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// Whatever a segment holds, it is read or refused; nothing panics, and nothing is read that was not
// written.
func FuzzReadJournal(f *testing.F) {
	d := openMember(f, Options{DataDir: f.TempDir(), NoSync: true, journal: manual()})
	mustStore(f, d.LogStore(), entriesOf(1, 2, 1))
	if err := moveAll(d.LogStore()); err != nil {
		f.Fatal(err)
	}
	mustStore(f, d.LogStore(), entriesOf(3, 20, 1))
	mustStore(f, d.LogStore(), entriesOf(21, 22, 1))
	whole, err := os.ReadFile(d.LogStore().journal.current())
	if err != nil {
		f.Fatal(err)
	}
	h := d.LogStore().head
	path := filepath.Join(f.TempDir(), logFile)
	f.Add(uint16(0), []byte{}, false)
	f.Add(uint16(sectorSize), make([]byte, sectorSize), false)
	f.Add(uint16(2*sectorSize), make([]byte, 6*sectorSize), false)
	f.Add(uint16(2*sectorSize+1), []byte{255, 255, 255, 63}, true)
	f.Add(uint16(2*sectorSize+9+36), []byte{255, 255, 255, 255, 1}, true)
	f.Fuzz(func(t *testing.T, at uint16, patch []byte, reseal bool) {
		data := bytes.Clone(whole)
		copy(data[int(at)%len(data):], patch)
		if reseal { // so that what is behind the checksum is reached
			rest := data[2*sectorSize:]
			payload := unframe(rest)
			if n := int(order.Uint32(payload)); n >= recordFixed && n <= len(payload) {
				order.PutUint32(payload[4:], recordSeal(payload[:n]))
				copy(rest, frame(nil, payload[:n]))
			}
		}
		if err := os.WriteFile(segmentPath(path, h.journal.segment), data, fileMode); err != nil {
			t.Fatal(err)
		}
		c, err := readJournal(path, h)
		if err != nil {
			if !errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), "runtime error") {
				t.Fatal(err)
			}
			return
		}
		next := uint64(3)
		for _, r := range c.records {
			for _, e := range r.logs {
				if e.Index != next || (!reseal && !sameEntry(e, entry(next, 1))) {
					t.Fatalf("entry %d = %+v", next, *e)
				}
				next++
			}
		}
	})
}
