package fsm

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	"github.com/quorate/quorate/api"
)

// TestBackupWhileApplying takes backups while entries are applied. In each, the keys, the members and
// the raft index are of one moment: entry i sets /n to i and adds member i.
func TestBackupWhileApplying(t *testing.T) {
	m := newMachine(t, 1)
	const entries = 300
	var applying sync.WaitGroup
	applying.Go(func() {
		for i := uint64(1); i <= entries; i++ {
			m.apply(int64(i), set(RequestID{1, 2, i, i}, "/n", fmt.Sprint(i)),
				Command{Kind: KindAddMember, Change: Change{ID: i, PeerURLs: []string{fmt.Sprint("http://", i)}}})
		}
	})
	for last := uint64(0); last < entries; {
		b, err := m.Backup()
		if err != nil {
			t.Fatal(err)
		}
		last = b.RaftIndex()
		checkBackup(t, b)
		b.Release()
	}
	applying.Wait()
}

func checkBackup(t *testing.T, b *Backup) {
	t.Helper()
	var file bytes.Buffer
	n, err := b.WriteTo(&file)
	if err != nil || n != int64(file.Len()) {
		t.Fatalf("WriteTo = %d, %v, for %d bytes", n, err, file.Len())
	}
	restored := newMachine(t, 0)
	if err := restored.Restore(io.NopCloser(&file)); err != nil {
		t.Fatal(err)
	}
	at := b.RaftIndex()
	if got := len(restored.Membership().Members); got != int(at) || restored.Applied() != at || restored.Tree().Index() != b.Index() {
		t.Errorf("at entry %d there are %d members, entry %d and index %d, want index %d", at, got, restored.Applied(), restored.Tree().Index(), b.Index())
	}
	if len(restored.requests) > 0 {
		t.Errorf("the requests %v are in the backup", restored.requests)
	}
	if at == 0 {
		return
	}
	answer, err := restored.Tree().Get("/n", false, false)
	if err != nil || answer.Node.Value != fmt.Sprint(at) {
		t.Errorf("at entry %d, /n is %v (%v)", at, answer.Node, err)
	}
	if keys, dirs := b.Count(); keys != 1 || dirs != 0 {
		t.Errorf("Count = %d, %d, want 1, 0", keys, dirs)
	}
}

// TestRefound gives the state of a cluster to another one.
func TestRefound(t *testing.T) {
	m := newMachine(t, 1)
	m.apply(1, set(RequestID{1, 2, 3, 3}, "/a", "b"), Command{Kind: KindAddMember, Change: Change{ID: 1, PeerURLs: []string{"http://old"}}})
	index := m.Tree().Index()
	m.Refound(Membership{ClusterID: 5, Members: []Member{{ID: 7, Name: "n", PeerURLs: []string{"http://new"}}}})
	got := m.Membership()
	want := []api.Member{{ID: "7", Name: "n", PeerURLs: []string{"http://new"}, ClientURLs: []string{}}}
	if got.ClusterID != 5 || len(got.Removed) > 0 || !slices.EqualFunc(got.APIMembers(), want, func(a, b api.Member) bool { return fmt.Sprint(a) == fmt.Sprint(b) }) {
		t.Errorf("Membership = %+v", got)
	}
	if m.Tree().Index() != index || len(m.requests) > 0 {
		t.Errorf("index %d, requests %v, want index %d and no requests", m.Tree().Index(), m.requests, index)
	}
}
