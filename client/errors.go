package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/quorate/quorate/api"
)

// Errors besides [*api.Error], [*api.StatusError] and [*ConnectError]. The texts are those of
// etcd's client, which scripts and operators know.
var (
	ErrNoEndpoints      = errors.New("client: no endpoints available")
	ErrTooManyRedirects = errors.New("client: too many redirects")
	ErrNoLocation       = errors.New("client: Location header not set")
	// ErrPlainRedirect is a redirect from https to a URL without encryption.
	ErrPlainRedirect = errors.New("client: refusing to be redirected from https to http")
	// ErrInvalidJSON means that whoever answered does not speak the v2 API.
	ErrInvalidJSON = errors.New("client: response is invalid json. The endpoint is probably not valid etcd cluster endpoint")
)

// ConnectError says that no endpoint gave an answer, with one error for each endpoint tried.
type ConnectError struct {
	Errors []error
	// Sent tells that an endpoint may have received the request. The outcome of a write is then
	// unknown; otherwise it did not happen.
	Sent bool
}

func (e *ConnectError) Error() string {
	var b strings.Builder
	b.WriteString("client: etcd cluster is unavailable or misconfigured")
	for i, err := range e.Errors {
		fmt.Fprintf(&b, "; error #%d: %v", i, err)
	}
	return b.String()
}

// Detail lists the errors, one line each.
func (e *ConnectError) Detail() string {
	var b strings.Builder
	for i, err := range e.Errors {
		fmt.Fprintf(&b, "error #%d: %v\n", i, err)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As access to all of them.
func (e *ConnectError) Unwrap() []error { return e.Errors }

// memberError is an answer of 500 and above to a request that was then tried elsewhere.
type memberError struct {
	text  string
	cause error
}

func newMemberError(a *answer) error {
	e := &memberError{cause: refusal(a)}
	switch a.status {
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		e.text = fmt.Sprintf("client: etcd member %s has no leader", a.endpoint)
	default:
		e.text = fmt.Sprintf("client: etcd member %s returns server error [%s]", a.endpoint, http.StatusText(a.status))
	}
	return e
}

func (e *memberError) Error() string { return e.text }
func (e *memberError) Unwrap() error { return e.cause }

// refusal turns an answer that is not a success into an error: coded, with a message, or by its
// bare status.
func refusal(a *answer) error {
	var body struct {
		Code    int    `json:"errorCode"`
		Message string `json:"message"`
		Cause   string `json:"cause"`
		Index   uint64 `json:"index"`
	}
	if json.Unmarshal(a.body, &body) == nil {
		if body.Code != 0 {
			return &api.Error{Code: api.Code(body.Code), Cause: body.Cause, Index: body.Index}
		}
		if body.Message != "" {
			return &api.StatusError{Status: a.status, Message: body.Message}
		}
	}
	return &api.StatusError{Status: a.status, Message: fmt.Sprintf("unexpected status code %d", a.status)}
}

// decode reads the body of a successful answer; other statuses than those given are refusals.
func decode(a *answer, into any, ok ...int) error {
	for _, status := range ok {
		if a.status != status {
			continue
		}
		if into == nil {
			return nil
		}
		if json.Unmarshal(a.body, into) != nil {
			return ErrInvalidJSON
		}
		return nil
	}
	return refusal(a)
}
