//go:build linux

package clients

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	etcd "go.etcd.io/etcd/client/v2"
)

func newEtcdClient(t *testing.T, endpoints []string) etcd.Client {
	t.Helper()
	c, err := etcd.New(etcd.Config{Endpoints: endpoints, HeaderTimeoutPerRequest: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantCode fails the test unless err is the API's error with this code.
func wantCode(t *testing.T, what string, err error, code int) {
	t.Helper()
	var e etcd.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("%s: error %v, want code %d", what, err, code)
	}
}

// TestEtcdClientKeys uses every method and option of the v2 client's keys API.
func TestEtcdClientKeys(t *testing.T) {
	cl := start(t, 3)
	ctx := limit(t)
	c := newEtcdClient(t, cl.Endpoints())
	if err := c.Sync(ctx); err != nil {
		t.Fatalf("Sync: %v", err)
	}
	want, have := slices.Sorted(slices.Values(cl.Endpoints())), slices.Sorted(slices.Values(c.Endpoints()))
	if !slices.Equal(have, want) {
		t.Errorf("after Sync the endpoints are %q, want %q", have, want)
	}
	if v, err := c.GetVersion(ctx); err != nil || v.Server == "" || v.Cluster == "" {
		t.Errorf("GetVersion = %+v, %v", v, err)
	}
	k := etcd.NewKeysAPI(c)

	resp, err := k.Set(ctx, "/app/port", "80", nil)
	if err != nil || resp.Action != "set" || resp.Node.Value != "80" || resp.Node.Key != "/app/port" || resp.Index == 0 || resp.ClusterID == "" {
		t.Fatalf("Set = %+v, %v", resp, err)
	}
	set := resp.Node.ModifiedIndex
	resp, err = k.Get(ctx, "/app/port", &etcd.GetOptions{Quorum: true})
	if err != nil || resp.Node.Value != "80" || resp.Node.ModifiedIndex != set {
		t.Errorf("Get = %+v, %v", resp, err)
	}
	_, err = k.Get(ctx, "/nothing", nil)
	if !etcd.IsKeyNotFound(err) {
		t.Errorf("Get of nothing: %v", err)
	}
	_, err = k.Create(ctx, "/app/port", "81")
	wantCode(t, "Create of what exists", err, etcd.ErrorCodeNodeExist)
	_, err = k.Update(ctx, "/app/none", "81")
	wantCode(t, "Update of nothing", err, etcd.ErrorCodeKeyNotFound)
	resp, err = k.Update(ctx, "/app/port", "81")
	if err != nil || resp.Action != "update" || resp.PrevNode.Value != "80" {
		t.Errorf("Update = %+v, %v", resp, err)
	}
	_, err = k.Set(ctx, "/app/port", "82", &etcd.SetOptions{PrevValue: "80"})
	wantCode(t, "swap of another value", err, etcd.ErrorCodeTestFailed)
	_, err = k.Set(ctx, "/app/port", "82", &etcd.SetOptions{PrevIndex: set})
	wantCode(t, "swap of another index", err, etcd.ErrorCodeTestFailed)
	resp, err = k.Set(ctx, "/app/port", "82", &etcd.SetOptions{PrevValue: "81", PrevExist: etcd.PrevExist})
	if err != nil || resp.Action != "compareAndSwap" {
		t.Errorf("swap = %+v, %v", resp, err)
	}
	resp, err = k.Set(ctx, "/app/short", "x", &etcd.SetOptions{TTL: time.Hour})
	if err != nil || resp.Node.TTL != 3600 || resp.Node.Expiration == nil || time.Until(*resp.Node.Expiration) < 50*time.Minute {
		t.Errorf("Set with a TTL = %+v, %v", resp, err)
	}
	resp, err = k.Set(ctx, "/app/short", "", &etcd.SetOptions{TTL: 2 * time.Hour, Refresh: true, PrevExist: etcd.PrevExist})
	if err != nil || resp.Node.TTL != 7200 || resp.Node.Value != "x" {
		t.Errorf("refresh = %+v, %v", resp, err)
	}
	resp, err = k.Set(ctx, "/app/quiet", "x", &etcd.SetOptions{NoValueOnSuccess: true})
	if err != nil || resp.Node != nil && resp.Node.Value != "" {
		t.Errorf("Set without its value in the answer = %+v, %v", resp, err)
	}

	var made []string
	for range 3 {
		resp, err = k.CreateInOrder(ctx, "/queue", "job", &etcd.CreateInOrderOptions{TTL: time.Hour})
		if err != nil {
			t.Fatalf("CreateInOrder: %v", err)
		}
		made = append(made, resp.Node.Key)
	}
	resp, err = k.Get(ctx, "/queue", &etcd.GetOptions{Sort: true, Recursive: true})
	if err != nil || len(resp.Node.Nodes) != 3 {
		t.Fatalf("Get of the queue = %+v, %v", resp, err)
	}
	for i, n := range resp.Node.Nodes {
		if n.Key != made[i] {
			t.Errorf("the queue's entry %d is %s, want %s", i, n.Key, made[i])
		}
	}

	if _, err = k.Set(ctx, "/dir", "", &etcd.SetOptions{Dir: true, PrevExist: etcd.PrevNoExist}); err != nil {
		t.Errorf("Set of a directory: %v", err)
	}
	_, err = k.Delete(ctx, "/app", &etcd.DeleteOptions{Dir: true})
	wantCode(t, "Delete of a full directory", err, etcd.ErrorCodeDirNotEmpty)
	_, err = k.Delete(ctx, "/app/port", &etcd.DeleteOptions{PrevValue: "1"})
	wantCode(t, "Delete of another value", err, etcd.ErrorCodeTestFailed)
	resp, err = k.Delete(ctx, "/app/port", &etcd.DeleteOptions{PrevValue: "82"})
	if err != nil || resp.Action != "compareAndDelete" {
		t.Errorf("Delete of a value = %+v, %v", resp, err)
	}
	if resp, err = k.Delete(ctx, "/app", &etcd.DeleteOptions{Recursive: true, Dir: true}); err != nil || resp.Action != "delete" {
		t.Errorf("Delete of all = %+v, %v", resp, err)
	}
}

// TestEtcdClientWatch watches from the past and into the future, with a dying leader in between.
func TestEtcdClientWatch(t *testing.T) {
	cl := start(t, 3)
	ctx := limit(t)
	k := etcd.NewKeysAPI(newEtcdClient(t, cl.Endpoints()))
	first, err := k.Set(ctx, "/w/a", "1", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Set(ctx, "/w/b", "2", nil); err != nil {
		t.Fatal(err)
	}
	w := k.Watcher("/w", &etcd.WatcherOptions{Recursive: true, AfterIndex: first.Node.ModifiedIndex - 1})
	next := func(key, value string) {
		t.Helper()
		resp, err := w.Next(ctx)
		if err != nil {
			t.Fatalf("Next: %v, want %s", err, key)
		}
		if resp.Node.Key != key || resp.Node.Value != value {
			t.Errorf("Next = %s %s %q, want %s %q", resp.Action, resp.Node.Key, resp.Node.Value, key, value)
		}
	}
	next("/w/a", "1")
	next("/w/b", "2")
	cl.WaitLeader().Kill()
	cl.WaitLeader()
	// A write that finds the dead member, or no leader yet, goes to the next one; the value is the same.
	for {
		if _, err = k.Set(ctx, "/w/c", "3", nil); err == nil {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no write after the leader's death: %v", err)
		}
	}
	next("/w/c", "3")

	none, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := k.Watcher("/w", nil).Next(none); err == nil {
		t.Error("a cancelled watch returned an event")
	}
}

// TestEtcdClientMembers reads and changes the membership.
func TestEtcdClientMembers(t *testing.T) {
	cl := start(t, 1)
	ctx := limit(t)
	m := etcd.NewMembersAPI(newEtcdClient(t, cl.Endpoints()))
	list, err := m.List(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "m0" || list[0].PeerURLs[0] != cl.Members[0].PeerURL || list[0].ClientURLs[0] != cl.Members[0].ClientURL {
		t.Fatalf("List = %+v, %v", list, err)
	}
	leader, err := m.Leader(ctx)
	if err != nil || leader.ID != list[0].ID {
		t.Errorf("Leader = %+v, %v", leader, err)
	}
	if _, err := m.Add(ctx, cl.Members[0].PeerURL); err == nil {
		t.Error("Add of a URL that is taken succeeded")
	}
	if err := m.Update(ctx, list[0].ID, list[0].PeerURLs); err != nil {
		t.Errorf("Update: %v", err)
	}
	if err := m.Remove(ctx, "abc"); err == nil {
		t.Error("Remove of nobody succeeded")
	}
	in := cl.Join("new")
	added, err := m.Add(ctx, in.PeerURL)
	if err != nil || added.ID == "" || added.PeerURLs[0] != in.PeerURL {
		t.Fatalf("Add = %+v, %v", added, err)
	}
	in.Start()
	cl.WaitReady()
	if list, err := m.List(ctx); err != nil || len(list) != 2 {
		t.Errorf("List = %+v, %v, want 2 members", list, err)
	}
}

// TestEtcdClientAuth makes users and roles, switches authentication on and off, and is refused in between.
func TestEtcdClientAuth(t *testing.T) {
	cl := start(t, 1)
	ctx := limit(t)
	c := newEtcdClient(t, cl.Endpoints())
	users, roles := etcd.NewAuthUserAPI(c), etcd.NewAuthRoleAPI(c)
	steps := []struct {
		what string
		do   func() error
	}{
		{"add root", func() error { return users.AddUser(ctx, "root", "secret") }},
		{"add alice", func() error { return users.AddUser(ctx, "alice", "wonder") }},
		{"add a role", func() error { return roles.AddRole(ctx, "reader") }},
		{"grant a role its keys", func() error {
			_, err := roles.GrantRoleKV(ctx, "reader", []string{"/pub/*"}, etcd.ReadPermission)
			return err
		}},
		{"grant alice the role", func() error { _, err := users.GrantUser(ctx, "alice", []string{"reader"}); return err }},
		{"set a key", func() error { _, err := etcd.NewKeysAPI(c).Set(ctx, "/pub/x", "1", nil); return err }},
		{"enable", func() error { return etcd.NewAuthAPI(c).Enable(ctx) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatalf("%s: %v", s.what, err)
		}
	}
	as := func(user, password string) etcd.Client {
		c, err := etcd.New(etcd.Config{Endpoints: cl.Endpoints(), Username: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	alice := etcd.NewKeysAPI(as("alice", "wonder"))
	if resp, err := alice.Get(ctx, "/pub/x", nil); err != nil || resp.Node.Value != "1" {
		t.Errorf("alice reads %+v, %v", resp, err)
	}
	_, err := alice.Set(ctx, "/pub/x", "2", nil)
	wantCode(t, "alice writes", err, etcd.ErrorCodeUnauthorized)
	_, err = etcd.NewKeysAPI(as("alice", "wrong")).Get(ctx, "/pub/x", nil)
	wantCode(t, "a wrong password", err, etcd.ErrorCodeUnauthorized)
	root := as("root", "secret")
	if list, err := etcd.NewAuthUserAPI(root).ListUsers(ctx); err != nil || !slices.Contains(list, "alice") {
		t.Errorf("ListUsers = %q, %v", list, err)
	}
	if list, err := etcd.NewAuthRoleAPI(root).ListRoles(ctx); err != nil || !slices.Contains(list, "reader") {
		t.Errorf("ListRoles = %q, %v", list, err)
	}
	if err := etcd.NewAuthAPI(root).Disable(ctx); err != nil {
		t.Errorf("disable: %v", err)
	}
	if err := users.RemoveUser(ctx, "alice"); err != nil {
		t.Errorf("remove alice: %v", err)
	}
	if err := roles.RemoveRole(ctx, "reader"); err != nil {
		t.Errorf("remove the role: %v", err)
	}
}
