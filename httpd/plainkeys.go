package httpd

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd/plain"
)

// maxPlainBody bounds what package plain reads of a body, in bytes. Larger ones take so long anyway that
// it does not matter who reads them.
const maxPlainBody = 64 << 10

// plainKeys answers the requests that package plain reads: those under /v2/keys except watches.
type plainKeys struct{ *Server }

// ServePlain implements plain.Handler.
func (s plainKeys) ServePlain(w *plain.Response, r *plain.Request) bool {
	// This copies, so that what is kept of it is safe.
	path, query, _ := strings.Cut(string(r.Target), "?")
	if strings.IndexByte(path, '%') >= 0 {
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return false
		}
		path = decoded
	}
	key, ok := keyOf(path)
	if !ok || !isClean(path) {
		return false
	}
	method, ok := methodOf(r.Method)
	if !ok {
		return false
	}

	c := s.newCall(method)
	var form string
	var formErr error
	if method.hasForm() {
		var is bool
		if is, formErr = isForm(string(r.ContentType)); is && formErr == nil {
			form = string(r.Body)
		}
	}
	s.parse(&c, key, query, form, formErr)
	if !c.over() && c.watches() {
		return false
	}
	if !c.over() && c.member.guarded() {
		s.authorize(&c, requestOf(r, path, query))
	}
	s.do(&c)

	w.Status(c.status)
	if allowed := s.cors.allowed(string(r.Origin)); allowed != nil {
		w.Header(headerAllowHeaders, corsHeaders[0])
		w.Header(headerAllowMethods, corsMethods[0])
		w.Header(headerAllowOrigin, allowed[0])
	}
	c.writeHeader(w)
	if c.large() {
		w.Stream(c.sendBody)
	} else {
		w.Body(c.appendBody)
	}
	s.finish(&c)
	if s.log.IsDebug() {
		s.logRequest(r.Method, path, r.RemoteAddr().String(), c.status, c.start)
	}
	return true
}

// writeHeader does what setHeader does, in the order in which net/http sends it.
func (c *call) writeHeader(w *plain.Response) {
	w.Header("Content-Type", typeJSON[0])
	if c.member == nil {
		return
	}
	w.Header(api.HeaderClusterID, c.member.clusterID[0])
	w.HeaderUint(api.HeaderIndex, c.index())
	if c.err == nil {
		w.HeaderUint(api.HeaderRaftIndex, c.raftIndex)
		w.HeaderUint(api.HeaderRaftTerm, c.raftTerm)
	}
}

// requestOf returns as much of a request as an Authorizer may look at.
func requestOf(r *plain.Request, path, query string) *http.Request {
	h := http.Header{}
	if r.Authorization != nil {
		h["Authorization"] = []string{string(r.Authorization)}
	}
	if r.Proxied {
		h[api.HeaderProxy] = []string{""}
	}
	return &http.Request{
		Method:     r.Method,
		URL:        &url.URL{Path: path, RawQuery: query},
		Proto:      "HTTP/1.1",
		ProtoMajor: 1,
		ProtoMinor: 1,
		Header:     h,
		Body:       http.NoBody,
		RemoteAddr: r.RemoteAddr().String(),
		TLS:        r.TLS(),
	}
}
