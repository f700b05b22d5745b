package httpd

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quorate/quorate/api"
)

// method is the label that the metrics of requests have.
type method uint8

const (
	methodGET method = iota
	methodHEAD
	methodPUT
	methodPOST
	methodDELETE
	methodQGET // GET with quorum=true
	numMethods
)

var methodNames = [numMethods]string{"GET", "HEAD", "PUT", "POST", "DELETE", "QGET"}

// methodOf returns the label of a request's method, if that is one for keys.
func methodOf(name string) (m method, ok bool) {
	switch name {
	case http.MethodGet:
		return methodGET, true
	case http.MethodHead:
		return methodHEAD, true
	case http.MethodPut:
		return methodPUT, true
	case http.MethodPost:
		return methodPOST, true
	case http.MethodDelete:
		return methodDELETE, true
	}
	return 0, false
}

// writes says whether a method changes keys.
func (m method) writes() bool { return m == methodPUT || m == methodPOST || m == methodDELETE }

// hasForm says whether parameters may be in the body.
func (m method) hasForm() bool { return m == methodPUT || m == methodPOST }

// metrics are those of etcd that mean something for the v2 API, under etcd's names (spec stats 5).
// The labels are resolved beforehand, so that counting costs no look-up.
type metrics struct {
	received [numMethods]prometheus.Counter
	duration [numMethods]prometheus.Observer
	failures *prometheus.CounterVec

	reads, recursiveReads         prometheus.Counter
	watchRequests                 prometheus.Counter
	healthSuccess, healthFailures prometheus.Counter

	handler http.Handler
}

func newMetrics(reg *prometheus.Registry, s *Server) *metrics {
	m := &metrics{}
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	received := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_http_received_total",
		Help: "Requests under /v2/keys that were parsed and authorised, without watches.",
	}, []string{"method"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "etcd_http_successful_duration_seconds",
		Help:    "Time to handle a successful request under /v2/keys. A rise on PUT alone points to the disks or the network between members.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
	}, []string{"method"})
	m.failures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_http_failed_total",
		Help: "Requests under /v2/keys that were refused by the store (4xx) or not carried out (500).",
	}, []string{"method", "code"})
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "etcd_debugging_store_reads_total",
		Help: "Reads of keys and directories on this member, failed ones included.",
	}, []string{"action"})
	reg.MustRegister(received, duration, m.failures, reads)
	for i, name := range methodNames {
		m.received[i] = received.WithLabelValues(name)
		m.duration[i] = duration.WithLabelValues(name)
	}
	m.reads, m.recursiveReads = reads.WithLabelValues("get"), reads.WithLabelValues("getRecursive")
	m.watchRequests = counter("etcd_debugging_store_watch_requests_total", "Requests to watch, refused ones included.")
	m.healthSuccess = counter("etcd_server_health_success", "Answers of /health that said healthy.")
	m.healthFailures = counter("etcd_server_health_failures", "Answers of /health that said unhealthy.")
	reg.MustRegister(memberCollector{s})
	if err := s.limits.Register(reg); err != nil {
		s.log.Warn("metrics left out", "error", err)
	}

	// Other servers in the process may share the registry's process metrics.
	for _, c := range []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		var already prometheus.AlreadyRegisteredError
		if err := reg.Register(c); err != nil && !errors.As(err, &already) {
			s.log.Warn("metrics left out", "error", err)
		}
	}
	exposition := promhttp.HandlerFor(reg, promhttp.HandlerOpts{ErrorLog: promLogger{s}, ErrorHandling: promhttp.ContinueOnError})
	m.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		exposition.ServeHTTP(&plainTypeWriter{ResponseWriter: w}, r)
	})
	return m
}

// plainTypeWriter names the text format as etcd does. The client library adds how it escapes names
// beyond ASCII, which there are none of.
type plainTypeWriter struct{ http.ResponseWriter }

func (w *plainTypeWriter) Write(b []byte) (int, error) {
	h := w.Header()
	if plain, ok := strings.CutSuffix(h.Get("Content-Type"), "; escaping=underscores"); ok {
		h.Set("Content-Type", plain)
	}
	return w.ResponseWriter.Write(b)
}

func (m *metrics) failed(method method, status int) {
	m.failures.WithLabelValues(methodNames[method], strconv.Itoa(status)).Inc()
}

func (m *metrics) read(recursive bool) {
	if recursive {
		m.recursiveReads.Inc()
	} else {
		m.reads.Inc()
	}
}

// promLogger passes on what promhttp complains about.
type promLogger struct{ s *Server }

func (l promLogger) Println(v ...any) { l.s.log.Warn("metrics incomplete", "error", v) }

// memberCollector reads, when somebody looks, what the backend counts anyway.
type memberCollector struct{ s *Server }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	descWrites    = desc("etcd_debugging_store_writes_total", "Writes applied on this member, failed ones included.", "action")
	descExpires   = desc("etcd_debugging_store_expires_total", "Keys and directories that expired.")
	descWatchers  = desc("etcd_debugging_store_watchers", "Watchers registered now.")
	descHasLeader = desc("etcd_server_has_leader", "1 when this member knows of a leader. 0 for longer than an election means that no write succeeds.")
	descIsLeader  = desc("etcd_server_is_leader", "1 when this member leads.")
	descCommitted = desc("etcd_server_proposals_committed_total", "Raft's commit index as this member knows it. A member whose value falls behind the others is slow or cut off.")
	descVersion   = desc("etcd_server_version", "Always 1; the version is the label.", "server_version")
	descCluster   = desc("etcd_cluster_version", "Always 1; the version all members agreed on is the label.", "cluster_version")
	descID        = desc("etcd_server_id", "Always 1; the ID of this member is the label.", "server_id")
)

func (c memberCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descWrites, descExpires, descWatchers, descHasLeader, descIsLeader,
		descCommitted, descVersion, descCluster, descID} {
		ch <- d
	}
}

func (c memberCollector) Collect(ch chan<- prometheus.Metric) {
	m := c.s.member.Load()
	if m == nil {
		return
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	st := m.Tree().Stats()
	counter(descWrites, st.SetsSuccess+st.SetsFail, "set")
	counter(descWrites, st.CreateSuccess+st.CreateFail, "create")
	counter(descWrites, st.UpdateSuccess+st.UpdateFail, "update")
	counter(descWrites, st.DeleteSuccess+st.DeleteFail, "delete")
	counter(descWrites, st.CompareAndSwapSuccess+st.CompareAndSwapFail, "compareAndSwap")
	counter(descWrites, st.CompareAndDeleteSuccess+st.CompareAndDeleteFail, "compareAndDelete")
	counter(descExpires, st.ExpireCount)
	gauge(descWatchers, float64(st.Watchers))

	id := api.FormatID(m.MemberID())
	leader, ok := m.Leader()
	gauge(descHasLeader, flag(ok))
	gauge(descIsLeader, flag(ok && leader.ID == id))
	index, _ := m.RaftState()
	gauge(descCommitted, float64(index))
	version := m.Version()
	gauge(descVersion, 1, version.Server)
	gauge(descCluster, 1, version.Cluster)
	gauge(descID, 1, id)
}
