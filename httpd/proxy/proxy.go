// Package proxy forwards client requests to the members of a cluster.
//
// A proxy has no vote and is in no member list. All it keeps is a file with the members' peer URLs,
// so that it finds the cluster again after a restart. It asks them for the member list from time to
// time, and sends every request to the first client URL that answers (spec config 5).
//
// It does not look into requests or answers, and caches nothing. A request whose connection broke is
// sent to the next member, as etcd's proxy does; so one POST may reach two.
package proxy

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quorate/quorate/api"
)

// ConfigPath answers with the endpoints in use.
const ConfigPath = "/v2/config/local/proxy"

// maxBody bounds a request's body, in bytes: it is held in memory, to be sent again. It is above the
// 10 MiB that a member accepts, so that refusing is left to the member.
const maxBody = 16 << 20

// Options are what a proxy can be told.
type Options struct {
	// PeerURLs are where the members are, at least some of them.
	PeerURLs []string
	// StateFile keeps the peer URLs for the next start. Empty means nowhere.
	StateFile string
	// Readonly answers everything but GET with 501.
	Readonly bool
	// FailureWait is how long an endpoint is left alone after a failure. Zero means 5s.
	FailureWait time.Duration
	// RefreshInterval is the time between two looks at the member list. Zero means 30s. While there
	// is no endpoint, an interval of 30s or more becomes 1s.
	RefreshInterval time.Duration
	// CORS lists the origins that browsers may call from; empty, or with "*", all.
	CORS []string
	// Transport reaches the members; see [NewTransport]. Nil means one without time-outs.
	Transport http.RoundTripper
	// Registry takes the proxy's metrics and is what /metrics shows. Nil means a new one.
	Registry *prometheus.Registry
	// Logger may be nil. One that is named proxy writes the lines that etcd writes.
	Logger hclog.Logger

	now     func() time.Time // a clock for tests
	shuffle func([]string)   // an order for tests
}

// Proxy is a handler for the client URLs.
type Proxy struct {
	opts    Options
	log     hclog.Logger
	id      string
	members members
	forward *httputil.ReverseProxy
	metrics *metrics
	own     http.Handler // /metrics
}

// New returns a proxy that knows no endpoint yet; [Proxy.Run] finds them.
func New(opts Options) *Proxy {
	if opts.FailureWait == 0 {
		opts.FailureWait = 5 * time.Second
	}
	if opts.RefreshInterval <= 0 {
		opts.RefreshInterval = 30 * time.Second
	}
	if opts.Transport == nil {
		opts.Transport = NewTransport(TransportOptions{})
	}
	if opts.Registry == nil {
		opts.Registry = prometheus.NewRegistry()
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	if opts.now == nil {
		opts.now = time.Now
	}
	if opts.shuffle == nil {
		opts.shuffle = func(s []string) {
			mathrand.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
		}
	}
	var id [8]byte
	rand.Read(id[:]) // never fails

	p := &Proxy{opts: opts, log: opts.Logger, id: hex.EncodeToString(id[:])}
	p.members.peerURLs = slices.Sorted(slices.Values(opts.PeerURLs))
	p.metrics = newMetrics(opts.Registry)
	p.own = promhttp.HandlerFor(opts.Registry, promhttp.HandlerOpts{})
	p.forward = &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      roundTripper(p.tryMembers),
		FlushInterval:  -1, // watches
		ModifyResponse: withoutCORS,
		ErrorHandler:   p.fail,
		ErrorLog:       opts.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	p.log.Info(fmt.Sprintf("using peer urls %v", p.members.peerURLs))
	return p
}

// ServeHTTP answers the proxy's own paths and forwards everything else, /health and /version too.
//
// After a request that other readers may see the end of at another place, in chunks or in HTTP/1.0,
// its connection is closed, as a member does.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
	if p.opts.Readonly && r.Method != http.MethodGet {
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	p.allowOrigin(w.Header(), r)
	switch {
	case r.Method == http.MethodOptions:
		w.WriteHeader(http.StatusOK)
	case r.URL.Path == "/metrics":
		p.own.ServeHTTP(w, r)
	case r.URL.Path == ConfigPath:
		p.serveConfig(w, r)
	default:
		p.serveForward(w, r)
	}
}

func (p *Proxy) serveConfig(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	body := struct {
		Endpoints []string `json:"endpoints"`
	}{p.members.usable(p.opts.now())}
	if body.Endpoints == nil {
		body.Endpoints = []string{}
	}
	_ = json.NewEncoder(w).Encode(body) // the client went away: nobody is left to tell
}

func (p *Proxy) serveForward(w http.ResponseWriter, r *http.Request) {
	began, method := p.opts.now(), methodLabel(r.Method)
	p.metrics.requests.WithLabelValues(method).Inc()
	if slices.Contains(hops(r), p.id) {
		p.metrics.dropped.WithLabelValues(method, "request_loop").Inc()
		p.log.Warn("a request came back: an advertised client URL leads to this proxy", "path", hclog.Quote(r.URL.Path))
		writeMessage(w, http.StatusBadGateway, "httpproxy: request loop: an advertised client URL leads back to this proxy")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		writeMessage(w, http.StatusRequestEntityTooLarge, "httpproxy: request body is too large")
		return
	case err != nil:
		p.metrics.dropped.WithLabelValues(method, "failed_reading_request_body").Inc()
		writeMessage(w, http.StatusBadRequest, "httpproxy: failed to read the request body")
		return
	}
	out := r.WithContext(context.WithValue(r.Context(), bodyKey{}, body))
	counted := &statusWriter{ResponseWriter: w}
	p.forward.ServeHTTP(counted, out)
	if !counted.failed {
		p.metrics.handled.WithLabelValues(method, strconv.Itoa(counted.status)).Inc()
		p.metrics.duration.WithLabelValues(method).Observe(p.opts.now().Sub(began).Seconds())
	}
}

// bodyKey is where the context of a request holds its body.
type bodyKey struct{}

// rewrite leaves the request as it came, but for X-Forwarded-For and our hop. The standard library
// has removed the hop-by-hop headers. The member is chosen later, by tryMembers.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.RawQuery = r.In.URL.RawQuery // as bytes, semicolons and all
	forwarded := r.In.Header.Values("X-Forwarded-For")
	if ip, _, err := net.SplitHostPort(r.In.RemoteAddr); err == nil {
		forwarded = append(slices.Clone(forwarded), ip)
	}
	if len(forwarded) > 0 {
		r.Out.Header.Set("X-Forwarded-For", strings.Join(forwarded, ", "))
	}
	for _, h := range []string{"Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v := r.In.Header.Values(h); v != nil {
			r.Out.Header[h] = v
		}
	}
	r.Out.Header.Set(api.HeaderProxy, strings.Join(append(hops(r.In), p.id), ", "))
}

