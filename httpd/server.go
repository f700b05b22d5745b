package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd/limit"
	"github.com/quorate/quorate/httpd/plain"
)

// Options are what a Server can be told. The zero value of each field is usable.
type Options struct {
	// ElectionTimeout is the cluster's. Zero means 1s. A write or quorum read that has no answer
	// after 5s + 2 × ElectionTimeout gets code 300, as in etcd (spec errors 3).
	ElectionTimeout time.Duration
	// MaxRequestBytes bounds the body of a request. Zero means 10 MiB, the limit of etcd. A longer
	// form under /v2/keys is refused with 400 and code 210, as in etcd, any other body with 413.
	MaxRequestBytes int64
	// CORS lists the origins that browsers may call from, compared as text. Empty, or with "*" in
	// it, it means every origin, the default of etcd 3.4 (spec config 7).
	CORS []string
	// Pprof serves Go's profiles under /debug/pprof/.
	Pprof bool
	// Authorizer decides who may do what. Nil leaves it to the backend, if that is an Authorizer;
	// and if not, everybody may do everything.
	Authorizer Authorizer
	// Auth serves /v2/auth/enable, /v2/auth/users… and /v2/auth/roles… once the method was found to
	// be allowed; nil means 404. The context of its requests ends with the time-out of requests, and
	// not when the client goes away.
	Auth http.Handler
	// Routes adds handlers of others, the console's for example.
	Routes func(*mux.Router)
	// Registry takes the server's metrics and is what /metrics shows. Nil means a new one.
	Registry *prometheus.Registry
	// Logger gets one line for each request at debug level. PUT /config/local/log changes its
	// level. Nil means silence.
	Logger hclog.Logger

	// HeaderTimeout is how long a client may take to send the head of a request. Zero means 30s.
	HeaderTimeout time.Duration
	// ReadTimeout is how long it may take to send a whole request, head included. Zero means 90s.
	ReadTimeout time.Duration
	// WriteTimeout is how long a client may take to accept the next piece (up to 256 KiB) of an
	// answer. Zero means 1m. A watch that waits for an event is not bounded by any time-out.
	WriteTimeout time.Duration
	// IdleTimeout is how long a connection is kept open between two requests. Zero means 5m.
	IdleTimeout time.Duration
	// MaxHeaderBytes bounds the head of a request; more is answered with 431. Zero means 1 MiB.
	MaxHeaderBytes int
	// Limits bounds connections, of listeners that it has wrapped, and watchers. Nil means no limits.
	Limits *limit.Limits
	// OnlyNetHTTP leaves all requests to net/http. Otherwise plain ones under /v2/keys are read and
	// answered by package plain, to the same effect in less time.
	OnlyNetHTTP bool
}

func (o *Options) setDefaults() {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&o.ElectionTimeout, time.Second)
	or(&o.HeaderTimeout, 30*time.Second)
	or(&o.ReadTimeout, 90*time.Second)
	or(&o.WriteTimeout, time.Minute)
	or(&o.IdleTimeout, 5*time.Minute)
	if o.MaxRequestBytes == 0 {
		o.MaxRequestBytes = 10 << 20
	}
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 1 << 20
	}
	if o.Limits == nil {
		o.Limits = limit.New(limit.Options{})
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
}

// Server answers the v2 API. It may be started before there is a backend, and then says so.
type Server struct {
	opts    Options
	log     hclog.Logger
	timeout time.Duration // of writes and quorum reads
	limit   timeLimit
	limits  *limit.Limits
	cors    corsPolicy
	router  *mux.Router
	metrics *metrics
	http    http.Server
	plain   *plain.Server

	member  atomic.Pointer[member]
	waiting atomic.Pointer[string] // why there is no member yet

	snapshots chan struct{} // has one value for each that is being sent

	connected atomic.Int64 // connections of net/http
	// active counts requests in handlers; Shutdown waits for them.
	active atomic.Int64
	// stopping ends watches.
	stopping context.Context
	stop     context.CancelFunc
}

// member is a backend with what is the same in all its answers.
type member struct {
	Backend
	clusterID []string   // value of the header
	access    Authorizer // or nil
	inForce   func() bool
}

// guarded says whether anybody has to be asked what is allowed.
func (m *member) guarded() bool { return m.access != nil && (m.inForce == nil || m.inForce()) }

// may asks whether a request is allowed to do something.
func (m *member) may(r *http.Request, access Access) bool {
	return !m.guarded() || m.access.Authorize(r, access) == nil
}

