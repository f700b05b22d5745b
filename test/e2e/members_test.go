//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// TestMembersAPI goes through the answers of /v2/members that change nothing, or are refused.
func TestMembersAPI(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	m := c.Members[0]
	id := c.ID(m)
	const jsonType = "application/json"
	tests := []struct {
		name, method, path, contentType, body string
		status                                int
		want                                  string // the whole body, or its beginning when it ends in …
		better                                bool   // than etcd
	}{
		{"list", "GET", "", "", "", 200, `{"members":[{"id":"` + id + `","name":"m0","peerURLs":["` + m.PeerURL + `"],"clientURLs":["` + m.ClientURL + `"]}]}` + "\n", false},
		{"list with a slash", "GET", "/", "", "", 200, `{"members":[…`, false},
		{"leader", "GET", "/leader", "", "", 200, `{"id":"` + id + `",…`, false},
		{"one member", "GET", "/" + id, "", "", 404, `{"message":"Not found"}`, false},
		{"other method", "PATCH", "", "", "", 405, "Method Not Allowed\n", false},
		{"add: no type", "POST", "", "", `{"peerURLs":["http://127.0.0.1:1"]}`, 415, `{"message":"Bad Content-Type , accept application/json"}`, false},
		{"add: form", "POST", "", cluster.Form, `peerURLs=x`, 415, `{"message":"Bad Content-Type application/x-www-form-urlencoded, accept application/json"}`, false},
		{"add: no JSON", "POST", "", jsonType, `{`, 400, `{"message":"unexpected end of JSON input"}`, false},
		{"add: no URL", "POST", "", jsonType, `{}`, 400, `{"message":"no valid URLs given"}`, false},
		{"add: bad URL", "POST", "", jsonType, `{"peerURLs":["bad"]}`, 400, `{"message":"URL scheme must be http, https, unix, or unixs: bad"}`, false},
		{"add: no port", "POST", "", jsonType, `{"peerURLs":["http://127.0.0.1"]}`, 400, `{"message":"URL address does not have the form \"host:port\": http://127.0.0.1"}`, false},
		{"add: path", "POST", "", jsonType, `{"peerURLs":["http://127.0.0.1:1/x"]}`, 400, `{"message":"URL must not contain a path: http://127.0.0.1:1/x"}`, false},
		{"add: URL taken", "POST", "", jsonType, `{"peerURLs":["` + m.PeerURL + `"]}`, 409, `{"message":"membership: peerURL exists"}`, false},
		{"remove: no ID", "DELETE", "", "", "", 405, "Method Not Allowed\n", false},
		{"remove: not hex", "DELETE", "/zzz", "", "", 404, `{"message":"No such member: zzz"}`, false},
		{"remove: unknown", "DELETE", "/00ABC", "", "", 404, `{"message":"No such member: abc"}`, false},
		{"update: no ID", "PUT", "", jsonType, `{"peerURLs":["http://127.0.0.1:1"]}`, 405, "Method Not Allowed\n", false},
		{"update: unknown", "PUT", "/abc", jsonType, `{"peerURLs":["http://127.0.0.1:1"]}`, 404, `{"message":"No such member: abc"}`, false},
		{"update: same", "PUT", "/" + strings.ToUpper(id), jsonType, `{"peerURLs":["` + m.PeerURL + `"]}`, 204, "", false},
		{"remove: the last one", "DELETE", "/" + id, "", "", 500, `{"message":"Internal Server Error"}`, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.better {
				quorateOnly(t, tt.name)
			}
			resp, err := m.Do(limit(t), tt.method, "/v2/members"+tt.path, tt.contentType, tt.body)
			if err != nil {
				t.Fatal(err)
			}
			want, partial := strings.CutSuffix(tt.want, "…")
			if resp.Status != tt.status || resp.Body != want && !(partial && strings.HasPrefix(resp.Body, want)) {
				t.Errorf("%s /v2/members%s = %d %q, want %d %q", tt.method, tt.path, resp.Status, resp.Body, tt.status, tt.want)
			}
			if tt.status != http.StatusMethodNotAllowed && resp.Header.Get("X-Etcd-Cluster-Id") == "" {
				t.Error("the answer has no X-Etcd-Cluster-Id")
			}
		})
	}
	mustPut(t, m, "/still-there", "1")
}

// changeMembers repeats a change until it has the status: a cluster that was just made, or just changed, refuses
// for some seconds because it does not know yet whether all are alive.
func changeMembers(t *testing.T, via *cluster.Member, want int, method, id string, peerURLs ...string) {
	t.Helper()
	cluster.Eventually(t, fmt.Sprintf("%s %s %q through %s", method, id, peerURLs, via.Name), func(ctx context.Context) error {
		resp, err := via.ChangeMembers(ctx, method, id, peerURLs...)
		if err != nil || resp.Status != want {
			return fmt.Errorf("%v (%v), want %d", resp, err, want)
		}
		return nil
	})
}

