package store

import (
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/store/disk"
)

// Raft writes the first term and then the first entry. Members whose processes ended in between go on
// where they were.
func TestBootstrapGoesOn(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	urls := []string{"http://" + l.Addr().String()}
	c := &testCluster{t: t, initial: []Initial{{Name: "n0", PeerURLs: urls}}}
	n := c.node(0, c.initial)
	id := api.MemberID(urls, n.options.Token)

	dir, err := disk.Open(disk.Options{DataDir: n.options.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	identity := disk.Identity{
		Token: n.options.Token, Name: "n0", Member: id, Cluster: api.ClusterID([]uint64{id}),
		Initial: []disk.InitialMember{{ID: id, Name: "n0", PeerURLs: urls}},
	}
	if err := dir.WriteIdentity(identity); err != nil {
		t.Fatal(err)
	}
	if err := dir.StableStore().SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}

	n.open(l)
	n.set("/a", "1")
	if got := n.get("/a"); got != "1" {
		t.Errorf("/a = %q", got)
	}
}
