package certs

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are what Collect shows.
type counters struct {
	reloaded, refused atomic.Uint64 // loads after the first
	handshakes        atomic.Uint64 // that failed
}

const (
	metricExpires    = "quorate_certificate_expires_seconds"
	metricReloads    = "quorate_certificate_reloads_total"
	metricHandshakes = "quorate_tls_handshake_failures_total"
)

func (s *Source) desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, prometheus.Labels{"role": s.opts.Role})
}

func (s *Source) descExpires() *prometheus.Desc {
	return s.desc(metricExpires, "Unix time at which the certificate ends, or the last of the authorities in the file. Others refuse it from then on.", "file")
}

func (s *Source) descReloads() *prometheus.Desc {
	return s.desc(metricReloads, "How often changed certificates were loaded. Those that failed left the ones before in use; the log says why.", "result")
}

func (s *Source) descHandshakes() *prometheus.Desc {
	return s.desc(metricHandshakes, "TLS handshakes that failed here. A rise means wrong or ended certificates, or plain HTTP sent to an https URL.")
}

// Describe implements prometheus.Collector.
func (s *Source) Describe(ch chan<- *prometheus.Desc) {
	ch <- s.descExpires()
	ch <- s.descReloads()
	ch <- s.descHandshakes()
}

// Collect implements prometheus.Collector.
func (s *Source) Collect(ch chan<- prometheus.Metric) {
	for _, e := range s.current.Load().ends {
		ch <- prometheus.MustNewConstMetric(s.descExpires(), prometheus.GaugeValue, float64(e.at.Unix()), e.file)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(s.descReloads(), s.counters.reloaded.Load(), "ok")
	counter(s.descReloads(), s.counters.refused.Load(), "failed")
	counter(s.descHandshakes(), s.counters.handshakes.Load())
}
