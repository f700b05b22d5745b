package httpd

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd/limit"
)

// headTooLong returns the answer to a request whose head is longer than MaxHeaderBytes. It is a whole one:
// net/http has no request to answer then, and no handler is asked.
func (s *Server) headTooLong() []byte {
	s.limits.CountRefused(limit.Header)
	body := appendMessage(nil, fmt.Sprintf("the head of the request is larger than %d bytes (--max-header-bytes)", s.opts.MaxHeaderBytes))
	b := []byte("HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ")
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, body...)
}

// bodyTooLong returns the refusal of a body that http.MaxBytesReader has cut, and nil for any other error.
func (s *Server) bodyTooLong(err error) error {
	tooLong, ok := errors.AsType[*http.MaxBytesError](err)
	if !ok {
		return nil
	}
	s.limits.CountRefused(limit.Body)
	return &api.StatusError{Status: http.StatusRequestEntityTooLarge,
		Message: fmt.Sprintf("the body of the request is larger than %d bytes (--max-request-bytes)", tooLong.Limit)}
}
