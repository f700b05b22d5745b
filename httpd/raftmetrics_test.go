package httpd

import (
	"strings"
	"testing"
	"time"

	armon "github.com/armon/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestRaftSink(t *testing.T) {
	s := newRaftSink()
	peer := func(id string) []armon.Label { return []armon.Label{{Name: "peer_id", Value: id}} }
	s.SetGauge([]string{"raft", "peers"}, 2)
	s.SetGauge([]string{"raft", "peers"}, 3)
	s.IncrCounter([]string{"raft", "apply"}, 1)
	s.IncrCounter([]string{"raft", "apply"}, 4)
	s.AddSampleWithLabels([]string{"raft", "rpc-time"}, 1.5, peer("a"))
	s.AddSampleWithLabels([]string{"raft", "rpc-time"}, 2.5, peer("a"))
	s.AddSampleWithLabels([]string{"raft", "rpc-time"}, 8, peer("b"))
	want := `# HELP quorate_raft_apply quorate_raft_apply
# TYPE quorate_raft_apply counter
quorate_raft_apply 5
# HELP quorate_raft_peers quorate_raft_peers
# TYPE quorate_raft_peers gauge
quorate_raft_peers 3
# HELP quorate_raft_rpc_time quorate_raft_rpc_time
# TYPE quorate_raft_rpc_time summary
quorate_raft_rpc_time_sum{peer_id="a"} 4
quorate_raft_rpc_time_count{peer_id="a"} 2
quorate_raft_rpc_time_sum{peer_id="b"} 8
quorate_raft_rpc_time_count{peer_id="b"} 1
`
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(s); err != nil {
		t.Fatal(err)
	}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}

// What raft measures at every entry, as it does.
func BenchmarkRaftSink(b *testing.B) {
	m, err := armon.New(&armon.Config{FilterDefault: true, TimerGranularity: time.Millisecond}, newRaftSink())
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		m.MeasureSince([]string{"raft", "rpc", "appendEntries"}, start)
	}
}
