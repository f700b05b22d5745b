//go:build linux && partition

package partition

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// scenarios are the ways in which a minority comes to be. Sides are chosen when a leader is known.
var scenarios = []struct {
	name string
	size int
	// minority picks the members that lose touch with a majority; the first of all leads.
	minority func(members []*cluster.Member) []*cluster.Member
	// cut says what is lost. Nil means everything between the two sides.
	cut func(minority, majority []*cluster.Member) []loss
	// heard says that the minority's messages arrive, so that what it cannot acknowledge may be done
	// nevertheless.
	heard bool
	// hears says that the majority's messages arrive. On connections that are open already that goes on
	// for a while, so the minority may know more than it could confirm.
	hears bool
}{
	{name: "3 members, leader alone", size: 3, minority: leading},
	{name: "3 members, follower alone", size: 3, minority: following},
	{name: "3 members, leader not heard", size: 3, minority: leading, cut: oneWay, hears: true},
	{name: "3 members, leader deaf", size: 3, minority: leading, cut: back, heard: true},
	{name: "3 members, follower not heard", size: 3, minority: following, cut: oneWay, hears: true},
	{name: "3 members, follower deaf", size: 3, minority: following, cut: back, heard: true},
	{name: "3 members, follower without the leader", size: 3, minority: following, cut: withoutLeader},
	{name: "5 members, leader alone", size: 5, minority: leading},
	{name: "5 members, leader and one more", size: 5, minority: func(m []*cluster.Member) []*cluster.Member { return m[:2] }},
	{name: "5 members, two followers", size: 5, minority: func(m []*cluster.Member) []*cluster.Member { return m[3:] }},
}

func leading(m []*cluster.Member) []*cluster.Member   { return m[:1] }
func following(m []*cluster.Member) []*cluster.Member { return m[1:2] }

// back makes the minority deaf: it can send, and nothing comes back.
func back(minority, majority []*cluster.Member) []loss { return oneWay(majority, minority) }

// withoutLeader leaves the minority in touch with everybody but the leader, majority[0].
func withoutLeader(minority, majority []*cluster.Member) []loss {
	return between(minority, majority[:1])
}

// TestPartition cuts a minority off, and looks at both sides until it is back.
func TestPartition(t *testing.T) {
	t.Parallel()
	for _, tt := range scenarios {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNetwork(t, tt.size)
			members := n.leaderFirst()
			minority := tt.minority(members)
			majority := slices.DeleteFunc(slices.Clone(members), func(m *cluster.Member) bool { return slices.Contains(minority, m) })
			losses := between(minority, majority)
			if tt.cut != nil {
				losses = tt.cut(minority, majority)
			}
			t.Logf("%s leads; the minority is %s", members[0].Name, names(minority))

			for _, m := range n.Members {
				mustPut(t, members[0], "/victim/"+m.Name, "alive")
			}
			mustPut(t, members[0], "/event", "before")
			mustPut(t, members[0], "/late", "before")
			n.WaitEqual()
			h := record(n, majority)
			h.await(20)
			led := beCalm(t, members[0], nil)
			views := map[*cluster.Member]*view{}
			for _, m := range minority {
				views[m] = look(t, m)
			}
			mustPut(t, members[0], "/short-lived", "x", "ttl", "8")
			n.reached(minority, indexOf(t, members[0]))
			n.cut(losses)

			start := time.Now()
			n.eventuallyPut(majority[len(majority)-1], "/event", "during")
			t.Logf("measured: writable %v after the cut", time.Since(start).Round(time.Millisecond))
			h.await(20)

			var wait sync.WaitGroup
			for _, m := range minority {
				wait.Go(func() { askForQuorum(t, m, !tt.heard) })
			}
			for _, m := range minority {
				n.wantAlone(m)
			}
			mustPut(t, majority[0], "/late", "during")
			wait.Wait()
			stale := minority
			if tt.hears {
				stale = nil
			}
			for _, m := range stale {
				views[m].wantSilence(m)
			}
			n.wantExpired(majority, stale)

			if !slices.Contains(minority, members[0]) {
				led.wantUndisturbed() // the loss of followers is no reason
			}
			leader := n.leaderOf(majority)
			healthy := beCalm(t, leader, minority)
			h.await(20)
			n.heal()
			healed := time.Now()
			n.reached(minority, indexOf(t, leader))
			t.Logf("measured: caught up %v after the heal", time.Since(healed).Round(time.Millisecond))
			n.WaitReady()
			t.Logf("measured: all healthy %v after the heal", time.Since(healed).Round(time.Millisecond))
			for _, m := range n.Members {
				mustPut(t, m, "/back/"+m.Name, "1")
			}
			h.await(20)
			h.stop()
			n.WaitEqual()
			healthy.wantUndisturbed()
			for _, m := range n.Members {
				if !tt.heard {
					wantUndone(t, m, minority)
				}
				if resp, err := m.Get(limit(t), "/short-lived"); err != nil || resp.Status != http.StatusNotFound {
					t.Errorf("the expired key on %s: %v (%v), want 404", m.Name, resp, err)
				}
			}
			for _, m := range minority {
				views[m].wantAll(m)
			}
			h.verify(n)
		})
	}
}

