package httpd

import (
	"net/http"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd/limit"
	"github.com/quorate/quorate/internal/wallclock"
)

// call is a request under /v2/keys with what came of it. There are two ways in, net/http and the loop
// of package plain. Both take the same steps: parse, authorize, do, write the answer that is here by
// then, finish. Watches are served by net/http alone.
//
// The order is that of etcd: method, parameters, authorisation, operation, so a bad parameter wins over
// missing credentials (spec keys 1).
type call struct {
	member  *member // nil while there is none
	waiting string  // why there is none
	method  method
	start   time.Time // when the handling began
	keyRequest

	// What came of it: an error, the event of a write, what a read found, or the index of which the
	// first event of a watch can be.
	err         *api.Error
	event       *tree.Event
	answer      tree.Answer
	watchedFrom uint64

	status              int
	raftIndex, raftTerm uint64
}

// newCall begins a call.
func (s *Server) newCall(method method) call {
	c := call{member: s.member.Load(), method: method, start: time.Now()}
	if c.member == nil {
		c.waiting, c.status = *s.waiting.Load(), http.StatusServiceUnavailable
	}
	return c
}

// over says whether there is an answer already, without the store having been asked.
func (c *call) over() bool { return c.member == nil || c.err != nil }

// watches says whether the call asks for events to come. With quorum=true it does not (spec keys 3.4).
func (c *call) watches() bool { return c.method == methodGET && c.wait }

// parse reads the parameters: key is what follows /v2/keys in the decoded, clean path, query the raw
// query, and form the body if it is a form, which could not be had if there is a formErr.
func (s *Server) parse(c *call, key, query, form string, formErr error) {
	if c.over() {
		return
	}
	if err := parseKeyRequest(&c.keyRequest, methodNames[c.method], key, query, form, formErr); err != nil {
		s.refuse(c, err)
		return
	}
	if c.quorum && c.method == methodGET {
		c.method = methodQGET
	}
}

// authorize asks whether r may do what the call asks for.
func (s *Server) authorize(c *call, r *http.Request) {
	if c.over() {
		return
	}
	access := Access{Kind: Read, Key: c.key, Recursive: c.recursive}
	if c.method.writes() {
		access.Kind = Write
	}
	if !c.member.may(r, access) {
		s.refuse(c, errCredentials)
	}
}

var errCredentials = &api.Error{Code: api.Unauthorized, Cause: "Insufficient credentials"}

// refuse makes an error the answer. Errors that are our fault are logged.
func (s *Server) refuse(c *call, err error) {
	c.err = keyError(err)
	c.status = c.err.Code.HTTPStatus()
	switch c.err.Code {
	case api.RaftInternal:
		s.log.Warn("request not carried out", "cause", c.err.Cause)
	case api.DiskFull:
		s.limits.CountRefused(limit.Disk)
	}
}

// do carries out what was neither refused before nor is a watch.
func (s *Server) do(c *call) {
	if c.over() {
		return
	}
	s.metrics.received[c.method].Inc()
	var err error
	if c.method.writes() {
		err = s.write(c)
	} else {
		err = s.read(c)
	}
	if err != nil {
		s.refuse(c, err)
		s.metrics.failed(c.method, c.status)
		return
	}
	c.raftIndex, c.raftTerm = c.member.RaftState()
}

// read serves GET and HEAD. The answer comes from this member and may be stale, unless quorum=true
// asks for a linearizable one (spec keys 12).
func (s *Server) read(c *call) (err error) {
	if c.method == methodQGET {
		if err := c.member.Linearizable(s.limit.begin(time.Now())); err != nil {
			return err
		}
	}
	s.metrics.read(c.recursive)
	c.status = http.StatusOK
	c.answer, err = c.member.Tree().Get(c.path, c.recursive, c.sorted)
	return err
}

// write serves PUT, POST and DELETE.
func (s *Server) write(c *call) (err error) {
	c.event, err = c.member.Do(s.limit.begin(time.Now()), c.operation(methodNames[c.method]))
	if err != nil {
		return err
	}
	c.status = c.event.Status()
	return nil
}

// index is what the header X-Etcd-Index says: the index of the error, the write, or the state read.
func (c *call) index() uint64 {
	switch {
	case c.err != nil:
		return c.err.Index
	case c.event != nil:
		return c.event.Index
	case c.watches():
		return c.watchedFrom
	}
	return c.answer.Index
}

// appendBody appends the body of the answer.
func (c *call) appendBody(b []byte) []byte {
	switch {
	case c.member == nil:
		return appendMessage(b, c.waiting)
	case c.err != nil:
		return appendKeyError(b, c.err)
	case c.event != nil:
		return c.event.AppendJSON(b, c.noValue)
	}
	return c.answer.AppendJSON(b, wallclock.Now().UnixNano())
}

// large says that the answer is a listing which is better sent in pieces.
func (c *call) large() bool {
	return c.member != nil && c.err == nil && c.event == nil && c.answer.Large()
}

// sendBody is appendBody for a large answer.
func (c *call) sendBody(b []byte, send func([]byte) []byte) []byte {
	return c.answer.SendJSON(b, wallclock.Now().UnixNano(), send)
}

// finish does the accounts once the answer was written.
func (s *Server) finish(c *call) {
	if !c.over() {
		s.metrics.duration[c.method].Observe(time.Since(c.start).Seconds())
	}
}
