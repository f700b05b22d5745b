package peer

import (
	"math"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// Stats counts append messages: those that carry entries, sent as leader and received as follower.
// What raft sends without entries (heartbeats, and the commit index every 50 ms or so) is left out,
// so that an idle cluster shows no traffic, as with etcd. Bytes are those of the entries' data.
//
// It counts from the start of the process on, whoever leads (spec stats-and-misc 4.1 and 4.2).
type Stats struct {
	now func() time.Time

	mu         sync.Mutex // guards what follows
	sendRate   rate
	sendCount  uint64
	recvRate   rate
	recvCount  uint64
	byFollower map[raft.ServerID]*follower
}

// NewStats returns statistics without any message.
func NewStats() *Stats {
	return &Stats{now: time.Now, byFollower: make(map[raft.ServerID]*follower)}
}

// Fill sets the six fields of s that are about append messages.
func (st *Stats) Fill(s *api.SelfStats) {
	st.mu.Lock()
	defer st.mu.Unlock()
	now := st.now()
	s.RecvAppendRequestCnt = st.recvCount
	s.RecvPkgRate, s.RecvBandwidthRate = st.recvRate.get(now)
	s.SendAppendRequestCnt = st.sendCount
	s.SendPkgRate, s.SendBandwidthRate = st.sendRate.get(now)
}

// Followers returns the statistics of the given members by ID in hex, also of those that nothing was
// ever sent to. It is never nil.
func (st *Stats) Followers(ids []uint64) map[string]api.FollowerStats {
	st.mu.Lock()
	defer st.mu.Unlock()
	m := make(map[string]api.FollowerStats, len(ids))
	for _, id := range ids {
		name := api.FormatID(id)
		f := st.byFollower[raft.ServerID(name)]
		if f == nil {
			f = &follower{}
		}
		m[name] = f.stats()
	}
	return m
}

// Forget drops what is known of a member that was removed.
func (st *Stats) Forget(id uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	delete(st.byFollower, raft.ServerID(api.FormatID(id)))
}

func (st *Stats) received(req *raft.AppendEntriesRequest) {
	if len(req.Entries) == 0 {
		return
	}
	n := appendBytes(req)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.recvCount++
	st.recvRate.add(st.now(), n)
}

func (st *Stats) sending(req *raft.AppendEntriesRequest) {
	if len(req.Entries) == 0 {
		return
	}
	n := appendBytes(req)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sendCount++
	st.sendRate.add(st.now(), n)
}

// sent counts how the sending of a message has ended. An answer counts as a success even if the
// follower wants other entries first.
func (st *Stats) sent(to raft.ServerID, req *raft.AppendEntriesRequest, took time.Duration, err error) {
	if len(req.Entries) == 0 {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	f := st.byFollower[to]
	if f == nil {
		f = &follower{}
		st.byFollower[to] = f
	}
	if err != nil {
		f.fail++
		return
	}
	f.add(float64(took) / float64(time.Millisecond))
}

func appendBytes(req *raft.AppendEntriesRequest) (n int) {
	for _, e := range req.Entries {
		n += len(e.Data) + len(e.Extensions)
	}
	return n
}

// follower is the latency of the messages to one follower, in milliseconds.
type follower struct {
	fail, success      uint64
	current, min, max  float64
	mean, sumOfSquares float64 // of the distances from the mean (Welford)
}

func (f *follower) add(ms float64) {
	f.success++
	if f.success == 1 {
		f.min = ms
	}
	f.current = ms
	f.min = min(f.min, ms)
	f.max = max(f.max, ms)
	d := ms - f.mean
	f.mean += d / float64(f.success)
	f.sumOfSquares += d * (ms - f.mean)
}

func (f *follower) stats() api.FollowerStats {
	s := api.FollowerStats{Counts: api.CountStats{Fail: f.fail, Success: f.success}}
	if f.success == 0 {
		s.Latency.Minimum = 1 << 63 // etcd's "none yet": 9223372036854776000
		return s
	}
	s.Latency = api.LatencyStats{
		Current: f.current, Average: f.mean, Minimum: f.min, Maximum: f.max,
		StandardDeviation: math.Sqrt(f.sumOfSquares / float64(f.success)),
	}
	return s
}

// A rate looks at this many messages.
const rateWindow = 200

// rate is the rate of the last messages. The zero value has seen none.
type rate struct {
	ring [rateWindow]message
	next int // where the next message goes
	n    int // how many there are
	sum  int // bytes of all that there are
}

type message struct {
	at    time.Time
	bytes int
}

func (r *rate) add(at time.Time, bytes int) {
	if r.n == rateWindow {
		r.sum -= r.ring[r.next].bytes
	} else {
		r.n++
	}
	r.ring[r.next] = message{at, bytes}
	r.next = (r.next + 1) % rateWindow
	r.sum += bytes
}

// get returns messages and bytes per second between the first and the last message. It is 0 when
// the last is older than a second, and the messages before that pause are forgotten.
func (r *rate) get(now time.Time) (messages, bytes float64) {
	if r.n == 0 {
		return 0, 0
	}
	last := r.ring[(r.next+rateWindow-1)%rateWindow].at
	first := r.ring[(r.next+rateWindow-r.n)%rateWindow].at
	if now.Sub(last) > time.Second {
		r.n, r.sum = 0, 0
		return 0, 0
	}
	seconds := last.Sub(first).Seconds()
	if seconds <= 0 {
		return 0, 0
	}
	return float64(r.n) / seconds, float64(r.sum) / seconds
}
