//go:build linux && faults

package linearizability

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/quorate/quorate/internal/cluster"
	"github.com/quorate/quorate/internal/wallclock"
)

// clockFile is where the server of a member finds by how much its clock is wrong.
func (r *run) clockFile(m *cluster.Member) string {
	return filepath.Join(r.c.Dir(), m.Name+".clock")
}

// setClock sets the clock of a member wrong, or right again with 0.
func (r *run) setClock(m *cluster.Member, by time.Duration) {
	file := r.clockFile(m)
	if err := os.WriteFile(file+".new", []byte(by.String()), 0o600); err != nil {
		r.Fatalf("set the clock of %s: %v", m.Name, err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		r.Fatalf("set the clock of %s: %v", m.Name, err)
	}
}

// withClock lets a member have a clock of its own.
func (r *run) withClock(m *cluster.Member) {
	m.Wrap = []string{"env", wallclock.File + "=" + r.clockFile(m)}
}

// wrongClocks sets the clocks of members wrong, one time after the other, while the leader is made to
// give up its place. No key may expire early for that, nor late. All have to have heard of a leader before,
// for one that has not takes the time of the cluster from its own clock.
func wrongClocks(who role, by ...time.Duration) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		nodes := t.pick(who)
		if !t.allWrite(ctx) {
			return
		}
		defer func() {
			for _, n := range nodes {
				t.setClock(n.m, 0)
			}
		}()
		for i := range 8 {
			for _, n := range nodes {
				t.setClock(n.m, by[i%len(by)])
			}
			if i%4 == 1 {
				l := t.pick(leader)[0]
				l.m.Pause()
				eachUntil(ctx, 10*time.Second, slices.DeleteFunc(t.present(), func(n *node) bool { return n == l }), t.put)
				l.m.Continue()
			}
			sleep(ctx, t.between(50*time.Millisecond, 700*time.Millisecond))
		}
	}
}

// allWrite waits until every member has done a write. It knows the time of the cluster then.
func (t *troubleMaker) allWrite(ctx context.Context) bool {
	for _, n := range t.present() {
		if !eachUntil(ctx, 10*time.Second, []*node{n}, t.put) {
			return false
		}
	}
	return true
}
