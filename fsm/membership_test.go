package fsm

import (
	"errors"
	"testing"

	"github.com/quorate/quorate/api"
)

func TestMembership(t *testing.T) {
	start := &Membership{
		ClusterID: 1,
		Members: []Member{
			{ID: 10, Name: "a", PeerURLs: []string{"http://a:1"}},
			{ID: 20, Name: "b", PeerURLs: []string{"http://b:1", "http://b:2"}},
		},
		Removed: []Member{{ID: 5}},
	}
	tests := []struct {
		name   string
		kind   Kind
		change Change
		steps  int
		status int // 0 for done
		text   string
	}{
		{"bootstrap again", KindBootstrap, Change{ClusterID: 9}, 0, 0, ""},
		{"publish", KindPublish, Change{ID: 10, Name: "a", ClientURLs: []string{"http://a:2"}}, 1, 0, ""},
		{"publish the same", KindPublish, Change{ID: 10, Name: "a"}, 0, 0, ""},
		{"publish by a stranger", KindPublish, Change{ID: 11, Name: "x"}, 0, 404, "No such member: b"},
		{"publish by a removed member", KindPublish, Change{ID: 5, Name: "x"}, 0, 410, "Member permanently removed: 5"},
		{"add", KindAddMember, Change{ID: 15, PeerURLs: []string{"http://c:1"}}, 1, 0, ""},
		{"add with a URL in use", KindAddMember, Change{ID: 15, PeerURLs: []string{"http://c:1", "http://b:2"}}, 0, 409, "membership: peerURL exists"},
		{"add with an ID in use", KindAddMember, Change{ID: 20, PeerURLs: []string{"http://c:1"}}, 0, 409, "membership: ID exists"},
		{"add with a removed ID", KindAddMember, Change{ID: 5, PeerURLs: []string{"http://c:1"}}, 0, 410, "Member permanently removed: 5"},
		{"update", KindUpdateMember, Change{ID: 20, PeerURLs: []string{"http://b:3"}}, 1, 0, ""},
		{"update to what it has", KindUpdateMember, Change{ID: 20, PeerURLs: []string{"http://b:1"}}, 1, 0, ""},
		{"update with a URL in use", KindUpdateMember, Change{ID: 20, PeerURLs: []string{"http://a:1"}}, 0, 409, "membership: peerURL exists"},
		{"update of nobody", KindUpdateMember, Change{ID: 0xabc, PeerURLs: []string{"http://c:1"}}, 0, 404, "No such member: abc"},
		{"update of a removed member", KindUpdateMember, Change{ID: 5, PeerURLs: []string{"http://c:1"}}, 0, 410, "Member permanently removed: 5"},
		{"remove", KindRemoveMember, Change{ID: 20}, 2, 0, ""},
		{"remove again", KindRemoveMember, Change{ID: 5}, 0, 410, "Member permanently removed: 5"},
		{"remove nobody", KindRemoveMember, Change{ID: 11}, 0, 404, "No such member: b"},
		{"version", KindClusterVersion, Change{Version: "3.4.0"}, 1, 0, ""},
		{"reset", KindReset, Change{ID: 10, Epoch: 3}, 2, 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, steps, err := start.apply(tt.kind, tt.change)
			if steps != tt.steps {
				t.Errorf("%d steps of the index, want %d", steps, tt.steps)
			}
			var refusal *api.StatusError
			switch {
			case tt.status == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case tt.status != 0 && (!errors.As(err, &refusal) || refusal.Status != tt.status || refusal.Message != tt.text):
				t.Errorf("error %v, want %d %s", err, tt.status, tt.text)
			case (tt.steps == 0) != (got == start):
				t.Error("the membership changed without a step of the index, or the other way round")
			}
		})
	}
	if len(start.Members) != 2 || start.Members[1].PeerURLs[0] != "http://b:1" || len(start.Removed) != 1 {
		t.Errorf("the membership that was there has changed: %+v", start)
	}
	got, _, _ := start.apply(KindReset, Change{ID: 10, Epoch: 3})
	if len(got.Members) != 1 || !got.IsRemoved(20) || got.Epoch != 3 {
		t.Errorf("after a reset: %+v", got)
	}
}