// leaderFirst returns all members, the leader before the others.
func (n *network) leaderFirst() []*cluster.Member {
	n.t.Helper()
	leader := n.WaitLeader()
	return append([]*cluster.Member{leader}, n.others([]*cluster.Member{leader})...)
}

// leaderOf waits until these members agree on one of them as leader.
func (n *network) leaderOf(members []*cluster.Member) *cluster.Member {
	n.t.Helper()
	var leader *cluster.Member
	cluster.Eventually(n.t, names(members)+" to agree on a leader", func(ctx context.Context) error {
		found := map[string]bool{}
		for _, m := range members {
			l, err := m.LeaderOf(ctx)
			if err != nil {
				return err
			}
			found[l.PeerURLs[0]] = true
		}
		urls := slices.Collect(maps.Keys(found))
		i := slices.IndexFunc(members, func(m *cluster.Member) bool { return m.PeerURL == urls[0] })
		if len(urls) != 1 || i < 0 {
			return fmt.Errorf("they name %v", urls)
		}
		leader = members[i]
		return nil
	})
	return leader
}

// reached waits until these members have applied everything up to an index.
func (n *network) reached(members []*cluster.Member, index uint64) {
	n.t.Helper()
	cluster.Eventually(n.t, fmt.Sprintf("%s to reach index %d", names(members), index), func(ctx context.Context) error {
		for _, m := range members {
			resp, err := m.Get(ctx, "/event")
			if err != nil || resp.Index() < index {
				return fmt.Errorf("%s is at %d (%v)", m.Name, resp.Index(), err)
			}
		}
		return nil
	})
}

// eventuallyPut repeats a write until it is acknowledged.
func (n *network) eventuallyPut(m *cluster.Member, key, value string) {
	n.t.Helper()
	cluster.Eventually(n.t, "a write through "+m.Name, func(ctx context.Context) error {
		resp, err := m.Put(ctx, key, value)
		if err == nil && !resp.OK() {
			err = fmt.Errorf("%v", resp)
		}
		return err
	})
}

// wantAlone waits until a member knows that it belongs to no quorum, and checks what it answers then.
func (n *network) wantAlone(m *cluster.Member) {
	n.t.Helper()
	cluster.Eventually(n.t, m.Name+" to know that it is alone", func(ctx context.Context) error {
		for _, path := range []string{"/v2/members/leader", "/health"} {
			resp, err := m.Do(ctx, http.MethodGet, path, "", "")
			if err != nil || resp.Status != http.StatusServiceUnavailable {
				return fmt.Errorf("%s: %v (%v)", path, resp, err)
			}
		}
		return nil
	})
	for _, path := range []string{"/v2/members", "/v2/machines"} {
		resp, err := m.Do(limit(n.t), http.MethodGet, path, "", "")
		if err != nil || resp.Status != http.StatusOK {
			n.t.Errorf("%s on the lone %s: %v (%v), want 200", path, m.Name, resp, err)
		}
	}
	resp, err := m.Do(limit(n.t), http.MethodGet, "/v2/stats/self", "", "")
	if err != nil || !strings.Contains(resp.Body, `"state":"StateFollower"`) || !strings.Contains(resp.Body, `"leader":""`) {
		n.t.Errorf("/v2/stats/self on the lone %s: %v (%v), want a follower without a leader", m.Name, resp, err)
	}
}

