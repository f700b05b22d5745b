package store

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what only the store knows (spec stats-and-misc 5).
type metrics struct {
	leaderChanges prometheus.Counter
	failed        prometheus.Counter
	fsync         prometheus.Histogram
}

func newMetrics() *metrics {
	return &metrics{
		leaderChanges: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_leader_changes_seen_total",
			Help: "Leaders that this member has seen follow one another. Often means an overloaded disk or network.",
		}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "etcd_server_proposals_failed_total",
			Help: "Writes that were given up with their outcome unknown, mostly for want of a leader.",
		}),
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "etcd_disk_wal_fsync_duration_seconds",
			Help:    "Time to put entries into the log on disk. A rise slows every write of the cluster down.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
	}
}

// stored is told by the disk of every write of log entries.
func (m *metrics) stored(_ int, took time.Duration) { m.fsync.Observe(took.Seconds()) }

// RegisterMetrics adds the store's metrics to a registry.
func (s *Store) RegisterMetrics(registry prometheus.Registerer) error {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	var errs []error
	for _, c := range []prometheus.Collector{
		s.metrics.leaderChanges, s.metrics.failed, s.metrics.fsync,
		gauge("etcd_server_proposals_applied_total", "The last log entry that this member has applied. Behind committed it lags.",
			func() float64 { return float64(s.fsm.Applied()) }),
		gauge("etcd_server_proposals_pending", "Writes of this member's clients that have no answer yet.",
			func() float64 { return float64(s.pipeline.pending()) }),
		gauge("quorate_disk_low", "1 when this member's disk has less free space than --min-free-disk.",
			func() float64 { return oneIf(s.space.own.Load() != nil) }),
		gauge("quorate_writes_refused", "1 while writes are refused for want of free disk space on too many members.",
			func() float64 { return oneIf(s.space.refused.Load() != nil) }),
		spaceCollector{s},
	} {
		errs = append(errs, registry.Register(c))
	}
	return errors.Join(errs...)
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// spaceCollector tells how much free space was there when the member looked last.
type spaceCollector struct{ store *Store }

var descFree = prometheus.NewDesc("quorate_disk_free_bytes",
	"Free space for the data directory, and for the log if it is elsewhere. Looked at while --min-free-disk is set.", []string{"directory"}, nil)

func (c spaceCollector) Describe(ch chan<- *prometheus.Desc) { ch <- descFree }

func (c spaceCollector) Collect(ch chan<- prometheus.Metric) {
	c.store.space.mu.Lock()
	defer c.store.space.mu.Unlock()
	for _, one := range c.store.space.last {
		ch <- prometheus.MustNewConstMetric(descFree, prometheus.GaugeValue, float64(one.Free), one.Dir)
	}
}
