//go:build linux

package clients

import (
	"errors"
	"slices"
	"testing"

	"github.com/coreos/go-etcd/etcd"
)

// TestGoEtcd uses the first Go client, as it was shipped with etcd 0.4 and 2.0.
func TestGoEtcd(t *testing.T) {
	cl := start(t, 3)
	c := etcd.NewClient(cl.Endpoints())
	defer c.Close()
	if !c.SyncCluster() {
		t.Error("SyncCluster failed")
	}
	want, have := slices.Sorted(slices.Values(cl.Endpoints())), slices.Sorted(slices.Values(c.GetCluster()))
	if !slices.Equal(have, want) {
		t.Errorf("after SyncCluster the machines are %q, want %q", have, want)
	}
	wantCode := func(what string, err error, code int) {
		t.Helper()
		var e *etcd.EtcdError
		if !errors.As(err, &e) || e.ErrorCode != code {
			t.Errorf("%s: error %v, want code %d", what, err, code)
		}
	}
	ok := func(what string, resp *etcd.Response, err error) *etcd.Response {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return resp
	}

	resp, err := c.Set("/foo", "bar", 100)
	if r := ok("Set", resp, err); r.Node.Value != "bar" || r.Node.TTL != 100 || r.EtcdIndex == 0 || r.RaftIndex == 0 || r.RaftTerm == 0 {
		t.Errorf("Set = %+v (node %+v)", r, r.Node)
	}
	if err := c.SetConsistency(etcd.STRONG_CONSISTENCY); err != nil {
		t.Error(err)
	}
	resp, err = c.Get("/foo", false, false)
	if r := ok("Get", resp, err); r.Node.Value != "bar" {
		t.Errorf("Get = %+v", r.Node)
	}
	_, err = c.Get("/none", false, false)
	wantCode("Get of nothing", err, 100)
	_, err = c.Create("/foo", "x", 0)
	wantCode("Create of what exists", err, 105)
	resp, err = c.Update("/foo", "baz", 0)
	if r := ok("Update", resp, err); r.PrevNode == nil || r.PrevNode.Value != "bar" {
		t.Errorf("Update = %+v", r)
	}
	resp, err = c.CompareAndSwap("/foo", "qux", 0, "baz", 0)
	ok("CompareAndSwap", resp, err)
	_, err = c.CompareAndSwap("/foo", "x", 0, "baz", 0)
	wantCode("CompareAndSwap of another value", err, 101)
	_, err = c.CompareAndDelete("/foo", "baz", 0)
	wantCode("CompareAndDelete of another value", err, 101)
	resp, err = c.CompareAndDelete("/foo", "qux", 0)
	ok("CompareAndDelete", resp, err)

	resp, err = c.CreateDir("/dir", 0)
	ok("CreateDir", resp, err)
	resp, err = c.UpdateDir("/dir", 1000)
	ok("UpdateDir", resp, err)
	for _, v := range []string{"a", "b"} {
		resp, err = c.AddChild("/dir", v, 0)
		ok("AddChild", resp, err)
	}
	resp, err = c.Get("/dir", true, true)
	if r := ok("Get of a directory", resp, err); len(r.Node.Nodes) != 2 || r.Node.Nodes[0].Value != "a" {
		t.Errorf("Get of a directory = %+v", r.Node)
	}
	_, err = c.DeleteDir("/dir")
	wantCode("DeleteDir of a full one", err, 108)
	resp, err = c.Delete("/dir", true)
	ok("Delete", resp, err)

	resp, err = c.Set("/w/1", "one", 0)
	first := ok("Set", resp, err).Node.ModifiedIndex
	resp, err = c.Watch("/w", first, true, nil, nil)
	if r := ok("Watch", resp, err); r.Node.Value != "one" {
		t.Errorf("Watch from the past = %+v", r.Node)
	}
	events, stop := make(chan *etcd.Response), make(chan bool, 1)
	ended := make(chan error, 1)
	go func() {
		_, err := c.Watch("/w", first, true, events, stop)
		ended <- err
	}()
	<-events
	resp, err = c.Set("/w/2", "two", 0)
	ok("Set", resp, err)
	if r := <-events; r.Node.Value != "two" {
		t.Errorf("a long watch got %+v, want two", r.Node)
	}
	stop <- true
	if err := <-ended; !errors.Is(err, etcd.ErrWatchStoppedByUser) {
		t.Errorf("the stopped watch ended with %v", err)
	}
}
