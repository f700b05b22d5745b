package discovery

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api"
)

// registryKey is the directory of all tokens. It is hidden, and the name is that of the public service.
const registryKey = "/_etcd/registry"

// maxForm bounds the body of a request, in bytes, before anything of it is understood.
const maxForm = 64 << 10

// ServiceOptions configure a [Service]. Only Keys is needed.
type ServiceOptions struct {
	// Keys serves /v2/keys. What the service stores and shows goes through it, as requests of nobody
	// in particular: give it a handler that does not ask for credentials.
	Keys http.Handler
	// PublicURL is what the URLs of new tokens begin with, such as https://discovery.example. Empty
	// means scheme and host that the request came in on.
	PublicURL string
	// TokenTTL is how long a token lives; zero means 7 days, and a negative one for ever. Clusters
	// made with a token do not need it any more.
	TokenTTL time.Duration
	// MaxSize is the largest cluster that a token is made for; zero means 9.
	MaxSize int
	// MaxValueBytes bounds what a node may register, in bytes; zero means 4 KiB.
	MaxValueBytes int
	// Next gets every request that is none of ours; nil answers 404.
	Next http.Handler
	// Registerer takes the counters; nil for none.
	Registerer prometheus.Registerer
	Logger     hclog.Logger // nil for none
}

// Service hands out tokens and serves them to the nodes of clusters that are to be (spec discovery 7):
//
//	/new?size=N           any method: the URL of a new token
//	/TOKEN                GET: the directory, waits included
//	/TOKEN/ID             GET, PUT (once, with prevExist=false), DELETE: one registration
//	/TOKEN/_config/size   GET: how many nodes
//
// Tokens are keys of the store behind it, under /_etcd/registry, and answers are the store's own. A
// service therefore keeps no state, and any member of its cluster can serve any token.
type Service struct {
	opts     ServiceOptions
	counters counters
	turns    turns
}

// NewService returns a service; it is ready when Keys is.
func NewService(opts ServiceOptions) *Service {
	if opts.TokenTTL == 0 {
		opts.TokenTTL = 7 * 24 * time.Hour
	}
	if opts.MaxSize == 0 {
		opts.MaxSize = 9
	}
	if opts.MaxValueBytes == 0 {
		opts.MaxValueBytes = 4 << 10
	}
	if opts.Next == nil {
		opts.Next = http.NotFoundHandler()
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	return &Service{opts: opts, counters: newCounters(opts.Registerer)}
}

// A token is what /new makes, or one of the 40 digits that the public service once made.
var tokenPath = regexp.MustCompile(`^/([0-9a-f]{32}|[0-9a-f]{40})(?:/(.*))?$`)

var memberID = regexp.MustCompile(`^[0-9a-f]{1,16}$`)

// Matches says whether a request with this path is for the service.
func (s *Service) Matches(path string) bool {
	return path == "/new" || tokenPath.MatchString(path)
}

func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/new" {
		counted := &countedWriter{ResponseWriter: w}
		defer s.counters.count(s.counters.created, counted, r)
		s.serveNew(counted, r)
		return
	}
	parts := tokenPath.FindStringSubmatch(r.URL.Path)
	if parts == nil {
		s.opts.Next.ServeHTTP(w, r)
		return
	}
	counted := &countedWriter{ResponseWriter: w}
	// Deferred, because a wait that is cut by a stopping server ends in a panic.
	defer s.counters.count(s.counters.used, counted, r)
	s.serveToken(counted, r, parts[1], parts[2])
}

// serveNew makes a token and answers with its URL, without a newline, as the public service does.
func (s *Service) serveNew(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	size := 3
	if text := r.FormValue("size"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			http.Error(w, fmt.Sprintf("size is not a number: %q", text), http.StatusBadRequest)
			return
		}
		if n < 1 || n > s.opts.MaxSize {
			http.Error(w, fmt.Sprintf("size must be from 1 to %d: %d", s.opts.MaxSize, n), http.StatusBadRequest)
			return
		}
		size = n
	}
	token := newToken()
	if err := s.create(r.Context(), token, size); err != nil {
		s.opts.Logger.Error("discovery token not created", "size", size, "error", err)
		http.Error(w, "Unable to generate token", http.StatusBadRequest)
		return
	}
	s.opts.Logger.Info("discovery token created", "token", short(token), "size", size, "remote", r.RemoteAddr)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s/%s", s.publicURL(r), token)
}

