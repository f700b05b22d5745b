package fsm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
)

const second = int64(time.Second)

// machine is an FSM whose hooks record what they were told.
type machine struct {
	*FSM
	t          *testing.T
	next       uint64
	delivered  []Delivery
	membership []*Membership
	fatal      error
}

func newMachine(t *testing.T, self uint64) *machine {
	m := &machine{t: t}
	m.FSM = New(self, 1000, Hooks{
		Deliver:        func(d []Delivery) { m.delivered = append(m.delivered, d...) },
		Applied:        func(uint64, uint64) {},
		MembersChanged: func(_, now *Membership) { m.membership = append(m.membership, now) },
		Fatal:          func(err error) { m.fatal = err },
	})
	return m
}

// apply applies one entry that holds the commands, stamped with now.
func (m *machine) apply(now int64, commands ...Command) any {
	m.t.Helper()
	m.next++
	return m.Apply(&raft.Log{Index: m.next, Term: 1, Type: raft.LogCommand, Data: entry(m.t, now, commands...)})
}

func entry(t *testing.T, now int64, commands ...Command) []byte {
	t.Helper()
	data := AppendEntry(nil, now)
	for i := range commands {
		var err error
		if data, err = AppendCommand(data, &commands[i]); err != nil {
			t.Fatal(err)
		}
	}
	return data
}

func set(id RequestID, path, value string) Command {
	return Command{ID: id, Kind: KindWrite, Write: tree.Write{Op: tree.Op{Action: tree.Set, Path: path, Value: value}}}
}

func (m *machine) value(path string) string {
	answer, err := m.Tree().Get(path, false, false)
	if err != nil {
		return err.Error()
	}
	return answer.Node.Value
}

func TestCommandsSurviveEncoding(t *testing.T) {
	id := RequestID{Member: 7, Boot: 9, Sequence: 300, Lowest: 299}
	commands := []Command{
		{Kind: KindTick},
		{Kind: KindOffset, Offset: -3_600_000_000_000},
		{ID: id, Kind: KindWrite, Write: tree.Write{
			Op: tree.Op{Action: tree.CompareAndSwap, Path: "/a b", Value: "v\x00\xff", PrevValue: "p", PrevIndex: math.MaxUint64,
				Dir: true, Recursive: true, InOrder: true, Refresh: true},
			TTL: math.MaxUint64, HasTTL: true}},
		{ID: id, Kind: KindWrite, Write: tree.Write{Op: tree.Op{Action: tree.Delete, Path: "/"}}},
		{ID: id, Kind: KindAddMember, Change: Change{ID: math.MaxUint64, PeerURLs: []string{"http://a:1"}}},
	}
	now, got, err := decodeEntry(entry(t, 42, commands...))
	if err != nil || now != 42 || len(got) != len(commands) {
		t.Fatalf("decodeEntry = %d, %d commands, %v", now, len(got), err)
	}
	for i := range commands {
		if a, b := entry(t, 0, commands[i]), entry(t, 0, got[i]); !bytes.Equal(a, b) {
			t.Errorf("command %d came back as %+v, want %+v", i, got[i], commands[i])
		}
		if commands[i].Write != got[i].Write {
			t.Errorf("write %d came back as %+v, want %+v", i, got[i].Write, commands[i].Write)
		}
	}
}

func TestMalformedEntriesStopTheMember(t *testing.T) {
	good := entry(t, 1, set(RequestID{}, "/a", "1"))
	unknown := entry(t, 1, Command{Kind: KindTick})
	unknown[EntryHeadSize+4] = 99
	unclean := entry(t, 1, set(RequestID{}, "/a/../b", "1"))
	get := entry(t, 1, Command{Kind: KindWrite, Write: tree.Write{Op: tree.Op{Action: tree.Get, Path: "/a"}}})
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "truncated"},
		{"newer format", append([]byte{2}, good[1:]...), "run a newer one"},
		{"cut in a command", good[:len(good)-1], "truncated"},
		{"cut in a length", append(bytes.Clone(good), 1, 2), "truncated"},
		{"newer kind", unknown, "run a newer one"},
		{"path not clean", unclean, "not clean"},
		{"a read", get, "is no write"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, 1)
			m.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: tt.data})
			if m.fatal == nil || !strings.Contains(m.fatal.Error(), tt.want) || !strings.Contains(m.fatal.Error(), "log entry 1") {
				t.Fatalf("the member was told %v, want it to name entry 1 and %q", m.fatal, tt.want)
			}
			m.next = 1
			if m.apply(1, set(RequestID{}, "/later", "1")); m.Applied() != 0 {
				t.Error("an entry was applied behind one that was not")
			}
			if _, err := m.Snapshot(); err == nil {
				t.Error("a member that has stopped gave a snapshot")
			}
		})
	}
}

