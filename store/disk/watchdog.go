package disk

import (
	"sync"
	"time"
)

// watchdog calls onStall when an operation takes longer than limit, once. The operation goes on:
// nobody can tell what becomes of it, so an answer that it failed would be a guess.
type watchdog struct {
	limit   time.Duration
	onStall func(op string, waited time.Duration)
	once    sync.Once
}

func (w *watchdog) start(op string) *time.Timer {
	if w.limit <= 0 || w.onStall == nil {
		return nil
	}
	return time.AfterFunc(w.limit, func() {
		w.once.Do(func() { w.onStall(op, w.limit) })
	})
}

func (w *watchdog) stop(t *time.Timer) {
	if t != nil {
		t.Stop()
	}
}