func newToken() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// short is a token as the log shows it: enough to tell it from others, too little to use it.
func short(token string) string { return token[:8] + "..." }

func (s *Service) publicURL(r *http.Request) string {
	if s.opts.PublicURL != "" {
		return strings.TrimSuffix(s.opts.PublicURL, "/")
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// create writes a token: the directory, which carries the time to live, and then the size in it. A
// directory without a size is no token to anybody, so half of it does no harm.
func (s *Service) create(ctx context.Context, token string, size int) error {
	dir := url.Values{"dir": {"true"}, "prevExist": {"false"}}
	if s.opts.TokenTTL > 0 {
		dir.Set("ttl", strconv.FormatInt(int64((s.opts.TokenTTL+time.Second-1)/time.Second), 10))
	}
	if a := s.ask(ctx, http.MethodPut, token, dir); a.status != http.StatusCreated {
		return a.failure()
	}
	value := url.Values{"value": {strconv.Itoa(size)}, "prevExist": {"false"}}
	if a := s.ask(ctx, http.MethodPut, token+"/_config/size", value); a.status != http.StatusCreated {
		return a.failure()
	}
	return nil
}

// serveToken serves a token, and what is below it. What nodes do not need is refused: the size is
// what it is, and a token goes away by itself.
func (s *Service) serveToken(w http.ResponseWriter, r *http.Request, token, key string) {
	read := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case key == "_config" || strings.HasPrefix(key, "_config/"):
		if !read {
			refuse(w, http.StatusForbidden, "The size of a cluster cannot be changed", token)
			return
		}
		if key != "_config/size" {
			http.NotFound(w, r)
			return
		}
		s.pass(w, r, token+"/"+key)
	case key == "":
		if !read {
			refuse(w, http.StatusForbidden, "A token can only be read", token)
			return
		}
		s.pass(w, r, token)
	case !memberID.MatchString(key):
		if !read {
			refuse(w, http.StatusBadRequest, "A member ID is 1 to 16 hex digits", token+"/"+key)
			return
		}
		http.NotFound(w, r)
	case read || r.Method == http.MethodDelete:
		s.pass(w, r, token+"/"+key)
	case r.Method == http.MethodPut:
		s.register(w, r, token, key)
	default:
		w.Header().Set("Allow", "GET, HEAD, PUT, DELETE")
		refuse(w, http.StatusMethodNotAllowed, "Method Not Allowed", token+"/"+key)
	}
}

// pass hands a request to the keys handler as it is, but for its path. The answer goes straight to
// the client: a wait is flushed when the handler flushes, and lasts as long as the client likes.
func (s *Service) pass(w http.ResponseWriter, r *http.Request, key string) {
	s.opts.Keys.ServeHTTP(w, moved(r, key))
}

// moved returns the request with the path that the key has in the store.
func moved(r *http.Request, key string) *http.Request {
	to := r.WithContext(r.Context())
	to.URL = &url.URL{Path: "/v2/keys" + registryKey + "/" + key, RawQuery: r.URL.RawQuery}
	to.RequestURI = to.URL.RequestURI()
	return to
}

// ask makes a request of the service's own, and returns the answer.
func (s *Service) ask(ctx context.Context, method, key string, form url.Values) *stored {
	r, err := http.NewRequestWithContext(ctx, method, "/v2/keys"+registryKey+"/"+key+"?"+form.Encode(), http.NoBody)
	a := &stored{header: http.Header{}, status: http.StatusOK}
	if err != nil {
		a.status = http.StatusInternalServerError
		return a
	}
	r.RequestURI = r.URL.RequestURI()
	s.opts.Keys.ServeHTTP(a, r)
	return a
}

// refuse answers in the form of the keys API, which is what nodes understand. The codes are those of
// the status, which the keys API does not use otherwise.
func refuse(w http.ResponseWriter, status int, message, cause string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(refusal{Code: api.Code(status), Message: message, Cause: "/" + cause})
}

// stored is an answer that is kept to be looked at.
type stored struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *stored) Header() http.Header         { return a.header }
func (a *stored) WriteHeader(status int)      { a.status = status }
func (a *stored) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *stored) Flush()                      {}

// failure describes an answer that is not the one hoped for.
func (a *stored) failure() error {
	return fmt.Errorf("status %d: %s", a.status, bytes.TrimSpace(a.body.Bytes()))
}

// send gives the answer to the client after all.
func (a *stored) send(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	w.Write(a.body.Bytes())
}