// A request that reaches the log twice, because its member sent it to two leaders, is applied once.
func TestRequestsAreAppliedOnce(t *testing.T) {
	post := func(id RequestID) Command {
		return Command{ID: id, Kind: KindWrite, Write: tree.Write{Op: tree.Op{Action: tree.Create, Path: "/q", InOrder: true, Value: "x"}}}
	}
	tests := []struct {
		name string
		ids  []RequestID
		want uint64 // steps of the index
	}{
		{"one", []RequestID{{Member: 1, Boot: 1, Sequence: 1, Lowest: 1}}, 1},
		{"twice", []RequestID{{1, 1, 1, 1}, {1, 1, 1, 1}}, 1},
		{"twice, with others between", []RequestID{{1, 1, 1, 1}, {1, 1, 2, 1}, {1, 1, 3, 1}, {1, 1, 2, 1}, {1, 1, 1, 1}}, 3},
		{"out of order", []RequestID{{1, 1, 2, 1}, {1, 1, 1, 1}}, 2},
		{"its caller has been answered", []RequestID{{1, 1, 5, 5}, {1, 1, 4, 4}}, 1},
		{"far ahead, then an old one", []RequestID{{1, 1, 1, 1}, {1, 1, 1 << 40, 1 << 40}, {1, 1, 2, 2}}, 2},
		{"same numbers of another member", []RequestID{{1, 1, 1, 1}, {2, 1, 1, 1}}, 2},
		{"same numbers of a later run", []RequestID{{1, 1, 1, 1}, {1, 2, 1, 1}}, 2},
		{"late, from an earlier run", []RequestID{{1, 2, 1, 1}, {1, 1, 9, 9}}, 1},
		{"leaders' own commands may repeat", []RequestID{{}, {}}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, through := range []string{"log", "snapshot in the middle"} {
				m := newMachine(t, 1)
				for i, id := range tt.ids {
					m.apply(1, post(id))
					if through != "log" && i == len(tt.ids)/2 {
						m.FSM = reload(t, m)
					}
				}
				if got := m.Tree().Index(); got != tt.want {
					t.Errorf("through %s: the index is at %d, want %d", through, got, tt.want)
				}
			}
		})
	}
}

// A request of a removed member is not applied any more, nor for the second time.
func TestRequestsOfRemovedMembers(t *testing.T) {
	const gone, other = 7, 8
	id := func(member, sequence uint64) RequestID {
		return RequestID{Member: member, Boot: 1, Sequence: sequence, Lowest: sequence}
	}
	remove := Command{ID: id(other, 1), Kind: KindRemoveMember, Change: Change{ID: gone}}
	m := newMachine(t, gone)
	m.apply(1, Command{Kind: KindBootstrap, Change: Change{Members: []Member{{ID: gone}, {ID: other}}}})
	m.apply(2, set(id(gone, 1), "/a", "of the removed one"))
	m.apply(3, remove, set(id(gone, 2), "/late", "x"))
	m.apply(4, set(id(other, 2), "/a", "newer"))
	m.delivered = nil
	m.apply(5, set(id(gone, 1), "/a", "of the removed one"), set(id(gone, 3), "/late", "x"))
	if got := m.value("/a"); got != "newer" {
		t.Errorf("/a = %q, want the newer value: a request was applied twice", got)
	}
	if got := m.value("/late"); !strings.Contains(got, "Key not found") {
		t.Errorf("/late = %q, want nothing", got)
	}
	if len(m.delivered) > 0 {
		t.Errorf("the member was told of %+v", m.delivered)
	}
}