// hops returns the proxies that a request came through.
func hops(r *http.Request) []string {
	var ids []string
	for _, line := range r.Header.Values(api.HeaderProxy) {
		for id := range strings.SplitSeq(line, ",") {
			ids = append(ids, strings.TrimSpace(id))
		}
	}
	return ids
}

// errNoEndpoint means that there is nobody to ask.
var errNoEndpoint = errors.New("httpproxy: zero endpoints currently available")

// failedError means that n endpoints were asked and none answered.
type failedError struct{ n int }

func (e failedError) Error() string {
	return fmt.Sprintf("httpproxy: unable to get response from %d endpoint(s)", e.n)
}

// tryMembers sends a request to one endpoint after the other until one answers, whatever it says.
func (p *Proxy) tryMembers(r *http.Request) (*http.Response, error) {
	body, _ := r.Context().Value(bodyKey{}).([]byte)
	endpoints := p.members.usable(p.opts.now())
	if len(endpoints) == 0 {
		return nil, errNoEndpoint
	}
	for _, endpoint := range endpoints {
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, _ = strings.Cut(endpoint, "://")
		out.Body, out.ContentLength, out.TransferEncoding = http.NoBody, int64(len(body)), nil
		if len(body) > 0 {
			out.Body = io.NopCloser(bytes.NewReader(body))
		}
		resp, err := p.opts.Transport.RoundTrip(out)
		if err == nil {
			return resp, nil
		}
		if r.Context().Err() != nil {
			return nil, r.Context().Err() // the client went away; the member did nothing wrong
		}
		p.log.Warn("failed to direct request to an endpoint", "endpoint", endpoint, "error", err)
		p.members.failed(endpoint, p.opts.now().Add(p.opts.FailureWait))
	}
	return nil, failedError{len(endpoints)}
}

// fail answers a request that no member answered.
func (p *Proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	if sw, ok := w.(*statusWriter); ok {
		sw.failed = true
	}
	var failed failedError
	switch {
	case r.Context().Err() != nil:
		// Nobody is listening, or only somebody who sends no more: an answer of ours would be a false one.
		panic(http.ErrAbortHandler)
	case errors.Is(err, errNoEndpoint):
		p.metrics.dropped.WithLabelValues(methodLabel(r.Method), "zero_endpoints").Inc()
		writeMessage(w, http.StatusServiceUnavailable, err.Error())
	case errors.As(err, &failed):
		p.metrics.dropped.WithLabelValues(methodLabel(r.Method), "failed_getting_response").Inc()
		writeMessage(w, http.StatusBadGateway, err.Error())
	default:
		writeMessage(w, http.StatusBadGateway, "httpproxy: "+err.Error())
	}
}

// writeMessage answers with an error in the form of the v2 API.
func writeMessage(w http.ResponseWriter, status int, message string) {
	body, err := json.Marshal(map[string]string{"message": message})
	if err != nil { // a map of strings
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// roundTripper makes an http.RoundTripper of a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
	failed bool // the answer is not a member's
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
