package fsm

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/auth"
)

// change is a command of member 1 about users and roles.
func change(sequence uint64, c auth.Change) Command {
	return Command{ID: RequestID{Member: 1, Boot: 1, Sequence: sequence, Lowest: 1}, Kind: KindAuth, Auth: &c}
}

func TestUsersAndRolesAreReplicated(t *testing.T) {
	m := newMachine(t, 1)
	guest := auth.Everything()
	root := change(1, auth.Change{Op: auth.PutUser, Name: "root", User: &auth.UserChange{Hash: "h"}})
	m.apply(1,
		root,
		set(RequestID{}, "/a", "1"),
		change(2, auth.Change{Op: auth.Enable, Guest: &guest}),
		root, // the same request again
		change(3, auth.Change{Op: auth.DeleteUser, Name: "root"}),
	)
	if m.fatal != nil {
		t.Fatal(m.fatal)
	}
	// The first change takes 5 steps, the write one, and switching on two with the role guest.
	if got := m.Tree().Index(); got != 8 {
		t.Errorf("index %d, want 8", got)
	}
	if n := len(m.delivered); n != 3 {
		t.Fatalf("%d results delivered, want 3: %+v", n, m.delivered)
	}
	if r := m.delivered[0].Result; r.Err != nil || r.Auth == nil || r.Auth.User == nil || r.Auth.User.Name != "root" || !r.Auth.Created {
		t.Errorf("result of the first change: %+v", r)
	}
	var refusal *api.StatusError
	if r := m.delivered[2].Result; !errors.As(r.Err, &refusal) || refusal.Status != 403 {
		t.Errorf("result of a refused change: %+v", r)
	}
	if !m.Auth().Enabled() || m.Auth().User("root") == nil {
		t.Errorf("state: %+v", m.Auth())
	}
}

func TestUsersAndRolesInSnapshots(t *testing.T) {
	persist := func(m *machine) []byte {
		t.Helper()
		s, err := m.Snapshot()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		var b bytes.Buffer
		if err := s.(*snapshot).write(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	m := newMachine(t, 1)
	m.apply(1, set(RequestID{}, "/a", "1"))
	before := persist(m)
	if bytes.Contains(before, []byte("auth")) {
		t.Error("a snapshot without users and roles speaks of them")
	}
	m.apply(2, change(1, auth.Change{Op: auth.PutUser, Name: "bob", User: &auth.UserChange{Hash: "h", Roles: []string{"r"}}}))
	after := persist(m)
	if !bytes.Contains(after, []byte(`"auth":{"enabled":false,"founded":true,"users":[{"user":"bob","hash":"h","roles":["r"]}]}`)) {
		t.Error("the head of a snapshot is not readable")
	}

	other := newMachine(t, 2)
	for _, data := range [][]byte{before, after} {
		if err := other.Restore(io.NopCloser(bytes.NewReader(data))); err != nil {
			t.Fatal(err)
		}
	}
	if u := other.Auth().User("bob"); u == nil || u.Hash != "h" || strings.Join(u.Roles, " ") != "r" {
		t.Errorf("restored user: %+v", u)
	}
	if !bytes.Equal(persist(other), after) {
		t.Error("the same state makes another snapshot")
	}

	// A state that no member can be in is not taken from a snapshot.
	s, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	head, err := json.Marshal(s.(*snapshot).head)
	if err != nil {
		t.Fatal(err)
	}
	var bad snapshotHead
	if err := json.Unmarshal(bytes.Replace(head, []byte(`"enabled":false`), []byte(`"enabled":true`), 1), &bad); err == nil {
		t.Error("a state in force without user root was read")
	}
}

func TestUnsoundChangesStopTheMember(t *testing.T) {
	for _, c := range []auth.Change{{Op: "later", Name: "a"}, {Op: auth.PutUser, Name: "a"}} {
		m := newMachine(t, 1)
		data := entry(t, 1, change(1, c))
		m.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: data})
		if m.fatal == nil {
			t.Errorf("%+v was applied", c)
		}
		if CheckCommands(data[EntryHeadSize:]) == nil {
			t.Errorf("a leader would take %+v into its log", c)
		}
	}
}