// NewServer returns a server in front of backend, which may be nil and follow with SetBackend.
func NewServer(opts Options, backend Backend) *Server {
	opts.setDefaults()
	s := &Server{
		opts:    opts,
		log:     opts.Logger,
		timeout: 5*time.Second + 2*opts.ElectionTimeout,
		cors:    newCORSPolicy(opts.CORS),
		limits:  opts.Limits,

		snapshots: make(chan struct{}, maxSnapshots),
	}
	s.limit.timeout = s.timeout
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.metrics = newMetrics(opts.Registry, s)
	s.router = s.routes()
	s.SetWaiting("this member is starting")
	if backend != nil {
		s.SetBackend(backend)
	}
	s.http = http.Server{
		Handler:           s,
		ReadHeaderTimeout: opts.HeaderTimeout,
		ReadTimeout:       opts.ReadTimeout,
		// Counted from the end of the head, so it has to allow for the body and for the work.
		WriteTimeout:   opts.ReadTimeout + slowestWork*s.timeout + opts.WriteTimeout,
		IdleTimeout:    opts.IdleTimeout,
		MaxHeaderBytes: opts.MaxHeaderBytes,
		ConnContext:    limit.ConnContext,
		ErrorLog:       s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ConnState:      s.count,
	}
	s.plain = plain.New(plain.Config{
		Prefix:        keysPrefix,
		Handler:       plainKeys{s},
		MaxBody:       int(min(opts.MaxRequestBytes, maxPlainBody)),
		HeaderTimeout: opts.HeaderTimeout,
		ReadTimeout:   opts.ReadTimeout,
		WriteTimeout:  opts.WriteTimeout,
		IdleTimeout:   opts.IdleTimeout,
		ErrorLog:      s.http.ErrorLog,
		Leave:         func(c net.Conn) bool { return limit.RefusalOf(c) != nil },
		HeadTooLong:   s.headTooLong,
	})
	return s
}

// slowestWork is how many time-outs of single operations one request can take: changes of users and
// roles do several in a row (spec errors 3).
const slowestWork = 4

// work returns the context of operations other than those on keys, for a request whose handler began
// at start. Like theirs it does not end when the client goes away.
func (s *Server) work(w http.ResponseWriter, start time.Time) (context.Context, context.CancelFunc) {
	s.holdOn(w, start)
	return context.WithTimeout(context.Background(), s.timeout)
}

// holdOn takes ReadTimeout off the connection if it could pass during the operation of a request whose
// handler began at start. net/http would take that for the client going away, and would give up on all
// later requests of the connection too.
func (s *Server) holdOn(w http.ResponseWriter, start time.Time) {
	if s.opts.HeaderTimeout+time.Since(start)+slowestWork*s.timeout > s.opts.ReadTimeout {
		http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
}

// SetBackend makes the server answer for backend, once, when the member is ready.
func (s *Server) SetBackend(backend Backend) {
	m := &member{Backend: backend, clusterID: []string{api.FormatID(backend.ClusterID())}, access: s.opts.Authorizer}
	if m.access == nil {
		m.access, _ = backend.(Authorizer)
	}
	if a, ok := m.access.(interface{ Enabled() bool }); ok {
		m.inForce = a.Enabled
	}
	s.member.Store(m)
}

// SetWaiting says what the member waits for as long as it has no backend: requests are answered with
// 503 and this text.
func (s *Server) SetWaiting(reason string) { s.waiting.Store(&reason) }

// Handler returns what answers requests.
func (s *Server) Handler() http.Handler { return s }

// Registry returns the registry that /metrics shows, for others to add to.
func (s *Server) Registry() *prometheus.Registry { return s.opts.Registry }

// Serve answers requests on l until Shutdown, and then returns nil. It may be called for several
// listeners. A TLS listener that offers h2 gets HTTP/2.
func (s *Server) Serve(l net.Listener) error {
	if !s.opts.OnlyNetHTTP {
		l = s.plain.Listener(l)
	}
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// lastCall is how long Shutdown lets clients ask once more on the connections that they have, and tells
// them with the answer to go elsewhere. A request that meets the end of its connection has no answer.
const lastCall = 50 * time.Millisecond

// closeGrace is how long Shutdown waits, after the last request was handled, for its answer to
// leave and for connections that were opened but never used.
const closeGrace = 200 * time.Millisecond

// Shutdown ends watches at once by closing their connections without the final chunk (spec watch 6). To
// all others the next answer is the last; after a moment it closes the listeners and what is idle, and
// lets requests finish until ctx is done.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	s.plain.LastCall()
	s.awaitNobody(ctx, lastCall)
	s.plain.Drain()
	defer s.plain.Close()
	graceful, cancel := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	var stopping sync.WaitGroup
	stopping.Go(func() { stopped <- s.http.Shutdown(graceful) })
	defer func() { cancel(); stopping.Wait() }()

	// http.Server.Shutdown would wait up to 5s for connections on which nothing was ever asked.
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	var idleSince time.Time
	for {
		select {
		case err := <-stopped:
			if err != nil {
				s.http.Close()
				return err
			}
			stopped = nil
		case <-ctx.Done():
			s.http.Close()
			return ctx.Err()
		case <-tick.C:
		}
		conns, busy := s.plain.Count()
		switch {
		case conns == 0 && stopped == nil:
			return nil
		case busy > 0 || s.active.Load() > 0:
			idleSince = time.Time{}
		case idleSince.IsZero():
			idleSince = time.Now()
		case time.Since(idleSince) > closeGrace:
			s.http.Close()
			return nil
		}
	}
}

// awaitNobody waits until nobody is connected, or for as long as given.
func (s *Server) awaitNobody(ctx context.Context, atMost time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if conns, _ := s.plain.Count(); conns == 0 && s.connected.Load() == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// count follows how many connections net/http has.
func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.connected.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.connected.Add(-1)
	}
}
