package httpd

import (
	"errors"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd/limit"
)

const keysPrefix = "/v2/keys"

// ServeHTTP answers a request on any path: CORS first, then unclean paths, then keys, and everything
// else by way of the router.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.active.Add(1)
	defer s.active.Add(-1)

	if s.stopping.Err() != nil || uncertainEnd(r) {
		w.Header().Set("Connection", "close")
	}
	s.cors.apply(w.Header(), r)
	if limit.Refuse(w, r) {
		return
	}
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusOK)
		return
	}
	p := r.URL.Path
	if r.RequestURI == "*" {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if !isClean(p) && r.Method != http.MethodConnect {
		redirectClean(w, r)
		return
	}
	// Keys are served before the router is asked: it would cost more than a read does.
	if key, ok := keyOf(p); ok {
		s.serveKeys(w, r, key, false)
		return
	}
	if !s.log.IsDebug() {
		s.router.ServeHTTP(w, r)
		return
	}
	start := time.Now()
	sw := &statusWriter{ResponseWriter: w}
	s.router.ServeHTTP(sw, r)
	s.logRequest(r.Method, p, r.RemoteAddr, sw.status, start)
}

// uncertainEnd says whether somebody in between may see the end of a request's body at another place
// than we do, so that what follows on the connection might not be what it seems. net/http hides whether
// a request in chunks, or in HTTP/1.0, came with a second statement about its length (RFC 9112, 6.1).
func uncertainEnd(r *http.Request) bool {
	return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) && r.ContentLength != 0
}

// keyOf returns what follows /v2/keys in a path below it.
func keyOf(path string) (string, bool) {
	key, ok := strings.CutPrefix(path, keysPrefix)
	return key, ok && (key == "" || key[0] == '/')
}

// routes registers everything but keys.
//
// Paths are matched decoded, so that %2F is a slash as in etcd (no UseEncodedPath), and the router
// need not clean them (SkipClean), since ServeHTTP has done it with the redirects of etcd. Methods
// are not matched by the router: the answer to a wrong one is part of the contract.
func (s *Server) routes() *mux.Router {
	rt := mux.NewRouter().SkipClean(true)
	rt.NotFoundHandler = http.HandlerFunc(http.NotFound)

	rt.Handle("/v2/members", s.on(s.members, membersMethods...))
	rt.PathPrefix("/v2/members/").Handler(s.on(s.members, membersMethods...))
	rt.Handle("/v2/machines", s.on(s.machines, "GET", "HEAD"))
	rt.Handle("/v2/stats/self", s.on(s.selfStats, "GET"))
	rt.Handle("/v2/stats/leader", s.on(s.leaderStats, "GET"))
	rt.Handle("/v2/stats/store", s.on(s.storeStats, "GET"))
	rt.Handle("/quorate/v1/status", s.on(s.memberStatus, "GET"))
	rt.Handle("/quorate/v1/leader", s.on(s.transferLeadership, "POST"))
	rt.Handle("/quorate/v1/snapshot", s.on(s.snapshot, "GET"))
	rt.Handle("/quorate/v1/openapi.yaml", allow(openAPI, "GET"))
	rt.Handle("/version", s.on(s.version, "GET"))
	rt.Handle("/health", allow(s.health, "GET"))
	rt.Handle("/livez", allow(s.livez, "GET", "HEAD"))
	rt.Handle("/readyz", allow(s.readyz, "GET", "HEAD"))
	rt.Handle("/metrics", s.metrics.handler)
	rt.Handle("/debug/vars", allow(s.debugVars, "GET"))
	rt.Handle("/config/local/log", allow(s.setLogLevel, "PUT"))

	for _, list := range []string{"/v2/auth/users", "/v2/auth/roles"} {
		rt.Handle(list, s.on(s.auth, "GET"))
		rt.Handle(list+"/", s.on(s.auth, "GET"))
		rt.Handle(list+"/{name}", s.on(s.auth, "GET", "PUT", "DELETE"))
		rt.Handle(list+"/{name}/", s.on(s.auth, "GET", "PUT", "DELETE"))
		rt.PathPrefix(list + "/").Handler(s.on(s.auth)) // what is wrong is the path, not the method
	}
	rt.Handle("/v2/auth/enable", s.on(s.auth, "GET", "PUT", "DELETE"))

	if s.opts.Pprof {
		s.routePprof(rt)
	}
	if s.opts.Routes != nil {
		s.opts.Routes(rt)
	}
	return rt
}

// auth hands a request over to whoever manages users and roles. Its context is that of work.
func (s *Server) auth(w http.ResponseWriter, r *http.Request, _ *member) error {
	if s.opts.Auth == nil {
		http.NotFound(w, r)
		return nil
	}
	ctx, cancel := s.work(w, time.Now())
	defer cancel()
	s.opts.Auth.ServeHTTP(w, r.WithContext(ctx))
	return nil
}

