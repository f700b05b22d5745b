package tree

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

// The clock of a tree can be an hour behind the time of day. Answers and events show the time of day; what
// expires, and when, does not change.
func TestOffsetMovesWhatIsShown(t *testing.T) {
	const second = int64(time.Second)
	tr := New(10)
	write := func(now int64, do func(*Batch)) {
		b := tr.Begin(now)
		b.Expire()
		do(b)
		b.End()
	}
	var event *Event
	set := func(key string, expires int64) func(*Batch) {
		return func(b *Batch) {
			e, err := b.Do(Op{Action: Set, Path: key, Value: "v", Expires: expires})
			if err != nil {
				t.Fatal(err)
			}
			event = e
		}
	}
	shows := func(what, json, expiration, ttl string) {
		t.Helper()
		if !strings.Contains(json, `"expiration":"1970-01-01T`+expiration+`Z","ttl":`+ttl+`,`) {
			t.Errorf("%s: %swant expiration %s and ttl %s", what, json, expiration, ttl)
		}
	}
	get := func(now int64) string {
		t.Helper()
		a, err := tr.Get("/a", false, false)
		if err != nil {
			t.Fatal(err)
		}
		if w := a.Event(now).Node; w.Expiration == nil || !strings.Contains(string(a.AppendJSON(nil, now)), w.Expiration.Format(time.RFC3339Nano)) {
			t.Errorf("the two forms of an answer differ: %+v", w)
		}
		return string(a.AppendJSON(nil, now))
	}

	write(100*second, set("/a", 130*second))
	early := event
	write(101*second, func(b *Batch) { b.SetOffset(3600 * second) })
	shows("an answer", get(3701*second), "01:02:10", "29")
	shows("an event from before", string(early.JSON()), "00:02:10", "30")
	write(102*second, set("/b", 112*second))
	shows("an event", string(event.JSON()), "01:01:52", "10")
	if got := event.Wire().Node; got.TTL != 10 || got.Expiration.Unix() != 3712 {
		t.Errorf("on the wire: %+v", got)
	}

	var snapshot bytes.Buffer
	if _, err := tr.Snapshot().WriteTo(&snapshot); err != nil {
		t.Fatal(err)
	}
	other := New(10)
	if err := other.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	if other.Offset() != 3600*second {
		t.Errorf("offset %d after a snapshot", other.Offset())
	}
	for i := range 2 {
		a, b := tr.history.at(uint64(i+1)), other.history.at(uint64(i+1))
		if !bytes.Equal(a.JSON(), b.JSON()) {
			t.Errorf("event %d after a snapshot: %swant %s", i+1, b.JSON(), a.JSON())
		}
	}

	write(129*second, func(*Batch) {})
	if _, err := tr.Get("/a", false, false); err != nil {
		t.Errorf("gone early: %v", err)
	}
	write(130*second, func(*Batch) {})
	if _, err := tr.Get("/a", false, false); err == nil {
		t.Error("not gone when it was due")
	}
}

func TestTimeOfDayEnds(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		expires, offset, want int64
	}{
		{"plain", 10, 5, 15},
		{"back", 10, -5, 5},
		{"beyond the end", math.MaxInt64 - 1, 5, math.MaxInt64},
		{"before the beginning", math.MinInt64 + 1, -5, math.MinInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := timeOfDay(tt.expires, tt.offset); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}
