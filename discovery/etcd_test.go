//go:build linux

package discovery

import (
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// TestWithEtcd mixes nodes of etcd 3.4 and ours under tokens that etcd keeps, once behind our service
// and once as plain keys.
func TestWithEtcd(t *testing.T) {
	if cluster.EtcdBinary() == "" {
		t.Skip("there is no etcd here to compare with")
	}
	store := cluster.Start(t, cluster.Options{Kind: cluster.Etcd}).Members[0]
	target, err := url.Parse(store.ClientURL)
	if err != nil {
		t.Fatal(err)
	}
	// Without FlushInterval the proxy would hold back the headers of waits.
	keys := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ErrorLog:      log.New(io.Discard, "", 0), // of waits that their clients gave up
	}
	address := serve(t, NewService(ServiceOptions{Keys: keys}))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	t.Run("token of the service", func(t *testing.T) {
		token := newTokenOf(t, address, "2")
		if !strings.HasPrefix(token, address+"/") {
			t.Fatalf("token %q, want one at %s", token, address)
		}
		joinWithEtcd(t, ctx, token)
		// Nobody may change what is there, and a third node finds no place.
		resp, err := http.PostForm(token+"/_config/size", url.Values{"value": {"9"}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("changing the size: status %d, want 403", resp.StatusCode)
		}
		_, err = Join(ctx, Options{URL: token, Name: "late", PeerURLs: []string{"http://h:3"}, DataDir: t.TempDir()})
		if want := ErrFull; err == nil || err.Error() != want.Error() {
			t.Errorf("Join of a third node: %v, want %v", err, want)
		}
	})
	t.Run("plain keys", func(t *testing.T) {
		const key = "/any/path/tok"
		if resp, err := store.Put(ctx, key+"/_config/size", "2"); err != nil || !resp.OK() {
			t.Fatalf("make the token: %v, %v", resp, err)
		}
		joinWithEtcd(t, ctx, store.ClientURL+"/v2/keys"+key)
	})
	t.Run("etcd boots alone", func(t *testing.T) {
		token := newTokenOf(t, address, "1")
		node := cluster.Start(t, cluster.Options{Kind: cluster.Etcd, Discovery: token}).Members[0]
		members, err := node.MemberList(ctx)
		if err != nil || len(members) != 1 || members[0].ID != api.FormatID(api.MemberID([]string{node.PeerURL}, token)) {
			t.Errorf("members %v, %v", members, err)
		}
	})
}

func newTokenOf(t *testing.T, address, size string) string {
	t.Helper()
	resp, err := http.Get(address + "/new?size=" + size)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body := bodyOf(resp)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("/new: %d %s", resp.StatusCode, body)
	}
	return body
}

// joinWithEtcd registers a node of etcd and one of ours, which starts again after a crash.
func joinWithEtcd(t *testing.T, ctx context.Context, token string) {
	t.Helper()
	o := Options{URL: token, Name: "ours", PeerURLs: []string{"http://127.0.0.1:1"}, DataDir: t.TempDir()}
	journal := newJournal()
	o.Logger = journal
	registered := journal.when("waiting for 1 more")
	crashing, crash := context.WithCancel(ctx)
	done := start(func(_ context.Context, o Options) (string, error) { return Join(crashing, o) }, o)
	select {
	case <-registered:
	case got := <-done:
		t.Fatalf("Join ended alone: %+v", got)
	}
	crash()
	await(t, "crash", done)

	done = start(Join, o)
	nodes := cluster.New(t, cluster.Options{Kind: cluster.Etcd, Discovery: token, CrashOK: true})
	nodes.StartAll()
	node := nodes.Members[0]
	want := "ours=http://127.0.0.1:1," + node.Name + "=" + node.PeerURL
	if got := await(t, "end of Join", done); got.err != nil || got.cluster != want {
		t.Fatalf("Join = %q, %v, want %q\n%s", got.cluster, got.err, want, strings.Join(journal.lines(), "\n"))
	}
	node.WaitLog("found 2 needed peer(s)")
	if cluster, err := Lookup(ctx, Options{URL: token}); err != nil || cluster != want {
		t.Errorf("Lookup = %q, %v, want %q", cluster, err, want)
	}
}
