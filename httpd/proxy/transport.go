package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TransportOptions say how members are reached. Zero time-outs mean none.
type TransportOptions struct {
	DialTimeout time.Duration
	// WriteTimeout and ReadTimeout bound each write to and read from a connection. A read time-out
	// ends watches that are idle for longer.
	WriteTimeout, ReadTimeout time.Duration
	// TLS is asked at every connection to an https member for what to use: the peer certificates.
	// Nil means the system's roots and no certificate.
	TLS func() *tls.Config
}

// NewTransport returns the transport between a proxy and the members. It adds no header, asks for
// no compression and uses no other proxy.
func NewTransport(o TransportOptions) *http.Transport {
	dialer := &net.Dialer{Timeout: o.DialTimeout}
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &timedConn{Conn: conn, read: o.ReadTimeout, write: o.WriteTimeout}, nil
	}
	return &http.Transport{
		DialContext: dial,
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			raw, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return secure(ctx, raw, addr, o.TLS)
		},
		DisableCompression:  true,
		MaxIdleConnsPerHost: 128, // all clients share them
		IdleConnTimeout:     90 * time.Second,
	}
}

// handshakeTimeout bounds the TLS handshake with a member.
const handshakeTimeout = 10 * time.Second

// secure makes a TLS connection of one to addr, or closes it.
func secure(ctx context.Context, raw net.Conn, addr string, current func() *tls.Config) (net.Conn, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if current != nil && current() != nil {
		config = current().Clone()
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	config.ServerName = host
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// timedConn gives each read and write its own deadline.
type timedConn struct {
	net.Conn
	read, write time.Duration
}

func (c *timedConn) Read(b []byte) (int, error) {
	if c.read > 0 {
		if err := c.SetReadDeadline(time.Now().Add(c.read)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *timedConn) Write(b []byte) (int, error) {
	if c.write > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.write)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(b)
}

// allowOrigin adds the CORS headers that the proxy's own configuration asks for (spec config 7).
func (p *Proxy) allowOrigin(h http.Header, r *http.Request) {
	origin := "*"
	if len(p.opts.CORS) > 0 && !slices.Contains(p.opts.CORS, "*") {
		if origin = r.Header.Get("Origin"); origin == "" || !slices.Contains(p.opts.CORS, origin) {
			return
		}
	}
	h.Set("Access-Control-Allow-Headers", "accept, content-type, authorization")
	h.Set("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	h.Set("Access-Control-Allow-Origin", origin)
}

// withoutCORS drops the member's CORS headers: the proxy has set its own, and twice is once too
// many for a browser.
func withoutCORS(resp *http.Response) error {
	for _, h := range []string{"Headers", "Methods", "Origin"} {
		resp.Header.Del("Access-Control-Allow-" + h)
	}
	return nil
}

// metrics have the names that etcd 3.4 gives them.
type metrics struct {
	requests *prometheus.CounterVec
	handled  *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_proxy_requests_total", Help: "Requests that came in, by method.",
		}, []string{"method"}),
		handled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_proxy_handled_total", Help: "Requests that a member answered, by method and status.",
		}, []string{"method", "code"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "etcd_proxy_dropped_total", Help: "Requests that no member answered. A rise means that the cluster cannot be reached from here.",
		}, []string{"method", "proxying_error"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "etcd_proxy_handling_duration_seconds", Help: "Time from a request to the end of its answer, watches included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 13),
		}, []string{"method"}),
	}
	r.MustRegister(m.requests, m.handled, m.dropped, m.duration)
	return m
}

// methodLabel keeps clients from making up labels.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return method
	}
	return "other"
}
