package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// gatedLog is a log in memory that writes only when it is allowed to.
type gatedLog struct {
	*raft.InmemStore
	allow chan error // a value lets one write pass, or fail
}

func newGatedLog() *gatedLog {
	return &gatedLog{InmemStore: raft.NewInmemStore(), allow: make(chan error, 100)}
}

func (g *gatedLog) StoreLogs(entries []*raft.Log) error {
	if err := <-g.allow; err != nil {
		return err
	}
	return g.InmemStore.StoreLogs(entries)
}

func (g *gatedLog) IsMonotonic() bool { return true }

func entryAt(index uint64, kind raft.LogType) *raft.Log {
	return &raft.Log{Index: index, Term: 1, Type: kind, Data: []byte{byte(index)}}
}

// newTestParallel returns a log that holds entry 1 and whose member leads while leading is true.
func newTestParallel(t *testing.T, leading *bool) (*parallelLog, *gatedLog, chan error) {
	t.Helper()
	disk := newGatedLog()
	if err := disk.InmemStore.StoreLogs([]*raft.Log{entryAt(1, raft.LogConfiguration)}); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	p, err := newParallelLog(disk, func() bool { return *leading }, func(err error) { failed <- err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(disk.allow)
		p.close()
	})
	return p, disk, failed
}

func ack(entries ...*raft.Log) (*raft.AppendEntriesRequest, *raft.AppendEntriesResponse) {
	return &raft.AppendEntriesRequest{Entries: entries}, &raft.AppendEntriesResponse{Success: true}
}

// A leader's write returns before it is on disk, and no acknowledgement of it counts until it is.
func TestAcknowledgementsWaitForTheLeadersDisk(t *testing.T) {
	leading := true
	p, disk, _ := newTestParallel(t, &leading)
	entry := entryAt(2, raft.LogCommand)
	if err := p.StoreLogs([]*raft.Log{entry}); err != nil { // would block if it were not deferred
		t.Fatal(err)
	}
	if last, err := p.LastIndex(); last != 2 || err != nil {
		t.Errorf("LastIndex = %d, %v, want 2", last, err)
	}
	var got raft.Log
	if err := p.GetLog(2, &got); err != nil || got.Index != 2 {
		t.Errorf("GetLog of a pending entry = %+v, %v", got, err)
	}
	if last, _ := disk.LastIndex(); last != 1 {
		t.Fatal("the entry is on disk already")
	}
	held := make(chan struct{})
	go func() {
		request, response := ack(entry)
		p.hold(context.Background(), request, response)
		close(held)
	}()
	// What needs no waiting passes: older entries, heartbeats and refusals.
	request, response := ack(entryAt(1, raft.LogCommand))
	p.hold(context.Background(), request, response)
	request, response = ack()
	p.hold(context.Background(), request, response)
	request, response = ack(entry)
	response.Success = false
	p.hold(context.Background(), request, response)
	select {
	case <-held:
		t.Fatal("an acknowledgement counted before the entry was on this disk")
	default:
	}
	disk.allow <- nil
	<-held
	if last, _ := disk.LastIndex(); last != 2 {
		t.Error("the acknowledgement counted, and the entry is not on disk")
	}
}

func TestHeldAcknowledgementEndsWithItsConnection(t *testing.T) {
	leading := true
	p, disk, _ := newTestParallel(t, &leading)
	entry := entryAt(2, raft.LogCommand)
	if err := p.StoreLogs([]*raft.Log{entry}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	request, response := ack(entry)
	p.hold(ctx, request, response)
	disk.allow <- nil
}

// Followers, single voters and changes of the configuration write before they return.
func TestWritesThatAreNotDeferred(t *testing.T) {
	tests := []struct {
		name    string
		leading bool
		kind    raft.LogType
	}{
		{"follower", false, raft.LogCommand},
		{"configuration", true, raft.LogConfiguration},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, disk, _ := newTestParallel(t, &tt.leading)
			disk.allow <- nil
			if err := p.StoreLogs([]*raft.Log{entryAt(2, tt.kind)}); err != nil {
				t.Fatal(err)
			}
			if last, _ := disk.LastIndex(); last != 2 {
				t.Error("StoreLogs returned before the entry was on disk")
			}
			disk.allow <- errors.New("disk full")
			if err := p.StoreLogs([]*raft.Log{entryAt(3, tt.kind)}); err == nil {
				t.Error("a failed write was reported as done")
			}
		})
	}
}