func TestResultsGoToTheMemberThatAsked(t *testing.T) {
	m := newMachine(t, 7)
	own, foreign := RequestID{7, 1, 1, 1}, RequestID{8, 1, 1, 1}
	m.apply(1, set(own, "/a", "1"), set(foreign, "/b", "1"), set(RequestID{7, 1, 2, 1}, "/a/x", "1"))
	if len(m.delivered) != 2 {
		t.Fatalf("%d results were delivered, want 2", len(m.delivered))
	}
	if d := m.delivered[0]; d.ID != own || d.Result.Err != nil || d.Result.Event.Node.Key != "/a" {
		t.Errorf("first result: %+v", d)
	}
	if d := m.delivered[1]; !errors.Is(d.Result.Err, api.NotDirectory) {
		t.Errorf("second result: %v, want %v", d.Result.Err, api.NotDirectory)
	}
}

func TestTTL(t *testing.T) {
	ttl := func(path string, seconds uint64) Command {
		c := set(RequestID{}, path, "v")
		c.Write.TTL, c.Write.HasTTL = seconds, true
		return c
	}
	m := newMachine(t, 1)
	start := 1000 * second
	m.apply(start, ttl("/ten", 10), ttl("/max", math.MaxUint64), ttl("/overflow", uint64(math.MaxInt64/second)))
	m.apply(start+9*second, Command{Kind: KindTick})
	if got := m.value("/ten"); got != "v" {
		t.Errorf("a second early: %s", got)
	}
	// Another leader's clock may be behind: time does not run backwards.
	m.apply(start-5*second, ttl("/later", 1))
	if got := m.Tree().Clock(); got != start+9*second {
		t.Errorf("clock = %d, want %d", got, start+9*second)
	}
	m.apply(start+10*second, Command{Kind: KindTick})
	for path, want := range map[string]string{"/ten": "Key not found", "/later": "Key not found", "/max": "v", "/overflow": "v"} {
		if got := m.value(path); !strings.Contains(got, want) {
			t.Errorf("%s after its time: %s, want %s", path, got, want)
		}
	}
}

func reload(t *testing.T, m *machine) *FSM {
	t.Helper()
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	var b bytes.Buffer
	if err := snap.(*snapshot).write(&b); err != nil {
		t.Fatal(err)
	}
	n := New(m.self, 1000, m.hooks)
	if err := n.Restore(io.NopCloser(&b)); err != nil {
		t.Fatal(err)
	}
	if n.Applied() != m.Applied() {
		t.Errorf("applied index after Restore = %d, want %d", n.Applied(), m.Applied())
	}
	return n
}

func TestSnapshotHoldsEverything(t *testing.T) {
	m := newMachine(t, 1)
	m.apply(1, Command{Kind: KindBootstrap, Change: Change{ClusterID: 5, Members: []Member{{ID: 1, Name: "a", PeerURLs: []string{"http://a:1"}}, {ID: 2, Name: "b", PeerURLs: []string{"http://b:1"}}}}})
	m.apply(2, set(RequestID{1, 1, 1, 1}, "/a", "\xff"), Command{Kind: KindRemoveMember, Change: Change{ID: 2}})
	n := reload(t, m)
	sum, index := m.Tree().Checksum()
	if s, i := n.Tree().Checksum(); s != sum || i != index {
		t.Errorf("tree after Restore: checksum %x index %d, want %x %d", s, i, sum, index)
	}
	if got := n.Membership(); got.ClusterID != 5 || len(got.Members) != 1 || !got.IsRemoved(2) {
		t.Errorf("membership after Restore: %+v", got)
	}
	var a, b bytes.Buffer
	if err := errors.Join(m.snapshot().write(&a), n.snapshot().write(&b)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("equal states gave different snapshots")
	}
}

