package httpd

import (
	"net/http"
	"time"

	"github.com/quorate/quorate/httpd/limit"
	"github.com/quorate/quorate/httpd/plain"
)

var keysAllow = []string{"HEAD,GET,PUT,POST,DELETE"}

// serveKeys answers a request under /v2/keys that came by way of net/http. A trusted one needs no
// authorisation.
func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request, key string, trusted bool) {
	start := time.Now()
	status := http.StatusMethodNotAllowed
	if method, ok := methodOf(r.Method); ok {
		status = s.keys(w, r, method, key, trusted)
	} else {
		w.Header()["Allow"] = keysAllow
		methodNotAllowed(w)
	}
	if s.log.IsDebug() {
		s.logRequest(r.Method, r.URL.Path, r.RemoteAddr, status, start)
	}
}

// keys does the work of serveKeys and returns the status of the answer.
func (s *Server) keys(w http.ResponseWriter, r *http.Request, method method, key string, trusted bool) int {
	c := s.newCall(method)
	var form string
	var formErr error
	if method.hasForm() && !c.over() {
		if form, formErr = readForm(r, s.opts.MaxRequestBytes); formErr == errTooLarge {
			s.limits.CountRefused(limit.Body)
		}
	}
	s.parse(&c, key, r.URL.RawQuery, form, formErr)
	if !trusted {
		s.authorize(&c, r)
	}
	if !c.over() {
		if c.watches() {
			if s.watch(w, r, &c) {
				return c.status
			}
		} else {
			if c.method != methodGET && c.method != methodHEAD {
				s.holdOn(w, c.start)
			}
			s.do(&c)
		}
	}
	c.setHeader(w.Header())
	w.WriteHeader(c.status)
	buf := getBuffer()
	defer buf.release()
	buf.b = c.appendBody(buf.b[:0])
	s.writeBody(w, buf.b)
	s.finish(&c)
	return c.status
}

// TrustedKeys returns a handler for /v2/keys that asks nobody for permission. It is for parts of this
// process, such as a discovery service, that decide themselves which requests they pass on.
func (s *Server) TrustedKeys() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, ok := keyOf(r.URL.Path)
		if !ok || !isClean(r.URL.Path) {
			http.NotFound(w, r)
			return
		}
		s.active.Add(1)
		defer s.active.Add(-1)
		s.serveKeys(w, r, key, true)
	})
}

// writeBody writes an answer. A client that takes a large one slowly may do so for as long as it
// makes progress.
func (s *Server) writeBody(w http.ResponseWriter, b []byte) {
	if len(b) <= plain.WritePiece {
		w.Write(b)
		return
	}
	rc := http.NewResponseController(w)
	for len(b) > 0 {
		n := min(len(b), plain.WritePiece)
		rc.SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}