// A write behind deferred ones waits for them, so that the log on disk never has a hole.
func TestWritesKeepTheirOrder(t *testing.T) {
	leading := true
	p, disk, _ := newTestParallel(t, &leading)
	if err := p.StoreLogs([]*raft.Log{entryAt(2, raft.LogCommand)}); err != nil {
		t.Fatal(err)
	}
	leading = false
	done := make(chan error, 1)
	go func() { done <- p.StoreLogs([]*raft.Log{entryAt(3, raft.LogCommand)}) }()
	disk.allow <- nil
	disk.allow <- nil
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 3; i++ {
		var got raft.Log
		if err := disk.GetLog(i, &got); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}

// A deposed leader cuts off what was overruled; acknowledgements of the entries that take their
// place are held anew.
func TestDeleteRangeOfPendingEntries(t *testing.T) {
	leading := true
	p, disk, _ := newTestParallel(t, &leading)
	if err := p.StoreLogs([]*raft.Log{entryAt(2, raft.LogCommand), entryAt(3, raft.LogCommand)}); err != nil {
		t.Fatal(err)
	}
	disk.allow <- nil
	if err := p.DeleteRange(2, 3); err != nil {
		t.Fatal(err)
	}
	if last, _ := p.LastIndex(); last != 1 {
		t.Errorf("LastIndex = %d, want 1", last)
	}
	entry := entryAt(2, raft.LogCommand)
	if err := p.StoreLogs([]*raft.Log{entry}); err != nil {
		t.Fatal(err)
	}
	held := make(chan struct{})
	go func() {
		request, response := ack(entry)
		p.hold(context.Background(), request, response)
		close(held)
	}()
	select {
	case <-held:
		t.Error("the acknowledgement of a new entry counted because of an old one with its number")
	case <-time.After(10 * time.Millisecond): // only lets a wrong one show itself
	}
	disk.allow <- nil
	<-held
}

func TestFailedDeferredWriteStopsTheMember(t *testing.T) {
	leading := true
	p, disk, failed := newTestParallel(t, &leading)
	entry := entryAt(2, raft.LogCommand)
	if err := p.StoreLogs([]*raft.Log{entry}); err != nil {
		t.Fatal(err)
	}
	disk.allow <- errors.New("input/output error")
	if err := <-failed; err == nil || err.Error() != "input/output error" {
		t.Errorf("the member was told %v", err)
	}
	leading = false
	if err := p.StoreLogs([]*raft.Log{entryAt(3, raft.LogCommand)}); err == nil {
		t.Error("an entry was accepted behind one that is lost")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	request, response := ack(entry)
	p.hold(ctx, request, response)
	if ctx.Err() == nil {
		t.Error("an acknowledgement of an entry that is not on disk counted")
	}
}

func TestCloseWritesWhatIsPending(t *testing.T) {
	leading := true
	disk := newGatedLog()
	if err := disk.InmemStore.StoreLogs([]*raft.Log{entryAt(1, raft.LogConfiguration)}); err != nil {
		t.Fatal(err)
	}
	p, err := newParallelLog(disk, func() bool { return leading }, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.StoreLogs([]*raft.Log{entryAt(2, raft.LogCommand)}); err != nil {
		t.Fatal(err)
	}
	disk.allow <- nil
	p.close()
	if last, _ := disk.LastIndex(); last != 2 {
		t.Error("close left an entry behind")
	}
	if err := p.StoreLogs([]*raft.Log{entryAt(3, raft.LogCommand)}); !errors.Is(err, errLogClosed) {
		t.Errorf("write after close: %v", err)
	}
}
