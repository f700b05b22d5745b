package peer

import (
	"sync"
	"time"
)

// A log line about one peer is written at most once in this time (spec bootstrap 7.1).
const quietTime = 10 * time.Second

// Senders choose the ID in a handshake, so what is remembered must have a bound.
const maxQuiet = 256

// topic is what a repeated log line is about.
type topic struct {
	what string
	peer uint64
}

// throttle keeps repeated log lines rare. The zero value is ready.
type throttle struct {
	mu   sync.Mutex
	last map[topic]time.Time
}

// allow says whether a line on this topic is due.
func (t *throttle) allow(what string, peer uint64, now time.Time) bool {
	key := topic{what, peer}
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.last[key]; ok && now.Sub(last) < quietTime {
		return false
	}
	if len(t.last) >= maxQuiet {
		for k, last := range t.last {
			if now.Sub(last) >= quietTime {
				delete(t.last, k)
			}
		}
		if len(t.last) >= maxQuiet {
			return false
		}
	}
	if t.last == nil {
		t.last = make(map[topic]time.Time)
	}
	t.last[key] = now
	return true
}
