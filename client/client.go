// Package client speaks the etcd v2 API, to Quorate and to etcd alike.
//
// It is thin: one method per request, the wire types of package api, and no state beyond which
// endpoint answered last. What it adds to net/http is the choice of the endpoint. A read goes on to
// the next endpoint after any failure. A write does so only while nothing of it has left this
// machine: once it may have reached a member, a failure is reported and never repeated, because the
// first attempt may still take effect.
//
// Environment variables, proxies included, are not consulted.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxRedirects is how many redirects one request follows, as in etcd's client.
const maxRedirects = 10

// Config says where the members are and how to reach them.
type Config struct {
	// Endpoints are the client URLs of members, such as http://10.0.0.1:2379. They are tried in this
	// order, starting with the one that answered last. A missing scheme means http.
	Endpoints []string

	// Username and Password are sent with every request (HTTP basic authentication). No user name
	// means that nothing is sent: the request is the guest's.
	Username string
	Password string

	// TLS is used for https endpoints; nil means the system's root certificates.
	TLS *tls.Config

	// DialTimeout bounds making one connection. Zero means 30 s.
	DialTimeout time.Duration

	// HeaderTimeout bounds the wait for the header of an answer, for each endpoint tried. Watches
	// are exempt. Zero means no bound but the context's.
	HeaderTimeout time.Duration

	// Proxy chooses an HTTP proxy, as in [http.Transport]. Nil means none.
	Proxy func(*http.Request) (*url.URL, error)

	// Transport replaces the connection handling altogether; TLS, DialTimeout and Proxy are then
	// not used.
	Transport http.RoundTripper

	// UserAgent is sent as User-Agent. Empty means net/http's.
	UserAgent string

	// OnRequest, if set, sees each request just before it is sent, for example to print it. It must
	// not consume the body; GetBody gives a copy.
	OnRequest func(*http.Request)
}

// Client talks to one cluster. It is safe for concurrent use.
type Client struct {
	config    Config
	transport http.RoundTripper

	mu        sync.Mutex // guards the fields below
	endpoints []*url.URL
	pinned    int // the endpoint that answered last
}

// New returns a client. Nothing is sent yet. The error says which endpoint is malformed.
func New(config Config) (*Client, error) {
	c := &Client{config: config, transport: config.Transport}
	if err := c.SetEndpoints(config.Endpoints); err != nil {
		return nil, err
	}
	if c.transport == nil {
		c.transport = newTransport(config)
	}
	return c, nil
}

func newTransport(config Config) *http.Transport {
	dialer := net.Dialer{Timeout: config.DialTimeout, KeepAlive: 30 * time.Second}
	if dialer.Timeout == 0 {
		dialer.Timeout = 30 * time.Second
	}
	return &http.Transport{
		Proxy:               config.Proxy,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     config.TLS,
		TLSHandshakeTimeout: 10 * time.Second,
		// A client has a handful of members, and often many requests to one of them at a time.
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
	}
}

// SetEndpoints replaces the endpoints.
func (c *Client) SetEndpoints(endpoints []string) error {
	if len(endpoints) == 0 {
		return ErrNoEndpoints
	}
	urls := make([]*url.URL, 0, len(endpoints))
	for _, e := range endpoints {
		u, err := parseEndpoint(e)
		if err != nil {
			return err
		}
		urls = append(urls, u)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endpoints, c.pinned = urls, 0
	return nil
}

func parseEndpoint(s string) (*url.URL, error) {
	s = strings.TrimSpace(s)
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("client: endpoint: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("client: endpoint %q: scheme must be http or https", s)
	}
	if u.Host == "" {
		return nil, fmt.Errorf("client: endpoint %q has no host", s)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}, nil
}

// Endpoints returns the endpoints in use.
func (c *Client) Endpoints() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, u := range c.endpoints {
		out = append(out, u.String())
	}
	return out
}

// At returns a client of a single endpoint that shares this one's connections and credentials.
func (c *Client) At(endpoint string) (*Client, error) {
	one := &Client{config: c.config, transport: c.transport}
	return one, one.SetEndpoints([]string{endpoint})
}

// Sync asks the cluster for its members and replaces the endpoints by all their client URLs, in
// random order, so that many clients spread over the members. When no member has published a URL
// it fails with [ErrNoEndpoints] and changes nothing. Where all endpoints are https, it takes over
// none that is not, and keeps what it has if the cluster has no other.
func (c *Client) Sync(ctx context.Context) error {
	members, err := c.Members().List(ctx)
	if err != nil {
		return err
	}
	var found []string
	for _, m := range members {
		for _, u := range m.ClientURLs {
			if _, err := parseEndpoint(u); err == nil {
				found = append(found, u)
			}
		}
	}
	plain := func(u string) bool { return !strings.HasPrefix(u, "https://") }
	if len(found) > 0 && !slices.ContainsFunc(c.Endpoints(), plain) {
		if found = slices.DeleteFunc(found, plain); len(found) == 0 {
			return nil
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] })
	return c.SetEndpoints(found)
}

