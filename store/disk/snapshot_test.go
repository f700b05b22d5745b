package disk

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// logBuffer is a log output for several goroutines.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func snapshotText(t testing.TB, s raft.SnapshotStore, id string) string {
	t.Helper()
	meta, r, err := s.Open(id)
	if err != nil {
		t.Fatalf("Open(%s): %v", id, err)
	}
	data, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if meta.ID != id || meta.Size != int64(len(data)) {
		t.Errorf("Open(%s) = %+v with %d bytes", id, meta, len(data))
	}
	return string(data)
}

func listed(t testing.TB, s raft.SnapshotStore) []string {
	t.Helper()
	metas, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, m := range metas {
		ids = append(ids, m.ID)
	}
	return ids
}

func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	d := openMember(t, Options{DataDir: dir, NoSync: true})
	if got := listed(t, d.Snapshots()); got != nil {
		t.Errorf("List of a new store = %v", got)
	}
	big := strings.Repeat("0123456789abcdef", 5<<20/16)
	a := saveSnapshot(t, d, 1, 10, "")
	b := saveSnapshot(t, d, 1, 255, "second")
	c := saveSnapshot(t, d, 2, 200, big)
	if want := "0000000000000001-00000000000000ff"; b != want {
		t.Errorf("ID = %s, want %s", b, want)
	}
	for range 2 {
		if got, want := listed(t, d.Snapshots()), []string{c, b, a}; !reflect.DeepEqual(got, want) {
			t.Errorf("List = %v, want newest first: %v", got, want)
		}
		for id, want := range map[string]string{a: "", b: "second", c: big} {
			if snapshotText(t, d.Snapshots(), id) != want {
				t.Errorf("snapshot %s has other data", id)
			}
		}
		metas, _ := d.Snapshots().List()
		want := &raft.SnapshotMeta{Version: 1, ID: b, Term: 1, Index: 255, Size: 6, Configuration: testConfiguration(), ConfigurationIndex: 1}
		if !reflect.DeepEqual(metas[1], want) {
			t.Errorf("List[1] = %+v, want %+v", metas[1], want)
		}
		d = reopen(t, d)
	}
	for _, id := range []string{"", "../x", "0000000000000001-00000000000000FF", "0000000000000009-0000000000000009", b + snapSuffix} {
		if _, _, err := d.Snapshots().Open(id); err == nil {
			t.Errorf("Open(%q) worked", id)
		}
	}
	if _, err := d.Snapshots().Create(0, 1, 1, testConfiguration(), 1, nil); err == nil {
		t.Error("Create of version 0 worked")
	}
}

func TestSnapshotRetention(t *testing.T) {
	for keep, want := range map[int]int{0: 5, 1: 1, 3: 3} {
		t.Run(fmt.Sprintf("keep=%d", keep), func(t *testing.T) {
			d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, MaxSnapshots: keep})
			var last string
			for i := range uint64(5) {
				last = saveSnapshot(t, d, 1, 10+i, "x")
			}
			got := listed(t, d.Snapshots())
			if len(got) != want || got[0] != last {
				t.Errorf("List = %v, want the newest %d", got, want)
			}
		})
	}
}

// A forced recovery makes a snapshot of the same term and index with another configuration.
func TestSnapshotReplaced(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	id := saveSnapshot(t, d, 1, 10, "old")
	_, old, err := d.Snapshots().Open(id)
	if err != nil {
		t.Fatal(err)
	}
	saveSnapshot(t, d, 1, 10, "new")
	if got := snapshotText(t, d.Snapshots(), id); got != "new" {
		t.Errorf("snapshot = %q, want new", got)
	}
	// One being sent is not disturbed.
	data, err := io.ReadAll(old)
	if err := errors.Join(err, old.Close()); err != nil || string(data) != "old" {
		t.Errorf("open snapshot = %q, %v, want old", data, err)
	}
}