// askForQuorum sends a member without a quorum what it cannot do. It says of all that the outcome is open,
// after its own time limit of 5 s and two election time-outs, and not before.
func askForQuorum(t *testing.T, m *cluster.Member, members bool) {
	type request struct {
		name, method, path, contentType, body, want string
	}
	const unknown = `"errorCode":300,"message":"Raft Internal Error"`
	requests := []request{
		{"PUT", http.MethodPut, "/v2/keys/lone/" + m.Name + "/put", cluster.Form, "value=x", unknown},
		{"POST", http.MethodPost, "/v2/keys/lone/" + m.Name, cluster.Form, "value=x", unknown},
		{"DELETE", http.MethodDelete, "/v2/keys/victim/" + m.Name, "", "", unknown},
		{"compare and swap", http.MethodPut, "/v2/keys/victim/" + m.Name + "?prevValue=alive", cluster.Form, "value=x", unknown},
		{"quorum read", http.MethodGet, "/v2/keys/event?quorum=true", "", "", unknown},
	}
	if members { // where it would be done after all, it would change what follows
		requests = append(requests, request{"adding a member", http.MethodPost, "/v2/members", "application/json",
			`{"peerURLs":["http://192.0.2.1:2380"]}`, `{"message":"Internal Server Error"}`})
	}
	ctx := limit(t)
	var wait sync.WaitGroup
	for _, r := range requests {
		wait.Go(func() {
			start := time.Now()
			resp, err := m.Do(ctx, r.method, r.path, r.contentType, r.body)
			if took := time.Since(start).Round(time.Millisecond); err != nil || resp.Status != http.StatusInternalServerError || !strings.Contains(resp.Body, r.want) {
				t.Errorf("%s on the lone %s: %v (%v) after %v, want 500 with %s", r.name, m.Name, resp, err, took, r.want)
			} else if r.want == unknown && took < 6*time.Second {
				t.Errorf("%s on the lone %s was given up after %v already, want 7 s", r.name, m.Name, took)
			} else {
				t.Logf("measured: %s on %s answered 500 after %v", r.name, m.Name, took)
			}
		})
	}
	wait.Wait()
}

// wantUndone checks, on one member and after the heal, that nothing is left of what the minority was asked
// to do and has answered with 500.
func wantUndone(t *testing.T, m *cluster.Member, minority []*cluster.Member) {
	t.Helper()
	for _, lone := range minority {
		if resp, err := m.Get(limit(t), "/lone/"+lone.Name); err != nil || resp.Status != http.StatusNotFound {
			t.Errorf("on %s a write is found that was answered 500: %v (%v)", m.Name, resp, err)
		}
		if resp, err := m.Get(limit(t), "/victim/"+lone.Name); err != nil || resp.Value() != "alive" {
			t.Errorf("on %s a write took effect that was answered 500: %v (%v)", m.Name, resp, err)
		}
	}
	if list, err := m.MemberList(limit(t)); err != nil || slices.ContainsFunc(list, func(l api.Member) bool {
		return slices.Contains(l.PeerURLs, "http://192.0.2.1:2380")
	}) {
		t.Errorf("on %s a member was added, which was answered 500: %v (%v)", m.Name, list, err)
	}
}

// wantExpired waits until a short-lived key is gone where time is agreed upon. Where it is not, the key stays.
func (n *network) wantExpired(majority, minority []*cluster.Member) {
	n.t.Helper()
	cluster.Eventually(n.t, "the key to expire", func(ctx context.Context) error {
		for _, m := range majority {
			resp, err := m.Get(ctx, "/short-lived")
			if err != nil || resp.Status != http.StatusNotFound {
				return fmt.Errorf("on %s: %v (%v)", m.Name, resp, err)
			}
		}
		return nil
	})
	for _, m := range minority {
		resp, err := m.Get(limit(n.t), "/short-lived")
		if err != nil || resp.Value() != "x" {
			n.t.Errorf("the key on the lone %s: %v (%v), want it not expired", m.Name, resp, err)
		}
	}
}

