package disk

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

var errInjected = errors.New("injected")

// faultBolt fails one transaction, and everything after it, as a crash does.
type faultBolt struct {
	boltStore
	at   int  // number of the transaction to fail, counted from 0; negative for none
	kept bool // it reaches the disk all the same
	idle bool // opening the log does not count
	n    int
}

// wrap is for Options.wrapBolt. The fault waits until start is called.
func (f *faultBolt) wrap(b boltStore) boltStore { f.boltStore, f.idle = b, true; return f }

func (f *faultBolt) start() { f.idle = false }

func (f *faultBolt) tx(run func() error) error {
	if f.idle {
		return run()
	}
	f.n++
	switch {
	case f.at < 0 || f.n <= f.at:
		return run()
	case f.n == f.at+1 && f.kept:
		_ = run()
	}
	return errInjected
}

func (f *faultBolt) StoreLogs(logs []*raft.Log) error {
	return f.tx(func() error { return f.boltStore.StoreLogs(logs) })
}

func (f *faultBolt) DeleteRange(min, max uint64) error {
	return f.tx(func() error { return f.boltStore.DeleteRange(min, max) })
}

// model is what a log should hold.
type model struct {
	logs              []*raft.Log
	term, vote        uint64
	candidate, custom string
}

func (m model) clone() model { m.logs = append([]*raft.Log(nil), m.logs...); return m }

func number(t testing.TB, s raft.StableStore, key string) uint64 {
	v, err := s.GetUint64([]byte(key))
	if err != nil && err.Error() != "not found" {
		t.Fatal(err)
	}
	return v
}

func observe(t testing.TB, d *Dir) model {
	t.Helper()
	s := d.StableStore()
	text := func(key string) string {
		v, err := s.Get([]byte(key))
		if err != nil && err.Error() != "not found" {
			t.Fatal(err)
		}
		return string(v)
	}
	m := model{term: number(t, s, "CurrentTerm"), vote: number(t, s, voteTermKey), candidate: text(voteCandidateKey), custom: text("x")}
	first, _ := d.LogStore().FirstIndex()
	last, _ := d.LogStore().LastIndex()
	for i := max(first, 1); i <= last; i++ {
		e := new(raft.Log)
		if err := d.LogStore().GetLog(i, e); err != nil {
			t.Fatal(err)
		}
		m.logs = append(m.logs, e)
	}
	return m
}

func (m model) equal(o model) bool {
	if len(m.logs) != len(o.logs) || m.term != o.term || m.vote != o.vote || m.candidate != o.candidate || m.custom != o.custom {
		return false
	}
	for i := range m.logs {
		if !sameEntry(m.logs[i], o.logs[i]) {
			return false
		}
	}
	return true
}

func (m model) String() string {
	s := fmt.Sprintf("term %d, vote %d %q, x %q, log", m.term, m.vote, m.candidate, m.custom)
	if len(m.logs) > 0 {
		s += fmt.Sprintf(" %d..%d", m.logs[0].Index, m.logs[len(m.logs)-1].Index)
	}
	return s
}

