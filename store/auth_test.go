package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/auth"
)

// changeAuth changes users and roles through the member.
func (n *testNode) changeAuth(c auth.Change) (auth.Outcome, error) {
	n.cluster.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return n.store.ChangeAuth(ctx, c)
}

func (n *testNode) putUser(name string, roles ...string) {
	n.cluster.t.Helper()
	out, err := n.changeAuth(auth.Change{Op: auth.PutUser, Name: name, User: &auth.UserChange{Hash: "hash of " + name, Roles: roles}})
	if err != nil || !out.Created {
		n.cluster.t.Fatalf("put user %s through %s: %+v, %v", name, n.options.Name, out, err)
	}
	if n.store.AuthState().User(name) == nil {
		n.cluster.t.Errorf("%s does not know the user %s that it has just made", n.options.Name, name)
	}
}

func (n *testNode) authState() string {
	b, err := json.Marshal(n.store.AuthState())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Users made through a follower are the same on every member, and come back from the log as well as
// from a snapshot.
func TestUsersAndRolesOnEveryMember(t *testing.T) {
	c := newTestCluster(t, 3)
	follower := c.follower()
	const fresh = 7 // where three new members begin (spec keys 8.2)
	await(t, "all members have introduced themselves", func() bool { return follower.store.Tree().Index() == fresh })
	follower.putUser(auth.Root)
	follower.putUser("bob", "r")
	if _, err := follower.changeAuth(auth.Change{Op: auth.PutRole, Name: "r", Role: &auth.RoleChange{}}); err != nil {
		t.Fatal(err)
	}
	guest := auth.Everything()
	if _, err := follower.changeAuth(auth.Change{Op: auth.Enable, Guest: &guest}); err != nil {
		t.Fatal(err)
	}
	// A refusal is the same wherever it is asked for.
	for _, n := range c.nodes {
		var refusal *api.StatusError
		if _, err := n.changeAuth(auth.Change{Op: auth.DeleteUser, Name: auth.Root}); !errors.As(err, &refusal) || refusal.Status != 403 {
			t.Errorf("%s: deleting root: %v, want 403", n.options.Name, err)
		}
	}
	if err := follower.store.Linearizable(context.Background()); err != nil {
		t.Fatal(err)
	}
	// 5 for the first user, one each for the next and the role, two for the switch and role guest.
	if got := follower.store.Tree().Index() - fresh; got != 9 {
		t.Errorf("%d steps of the index, want 9", got)
	}
	want := follower.authState()
	for _, name := range []string{`"enabled":true`, `"user":"bob"`, `"role":"guest"`} {
		if !strings.Contains(want, name) {
			t.Errorf("state %s lacks %s", want, name)
		}
	}
	for _, n := range c.nodes {
		await(t, n.options.Name+" has the users", func() bool { return n.authState() == want })
	}

	restart := func(from string) {
		t.Helper()
		for _, n := range c.nodes {
			n.crash()
			n.options.SnapshotCount = 20
		}
		for _, n := range c.nodes {
			n.restart()
		}
		for _, n := range c.nodes {
			await(t, n.options.Name+" has the users from "+from, func() bool { return n.authState() == want })
		}
	}
	restart("the log")
	for i := range 60 {
		c.nodes[0].set(fmt.Sprint("/k", i%5), "v")
	}
	for _, n := range c.nodes {
		await(t, n.options.Name+" takes a snapshot", func() bool {
			list, err := n.store.dir.Snapshots().List()
			return err == nil && len(list) > 0
		})
	}
	restart("a snapshot")
	c.awaitEqual()
}

func TestUnsoundChangeIsNotProposed(t *testing.T) {
	c := newTestCluster(t, 1)
	if _, err := c.nodes[0].changeAuth(auth.Change{Op: auth.PutUser, Name: "a"}); err == nil {
		t.Error("a change that would stop every member was proposed")
	}
	c.nodes[0].putUser("a")
}
