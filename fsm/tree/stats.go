package tree

import (
	"sync/atomic"

	"github.com/quorate/quorate/api"
)

// counters counts operations by action and outcome. Success is an operation done, failure one that
// the tree refused; etcd's odd cases are not followed (spec stats 4.3).
type counters [actions]struct{ done, refused atomic.Uint64 }

func (c *counters) count(a Action, done bool) {
	switch {
	case int(a) >= len(c):
	case done:
		c[a].done.Add(1)
	default:
		c[a].refused.Add(1)
	}
}

// Stats returns what /v2/stats/store shows. Writes are counted from the beginning of the cluster
// (the counts are part of snapshots), reads since this tree was made.
func (t *Tree) Stats() api.StoreStats {
	c := &t.counters
	return api.StoreStats{
		GetsSuccess:             c[Get].done.Load(),
		GetsFail:                c[Get].refused.Load(),
		SetsSuccess:             c[Set].done.Load(),
		SetsFail:                c[Set].refused.Load(),
		DeleteSuccess:           c[Delete].done.Load(),
		DeleteFail:              c[Delete].refused.Load(),
		UpdateSuccess:           c[Update].done.Load(),
		UpdateFail:              c[Update].refused.Load(),
		CreateSuccess:           c[Create].done.Load(),
		CreateFail:              c[Create].refused.Load(),
		CompareAndSwapSuccess:   c[CompareAndSwap].done.Load(),
		CompareAndSwapFail:      c[CompareAndSwap].refused.Load(),
		CompareAndDeleteSuccess: c[CompareAndDelete].done.Load(),
		CompareAndDeleteFail:    c[CompareAndDelete].refused.Load(),
		ExpireCount:             c[Expire].done.Load(),
		Watchers:                uint64(t.hub.count.Load()),
	}
}