// A crash at any transaction of a member's life leaves the state before the call that was running
// or the one after it, and nothing in between, whether the transaction reached the disk or not.
func TestCrashAnywhere(t *testing.T) {
	type step struct {
		name string
		do   func(*LogStore, raft.StableStore) error
		then func(*model)
	}
	steps := []step{
		{"term 1", func(_ *LogStore, s raft.StableStore) error { return s.SetUint64([]byte("CurrentTerm"), 1) },
			func(m *model) { m.term = 1 }},
		{"store 1..2500", func(l *LogStore, _ raft.StableStore) error { return l.StoreLogs(entriesOf(1, 2500, 1)) },
			func(m *model) { m.logs = entriesOf(1, 2500, 1) }},
		// raft#661: the two halves of a vote are never seen apart.
		{"vote in term 2", func(_ *LogStore, s raft.StableStore) error {
			return errors.Join(s.SetUint64([]byte(voteTermKey), 2), s.Set([]byte(voteCandidateKey), []byte("a")))
		}, func(m *model) { m.vote, m.candidate = 2, "a" }},
		{"x", func(_ *LogStore, s raft.StableStore) error { return s.Set([]byte("x"), []byte("y")) },
			func(m *model) { m.custom = "y" }},
		{"cut the beginning", func(l *LogStore, _ raft.StableStore) error { return l.DeleteRange(1, 2100) },
			func(m *model) { m.logs = entriesOf(2101, 2500, 1) }},
		{"store 2501..2502", func(l *LogStore, _ raft.StableStore) error { return l.StoreLogs(entriesOf(2501, 2502, 1)) },
			func(m *model) { m.logs = entriesOf(2101, 2502, 1) }},
		{"vote in term 3", func(_ *LogStore, s raft.StableStore) error {
			return errors.Join(s.SetUint64([]byte(voteTermKey), 3), s.Set([]byte(voteCandidateKey), []byte("b")))
		}, func(m *model) { m.vote, m.candidate = 3, "b" }},
		{"cut the end", func(l *LogStore, _ raft.StableStore) error { return l.DeleteRange(2200, 2502) },
			func(m *model) { m.logs = entriesOf(2101, 2199, 1) }},
		{"store 2200 of term 3", func(l *LogStore, _ raft.StableStore) error { return l.StoreLogs(entriesOf(2200, 2200, 3)) },
			func(m *model) { m.logs = append(entriesOf(2101, 2199, 1), entry(2200, 3)) }},
		{"cut all", func(l *LogStore, _ raft.StableStore) error { return l.DeleteRange(2101, 2200) },
			func(m *model) { m.logs = nil }},
		{"store again", func(l *LogStore, _ raft.StableStore) error { return l.StoreLogs(entriesOf(2301, 2303, 3)) },
			func(m *model) { m.logs = entriesOf(2301, 2303, 3) }},
	}

	// run returns how many transactions there were, and the states a crash may leave.
	run := func(t *testing.T, dir string, fault *faultBolt) (before, after model) {
		d := openMember(t, Options{DataDir: dir, NoSync: true, journal: journalOptions{off: true}, wrapBolt: fault.wrap})
		defer d.Close()
		fault.start()
		saveSnapshot(t, d, 1, 2300, "so that the log may be cut")
		for _, s := range steps {
			after = before.clone()
			s.then(&after)
			if err := s.do(d.LogStore(), d.StableStore()); err != nil {
				if !errors.Is(err, errInjected) {
					t.Fatalf("%s: %v", s.name, err)
				}
				if again := d.LogStore().StoreLogs(entriesOf(5000, 5000, 9)); again == nil {
					t.Fatalf("%s: a write worked after the failure", s.name)
				}
				return before, after
			}
			before = after
			if got := observe(t, d); !got.equal(after) {
				t.Fatalf("%s: %v, want %v", s.name, got, after)
			}
		}
		return before, after
	}

	var total int
	t.Run("no crash", func(t *testing.T) {
		dir, fault := t.TempDir(), &faultBolt{at: -1}
		_, want := run(t, dir, fault)
		total = fault.n
		if got := observe(t, openMember(t, Options{DataDir: dir})); !got.equal(want) {
			t.Errorf("after restart: %v, want %v", got, want)
		}
	})
	for at := range total {
		for _, kept := range []bool{false, true} {
			t.Run(fmt.Sprintf("transaction=%d/kept=%v", at, kept), func(t *testing.T) {
				dir := t.TempDir()
				before, after := run(t, dir, &faultBolt{at: at, kept: kept})
				// The member may crash again while it starts.
				for again := range 3 {
					d, err := Open(Options{DataDir: dir, NoSync: true, wrapBolt: func(b boltStore) boltStore {
						return &faultBolt{boltStore: b, at: again, kept: kept}
					}})
					if err == nil {
						_ = d.Close()
					} else if !errors.Is(err, errInjected) {
						t.Fatalf("restart that crashes: %v", err)
					}
				}
				d := openMember(t, Options{DataDir: dir, NoSync: true})
				got := observe(t, d)
				stale := func(m model) model { // a log that ends before the snapshot is cut at the start
					if n := len(m.logs); n > 0 && m.logs[n-1].Index < 2300 {
						m.logs = nil
					}
					return m
				}
				if !got.equal(stale(before)) && !got.equal(stale(after)) {
					t.Fatalf("after restart: %v, want %v or %v", got, before, after)
				}
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				if r, err := Verify(dir, ""); err != nil || len(r.Problems) > 0 {
					t.Errorf("Verify: %v, %v", r.Problems, err)
				}
			})
		}
	}
}

