package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/quorate/quorate/api"
)

var typeJSON = []string{"application/json"}

// setHeader sets the headers of the answer that are not the same in all answers.
func (c *call) setHeader(h http.Header) {
	h["Content-Type"] = typeJSON
	if c.member == nil {
		return
	}
	h[api.HeaderClusterID] = c.member.clusterID
	// One string and one slice for all numbers.
	var text [60]byte
	b := strconv.AppendUint(text[:0], c.index(), 10)
	i := len(b)
	if c.err != nil {
		h[api.HeaderIndex] = []string{string(b)}
		return
	}
	b = strconv.AppendUint(b, c.raftIndex, 10)
	j := len(b)
	b = strconv.AppendUint(b, c.raftTerm, 10)
	all := string(b)
	values := []string{all[:i], all[i:j], all[j:]}
	h[api.HeaderIndex] = values[0:1:1]
	h[api.HeaderRaftIndex] = values[1:2:2]
	h[api.HeaderRaftTerm] = values[2:3:3]
}

// keyError is the *api.Error that says what err means to a client of /v2/keys. What is not an
// *api.Error already happened below the tree: code 300.
func keyError(err error) *api.Error {
	if e, ok := err.(*api.Error); ok {
		return e
	}
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return api.ErrTimeout
	case errors.Is(err, context.Canceled):
		return api.ErrCanceled
	}
	return &api.Error{Code: api.RaftInternal, Cause: err.Error()}
}

// appendKeyError renders an error under /v2/keys (spec errors 1).
func appendKeyError(b []byte, e *api.Error) []byte {
	b = append(b, `{"errorCode":`...)
	b = strconv.AppendInt(b, int64(e.Code), 10)
	b = append(b, `,"message":`...)
	b = appendString(b, e.Code.Error())
	if e.Cause != "" {
		b = append(b, `,"cause":`...)
		b = appendString(b, e.Cause)
	}
	b = append(b, `,"index":`...)
	b = strconv.AppendUint(b, e.Index, 10)
	return append(b, '}', '\n')
}

// appendString appends s as a JSON string, escaped as encoding/json does.
func appendString(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...) // a string always marshals
			}
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// writeMessage renders an error outside /v2/keys (spec errors 2): no newline at the end.
func writeMessage(w http.ResponseWriter, status int, message string) {
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(status)
	w.Write(appendMessage(nil, message))
}

func appendMessage(b []byte, message string) []byte {
	b = append(b, `{"message":`...)
	b = appendString(b, message)
	return append(b, '}')
}

// writeJSON answers 200 with v and, if asked for, a newline behind it.
func writeJSON(w http.ResponseWriter, status int, v any, newline bool) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if newline {
		b = append(b, '\n')
	}
	w.Header()["Content-Type"] = typeJSON
	w.WriteHeader(status)
	w.Write(b)
	return nil
}

// writeWaiting answers a request that came before there is a member to answer it.
func (s *Server) writeWaiting(w http.ResponseWriter) {
	writeMessage(w, http.StatusServiceUnavailable, *s.waiting.Load())
}

func methodNotAllowed(w http.ResponseWriter) {
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
}
