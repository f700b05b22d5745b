package httpd

import (
	"net/http"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
)

var keysAllow = []string{"HEAD,GET,PUT,POST,DELETE"}

// serveKeys answers a request under /v2/keys. The order is that of etcd: method, parameters,
// authorisation, operation, so a bad parameter wins over missing credentials (spec keys 1). A trusted
// request needs no authorisation.
func (s *Server) serveKeys(w http.ResponseWriter, r *http.Request, key string, trusted bool) {
	start := time.Now()
	status := s.keys(w, r, key, trusted, start)
	if s.log.IsDebug() {
		s.logRequest(r, status, start)
	}
}

// keys does the work of serveKeys and returns the status of the answer.
func (s *Server) keys(w http.ResponseWriter, r *http.Request, key string, trusted bool, start time.Time) int {
	kind := Write
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		kind = Read
	case http.MethodPut, http.MethodPost, http.MethodDelete:
	default:
		w.Header()["Allow"] = keysAllow
		methodNotAllowed(w)
		return http.StatusMethodNotAllowed
	}
	m := s.member.Load()
	if m == nil {
		s.writeWaiting(w)
		return http.StatusServiceUnavailable
	}
	w.Header()[api.HeaderClusterID] = m.clusterID

	var req keyRequest
	err := s.parse(&req, r, key)
	if err == nil && !trusted && !m.may(r, Access{Kind: kind, Key: req.key, Recursive: req.recursive}) {
		err = errCredentials
	}
	if err != nil {
		return s.refuse(w, err)
	}
	if kind == Read && req.wait && !req.quorum {
		s.metrics.watchRequests.Inc()
		if err = s.watch(w, r, m, &req); err != nil {
			s.metrics.failed(methodGET, keyError(err).Code.HTTPStatus())
			return s.refuse(w, err)
		}
		return http.StatusOK
	}

	method := methodOf(r.Method)
	if req.quorum && method == methodGET {
		method = methodQGET
	}
	s.metrics.received[method].Inc()
	var status int
	if kind == Read {
		status, err = s.get(w, m, &req, method, start)
	} else {
		status, err = s.put(w, m, req.write(r.Method), req.noValue, start)
	}
	if err != nil {
		status = s.refuse(w, err)
		s.metrics.failed(method, status)
		return status
	}
	s.metrics.duration[method].Observe(time.Since(start).Seconds())
	return status
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

var errCredentials = &api.Error{Code: api.Unauthorized, Cause: "Insufficient credentials"}

// refuse answers with an error and returns its status. Errors that are our fault are logged.
func (s *Server) refuse(w http.ResponseWriter, err error) int {
	e := keyError(err)
	if e.Code == api.RaftInternal {
		s.log.Warn("request not carried out", "cause", e.Cause)
	}
	writeKeyError(w, e)
	return e.Code.HTTPStatus()
}

// parse reads the parameters from the query and, on PUT and POST, from the body.
func (s *Server) parse(req *keyRequest, r *http.Request, key string) error {
	var body string
	var err error
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		body, err = readForm(r, s.opts.MaxRequestBytes)
	}
	return parseKeyRequest(req, r.Method, key, r.URL.RawQuery, body, err)
}

// get serves GET and HEAD on a key. The answer comes from this member and may be stale, unless
// quorum=true asks for a linearizable one (spec keys 12).
func (s *Server) get(w http.ResponseWriter, m *member, req *keyRequest, method method, start time.Time) (int, error) {
	if method == methodQGET {
		ctx, cancel := s.work(w, start)
		err := m.Linearizable(ctx)
		cancel()
		if err != nil {
			return 0, err
		}
	}
	s.metrics.read(req.recursive)
	answer, err := m.Tree().Get(req.path, req.recursive, req.sorted)
	if err != nil {
		return 0, err
	}
	raftIndex, raftTerm := m.RaftState()
	setIndexes(w.Header(), answer.Index, raftIndex, raftTerm)
	w.WriteHeader(http.StatusOK)
	buf := getBuffer()
	defer buf.release()
	buf.b = answer.AppendJSON(buf.b[:0], time.Now().UnixNano())
	s.writeBody(w, buf.b)
	return http.StatusOK, nil
}

// put serves PUT, POST and DELETE.
func (s *Server) put(w http.ResponseWriter, m *member, write tree.Write, noValue bool, start time.Time) (int, error) {
	ctx, cancel := s.work(w, start)
	event, err := m.Do(ctx, write)
	cancel()
	if err != nil {
		return 0, err
	}
	raftIndex, raftTerm := m.RaftState()
	setIndexes(w.Header(), event.Index, raftIndex, raftTerm)
	status := event.Status()
	w.WriteHeader(status)
	buf := getBuffer()
	defer buf.release()
	buf.b = event.AppendJSON(buf.b[:0], noValue)
	s.writeBody(w, buf.b)
	return status, nil
}

// writePiece is what of a large answer a client must accept within Options.WriteTimeout.
const writePiece = 256 << 10

// writeBody writes an answer. A client that takes a large one slowly may do so for as long as it
// makes progress.
func (s *Server) writeBody(w http.ResponseWriter, b []byte) {
	if len(b) <= writePiece {
		w.Write(b)
		return
	}
	rc := http.NewResponseController(w)
	for len(b) > 0 {
		n := min(len(b), writePiece)
		rc.SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
		if _, err := w.Write(b[:n]); err != nil {
			return
		}
		b = b[n:]
	}
}
