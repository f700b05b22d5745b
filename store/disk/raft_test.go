package disk

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// textFSM appends what is applied.
type textFSM struct {
	mu   sync.Mutex
	text []string
}

func (f *textFSM) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text = append(f.text, string(l.Data))
	return nil
}

func (f *textFSM) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.text, " ")
}

func (f *textFSM) Snapshot() (raft.FSMSnapshot, error) { return textSnapshot(f.String()), nil }

func (f *textFSM) Restore(r io.ReadCloser) error {
	data, err := io.ReadAll(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.text = strings.Fields(string(data))
	return errors.Join(err, r.Close())
}

type textSnapshot string

func (s textSnapshot) Persist(sink raft.SnapshotSink) error {
	_, err := io.WriteString(sink, string(s))
	return errors.Join(err, sink.Close())
}

func (s textSnapshot) Release() {}

func raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = "706b5b4dce4b2e"
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	c.TrailingLogs = 5
	c.SnapshotThreshold = 1 << 40
	c.Logger = hclog.NewNullLogger()
	return c
}

var oneServer = raft.Configuration{Servers: []raft.Server{{ID: "706b5b4dce4b2e", Address: "a"}}}

// runRaft runs a one-member raft on the directory until use returns.
func runRaft(t *testing.T, d *Dir, use func(*raft.Raft, *textFSM)) {
	t.Helper()
	fsm := &textFSM{}
	_, trans := raft.NewInmemTransport("a")
	defer trans.Close()
	r, err := raft.NewRaft(raftConfig(), fsm, d.LogStore(), d.StableStore(), d.Snapshots(), trans)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Error(err)
		}
	}()
	select {
	case <-r.LeaderCh():
	case <-time.After(30 * time.Second):
		t.Fatal("no leader")
	}
	if err := r.Barrier(30 * time.Second).Error(); err != nil {
		t.Fatal(err)
	}
	use(r, fsm)
}

// hashicorp/raft lives in the directory: bootstrap, work, snapshot, restart, forced recovery.
func TestRaft(t *testing.T) { eachKind(t, testRaft) }

func testRaft(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, MaxSnapshots: 2})
	_, trans := raft.NewInmemTransport("a")
	if has, err := raft.HasExistingState(d.LogStore(), d.StableStore(), d.Snapshots()); has || err != nil {
		t.Fatalf("HasExistingState of a new directory = %v, %v", has, err)
	}
	if err := raft.BootstrapCluster(raftConfig(), d.LogStore(), d.StableStore(), d.Snapshots(), trans, oneServer); err != nil {
		t.Fatal(err)
	}
	if has, err := raft.HasExistingState(d.LogStore(), d.StableStore(), d.Snapshots()); !has || err != nil {
		t.Fatalf("HasExistingState = %v, %v", has, err)
	}

	var want []string
	apply := func(r *raft.Raft, n int) {
		t.Helper()
		for range n {
			text := fmt.Sprint("c", len(want))
			if err := r.Apply([]byte(text), 30*time.Second).Error(); err != nil {
				t.Fatal(err)
			}
			want = append(want, text)
		}
	}
	check := func(fsm *textFSM) {
		t.Helper()
		if got := fsm.String(); got != strings.Join(want, " ") {
			t.Fatalf("state = %s, want %s", got, strings.Join(want, " "))
		}
	}
	runRaft(t, d, func(r *raft.Raft, fsm *textFSM) {
		apply(r, 20)
		check(fsm)
	})
	for range 3 {
		d = reopen(t, d)
		runRaft(t, d, func(r *raft.Raft, fsm *textFSM) {
			check(fsm)
			apply(r, 20)
			if err := r.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			apply(r, 3)
		})
	}
	if ids := listed(t, d.Snapshots()); len(ids) != 2 {
		t.Errorf("snapshots = %v, want 2", ids)
	}
	if first, _ := d.LogStore().FirstIndex(); first < 60 {
		t.Errorf("the log still begins with entry %d", first)
	}

	d = reopen(t, d)
	fsm := &textFSM{}
	if err := raft.RecoverCluster(raftConfig(), fsm, d.LogStore(), d.StableStore(), d.Snapshots(), trans, oneServer); err != nil {
		t.Fatal(err)
	}
	check(fsm)
	d = reopen(t, d)
	runRaft(t, d, func(r *raft.Raft, fsm *textFSM) {
		check(fsm)
		apply(r, 3)
		check(fsm)
	})
	if err := errors.Join(d.Close(), trans.Close()); err != nil {
		t.Fatal(err)
	}
	if r, err := Verify(d.opts.DataDir, ""); err != nil || len(r.Problems) > 0 {
		t.Errorf("Verify = %v, %v", r.Problems, err)
	}
}

// raft asks and answers for votes through the settings.
func TestRaftKeepsTerm(t *testing.T) { eachKind(t, testRaftKeepsTerm) }

func testRaftKeepsTerm(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true})
	_, trans := raft.NewInmemTransport("a")
	defer trans.Close()
	if err := raft.BootstrapCluster(raftConfig(), d.LogStore(), d.StableStore(), d.Snapshots(), trans, oneServer); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for range 3 {
		var term uint64
		runRaft(t, d, func(r *raft.Raft, _ *textFSM) { term = r.CurrentTerm() })
		if term <= last {
			t.Errorf("term = %d after term %d", term, last)
		}
		last = term
		d = reopen(t, d)
		s := d.StableStore()
		if current, vote := number(t, s, "CurrentTerm"), number(t, s, voteTermKey); current != term || vote != term {
			t.Errorf("on disk: term %d, vote of term %d, want %d", current, vote, term)
		}
	}
}
