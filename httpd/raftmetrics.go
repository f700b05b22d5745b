package httpd

import (
	"maps"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	armon "github.com/armon/go-metrics"
	"github.com/prometheus/client_golang/prometheus"
)

// InstallRaftMetrics makes reg collect what the raft library measures, as quorate_raft_…. The library
// writes to one place for the whole process, so of several calls the last one gets the values.
func InstallRaftMetrics(reg prometheus.Registerer) error {
	sink := newRaftSink()
	if err := reg.Register(sink); err != nil {
		return err
	}
	config := armon.DefaultConfig("") // the sink puts the prefix in front, and need not copy for it
	config.EnableHostname = false
	config.EnableRuntimeMetrics = false
	_, err := armon.NewGlobal(config, sink)
	return err
}

// raftSink keeps what the raft library measures until somebody looks. The library measures a dozen times
// for every entry, and its own bridge to Prometheus computes quantiles each time, which would be some
// 5 % of what a follower does. Here a value costs a look-up and an addition: of samples, mostly
// durations in milliseconds, there is the number and the sum.
type raftSink struct {
	series atomic.Pointer[map[string]*raftSeries] // replaced when one is added, never changed

	mu sync.Mutex // held while one is added
}

// raftSeries is one value or, with labels, one of several under a name.
type raftSeries struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType // UntypedValue for samples
	labels []string             // their values
	value  atomic.Uint64        // a float64: the last one, or the sum
	count  atomic.Uint64        // of samples
}

var _ armon.MetricSink = (*raftSink)(nil)

func newRaftSink() *raftSink {
	s := &raftSink{}
	s.series.Store(&map[string]*raftSeries{})
	return s
}

// find returns the series of a key, and makes it the first time.
func (s *raftSink) find(kind prometheus.ValueType, key []string, labels []armon.Label) *raftSeries {
	var room [128]byte
	id := room[:0]
	for _, part := range key {
		id = append(append(id, part...), '_')
	}
	for _, l := range labels {
		id = append(append(append(append(id, 0), l.Name...), 0), l.Value...)
	}
	if found := (*s.series.Load())[string(id)]; found != nil {
		return found
	}
	return s.add(string(id), kind, key, labels)
}

// nameReplacer makes of a key what the names of Prometheus allow.
var nameReplacer = strings.NewReplacer(" ", "_", ".", "_", "=", "_", "-", "_", "/", "_")

func (s *raftSink) add(id string, kind prometheus.ValueType, key []string, labels []armon.Label) *raftSeries {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := *s.series.Load()
	if found := old[id]; found != nil {
		return found
	}
	name := nameReplacer.Replace("quorate_" + strings.Join(key, "_"))
	names, values := make([]string, len(labels)), make([]string, len(labels))
	for i, l := range labels {
		names[i], values[i] = l.Name, l.Value
	}
	added := &raftSeries{desc: prometheus.NewDesc(name, name, names, nil), kind: kind, labels: values}
	series := maps.Clone(old)
	series[id] = added
	s.series.Store(&series)
	return added
}

// Describe says nothing: what there will be is the library's business.
func (s *raftSink) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *raftSink) Collect(ch chan<- prometheus.Metric) {
	for _, one := range *s.series.Load() {
		value := math.Float64frombits(one.value.Load())
		if one.kind == prometheus.UntypedValue {
			ch <- prometheus.MustNewConstSummary(one.desc, one.count.Load(), value, nil, one.labels...)
		} else {
			ch <- prometheus.MustNewConstMetric(one.desc, one.kind, value, one.labels...)
		}
	}
}

func (r *raftSeries) add(value float32) {
	for {
		old := r.value.Load()
		if r.value.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+float64(value))) {
			return
		}
	}
}

// SetGauge implements armon.MetricSink, as do all that follow.
func (s *raftSink) SetGauge(key []string, value float32) { s.SetGaugeWithLabels(key, value, nil) }

func (s *raftSink) SetGaugeWithLabels(key []string, value float32, labels []armon.Label) {
	s.find(prometheus.GaugeValue, key, labels).value.Store(math.Float64bits(float64(value)))
}

func (s *raftSink) IncrCounter(key []string, value float32) { s.IncrCounterWithLabels(key, value, nil) }

func (s *raftSink) IncrCounterWithLabels(key []string, value float32, labels []armon.Label) {
	s.find(prometheus.CounterValue, key, labels).add(value)
}

func (s *raftSink) AddSample(key []string, value float32) { s.AddSampleWithLabels(key, value, nil) }

func (s *raftSink) AddSampleWithLabels(key []string, value float32, labels []armon.Label) {
	r := s.find(prometheus.UntypedValue, key, labels)
	r.add(value)
	r.count.Add(1)
}

// EmitKey is about values that no system of metrics has a kind for.
func (s *raftSink) EmitKey([]string, float32) {}
