package peer

import (
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

func entries(bytes ...int) *raft.AppendEntriesRequest {
	req := &raft.AppendEntriesRequest{Term: 1, PrevLogEntry: 5, PrevLogTerm: 1}
	for i, n := range bytes {
		req.Entries = append(req.Entries, &raft.Log{Index: uint64(6 + i), Data: make([]byte, n)})
	}
	return req
}

func TestFollowerStats(t *testing.T) {
	st := NewStats()
	for _, ms := range []int{2, 4, 4, 4, 5, 5, 7, 9} { // deviation 2
		st.sent("b", entries(1), time.Duration(ms)*time.Millisecond, nil)
	}
	st.sent("b", entries(1), 0, errors.New("no connection"))
	st.sent("b", entries(), time.Hour, nil) // without entries: not counted
	tests := []struct {
		name string
		id   uint64
		want string
	}{
		{"reached", 0xb, `{"latency":{"current":9,"average":5,"standardDeviation":2,"minimum":2,"maximum":9},"counts":{"fail":1,"success":8}}`},
		{"never reached", 0xc, `{"latency":{"current":0,"average":0,"standardDeviation":0,"minimum":9223372036854776000,"maximum":0},"counts":{"fail":0,"success":0}}`},
	}
	all := st.Followers([]uint64{0xb, 0xc})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := json.Marshal(all[api.FormatID(tt.id)])
			if err != nil || string(got) != tt.want {
				t.Errorf("stats = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
	st.Forget(0xb)
	if n := st.Followers([]uint64{0xb})["b"].Counts.Success; n != 0 {
		t.Errorf("a forgotten member has %d successes", n)
	}
}

func TestRates(t *testing.T) {
	start := time.Unix(1000, 0)
	now := start
	st := NewStats()
	st.now = func() time.Time { return now }
	check := func(what string, count uint64, messages, bytes float64) {
		t.Helper()
		var s api.SelfStats
		st.Fill(&s)
		if s.RecvAppendRequestCnt != count || math.Abs(s.RecvPkgRate-messages) > 1e-9 || math.Abs(s.RecvBandwidthRate-bytes) > 1e-6 {
			t.Errorf("%s: %d messages, %v/s, %v bytes/s, want %d, %v, %v", what, s.RecvAppendRequestCnt, s.RecvPkgRate, s.RecvBandwidthRate, count, messages, bytes)
		}
		if s.SendAppendRequestCnt != 0 || s.SendPkgRate != 0 {
			t.Errorf("%s: %d sent, want none", what, s.SendAppendRequestCnt)
		}
		if _, err := json.Marshal(s); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("nothing", 0, 0, 0)
	st.received(entries(100))
	st.received(entries()) // a commit index on its way
	check("one", 1, 0, 0)
	st.received(entries(100))
	check("no time between", 2, 0, 0)
	now = now.Add(100 * time.Millisecond)
	st.received(entries(50, 50))
	check("three in 0.1 s", 3, 30, 3000)
	now = now.Add(1001 * time.Millisecond)
	check("a second of silence", 3, 0, 0)
	st.received(entries(100))
	check("what was before it is forgotten", 4, 0, 0)

	// 300 messages 10 ms apart: the last 200 are looked at.
	for i := range 300 {
		now = now.Add(10 * time.Millisecond)
		size := 10
		if i < 100 {
			size = 1e6
		}
		st.received(entries(size))
	}
	check("window", 304, 200/1.99, 2000/1.99)
}
