//go:build linux && faults

package linearizability

import (
	"context"
	"slices"
	"time"
)

// cutting is a fault that cuts links for a time. The links are drawn anew each time.
func cutting(links func(t *troubleMaker) []link) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		t.mesh.set(rules(links(t), rule{cut: true}))
		sleep(ctx, t.between(time.Second, 6*time.Second))
		t.mesh.set(map[link]rule{})
	}
}

func rules(links []link, to rule) map[link]rule {
	out := map[link]rule{}
	for _, l := range links {
		out[l] = to
	}
	return out
}

// between groups, and one way only.
func (t *troubleMaker) oneWay(from, to []*node) []link {
	var out []link
	for _, a := range from {
		for _, b := range to {
			out = append(out, link{a.slot, b.slot})
		}
	}
	return out
}

func (t *troubleMaker) bothWays(a, b []*node) []link {
	return append(t.oneWay(a, b), t.oneWay(b, a)...)
}

// apart returns the nodes with a role, and the others.
func (t *troubleMaker) apart(who role) (these, others []*node) {
	these = t.pick(who)
	return these, slices.DeleteFunc(t.present(), func(n *node) bool { return slices.Contains(these, n) })
}

func isolated(who role) func(t *troubleMaker) []link {
	return func(t *troubleMaker) []link { return t.bothWays(t.apart(who)) }
}

// deaf nodes hear nothing, mute ones are not heard.
func deaf(who role) func(t *troubleMaker) []link {
	return func(t *troubleMaker) []link {
		these, others := t.apart(who)
		return t.oneWay(others, these)
	}
}

func mute(who role) func(t *troubleMaker) []link {
	return func(t *troubleMaker) []link { return t.oneWay(t.apart(who)) }
}

// ring lets each member reach its neighbours only.
func ring(t *troubleMaker) []link {
	nodes := t.pick(everyone)
	var out []link
	for i, a := range nodes {
		for j, b := range nodes {
			if d := (i - j + len(nodes)) % len(nodes); d != 0 && d != 1 && d != len(nodes)-1 {
				out = append(out, link{a.slot, b.slot})
			}
		}
	}
	if len(nodes) == 3 { // a line: the ends do not reach each other
		out = []link{{nodes[0].slot, nodes[2].slot}, {nodes[2].slot, nodes[0].slot}}
	}
	return out
}

// flapping is a link that comes and goes.
func flapping(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		cut := rules(isolated(who)(t), rule{cut: true})
		for range 8 {
			t.mesh.set(cut)
			sleep(ctx, t.between(50*time.Millisecond, 1200*time.Millisecond))
			t.mesh.set(map[link]rule{})
			sleep(ctx, t.between(50*time.Millisecond, 400*time.Millisecond))
		}
	}
}

// resetting breaks connections again and again, and leaves the network whole.
func resetting(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		for range 6 {
			for _, n := range t.pick(who) {
				t.mesh.reset(n.slot)
			}
			sleep(ctx, t.between(50*time.Millisecond, 700*time.Millisecond))
		}
	}
}

// cutAndReset is a partition that also breaks the connections, so that nothing old arrives after it.
func cutAndReset(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		these, others := t.apart(who)
		t.mesh.set(rules(t.bothWays(these, others), rule{cut: true}))
		for _, n := range these {
			t.mesh.reset(n.slot)
		}
		sleep(ctx, t.between(time.Second, 5*time.Second))
		for _, n := range these {
			t.mesh.reset(n.slot)
		}
		t.mesh.set(map[link]rule{})
	}
}

// slow is a network on which everything to and from some takes time, each link another one.
func slow(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		all := t.present()
		to := map[link]rule{}
		for _, l := range t.bothWays(t.pick(who), all) {
			to[l] = rule{delay: t.between(50*time.Millisecond, 1000*time.Millisecond)}
		}
		t.mesh.set(to)
		sleep(ctx, t.between(2*time.Second, 5*time.Second))
		t.mesh.set(map[link]rule{})
	}
}

// lossy is a network that loses packets to and from some.
func lossy(who role, loss float64) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		t.mesh.set(rules(t.bothWays(t.pick(who), t.present()), rule{loss: loss}))
		sleep(ctx, t.between(2*time.Second, 6*time.Second))
		t.mesh.set(map[link]rule{})
	}
}

// narrow is a network on which little fits through each link.
func narrow(who role) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		rate := 1000 * (8 + t.rng.IntN(120))
		t.mesh.set(rules(t.bothWays(t.pick(who), t.present()), rule{rate: rate}))
		sleep(ctx, t.between(2*time.Second, 6*time.Second))
		t.mesh.set(map[link]rule{})
	}
}
