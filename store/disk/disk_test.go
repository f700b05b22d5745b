package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if heldByChild() {
		return
	}
	goleak.VerifyTestMain(m)
}

// eachKind runs a test with a log of each kind.
func eachKind(t *testing.T, test func(*testing.T, Kind)) {
	for _, kind := range []Kind{BoltDB, WAL} {
		t.Run("log-store="+string(kind), func(t *testing.T) { test(t, kind) })
	}
}

func testIdentity() Identity {
	return Identity{
		Format: 1, Member: 0x706b5b4dce4b2e, Cluster: 0xc84b0c73007f53c2, Token: "tokA", Epoch: 7, Name: "i0",
		Initial: []InitialMember{
			{ID: 0x706b5b4dce4b2e, Name: "i0", PeerURLs: []string{"http://127.0.0.1:23801"}},
			{ID: 0x5b3a649afb1e56e, Name: "i1", PeerURLs: []string{"http://127.0.0.1:23802", "http://h:1"}},
		},
	}
}

// openMember opens a directory, giving it an identity if it has none.
func openMember(t testing.TB, o Options) *Dir {
	t.Helper()
	d, err := Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = d.Close() })
	if _, ok := d.Identity(); !ok {
		if err := d.WriteIdentity(testIdentity()); err != nil {
			t.Fatalf("WriteIdentity: %v", err)
		}
	}
	return d
}

func reopen(t testing.TB, d *Dir) *Dir {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return openMember(t, d.opts)
}

func entry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Data: fmt.Appendf(nil, "entry %d of term %d", index, term),
		AppendedAt: time.Unix(1700000000, int64(index)).UTC()}
}

func entriesOf(from, to, term uint64) []*raft.Log {
	var logs []*raft.Log
	for i := from; i <= to; i++ {
		logs = append(logs, entry(i, term))
	}
	return logs
}

func mustStore(t testing.TB, l *LogStore, logs []*raft.Log) {
	t.Helper()
	if err := l.StoreLogs(logs); err != nil {
		t.Fatalf("StoreLogs: %v", err)
	}
}

// wantLog checks that the log holds exactly want, or nothing.
func wantLog(t testing.TB, l *LogStore, want []*raft.Log) {
	t.Helper()
	first, err1 := l.FirstIndex()
	last, err2 := l.LastIndex()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	var wantFirst, wantLast uint64
	if len(want) > 0 {
		wantFirst, wantLast = want[0].Index, want[len(want)-1].Index
	}
	if first != wantFirst || last != wantLast {
		t.Fatalf("log = %d..%d, want %d..%d", first, last, wantFirst, wantLast)
	}
	for _, w := range want {
		var got raft.Log
		if err := l.GetLog(w.Index, &got); err != nil {
			t.Fatalf("GetLog(%d): %v", w.Index, err)
		}
		if !sameEntry(&got, w) {
			t.Fatalf("GetLog(%d) = %+v, want %+v", w.Index, got, *w)
		}
	}
	for _, index := range []uint64{0, wantFirst - 1, wantLast + 1, headIndex} {
		if err := l.GetLog(index, &raft.Log{}); err != raft.ErrLogNotFound {
			t.Errorf("GetLog(%d) = %v, want %v", index, err, raft.ErrLogNotFound)
		}
	}
}

func sameEntry(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt.Equal(b.AppendedAt) &&
		string(a.Data) == string(b.Data) && string(a.Extensions) == string(b.Extensions)
}

func TestOpenAndReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "i0.etcd")
	d, err := Open(Options{DataDir: dir, Logger: hclog.NewNullLogger()})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := d.Identity(); ok || d.LogStore() != nil || d.StableStore() != nil {
		t.Error("a new directory has an identity or a log")
	}
	if _, err := d.NextBoot(); err == nil {
		t.Error("NextBoot worked without an identity")
	}
	if state, err := Inspect(dir, ""); state != Empty || err != nil {
		t.Errorf("Inspect before the identity = %v, %v, want empty", state, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = openMember(t, Options{DataDir: dir})
	logs := entriesOf(1, 20, 3)
	logs[4].Type, logs[5].Extensions, logs[6].Data = raft.LogConfiguration, []byte("ext"), nil
	mustStore(t, d.LogStore(), logs[:1])
	mustStore(t, d.LogStore(), logs[1:])
	if err := d.StableStore().SetUint64([]byte("CurrentTerm"), 3); err != nil {
		t.Fatal(err)
	}
	wantLog(t, d.LogStore(), logs)

	d = reopen(t, d)
	wantLog(t, d.LogStore(), logs)
	if id, ok := d.Identity(); !ok || !reflect.DeepEqual(*id, testIdentity()) {
		t.Errorf("Identity = %+v, want %+v", id, testIdentity())
	}
	if term, err := d.StableStore().GetUint64([]byte("CurrentTerm")); term != 3 || err != nil {
		t.Errorf("CurrentTerm = %d, %v, want 3", term, err)
	}
	if state, err := Inspect(dir, ""); state != Member || err != nil {
		t.Errorf("Inspect = %v, %v, want member", state, err)
	}
}

// Every reopening makes raft-boltdb commit a transaction that changes nothing.
func TestReopenManyTimes(t *testing.T) { eachKind(t, testReopenManyTimes) }

func testReopenManyTimes(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true})
	logs := entriesOf(1, 3, 1)
	mustStore(t, d.LogStore(), logs)
	for range 4 {
		d = reopen(t, d)
	}
	wantLog(t, d.LogStore(), logs)
	logs = append(logs, entry(4, 1))
	mustStore(t, d.LogStore(), logs[3:])
	wantLog(t, reopen(t, d).LogStore(), logs)
}
