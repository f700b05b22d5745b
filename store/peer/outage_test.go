package peer

import (
	"testing"
	"time"
)

func TestOutage(t *testing.T) {
	var o outage
	start := time.Unix(1000, 0)
	if _, ok := o.over(start); ok {
		t.Error("an outage was over that had not begun")
	}
	said := 0
	now := start
	for ; now.Sub(start) < 100*time.Second; now = now.Add(time.Second) {
		if o.failed(now) {
			said++
		}
	}
	if said != 4 { // after 0, 30, 60 and 90 s
		t.Errorf("mentioned %d times in 100 s, want 4", said)
	}
	if took, ok := o.over(now); !ok || took != 100*time.Second {
		t.Errorf("over = %v, %v; want 1m40s, true", took, ok)
	}
	if !o.failed(now) {
		t.Error("the next outage is not mentioned")
	}
}
