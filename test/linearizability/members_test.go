//go:build linux && faults

package linearizability

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// replace removes a member and adds another in its place.
func replace(t *troubleMaker, ctx context.Context) {
	nodes := t.present()
	if len(nodes) < 3 {
		return
	}
	old := t.pick([]role{leader, follower, follower}[t.rng.IntN(3)])[0]
	others := slices.DeleteFunc(nodes, func(n *node) bool { return n == old })
	t.succeed(ctx, old, others)
}

// succeed puts another member in the place of one, and says whether that one is certainly removed.
func (t *troubleMaker) succeed(ctx context.Context, old *node, others []*node) bool {
	if !t.remove(ctx, old, others) {
		return false
	}
	t.mu.Lock()
	old.gone, old.down = true, true
	t.mu.Unlock()
	t.c.Forget(old.m)
	limited, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	for limited.Err() == nil && old.m.Running() {
		sleep(limited, 20*time.Millisecond)
	}
	cancel()
	if old.m.Running() {
		t.Logf("%s, which was removed, has not ended", old.m.Name)
		old.m.Continue()
		old.m.Kill()
	}
	t.join(ctx, old.slot, others)
	return true
}

// eachUntil asks nodes in turn until one says yes, ctx ends or the time is up.
func eachUntil(ctx context.Context, limit time.Duration, nodes []*node, ask func(context.Context, *node) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for ctx.Err() == nil {
		for _, n := range nodes {
			one, cancel := context.WithTimeout(ctx, 9*time.Second)
			ok := ask(one, n)
			cancel()
			if ok {
				return true
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
	return false
}

// remove returns whether the member is certainly removed. If that stays open it is still looked upon as
// a member, unless it is found out later.
func (t *troubleMaker) remove(ctx context.Context, old *node, others []*node) bool {
	asked := false
	removed := eachUntil(ctx, 10*time.Second, others, func(ctx context.Context, via *node) bool {
		resp, err := via.m.ChangeMembers(ctx, http.MethodDelete, old.id)
		asked = asked || sent(err) && resp.Status != http.StatusServiceUnavailable
		return err == nil && (resp.OK() || resp.Status == http.StatusGone)
	})
	if removed || !asked {
		return removed
	}
	// It may be done yet, so it has to be.
	i := 0
	cluster.Eventually(t.run, "a decision about the removal of "+old.m.Name, func(ctx context.Context) error {
		i++
		resp, err := others[i%len(others)].m.ChangeMembers(ctx, http.MethodDelete, old.id)
		if err != nil || !resp.OK() && resp.Status != http.StatusGone {
			return fmt.Errorf("%v (%v)", resp, err)
		}
		return nil
	})
	return true
}

// join adds a member that takes a slot. When that cannot be done now, the cluster stays smaller.
func (t *troubleMaker) join(ctx context.Context, slot int, others []*node) {
	t.mu.Lock()
	t.run.joined++
	name := fmt.Sprintf("j%d", t.run.joined)
	t.mu.Unlock()
	m := t.c.Join(name)
	t.behindProxy(slot, m)
	t.withClock(m)
	id := ""
	added := eachUntil(ctx, 20*time.Second, others, func(ctx context.Context, via *node) bool {
		resp, err := via.m.ChangeMembers(ctx, http.MethodPost, "", m.PeerURL)
		if err == nil && (resp.OK() || resp.Status == http.StatusConflict) {
			list, err := via.m.MemberList(ctx)
			if err != nil {
				return false
			}
			i := slices.IndexFunc(list, func(l api.Member) bool { return slices.Contains(l.PeerURLs, m.PeerURL) })
			if i >= 0 {
				id = list[i].ID
			}
		}
		return id != ""
	})
	if !added {
		t.Logf("%s was not added", name)
		t.c.Forget(m)
		return
	}
	n := &node{slot: slot, m: m, id: id, down: true, joining: true}
	t.identify(n)
	t.putOnDisk(n)
	t.mu.Lock()
	t.nodes[slot] = n
	t.mu.Unlock()
	t.count("(member replaced)")
	limited, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	t.bringIn(limited, n, others)
}

// bringIn starts a member that was added, until it knows who it is. It ends when it cannot ask the
// others, or when they are other ones than it was told.
func (r *run) bringIn(ctx context.Context, n *node, others []*node) {
	for ctx.Err() == nil {
		if !n.m.Running() {
			boot, err := r.presentCluster(ctx, n, others)
			if err != nil {
				sleep(ctx, 100*time.Millisecond)
				continue
			}
			n.m.Boot = []string{"--initial-cluster", boot, "--initial-cluster-state", "existing"}
			r.mu.Lock()
			n.life++
			r.mu.Unlock()
			n.m.Start()
		}
		if _, err := n.m.MemberList(ctx); err == nil {
			r.mu.Lock()
			n.down, n.joining = false, false
			r.mu.Unlock()
			r.Logf("%s (%s) has joined", n.m.Name, n.id)
			return
		}
		sleep(ctx, 50*time.Millisecond)
	}
}

// presentCluster is the initial cluster of a member that joins.
func (r *run) presentCluster(ctx context.Context, joins *node, others []*node) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, n := range others {
		list, err := n.m.MemberList(ctx)
		if err != nil {
			continue
		}
		var pairs []string
		for _, l := range list {
			name := l.Name
			switch {
			case l.ID == joins.id:
				name = joins.m.Name
			case name == "":
				name = "unstarted-" + l.ID
			}
			pairs = append(pairs, name+"="+strings.Join(l.PeerURLs, ","))
		}
		return strings.Join(pairs, ","), nil
	}
	return "", errors.New("no list of members")
}