// When raft is restarted within a process it hands over the last snapshot again, and entries that
// were applied: readers must not see an older state.
func TestStateNeverRunsBackwards(t *testing.T) {
	m := newMachine(t, 1)
	m.apply(1, set(RequestID{}, "/a", "old"))
	var old bytes.Buffer
	if err := m.snapshot().write(&old); err != nil {
		t.Fatal(err)
	}
	m.apply(1, set(RequestID{}, "/a", "new"))
	if err := m.Restore(io.NopCloser(&old)); err != nil {
		t.Fatal(err)
	}
	m.Apply(&raft.Log{Index: 2, Type: raft.LogCommand, Data: entry(t, 1, set(RequestID{}, "/a", "again"))})
	if got := m.value("/a"); got != "new" || m.Applied() != 2 {
		t.Errorf("/a = %q at %d, want new at 2", got, m.Applied())
	}
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	m := newMachine(t, 1)
	m.apply(1, set(RequestID{}, "/a", "1"))
	var good bytes.Buffer
	if err := m.snapshot().write(&good); err != nil {
		t.Fatal(err)
	}
	for i := range good.Len() {
		damaged := bytes.Clone(good.Bytes())
		damaged[i] ^= 0x10
		n := newMachine(t, 1)
		if err := n.Restore(io.NopCloser(bytes.NewReader(damaged))); err == nil {
			t.Errorf("a flipped bit in byte %d was not noticed", i)
		}
		if n.Applied() != 0 || n.Tree().Index() != 0 {
			t.Errorf("a refused snapshot (byte %d) left something behind", i)
		}
	}
	for n := range good.Len() {
		if err := newMachine(t, 1).Restore(io.NopCloser(bytes.NewReader(good.Bytes()[:n]))); err == nil {
			t.Errorf("a snapshot cut after %d bytes was accepted", n)
		}
	}
}

func TestWaitApplied(t *testing.T) {
	m := newMachine(t, 1)
	done := make(chan error, 1)
	go func() { done <- m.WaitApplied(context.Background(), 2) }()
	m.apply(1, Command{Kind: KindTick})
	// Entries of raft's own count too.
	m.ApplyBatch([]*raft.Log{{Index: 2, Type: raft.LogConfiguration}})
	if err := <-done; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := m.WaitApplied(ctx, 3); !errors.Is(err, context.Canceled) {
		t.Errorf("WaitApplied with a cancelled context = %v", err)
	}
	if len(m.waiters) != 0 {
		t.Error("a waiter that gave up is still there")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	data := AppendEntry(nil, 1)
	for _, c := range []Command{{Kind: KindTick}, set(RequestID{1, 2, 3, 3}, "/a", "b"), {Kind: KindAddMember, Change: Change{ID: 1}}} {
		data, _ = AppendCommand(data, &c)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		now, commands, err := decodeEntry(data)
		if len(data) >= EntryHeadSize && data[0] == EntryVersion {
			if check := CheckCommands(data[EntryHeadSize:]); (check == nil) != (err == nil) {
				t.Fatalf("CheckCommands = %v, decodeEntry = %v", check, err)
			}
		}
		if err != nil {
			return
		}
		again := AppendEntry(nil, now)
		for i := range commands {
			if again, err = AppendCommand(again, &commands[i]); err != nil {
				t.Fatal(err)
			}
		}
		_, twice, err := decodeEntry(again)
		if err != nil || len(twice) != len(commands) {
			t.Fatalf("encoded again: %v", err)
		}
		newMachine(t, 1).Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: data})
	})
}

func TestCleanPath(t *testing.T) {
	for _, p := range []string{"", "/", "//", "/a", "/a/", "a", "/a//b", "/.", "/..", "/a/.", "/a/../b", "/...", "/.a", "/a/b.", "/a/./b", "/ü/\xff", "/a/.."} {
		if got, want := cleanPath([]byte(p)), p == tree.Clean(p); got != want {
			t.Errorf("cleanPath(%q) = %v, want %v", p, got, want)
		}
	}
}

func FuzzRestore(f *testing.F) {
	m := newMachine(&testing.T{}, 1)
	m.apply(1, set(RequestID{1, 2, 3, 3}, "/a", "b"))
	var b bytes.Buffer
	if err := m.snapshot().write(&b); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = newMachine(t, 1).Restore(io.NopCloser(bytes.NewReader(data)))
	})
}