// admin is a handler for those who may change members, users and roles.
func (s *Server) admin(h http.HandlerFunc, methods ...string) http.Handler {
	return s.on(func(w http.ResponseWriter, r *http.Request, m *member) error {
		if !m.may(r, Access{Kind: Admin}) {
			return errAdminCredentials
		}
		h(w, r)
		return nil
	}, methods...)
}

// on is a handler that needs a member. Its error becomes an answer with a message (spec errors 2):
// an *api.StatusError as it says, and anything else 500 with the reason in the log only.
func (s *Server) on(h func(http.ResponseWriter, *http.Request, *member) error, methods ...string) http.Handler {
	return allow(func(w http.ResponseWriter, r *http.Request) {
		m := s.member.Load()
		if m == nil {
			s.writeWaiting(w)
			return
		}
		err := h(w, r, m)
		if err == nil {
			return
		}
		refusal := &api.StatusError{Status: http.StatusInternalServerError, Message: "Internal Server Error"}
		if !errors.As(err, &refusal) {
			s.log.Error("request failed", "method", r.Method, "path", hclog.Quote(r.URL.Path), "error", err)
		}
		writeMessage(w, refusal.Status, refusal.Message)
	}, methods...)
}

// allow answers 405 to all but the given methods, in whose order Allow lists them. None given, all
// are allowed.
func allow(h http.HandlerFunc, methods ...string) http.Handler {
	list := []string{strings.Join(methods, ",")}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(methods) > 0 && !slices.Contains(methods, r.Method) {
			w.Header()["Allow"] = list
			methodNotAllowed(w)
			return
		}
		h(w, r)
	})
}

// isClean reports whether a decoded path is one that redirectClean would not change.
func isClean(p string) bool {
	if p == "" || p[0] != '/' {
		return false
	}
	for i := 0; i < len(p)-1; i++ {
		// Only a slash or a dot behind a slash can be unclean; names may well begin with a dot.
		if p[i] == '/' && (p[i+1] == '/' || p[i+1] == '.') {
			return p == cleanPath(p)
		}
	}
	return true
}

// cleanPath removes empty, "." and ".." segments, and keeps a slash at the end.
func cleanPath(p string) string {
	clean := path.Clean("/" + p)
	if clean != "/" && p != "" && p[len(p)-1] == '/' {
		clean += "/"
	}
	return clean
}

// redirectClean sends a client from an unclean path to the clean one, on every method, with the
// bytes of the standard library's mux in the Go release of etcd 3.4: 301, not 307 (spec keys 2).
// Since no handler sees an unclean path, nothing can climb out of the key space.
func redirectClean(w http.ResponseWriter, r *http.Request) {
	to := url.URL{Path: cleanPath(r.URL.Path), RawQuery: r.URL.RawQuery}
	http.Redirect(w, r, to.String(), http.StatusMovedPermanently)
}

// corsPolicy says which CORS headers answers get.
type corsPolicy struct {
	all     bool
	origins map[string][]string // to the value of the header
}

var (
	corsHeaders = []string{"accept, content-type, authorization"}
	corsMethods = []string{"POST, GET, OPTIONS, PUT, DELETE"}
	corsAll     = []string{"*"}
)

func newCORSPolicy(origins []string) corsPolicy {
	if len(origins) == 0 || slices.Contains(origins, "*") {
		return corsPolicy{all: true}
	}
	p := corsPolicy{origins: make(map[string][]string)}
	for _, o := range origins {
		p.origins[o] = []string{o}
	}
	return p
}

// allowed returns the origins that an answer to a request from origin names, nil for no CORS headers at
// all. Nobody is refused: that is the browser's part.
func (p *corsPolicy) allowed(origin string) []string {
	if p.all {
		return corsAll
	}
	return p.origins[origin]
}

// apply adds the headers.
func (p *corsPolicy) apply(h http.Header, r *http.Request) {
	if allowed := p.allowed(r.Header.Get("Origin")); allowed != nil {
		h[headerAllowHeaders] = corsHeaders
		h[headerAllowMethods] = corsMethods
		h[headerAllowOrigin] = allowed
	}
}

const (
	headerAllowHeaders = "Access-Control-Allow-Headers"
	headerAllowMethods = "Access-Control-Allow-Methods"
	headerAllowOrigin  = "Access-Control-Allow-Origin"
)

// statusWriter remembers the status of an answer, for the log.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// logRequest leaves out the query: values are nobody's business.
func (s *Server) logRequest(method, path, remote string, status int, start time.Time) {
	s.log.Debug("request", "method", method, "path", hclog.Quote(path), "status", status,
		"elapsed", time.Since(start), "remote", remote)
}