func TestSnapshotGivenUp(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	sink, err := d.Snapshots().Create(1, 10, 1, testConfiguration(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, "half"); err != nil {
		t.Fatal(err)
	}
	if got := listed(t, d.Snapshots()); got != nil {
		t.Errorf("List shows an unfinished snapshot: %v", got)
	}
	if err := errors.Join(sink.Cancel(), sink.Cancel(), sink.Close()); err != nil {
		t.Error(err)
	}
	if _, err := sink.Write([]byte("x")); err == nil {
		t.Error("Write after Cancel worked")
	}
	wantFiles(t, d.member("snap"))
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("files = %v, want %v", got, want)
	}
}

// The process ended while a snapshot was written.
func TestSnapshotLeftOver(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	id := saveSnapshot(t, d, 1, 10, "x")
	sink, err := d.Snapshots().Create(1, 20, 1, testConfiguration(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Cancel()
	touch(t, d.member("snap"), "notes.txt", "dir.snap/")
	d = reopen(t, d)
	wantFiles(t, d.member("snap"), id+snapSuffix, "dir.snap", "notes.txt")
}

// A damaged snapshot is set aside with a message, and the one before is used.
func TestSnapshotDamaged(t *testing.T) {
	tests := []struct {
		name   string
		damage func(t *testing.T, path string)
		want   string
	}{
		{"data", func(t *testing.T, path string) {
			info, _ := os.Stat(path)
			patch(t, path, info.Size()-snapTrailer-3, []byte("?"))
		}, "checksum does not match"},
		{"description", func(t *testing.T, path string) { patch(t, path, 20, []byte("?")) }, "checksum of the description does not match"},
		{"length of the description", func(t *testing.T, path string) { patch(t, path, 8, []byte{0xff, 0xff, 0xff, 0xff}) }, "it is not a snapshot"},
		{"cut off", func(t *testing.T, path string) { info, _ := os.Stat(path); _ = os.Truncate(path, info.Size()-1) }, "it is cut off"},
		{"empty", func(t *testing.T, path string) { _ = os.Truncate(path, 0) }, "it is cut off"},
		{"zeros", func(t *testing.T, path string) { patch(t, path, 0, make([]byte, 100)) }, "it is not a snapshot"},
		{"something else", func(t *testing.T, path string) { _ = os.WriteFile(path, bytes.Repeat([]byte("x"), 100), 0o600) }, "it is not a snapshot"},
		{"renamed", func(t *testing.T, path string) {
			data, _ := os.ReadFile(filepath.Join(filepath.Dir(path), snapshotID(1, 10)+snapSuffix))
			_ = os.WriteFile(path, data, 0o600)
		}, "it is the snapshot 0000000000000001-000000000000000a"},
	}
	for _, tt := range tests {
		for _, when := range []string{"before start", "while running"} {
			t.Run(tt.name+"/"+when, func(t *testing.T) {
				var out logBuffer
				d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, Logger: hclog.New(&hclog.LoggerOptions{Output: &out})})
				good := saveSnapshot(t, d, 1, 10, "good")
				bad := saveSnapshot(t, d, 1, 20, "bad")
				path := d.snapshots.path(bad)
				if when == "before start" {
					if err := d.Close(); err != nil {
						t.Fatal(err)
					}
					tt.damage(t, path)
					d = openMember(t, d.opts)
				} else {
					tt.damage(t, path)
					if _, _, err := d.Snapshots().Open(bad); !errors.Is(err, ErrDamaged) {
						t.Errorf("Open = %v, want damage", err)
					}
				}
				if got := listed(t, d.Snapshots()); !reflect.DeepEqual(got, []string{good}) {
					t.Errorf("List = %v, want %s", got, good)
				}
				if got := snapshotText(t, d.Snapshots(), good); got != "good" {
					t.Errorf("snapshot = %q", got)
				}
				wantFiles(t, d.member("snap"), good+snapSuffix, bad+snapSuffix+brokenSuffix)
				if want := "corrupted snapshot file " + path + ": " + tt.want; !strings.Contains(out.String(), want) {
					t.Errorf("log does not say %q:\n%s", want, out.String())
				}
				if term, index := d.snapshots.newest(); term != 1 || index != 10 {
					t.Errorf("newest = %d, %d, want 1, 10", term, index)
				}
			})
		}
	}
}