// view is what the clients of one member see of its events: with a request for one event of before the cut,
// one of during the cut, and an endless one.
type view struct {
	t      *testing.T
	before *watch
	during *watch // nil when the member may have known better
	stream *watch
	from   uint64 // the stream has every event after this index
}

func look(t *testing.T, m *cluster.Member) *view {
	t.Helper()
	v := &view{t: t, before: open(t, m, "/late?wait=true")}
	v.from = indexOf(t, m)
	v.stream = follow(t, m, logDir, v.from)
	return v
}

// wantSilence checks that the lone member tells neither readers nor watchers what it cannot know, and opens one
// more watch.
func (v *view) wantSilence(m *cluster.Member) {
	v.t.Helper()
	index := indexOf(v.t, m)
	for _, e := range v.stream.seen() {
		if e.Node.ModifiedIndex > index {
			v.t.Errorf("watch %s got event %d, when the member was at %d", v.stream.name, e.Node.ModifiedIndex, index)
		}
	}
	if len(v.before.seen()) > 0 {
		v.t.Errorf("watch %s got %+v during the cut", v.before.name, v.before.seen()[0].Node)
	}
	resp, err := m.Get(limit(v.t), "/late")
	if err != nil || resp.Value() != "before" {
		v.t.Errorf("/late on the lone %s: %v (%v), want the old value", m.Name, resp, err)
	}
	v.during = open(v.t, m, "/late?wait=true")
}

// wantAll checks, after the heal, that the watches got what they had missed.
func (v *view) wantAll(m *cluster.Member) {
	v.t.Helper()
	for _, w := range []*watch{v.before, v.during} {
		if w == nil {
			continue
		}
		select {
		case <-w.done:
		case <-time.After(cluster.Deadline):
			v.t.Fatalf("watch %s got nothing after the heal", w.name)
		}
		if events := w.seen(); len(events) != 1 || value(events[0].Node) != "during" {
			v.t.Errorf("watch %s got %v, want one event", w.name, events)
		}
	}
	all, err := readAll(limit(v.t), m)
	if err != nil {
		v.t.Fatal(err)
	}
	var want []uint64
	for _, w := range all.log {
		if w.index > v.from {
			want = append(want, w.index)
		}
	}
	slices.Sort(want)
	cluster.Eventually(v.t, "the stream to have delivered everything", func(context.Context) error {
		if have := len(v.stream.seen()); have < len(want) {
			return fmt.Errorf("%d events of %d", have, len(want))
		}
		return nil
	})
	var have []uint64
	for _, e := range v.stream.seen() {
		have = append(have, e.Node.ModifiedIndex)
	}
	if !slices.Equal(have, want) {
		v.t.Errorf("watch %s got events %v, want %v", v.stream.name, have, want)
	}
}

// mustPut sets a key and fails the test unless that is acknowledged.
func mustPut(t *testing.T, m *cluster.Member, key, value string, fields ...string) {
	t.Helper()
	if resp, err := m.Put(limit(t), key, value, fields...); err != nil || !resp.OK() {
		t.Fatalf("PUT %s = %q on %s: %v (%v)", key, value, m.Name, resp, err)
	}
}

// indexOf is what a member has applied.
func indexOf(t *testing.T, m *cluster.Member) uint64 {
	t.Helper()
	return mustGet(t, m).Index()
}

// term is the member's.
func term(t *testing.T, m *cluster.Member) uint64 {
	t.Helper()
	return mustGet(t, m).Term()
}

func mustGet(t *testing.T, m *cluster.Member) cluster.Response {
	t.Helper()
	resp, err := m.Get(limit(t), "/event")
	if err != nil || !resp.OK() {
		t.Fatalf("GET /event on %s: %v (%v)", m.Name, resp, err)
	}
	return resp
}
