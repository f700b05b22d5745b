package tree

import (
	"strings"
	"testing"
)

// added returns a history to which n events were added, each with a value of a size.
func added(capacity, n, size int) *history {
	h := newHistory(capacity)
	value := strings.Repeat("v", size)
	for i := range n {
		h.add(&Event{Action: Set, Node: &Node{Key: "/k", Value: value, Modified: uint64(i + 1)}, Index: uint64(i + 1)})
	}
	return &h
}

func TestHistoryLimits(t *testing.T) {
	tests := []struct {
		name              string
		capacity, n, size int
		want              int // events kept
	}{
		{"empty", 10, 0, 0, 0},
		{"not full", 100, 70, 10, 70},
		{"full", 100, 1000, 10, 100},
		{"one", 1, 10, 10, 1},
		{"at least one", -5, 10, 10, 1},
		{"bytes", 5000, 4000, 128<<10 - historyOverhead - len("/k"), historyBytes / (128 << 10)},
		{"bytes, but as many as etcd has", 5000, 4000, 16 << 20, historyMinimum},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := added(tt.capacity, tt.n, tt.size)
			if h.len() != tt.want || h.last != uint64(tt.n) {
				t.Fatalf("keeps %d events up to %d, want %d up to %d", h.len(), h.last, tt.want, tt.n)
			}
			bytes := 0
			for i := h.first; i <= h.last; i++ {
				if e := h.at(i); e.Index != i {
					t.Fatalf("event %d is in the place of %d", e.Index, i)
				}
				bytes += eventBytes(h.at(i))
			}
			if h.bytes != bytes {
				t.Errorf("counts %d bytes, has %d", h.bytes, bytes)
			}
		})
	}
}

// Old events do not keep the JSON they were delivered as.
func TestHistoryForgetsJSON(t *testing.T) {
	h := added(5000, 10, 1)
	first, text := h.at(1), string(h.at(1).JSON())
	for range historyRendered {
		h.add(nil)
	}
	if first.rendered.Load() != nil {
		t.Errorf("an old event keeps its JSON")
	}
	if got := string(first.JSON()); got != text {
		t.Errorf("JSON = %s, was %s", got, text)
	}
}
