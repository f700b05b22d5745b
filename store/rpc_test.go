package store

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/quorate/quorate/store/peer"
)

// Others can call as soon as this member has dialed one of them, which is before raft runs.
func TestCallBeforeRaftRuns(t *testing.T) {
	for kind := range kindNudge + 1 {
		if _, err := new(Store).Call(context.Background(), 1, peer.Kind(kind), nil); !errors.Is(err, errStarting) {
			t.Errorf("call of kind %d: %v, want %v", kind, err, errStarting)
		}
	}
}

// A leader that has not begun its term does not know the time. Whoever asked it then did not hear of the
// time for ten seconds, and took its own clock for it when it led next.
func TestClockReading(t *testing.T) {
	answer := func(numbers ...uint64) (b []byte) {
		for _, n := range numbers {
			b = binary.LittleEndian.AppendUint64(b, n)
		}
		return b
	}
	for _, tt := range []struct {
		name   string
		answer []byte
		want   bool
	}{
		{"of a leader", answer(7, 5, 1000), true},
		{"before its term has begun", answer(7, 5, 0), false},
		{"nothing", nil, false},
		{"cut off", answer(7, 5), false},
	} {
		boot, running, now, ok := clockReading(tt.answer)
		if ok != tt.want || ok && (boot != 7 || running != 5*time.Nanosecond || now != 1000) {
			t.Errorf("%s: %d, %v, %d, %t, want %t", tt.name, boot, running, now, ok, tt.want)
		}
	}
}
