package store

import (
	"testing"

	"github.com/quorate/quorate/fsm"
)

func TestTrailing(t *testing.T) {
	tests := []struct {
		name   string
		volume fsm.Volume
		count  uint64
		want   uint64
	}{
		{"nothing applied", fsm.Volume{}, 100_000, 10_000},
		{"small entries", fsm.Volume{Entries: 1000, Bytes: 200_000}, 100_000, 10_000},
		{"entries of 16 KiB", fsm.Volume{Entries: 1000, Bytes: 1000 << 14}, 100_000, 4096},
		{"entries of 1 MiB", fsm.Volume{Entries: 1000, Bytes: 1000 << 20}, 100_000, 1000},
		{"snapshots often", fsm.Volume{Entries: 1000, Bytes: 200_000}, 50, 500},
		{"snapshots all the time", fsm.Volume{Entries: 1000, Bytes: 200_000}, 1, 100},
		{"large entries and snapshots often", fsm.Volume{Entries: 1000, Bytes: 1000 << 20}, 50, 500},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := trailing(tt.volume, tt.count); got != tt.want {
				t.Errorf("trailing(%+v, %d) = %d, want %d", tt.volume, tt.count, got, tt.want)
			}
		})
	}
}
