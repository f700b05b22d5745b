package api

import "testing"

// The vectors were checked against running etcd servers (spec bootstrap 4).
func TestIDs(t *testing.T) {
	tests := []struct {
		name    string
		token   string
		urls    [][]string
		members []string
		cluster string
	}{
		{"one member", "etcd-cluster", [][]string{{"http://127.0.0.1:23800"}}, []string{"2e1259d415f2a040"}, "48276a8f75b6a87"},
		{"leading zeros are dropped", "tokA", [][]string{{"http://127.0.0.1:23801"}, {"http://127.0.0.1:23802"}, {"http://127.0.0.1:23803"}},
			[]string{"706b5b4dce4b2e", "5b3a649afb1e56e", "2b7f86d228ebc633"}, "c84b0c73007f53c2"},
		{"two URLs of one member", "etcd-cluster", [][]string{{"http://localhost:7001", "http://localhost:2380"}}, []string{"ce2a822cea30bfca"}, "7e27652122e8b2ae"},
		{"default", "etcd-cluster", [][]string{{"http://localhost:2380"}}, []string{"8e9e05c52164694d"}, "cdf818194e3a8c32"},
		{"three hosts", "demo-1", [][]string{{"http://10.0.0.1:2380"}, {"http://10.0.0.2:2380"}, {"http://10.0.0.3:2380"}},
			[]string{"63b8a6b9cb1ddbb6", "a6a831ebe9241174", "aee1100eee86e6b8"}, "21bdc97a67dc8f37"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var ids []uint64
			for i, urls := range tt.urls {
				id := MemberID(urls, tt.token)
				if got := FormatID(id); got != tt.members[i] {
					t.Errorf("MemberID(%q, %q) = %s, want %s", urls, tt.token, got, tt.members[i])
				}
				ids = append(ids, id)
			}
			if got := FormatID(ClusterID(ids)); got != tt.cluster {
				t.Errorf("ClusterID = %s, want %s", got, tt.cluster)
			}
		})
	}
}

func TestParseID(t *testing.T) {
	for _, s := range []string{"5b3a649afb1e56e", "05B3A649AFB1E56E"} {
		id, err := ParseID(s)
		if err != nil || FormatID(id) != "5b3a649afb1e56e" {
			t.Errorf("ParseID(%q) = %x, %v", s, id, err)
		}
	}
	for _, s := range []string{"", "zzz", "-1", "12345678901234567"} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("ParseID(%q) was accepted", s)
		}
	}
}
