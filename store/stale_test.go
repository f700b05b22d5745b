package store

import (
	"testing"

	"github.com/hashicorp/raft"
)

func TestLostAcknowledgements(t *testing.T) {
	type answer struct {
		term, prev, last uint64 // of the request: term, entry before, last entry; last 0 for none
		ok               bool
		log              uint64 // the member's last entry, in a refusal
	}
	tests := []struct {
		name    string
		answers []answer
		want    uint64
	}{
		{"in step", []answer{{1, 0, 5, true, 0}, {1, 5, 9, true, 0}}, 0},
		{"a new member is behind", []answer{{1, 9, 0, false, 0}, {1, 0, 9, true, 0}}, 0},
		{"the log is shorter than what was acknowledged", []answer{{1, 0, 9, true, 0}, {1, 9, 0, false, 4}}, 9},
		{"a refusal for another reason", []answer{{1, 0, 9, true, 0}, {1, 12, 0, false, 9}}, 0},
		{"acknowledged in an earlier term: it may have been overruled", []answer{{1, 0, 9, true, 0}, {2, 9, 0, false, 4}}, 0},
		{"a late answer of an earlier term", []answer{{2, 0, 9, true, 0}, {1, 9, 0, false, 4}}, 0},
		{"heartbeats say nothing", []answer{{1, 0, 9, true, 0}, {1, 0, 0, true, 0}, {1, 0, 0, false, 4}}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var acks acknowledgements
			var got uint64
			for _, a := range tt.answers {
				request := &raft.AppendEntriesRequest{Term: a.term, PrevLogEntry: a.prev}
				for i := a.prev + 1; i <= a.last; i++ {
					request.Entries = append(request.Entries, &raft.Log{Index: i})
				}
				got = acks.see("a", request, &raft.AppendEntriesResponse{Term: a.term, Success: a.ok, LastLog: a.log})
			}
			if got != tt.want {
				t.Errorf("lost acknowledgement of entry %d, want %d", got, tt.want)
			}
		})
	}
}
