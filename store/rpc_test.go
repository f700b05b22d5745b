package store

import (
	"context"
	"errors"
	"testing"

	"github.com/quorate/quorate/store/peer"
)

// Others can call as soon as this member has dialed one of them, which is before raft runs.
func TestCallBeforeRaftRuns(t *testing.T) {
	for kind := range kindStale + 2 {
		if _, err := new(Store).Call(context.Background(), 1, peer.Kind(kind), nil); !errors.Is(err, errStarting) {
			t.Errorf("call of kind %d: %v, want %v", kind, err, errStarting)
		}
	}
}