// A failed write is final, and reported once it has happened.
func TestWriteFailure(t *testing.T) {
	var reported []error
	fault := &faultBolt{at: 1}
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: journalOptions{off: true},
		OnFailure: func(err error) { reported = append(reported, err) },
		wrapBolt:  fault.wrap})
	fault.start()
	l := d.LogStore()
	mustStore(t, l, entriesOf(1, 3, 1))
	err := l.StoreLogs(entriesOf(4, 5, 1))
	if !errors.Is(err, errInjected) {
		t.Fatalf("StoreLogs = %v, want %v", err, errInjected)
	}
	calls := fault.n
	for name, write := range map[string]func() error{
		"StoreLogs":   func() error { return l.StoreLogs(entriesOf(4, 5, 1)) },
		"DeleteRange": func() error { return l.DeleteRange(1, 2) },
		"Set":         func() error { return d.StableStore().Set([]byte("k"), []byte("v")) },
		"NextBoot":    func() error { _, err := d.NextBoot(); return err },
	} {
		if got := write(); !errors.Is(got, errInjected) {
			t.Errorf("%s after a failed write = %v, want the same error", name, got)
		}
	}
	if fault.n != calls {
		t.Errorf("%d transactions were tried after the failure", fault.n-calls)
	}
	if len(reported) != 1 || reported[0].Error() != err.Error() {
		t.Errorf("OnFailure got %v, want %v once", reported, err)
	}
	wantLog(t, l, entriesOf(1, 3, 1)) // reading goes on
}

// raft panics when it cannot save its term. It does so also when the write that failed was another's: it must
// not get to hear of the failure before whoever ends the process has.
func TestSecondWriterWaitsForTheReport(t *testing.T) {
	fault := &faultBolt{at: 1}
	told, release := make(chan struct{}), make(chan struct{})
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: journalOptions{off: true}, wrapBolt: fault.wrap,
		OnFailure: func(error) {
			close(told)
			<-release
		}})
	fault.start()
	l := d.LogStore()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- l.fail(l.path, "append", errInjected) }()
	<-told
	go func() { second <- d.StableStore().SetUint64([]byte("CurrentTerm"), 7) }()
	select {
	case err := <-second:
		t.Errorf("a second write was refused before the failure of the first was told: %v", err)
		second <- err
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	for name, result := range map[string]chan error{"first": first, "second": second} {
		if err := <-result; !errors.Is(err, errInjected) {
			t.Errorf("%s write: %v, want %v", name, err, errInjected)
		}
	}
}

type stuckBolt struct {
	boltStore
	release chan struct{}
}

func (s *stuckBolt) StoreLogs(logs []*raft.Log) error {
	if s.release != nil {
		<-s.release
	}
	return s.boltStore.StoreLogs(logs)
}

func TestStall(t *testing.T) {
	stalled := make(chan string, 10)
	stuck := &stuckBolt{}
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, journal: journalOptions{off: true},
		OnStall:  func(op string, _ time.Duration) { stalled <- op },
		wrapBolt: func(b boltStore) boltStore { stuck.boltStore = b; return stuck }})
	stuck.release = make(chan struct{})
	d.log.watchdog.limit = time.Millisecond // not before: opening may take longer
	done := make(chan error)
	go func() { done <- d.LogStore().StoreLogs(entriesOf(1, 1, 1)) }()
	if op := <-stalled; op != "append" {
		t.Errorf("OnStall(%q), want append", op)
	}
	close(stuck.release)
	// The write was slow, not wrong.
	if err := <-done; err != nil {
		t.Errorf("StoreLogs = %v", err)
	}
	wantLog(t, d.LogStore(), entriesOf(1, 1, 1))
}

type panicBolt struct {
	boltStore
	on bool
}

func (p *panicBolt) GetLog(uint64, *raft.Log) error { panic("page 12: bad") }

func (p *panicBolt) StoreLogs(logs []*raft.Log) error {
	if p.on {
		panic("page 13: bad")
	}
	return p.boltStore.StoreLogs(logs)
}

// bolt panics on pages that make no sense. It becomes an error and the callback is told.
func TestBoltPanics(t *testing.T) {
	tests := []struct {
		name string
		call func(*LogStore) error
		want string
	}{
		{"read", func(l *LogStore) error { return l.GetLog(1, &raft.Log{}) }, "page 12: bad"},
		{"write", func(l *LogStore) error { return l.StoreLogs(entriesOf(3, 3, 1)) }, "page 13: bad"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var reported []error
			bolt := &panicBolt{}
			d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true, CacheBytes: 1, journal: journalOptions{off: true},
				OnCorrupt: func(err error) { reported = append(reported, err) },
				wrapBolt:  func(b boltStore) boltStore { bolt.boltStore = b; return bolt }})
			mustStore(t, d.LogStore(), entriesOf(1, 2, 1))
			bolt.on = true
			err := tt.call(d.LogStore())
			want := d.wal(logFile) + " is damaged: " + tt.want + "; restore this member by removing it and adding it again"
			if !errors.Is(err, ErrDamaged) || err.Error() != want {
				t.Errorf("error = %v, want %s", err, want)
			}
			_ = tt.call(d.LogStore())
			if len(reported) != 1 || reported[0].Error() != want {
				t.Errorf("OnCorrupt got %v, want one error", reported)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			_ = bolt.boltStore.Close() // here it can still be closed
		})
	}
}