// waitVoter waits until a new member has been made a voter. In etcd it is one from the start.
func waitVoter(t *testing.T, c *cluster.Cluster, in *cluster.Member) {
	t.Helper()
	if kind() != cluster.Quorate {
		return
	}
	id := c.ID(in)
	cluster.Eventually(t, in.Name+" to be promoted", func(context.Context) error {
		for _, m := range c.Running() {
			for line := range strings.Lines(m.Log()) {
				if strings.Contains(line, "promoted member") && strings.Contains(line, id) {
					return nil
				}
			}
		}
		return fmt.Errorf("nobody says that %s votes", id)
	})
}

// TestReplaceEachMember replaces every member of three by a new one, the leader included, while writes come in.
func TestReplaceEachMember(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	l := startLoad(t, c, "/load")
	out := []*cluster.Member{c.WaitLeader()}
	if long {
		out = append(out, c.Followers()...)
	}
	for i, out := range out {
		l.progress(50)
		id := c.ID(out)
		via := c.Members[(slices.Index(c.Members, out)+1)%len(c.Members)]
		changeMembers(t, via, http.StatusNoContent, http.MethodDelete, id)
		if exit := out.Wait(); exit.Code != 0 {
			t.Errorf("the removed %s ended with %v, want exit status 0", out.Name, exit)
		}
		c.Forget(out)
		l.progress(50)
		changeMembers(t, via, http.StatusGone, http.MethodDelete, id)

		in := c.Join(fmt.Sprintf("new%d", i))
		changeMembers(t, via, http.StatusCreated, http.MethodPost, "", in.PeerURL)
		in.Start()
		c.WaitReady()
		waitVoter(t, c, in)
		l.use(c.Members)
		l.progress(50)
	}
	l.verify(c)
	list, err := c.Members[0].MemberList(limit(t))
	if err != nil || len(list) != 3 {
		t.Errorf("members are now %+v (%v), want 3", list, err)
	}
}

// TestRemovedMember looks at what a removed member's process does: it ends with 0, and again whenever it is
// started on its old directory.
func TestRemovedMember(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	gone := c.Followers()[0]
	id := c.ID(gone)
	gone.Stop()
	via := c.WaitLeader()
	changeMembers(t, via, http.StatusNoContent, http.MethodDelete, id)
	for range 2 {
		gone.Start()
		if exit := gone.Wait(); exit.Code != 0 {
			t.Errorf("the removed member ended with %v, want exit status 0", exit)
		}
		for _, text := range []string{"the member has been permanently removed from the cluster", "the data-dir used by this member must be removed."} {
			if !strings.Contains(gone.Log(), text) {
				t.Errorf("the removed member did not say %q, but:\n%s", text, gone.Log())
			}
		}
	}
	mustPut(t, via, "/x", "1")
}

// TestGrow adds members to a cluster of one until there are three.
func TestGrow(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	first := c.Members[0]
	putMany(t, c.Members, "/before", 500)
	for _, name := range []string{"second", "third"} {
		in := c.Join(name)
		changeMembers(t, first, http.StatusCreated, http.MethodPost, "", in.PeerURL)
		if kind() == cluster.Quorate {
			mustPut(t, first, "/while-it-is-not-there", "1") // unlike in etcd it does not count yet
		}
		in.Start()
		c.WaitReady()
		waitVoter(t, c, in)
		wantValue(t, in, "/before/000/499", "499")
	}
	first.Kill()
	c.WaitLeader()
	eventuallyPut(t, c.Members[1], "/after", "1")
	first.Start()
	c.WaitReady()
	c.WaitEqual()
}

// TestRacingAdds announces one URL twice at the same time: one of the two must win.
func TestRacingAdds(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	in := c.Join("new")
	c.Forget(in) // it is never started
	changeMembers(t, c.Members[0], http.StatusCreated, http.MethodPost, "", "http://127.0.0.1:1")
	id := idOf(t, c.Members[0], "http://127.0.0.1:1")
	changeMembers(t, c.Members[0], http.StatusNoContent, http.MethodDelete, id)

	var wg sync.WaitGroup
	statuses := make([]int, 2)
	ctx := limit(t)
	for i := range statuses {
		wg.Go(func() {
			resp, err := c.Members[i].ChangeMembers(ctx, http.MethodPost, "", in.PeerURL)
			if err != nil {
				t.Error(err)
			}
			statuses[i] = resp.Status
		})
	}
	wg.Wait()
	slices.Sort(statuses)
	// The one that comes second is refused for its URL, or because the first has not started yet.
	if statuses[0] != http.StatusCreated || statuses[1] != http.StatusConflict && statuses[1] != http.StatusInternalServerError {
		t.Errorf("two adds of one URL were answered %v, want one 201 and one 409", statuses)
	}
	if list, err := c.Members[0].MemberList(limit(t)); err != nil || len(list) != 4 {
		t.Errorf("members are %+v (%v), want 4", list, err)
	}
}

// idOf finds the ID of the member with a peer URL.
func idOf(t *testing.T, m *cluster.Member, peerURL string) string {
	t.Helper()
	list, err := m.MemberList(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list {
		if slices.Contains(l.PeerURLs, peerURL) {
			return l.ID
		}
	}
	t.Fatalf("nobody has %s in %+v", peerURL, list)
	return ""
}
