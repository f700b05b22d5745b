package discovery

import (
	"errors"
	"net/http"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// counters count requests when they are answered; a wait thus counts when it ends.
type counters struct {
	created *prometheus.CounterVec
	used    *prometheus.CounterVec
}

func newCounters(r prometheus.Registerer) counters {
	return counters{
		created: newCounter(r, "endpoint_new_requests_total", "Requests for a new discovery token, by status and method."),
		used:    newCounter(r, "endpoint_token_requests_total", "Requests for a discovery token or below, by status and method. A rise means that nodes are trying to form clusters."),
	}
}

// newCounter registers a counter, or finds the one that an earlier service registered.
func newCounter(r prometheus.Registerer, name, help string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{"code", "method"})
	if r == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	if err := r.Register(c); errors.As(err, &already) {
		if earlier, ok := already.ExistingCollector.(*prometheus.CounterVec); ok {
			return earlier
		}
	}
	return c
}

func (c counters) count(vec *prometheus.CounterVec, w *countedWriter, r *http.Request) {
	code := w.status
	if code == 0 {
		code = http.StatusOK
	}
	vec.WithLabelValues(strconv.Itoa(code), methodLabel(r.Method)).Inc()
}

// methodLabel keeps clients from inventing label values.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet:
		return "get"
	case http.MethodHead:
		return "head"
	case http.MethodPost:
		return "post"
	case http.MethodPut:
		return "put"
	case http.MethodDelete:
		return "delete"
	case http.MethodOptions:
		return "options"
	}
	return "other"
}

// countedWriter remembers the status. Flushing and deadlines go through to the writer below.
type countedWriter struct {
	http.ResponseWriter
	status int
}

func (w *countedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countedWriter) Flush() { http.NewResponseController(w.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
