// Package limit bounds what clients may take of a server: connections and watchers, in all and for each
// address.
//
// Who comes too late is told so. A connection beyond a limit is accepted all the same, has its first
// request answered with the reason in JSON, and is closed; a listener that stops accepting would leave
// clients waiting without a word. There are two answers (docs/decisions/0015):
//
//	429  this address has too many: another member would say the same
//	503  this server has too many: another member may have room, and v2 clients go there
//
// Whoever serves a connection asks for its [Refusal], or leaves that to [ConnContext] and [Refuse].
package limit

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Options are the limits. Zero means none, and for those per address three quarters of the one in all, so
// that no single client can lock out all others.
type Options struct {
	Connections, ConnectionsPerAddress int
	Watchers, WatchersPerAddress       int
	// Logger may be nil.
	Logger hclog.Logger
}

// Limits counts what is in use. Its methods may be called from any goroutine.
type Limits struct {
	log                   hclog.Logger
	connections, watchers quota
	// refusing has a place for each connection that is being told why it is refused.
	refusing chan struct{}

	refused      *prometheus.CounterVec
	acceptErrors prometheus.Counter
}

// MaxRefusing is how many connections beyond the limit are open at a time, until they have their answer. More
// are closed without one.
const MaxRefusing = 50

// New returns limits with nothing in use.
func New(o Options) *Limits {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &Limits{
		log:         o.Logger,
		connections: newQuota("connections", o.Connections, o.ConnectionsPerAddress),
		watchers:    newQuota("watchers", o.Watchers, o.WatchersPerAddress),
		refusing:    make(chan struct{}, MaxRefusing),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "quorate_refused_total",
			Help: "Requests and connections refused to protect this server, by the limit that was reached. Counts up while clients misbehave or a limit is too low.",
		}, []string{"limit"}),
		acceptErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quorate_accept_errors_total",
			Help: "Connections that could not be accepted, mostly for want of file descriptors.",
		}),
	}
}

// Register adds the metrics of the limits to a registry.
func (l *Limits) Register(registry prometheus.Registerer) error {
	gauge := func(name, help string, q *quota) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(q.inUse()) })
	}
	for _, c := range []prometheus.Collector{
		l.refused, l.acceptErrors,
		gauge("quorate_client_connections", "Connections of clients that are open now.", &l.connections),
		gauge("quorate_client_watchers", "Watches that clients wait in now.", &l.watchers),
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	// So that whoever alerts on them sees them from the beginning.
	for _, name := range []string{"connections", "connections_per_address", "watchers", "watchers_per_address", Body, Header, Disk} {
		l.refused.WithLabelValues(name)
	}
	return nil
}

// What else is counted as refused, besides connections and watchers.
const (
	Body   = "body"   // larger than --max-request-bytes
	Header = "header" // larger than --max-header-bytes
	Disk   = "disk"   // a write that --min-free-disk forbids
)

// CountRefused counts a request that was refused for one of the reasons above.
func (l *Limits) CountRefused(reason string) { l.refused.WithLabelValues(reason).Inc() }

// Watch takes a place for a watcher of the client at an address, host and port as in
// http.Request.RemoteAddr. It returns how to give the place back, or the refusal.
func (l *Limits) Watch(address string) (done func(), refusal *Refusal) {
	client := unknownClient
	if a, err := netip.ParseAddrPort(address); err == nil {
		client = clientOf(a.Addr())
	}
	if refusal = l.watchers.take(client); refusal != nil {
		l.CountRefused(refusal.Limit)
		return nil, refusal
	}
	return sync.OnceFunc(func() { l.watchers.give(client) }), nil
}

// Refusal says why a client is turned away.
type Refusal struct {
	Status int    // of HTTP: 429 or 503
	Limit  string // the limit that was reached, as the metric names it
	Text   string // for people
}

// Write answers a request with the refusal.
func (r *Refusal) Write(w http.ResponseWriter) {
	body, err := json.Marshal(struct {
		Message string `json:"message"`
	}{r.Text})
	if err != nil {
		body = []byte("{}") // a string always marshals
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Retry-After", "1")
	w.WriteHeader(r.Status)
	_, _ = w.Write(body) // the client went away: nobody is left to tell
}

// Handler refuses the requests that came on connections which are to be refused, and leaves all others to
// next. The server needs ConnContext.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !Refuse(w, r) {
			next.ServeHTTP(w, r)
		}
	})
}

// Refuse answers a request that came on a connection which is to be refused, and says whether it did.
func Refuse(w http.ResponseWriter, r *http.Request) bool {
	refusal, ok := r.Context().Value(contextKey{}).(*Refusal)
	if !ok {
		return false
	}
	w.Header().Set("Connection", "close")
	refusal.Write(w)
	return true
}

// quota bounds how many of something are in use.
type quota struct {
	name            string // plural
	all, perAddress int    // 0 means no limit

	mu      sync.Mutex
	total   int                // guarded by mu
	clients map[netip.Addr]int // guarded by mu; nobody with 0
}

func newQuota(name string, all, perAddress int) quota {
	if perAddress == 0 {
		perAddress = (3*all + 3) / 4
	}
	return quota{name: name, all: all, perAddress: perAddress, clients: make(map[netip.Addr]int)}
}

// take counts one more of a client, or refuses it.
func (q *quota) take(client netip.Addr) *Refusal {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.all > 0 && q.total >= q.all:
		return &Refusal{http.StatusServiceUnavailable, q.name,
			fmt.Sprintf("this server has %d %s, as many as it may (--max-%s): try another member, or again later", q.total, q.name, q.name)}
	case q.perAddress > 0 && q.clients[client] >= q.perAddress:
		return &Refusal{http.StatusTooManyRequests, q.name + "_per_address",
			fmt.Sprintf("%v has %d %s, as many as one address may (--max-%s-per-address): close some, or try again later", client, q.clients[client], q.name, q.name)}
	}
	q.total++
	q.clients[client]++
	return nil
}

// give gives back what take has counted.
func (q *quota) give(client netip.Addr) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.total--
	if q.clients[client]--; q.clients[client] <= 0 {
		delete(q.clients, client)
	}
}

func (q *quota) inUse() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// unknownClient stands for clients whose address is none of IP.
var unknownClient = netip.IPv4Unspecified()

// ipv6Client is how many bits of an IPv6 address tell clients apart: whoever gets one, gets a whole /64.
const ipv6Client = 64

// clientOf returns the address that a client is counted under.
func clientOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(ipv6Client); err == nil {
			return p.Addr()
		}
	}
	return a
}

// addressOf is clientOf for the other end of a connection.
func addressOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		if a, ok := netip.AddrFromSlice(tcp.IP); ok {
			return clientOf(a)
		}
	}
	return unknownClient
}