// A snapshot of a newer program is not damaged, and must not be set aside.
func TestSnapshotOfNewerProgram(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	sink, err := d.Snapshots().Create(1, 10, 1, testConfiguration(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	path := d.snapshots.path(sink.ID())
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int(order.Uint32(data[8:]))
	description := bytes.Replace(data[12:12+n], []byte(`"Version":1`), []byte(`"Version":9`), 1)
	changed := append(append([]byte(nil), data[:12]...), description...)
	changed = order.AppendUint32(changed, crc32.Checksum(changed, crcTable))
	changed = append(changed, data[12+n+4:]...)
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(d.opts); err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "version 9 is newer") {
		t.Errorf("Open = %v, want a newer version", err)
	}
	wantFiles(t, d.member("snap"), filepath.Base(path))
}

// When the newest snapshot turns out to be damaged or gone while the directory is open, whoever can make
// another one is told, once.
func TestSnapshotLost(t *testing.T) {
	for name, ruin := range map[string]func(path string) error{
		"damaged": func(path string) error { return os.WriteFile(path, []byte("garbage"), 0o600) },
		"gone":    os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			lost := 0
			d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, OnSnapshotLost: func() { lost++ }})
			a := saveSnapshot(t, d, 1, 10, "a")
			b := saveSnapshot(t, d, 1, 20, "b")
			c := saveSnapshot(t, d, 1, 30, "c")
			if err := ruin(d.snapshots.path(b)); err != nil {
				t.Fatal(err)
			}
			if got := listed(t, d.Snapshots()); !reflect.DeepEqual(got, []string{c, a}) || lost != 0 {
				t.Errorf("List = %v, told %d times; an older one is no loss", got, lost)
			}
			if err := ruin(d.snapshots.path(c)); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := listed(t, d.Snapshots()); !reflect.DeepEqual(got, []string{a}) || lost != 1 {
					t.Errorf("List = %v, told %d times, want once", got, lost)
				}
			}
			if term, index := d.snapshots.newest(); term != 1 || index != 10 {
				t.Errorf("newest is %d-%d, want 1-10", term, index)
			}
		})
	}
}

// A snapshot stops where the space begins that the log may need.
func TestSnapshotLeavesSpace(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, Reserve: Reserve{Bytes: 1 << 62}})
	if _, err := d.Snapshots().Create(1, 5, 1, testConfiguration(), 1, nil); err == nil || !strings.Contains(err.Error(), "make room there") {
		t.Errorf("Create: %v", err)
	}
	d.snapshots.reserve = Reserve{}
	sink, err := d.Snapshots().Create(1, 5, 1, testConfiguration(), 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	d.snapshots.reserve = Reserve{Bytes: 1 << 62}
	if _, err := sink.Write(make([]byte, snapSpaceEvery)); err == nil || !strings.Contains(err.Error(), "make room there") {
		t.Errorf("Write: %v", err)
	}
	if err := sink.Cancel(); err != nil {
		t.Error(err)
	}
}

func TestReserve(t *testing.T) {
	for _, tt := range []struct {
		reserve Reserve
		total   uint64
		want    uint64
	}{
		{Reserve{}, 1000, 0}, {Reserve{Bytes: 64}, 1000, 64}, {Reserve{Percent: 5}, 1000, 50},
		{Reserve{Percent: 99}, 1 << 63, 1<<63/100*99 + 7}, {Reserve{Percent: 500}, 7, 7},
	} {
		if got := tt.reserve.Of(tt.total); got != tt.want {
			t.Errorf("%+v of %d is %d, want %d", tt.reserve, tt.total, got, tt.want)
		}
	}
	d := openMember(t, Options{DataDir: t.TempDir(), WALDir: t.TempDir(), NoSync: true, Reserve: Reserve{Bytes: 1 << 62}})
	all, err := d.Space()
	if err != nil || len(all) != 2 || !all[0].Low() || all[0].Free == 0 || all[0].Total < all[0].Free {
		t.Errorf("Space: %+v, %v", all, err)
	}
}