// CloseIdleConnections closes the connections that no request uses at the moment.
func (c *Client) CloseIdleConnections() {
	if t, ok := c.transport.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// request is one call of the API, not yet bound to an endpoint.
type request struct {
	method      string
	path        string // decoded; appended to the endpoint's
	query       url.Values
	body        []byte
	contentType string
	wait        bool // a watch: the answer may take for ever
	// onHeader, if set, sees the header of a successful answer before its body arrives.
	onHeader func(http.Header)
}

// repeatable says whether the request may be sent to another member after one that may have
// executed it.
func (r *request) repeatable() bool { return r.method == http.MethodGet || r.method == http.MethodHead }

// answer is a complete answer with a status below 500.
type answer struct {
	endpoint string
	status   int
	header   http.Header
	body     []byte
}

// do sends the request to the endpoints in turn until one gives an answer below 500.
func (c *Client) do(ctx context.Context, r request) (*answer, error) {
	c.mu.Lock()
	endpoints, first := c.endpoints, c.pinned
	c.mu.Unlock()

	failed := &ConnectError{}
	for i := range endpoints {
		at := (first + i) % len(endpoints)
		a, sent, err := c.try(ctx, endpoints[at], r)
		if err == nil && a.status >= 500 {
			if !r.repeatable() {
				return nil, refusal(a)
			}
			err = newMemberError(a)
		}
		if err == nil {
			c.mu.Lock()
			if len(c.endpoints) == len(endpoints) && c.endpoints[at] == endpoints[at] {
				c.pinned = at
			}
			c.mu.Unlock()
			return a, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, ErrTooManyRedirects) || errors.Is(err, ErrNoLocation) || errors.Is(err, ErrPlainRedirect) {
			return nil, err
		}
		failed.Errors = append(failed.Errors, err)
		failed.Sent = failed.Sent || sent
		if sent && !r.repeatable() {
			return nil, failed
		}
	}
	return nil, failed
}

// try sends the request to one endpoint, following redirects. sent tells whether any of it may have
// reached a server.
func (c *Client) try(ctx context.Context, endpoint *url.URL, r request) (a *answer, sent bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent = true },
	})

	u := *endpoint
	u.Path = endpoint.Path + r.path
	u.RawQuery = r.query.Encode()
	for redirects := 0; ; redirects++ {
		res, err := c.roundTrip(ctx, cancel, endpoint, &u, r)
		if err != nil {
			return nil, sent, err
		}
		if res.StatusCode/100 != 3 {
			body, err := readBody(res, r)
			if err != nil {
				return nil, sent, err
			}
			return &answer{endpoint.String(), res.StatusCode, res.Header, body}, sent, nil
		}
		res.Body.Close()
		if redirects == maxRedirects {
			return nil, sent, ErrTooManyRedirects
		}
		location, err := res.Location()
		if err != nil {
			return nil, sent, ErrNoLocation
		}
		if u.Scheme == "https" && location.Scheme != "https" {
			return nil, sent, ErrPlainRedirect
		}
		u = *location
	}
}

// roundTrip sends one HTTP request and waits for the header of the answer.
func (c *Client) roundTrip(ctx context.Context, cancel context.CancelCauseFunc, endpoint, u *url.URL, r request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	if c.config.UserAgent != "" {
		req.Header.Set("User-Agent", c.config.UserAgent)
	}
	// A redirect must not carry the password to a stranger.
	if c.config.Username != "" && c.trusted(endpoint, u) {
		req.SetBasicAuth(c.config.Username, c.config.Password)
	}
	if c.config.OnRequest != nil {
		c.config.OnRequest(req)
	}

	if c.config.HeaderTimeout > 0 && !r.wait {
		late := fmt.Errorf("client: endpoint %s exceeded header timeout", endpoint)
		timer := time.AfterFunc(c.config.HeaderTimeout, func() { cancel(late) })
		defer timer.Stop()
		res, err := c.transport.RoundTrip(req)
		if err != nil && context.Cause(ctx) == late {
			return nil, late
		}
		return res, err
	}
	return c.transport.RoundTrip(req)
}

// trusted tells whether u is on the endpoint itself or on another known one.
func (c *Client) trusted(endpoint, u *url.URL) bool {
	same := func(e *url.URL) bool { return e.Scheme == u.Scheme && e.Host == u.Host }
	if same(endpoint) {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.endpoints, same)
}

func readBody(res *http.Response, r request) ([]byte, error) {
	defer res.Body.Close()
	if r.onHeader != nil && res.StatusCode == http.StatusOK {
		r.onHeader(res.Header)
	}
	return io.ReadAll(res.Body)
}
