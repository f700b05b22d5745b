package discovery

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

const (
	requestTimeout = 5 * time.Second // of everything but waits, which have none
	maxRedirects   = 10
	maxAnswer      = 16 << 20 // bytes; a directory of a few members is some hundred
)

// link is the way to one token directory: the endpoint, the path of the directory there, and the
// connection. The requests are etcd's to the byte (spec discovery 3): parameters sorted, those that
// are false spelled out, nothing sent that is not in the record.
type link struct {
	endpoint  *url.URL // scheme, host and, should it have them, user and query; no path
	directory string
	timeout   time.Duration
	transport *http.Transport
}

func newLink(o *Options) (*link, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, ErrBadEndpoint
	}
	tlsConfig, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	proxy, err := o.proxy()
	if err != nil {
		return nil, err
	}
	endpoint := *u
	endpoint.Path, endpoint.RawPath, endpoint.Fragment, endpoint.RawFragment = "", "", "", ""
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &link{
		endpoint:  &endpoint,
		directory: path.Join("/", u.Path),
		timeout:   requestTimeout,
		transport: &http.Transport{
			Proxy:               proxy,
			DialContext:         dialer.DialContext,
			TLSClientConfig:     tlsConfig,
			TLSHandshakeTimeout: 10 * time.Second,
		},
	}, nil
}

// proxy reads the address of the HTTP proxy, in which the scheme may be left out. What the
// environment says about proxies is not for discovery.
func (o *Options) proxy() (func(*http.Request) (*url.URL, error), error) {
	if o.Proxy == "" {
		return nil, nil
	}
	u, err := url.Parse(o.Proxy)
	if err != nil || !strings.HasPrefix(u.Scheme, "http") {
		u, err = url.Parse("http://" + o.Proxy)
	}
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("invalid proxy address %q", o.Proxy)
	}
	o.Logger.Info(fmt.Sprintf("using proxy %q", u.Redacted()))
	return http.ProxyURL(u), nil
}

// tlsConfig returns what the service is verified with: the system's roots unless told otherwise.
func (o *Options) tlsConfig() (*tls.Config, error) {
	c := o.TLS.Clone()
	if o.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, err
	}
	if c == nil {
		c = &tls.Config{}
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate found", o.CAFile)
	}
	return c, nil
}

func (l *link) close() { l.transport.CloseIdleConnections() }

// name is the endpoint as it appears in texts.
func (l *link) name() string { return l.endpoint.Scheme + "://" + l.endpoint.Host }

// unavailable is trouble that may pass: no connection, no answer in time, or an answer 5xx.
type unavailable struct{ error }

func (u unavailable) Unwrap() error { return u.error }

// refusal is an error answer of the keys API.
type refusal struct {
	Status  int      `json:"-"`
	Code    api.Code `json:"errorCode"`
	Message string   `json:"message"`
	Cause   string   `json:"cause"`
	Index   uint64   `json:"index"`
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%d: %s (%s) [%d]", int(r.Code), r.Message, r.Cause, r.Index)
}

func (r *refusal) Unwrap() error { return r.Code }

// errPlainRedirect keeps what was to be encrypted from being sent without.
var errPlainRedirect = errors.New("discovery: refusing to be redirected from https to http")

// errNothing is a wait that ended with no event: the server closed it.
var errNothing = errors.New("discovery: the wait was ended by the server")

// answer is a successful answer of the keys API.
type answer struct {
	node  api.Node
	index uint64 // X-Etcd-Index
}

// get reads a key of the directory, or the directory itself for the empty key.
func (l *link) get(ctx context.Context, key string) (*answer, error) {
	return l.quick(ctx, http.MethodGet, key, "quorum", "false", "recursive", "false", "sorted", "false")
}

// create writes a key that must not be there yet.
func (l *link) create(ctx context.Context, key, value string) (*answer, error) {
	return l.quickBody(ctx, http.MethodPut, key, url.Values{"value": {value}}.Encode(), "prevExist", "false")
}

// wait returns at the first event from index on, below the whole directory for the empty key.
func (l *link) wait(ctx context.Context, key string, index uint64) error {
	_, err := l.do(ctx, http.MethodGet, key, "",
		"recursive", strconv.FormatBool(key == ""), "wait", "true", "waitIndex", strconv.FormatUint(index, 10))
	return err
}

func (l *link) quick(ctx context.Context, method, key string, params ...string) (*answer, error) {
	return l.quickBody(ctx, method, key, "", params...)
}

func (l *link) quickBody(ctx context.Context, method, key, body string, params ...string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return l.do(ctx, method, key, body, params...)
}

// do makes one request and follows where it is sent. Method and body stay the same on the way, as
// members that pass writes on to their leader expect.
func (l *link) do(ctx context.Context, method, key, body string, params ...string) (*answer, error) {
	u := *l.endpoint
	u.Path = path.Join(l.directory, key)
	query := u.Query()
	for pair := range slices.Chunk(params, 2) {
		query.Set(pair[0], pair[1])
	}
	u.RawQuery = query.Encode()
	for range maxRedirects + 1 {
		status, header, data, err := l.roundTrip(ctx, method, &u, body)
		if err != nil {
			return nil, unavailable{err}
		}
		if status/100 != 3 {
			return l.read(status, header, data)
		}
		to, err := url.Parse(header.Get("Location"))
		if err != nil || to.String() == "" {
			return nil, ErrBadEndpoint
		}
		next := u.ResolveReference(to)
		if next.Scheme != "http" && next.Scheme != "https" || next.Host == "" {
			return nil, ErrBadEndpoint
		}
		if u.Scheme == "https" && next.Scheme != "https" {
			return nil, errPlainRedirect
		}
		if next.User == nil && next.Host == u.Host && next.Scheme == u.Scheme {
			next.User = u.User
		}
		u = *next
	}
	return nil, unavailable{errors.New("client: too many redirects")}
}

func (l *link) roundTrip(ctx context.Context, method string, u *url.URL, body string) (int, http.Header, []byte, error) {
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), reader)
	if err != nil {
		return 0, nil, nil, err
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	// Not http.Client: it would turn a redirected PUT into a GET, and wrap the texts of errors.
	resp, err := l.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp.StatusCode, resp.Header, data, err
}

// read makes sense of an answer.
func (l *link) read(status int, header http.Header, data []byte) (*answer, error) {
	switch {
	case status == http.StatusInternalServerError || status == http.StatusServiceUnavailable:
		return nil, unavailable{fmt.Errorf("client: etcd member %s has no leader", l.name())}
	case status/100 == 5:
		return nil, unavailable{fmt.Errorf("client: etcd member %s returns server error [%s]", l.name(), http.StatusText(status))}
	case status == http.StatusOK || status == http.StatusCreated:
		if len(bytes.TrimSpace(data)) == 0 {
			return nil, errNothing
		}
		var event api.Event
		if json.Unmarshal(data, &event) != nil || event.Node == nil {
			return nil, ErrBadEndpoint
		}
		index, err := strconv.ParseUint(header.Get(api.HeaderIndex), 10, 64)
		if err != nil {
			return nil, ErrBadEndpoint
		}
		return &answer{node: *event.Node, index: index}, nil
	}
	r := refusal{Status: status}
	if json.Unmarshal(data, &r) != nil || r.Code == 0 {
		return nil, ErrBadEndpoint
	}
	return nil, &r
}
