//go:build linux

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// TestNoQuorum leaves one member of three alone: it goes on answering what can be answered without the others, says
// of everything else that the outcome is open, and is whole again as soon as the others are back.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	left := c.Followers()[0]
	mustPut(t, left, "/x", "old")
	watch := openWatch(t, left, "/x?wait=true")
	for _, m := range others(c, left) {
		m.Kill()
	}

	resp, err := left.Get(limit(t), "/x")
	if err != nil || resp.Value() != "old" {
		t.Errorf("GET /x = %v (%v), want the old value", resp, err)
	}
	ctx := limit(t)
	var wg sync.WaitGroup
	for name, request := range map[string]func() (cluster.Response, error){
		"a write":       func() (cluster.Response, error) { return left.Put(ctx, "/y", "new") },
		"a quorum read": func() (cluster.Response, error) { return left.QuorumGet(ctx, "/x") },
	} {
		wg.Go(func() {
			resp, err := request()
			if err != nil || resp.Status != http.StatusInternalServerError || !strings.Contains(resp.Body, `"errorCode":300,"message":"Raft Internal Error"`) {
				t.Errorf("%s without a quorum: %v (%v), want 500 and code 300", name, resp, err)
			}
		})
	}
	wg.Wait()
	cluster.Eventually(t, "the lone member to say that nobody leads", func(ctx context.Context) error {
		for _, path := range []string{"/v2/members/leader", "/health"} {
			resp, err := left.Do(ctx, http.MethodGet, path, "", "")
			if err != nil || resp.Status != http.StatusServiceUnavailable {
				return fmt.Errorf("%s: %v (%v)", path, resp, err)
			}
		}
		return nil
	})
	if list, err := left.MemberList(limit(t)); err != nil || len(list) != 3 {
		t.Errorf("the lone member lists %+v (%v), want 3 members", list, err)
	}

	c.StartAll()
	c.WaitReady()
	eventuallyPut(t, others(c, left)[0], "/x", "new")
	if line := watch.next(t); !strings.Contains(line, `"value":"new"`) {
		t.Errorf("the watch got %s, want the new value", line)
	}
	c.WaitEqual()
}

// TestRestartAlone starts one member of three again after all were killed: what it has on disk is there, or it says
// that it cannot tell. It must not say that there is nothing.
func TestRestartAlone(t *testing.T) {
	t.Parallel()
	c := start(t, 3)
	mustPut(t, c.Members[0], "/x", "1")
	c.WaitEqual()
	c.KillAll()
	m := c.Members[0]
	m.Start()
	cluster.Eventually(t, "the member to answer", func(ctx context.Context) error {
		_, err := m.MemberList(ctx)
		return err
	})
	resp, err := m.Get(limit(t), "/x")
	if err != nil || resp.Value() != "1" && resp.Status < http.StatusInternalServerError {
		t.Errorf("GET /x = %v (%v), want the value, or a server error", resp, err)
	}
}

// TestPausedLeader stops the leader's process for a while, as a long pause of a virtual machine does. When it goes on
// it still believes that it leads; a linearizable read that asks it first must not see the past.
func TestPausedLeader(t *testing.T) {
	t.Parallel()
	rounds := 2
	if long {
		rounds = 30
	}
	c := start(t, 3)
	for round := range rounds {
		old := c.WaitLeader()
		before, after := fmt.Sprintf("before %d", round), fmt.Sprintf("after %d", round)
		mustPut(t, old, "/x", before)
		old.Pause()
		eventuallyPut(t, others(c, old)[0], "/x", after)
		old.Continue()
		// Refused or timed out is fine, the old value is not.
		resp, err := old.QuorumGet(limit(t), "/x")
		if answered(resp, err) == nil && resp.Value() != after {
			t.Fatalf("round %d: the paused leader reads %q, %q was acknowledged before", round, resp.Value(), after)
		}
		c.WaitReady()
	}
	c.WaitEqual()
}
