package auth

import "github.com/prometheus/client_golang/prometheus"

// metrics count logins by what became of them. They are resolved beforehand, so that counting costs
// no look-up.
type metrics struct {
	logins                           *prometheus.CounterVec
	known, checked, refused, limited prometheus.Counter
}

func newMetrics() *metrics {
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "quorate_logins_total",
		Help: "Logins while users and roles are in force: known from before, checked and found good, refused, or refused unread after too many failures. A rise of the last two means that somebody is guessing, or that a client has an old password.",
	}, []string{"result"})
	return &metrics{
		logins:  vec,
		known:   vec.WithLabelValues("known"),
		checked: vec.WithLabelValues("checked"),
		refused: vec.WithLabelValues("refused"),
		limited: vec.WithLabelValues("limited"),
	}
}

// RegisterMetrics adds the guard's metrics to a registry.
func (g *Guard) RegisterMetrics(registry prometheus.Registerer) error {
	return registry.Register(g.logins.metrics.logins)
}
