package httpd

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
)

// keyRequest is a request under /v2/keys whose parameters are all good.
type keyRequest struct {
	key  string // as sent, see Access.Key
	path string // as the tree wants it: clean, "/" for the root

	value     string
	ttl       uint64 // seconds
	hasTTL    bool
	prevValue string
	prevIndex uint64
	waitIndex uint64
	prevExist existence

	dir, refresh, noValue     bool
	recursive, sorted, quorum bool
	wait, stream              bool
}

// existence is what prevExist asks for.
type existence uint8

const (
	dontCare existence = iota
	mustExist
	mustNotExist
)

var (
	errTooLarge = errors.New("http: POST too large")
	errSlowBody = errors.New("the body did not arrive in time")

	errWaitMethod = &api.Error{Code: api.InvalidField, Cause: `"wait" can only be used with GET requests`}
	errPrevValue  = &api.Error{Code: api.PrevValueRequired, Cause: `"prevValue" cannot be empty`}
	errTTL        = &api.Error{Code: api.TTLNotNumber, Cause: `invalid value for "ttl"`}
	errPrevExist  = &api.Error{Code: api.InvalidField, Cause: "invalid value for prevExist"}
	errRefresh    = &api.Error{Code: api.InvalidField, Cause: "invalid value for refresh"}
	errValue      = &api.Error{Code: api.RefreshValue, Cause: "A value was provided on a refresh"}
	errNoTTL      = &api.Error{Code: api.RefreshTTLRequired, Cause: "No TTL value set"}
)

// parseKeyRequest reads the parameters of a request and checks them, on every method alike, in the
// order of etcd (spec keys 3.3): which of several mistakes is reported depends on it. key is what
// follows /v2/keys in the decoded, clean path; query is the raw query; body is the urlencoded
// form, empty when there is none, and bodyErr why it could not be had.
//
// The error is an *api.Error with index 0.
func parseKeyRequest(req *keyRequest, method, key, query, body string, bodyErr error) error {
	req.key = key
	req.path = strings.TrimSuffix(key, "/")
	if req.path == "" {
		req.path = "/"
	}

	var f form
	err := bodyErr
	if body != "" {
		if e := f.add(body); err == nil {
			err = e
		}
	}
	if query != "" {
		if e := f.add(query); err == nil {
			err = e
		}
	}
	if err != nil {
		return &api.Error{Code: api.InvalidForm, Cause: err.Error()}
	}
	if f.given == 0 {
		return nil
	}
	return req.fill(&f, method)
}

// fill checks the parameters in f and keeps what they say.
func (req *keyRequest) fill(f *form, method string) error {
	for _, p := range []struct {
		field field
		name  string
		to    *uint64
	}{
		{fieldPrevIndex, "prevIndex", &req.prevIndex},
		{fieldWaitIndex, "waitIndex", &req.waitIndex},
	} {
		if !f.has(p.field) {
			continue
		}
		n, err := strconv.ParseUint(f.values[p.field], 10, 64)
		if err != nil {
			return &api.Error{Code: api.IndexNotNumber, Cause: `invalid value for "` + p.name + `"`}
		}
		*p.to = n
	}
	for _, p := range []struct {
		field field
		name  string
		to    *bool
	}{
		{fieldRecursive, "recursive", &req.recursive},
		{fieldSorted, "sorted", &req.sorted},
		{fieldWait, "wait", &req.wait},
		{fieldDir, "dir", &req.dir},
		{fieldQuorum, "quorum", &req.quorum},
		{fieldStream, "stream", &req.stream},
	} {
		if err := f.bool(p.field, p.name, p.to); err != nil {
			return err
		}
	}
	if req.wait && method != http.MethodGet {
		return errWaitMethod
	}
	req.prevValue = f.values[fieldPrevValue]
	if f.has(fieldPrevValue) && req.prevValue == "" {
		return errPrevValue
	}
	if err := f.bool(fieldNoValueOnSuccess, "noValueOnSuccess", &req.noValue); err != nil {
		return err
	}
	if s := f.values[fieldTTL]; s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return errTTL
		}
		req.ttl, req.hasTTL = n, true
	}
	if f.has(fieldPrevExist) {
		exist, err := strconv.ParseBool(f.values[fieldPrevExist])
		switch {
		case err != nil:
			return errPrevExist
		case exist:
			req.prevExist = mustExist
		default:
			req.prevExist = mustNotExist
		}
	}
	if f.has(fieldRefresh) {
		var err error
		if req.refresh, err = strconv.ParseBool(f.values[fieldRefresh]); err != nil {
			return errRefresh
		}
	}
	req.value = f.values[fieldValue]
	if req.refresh && req.value != "" {
		return errValue
	}
	if req.refresh && !req.hasTTL {
		return errNoTTL
	}
	return nil
}

// bool reads a boolean parameter into to, which stays as it is when the parameter was not given.
func (f *form) bool(n field, name string, to *bool) error {
	if !f.has(n) {
		return nil
	}
	v, err := strconv.ParseBool(f.values[n])
	if err != nil {
		return &api.Error{Code: api.InvalidField, Cause: `invalid value for "` + name + `"`}
	}
	*to = v
	return nil
}

// operation returns the operation that a PUT, POST or DELETE asks for (spec keys 4).
func (req *keyRequest) operation(method string) tree.Write {
	compare := req.prevValue != "" || req.prevIndex > 0
	w := tree.Write{Op: tree.Op{Path: req.path}}
	if method == http.MethodDelete {
		w.Action = tree.Delete
		if compare {
			w.Action = tree.CompareAndDelete
			w.PrevValue, w.PrevIndex = req.prevValue, req.prevIndex
		} else {
			w.Dir, w.Recursive = req.dir, req.recursive
		}
		return w
	}
	w.Value, w.Dir, w.Refresh = req.value, req.dir, req.refresh
	w.TTL, w.HasTTL = req.ttl, req.hasTTL
	switch {
	case method == http.MethodPost:
		w.Action, w.InOrder = tree.Create, true
	case req.prevExist == mustNotExist:
		w.Action = tree.Create
	case compare:
		w.Action = tree.CompareAndSwap
		w.PrevValue, w.PrevIndex = req.prevValue, req.prevIndex
	case req.prevExist == mustExist:
		w.Action = tree.Update
	default:
		w.Action = tree.Set
	}
	return w
}

const formType = "application/x-www-form-urlencoded"

// isForm says whether a body of the given type has parameters; anything else etcd ignores (spec keys
// 3.1). The type may come with an error about its own parameters: the body is a form all the same.
func isForm(contentType string) (bool, error) {
	switch contentType {
	case formType:
		return true, nil
	case "":
		return false, nil
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return mediaType == formType, err
}

// readForm returns the body of a PUT or POST as text if it is a form, and "" if it is not.
func readForm(r *http.Request, limit int64) (string, error) {
	form, err := isForm(r.Header.Get("Content-Type"))
	if !form {
		return "", err
	}
	if err != nil {
		// That the body is too long matters more.
		if _, bodyErr := readBody(r, limit); bodyErr == errTooLarge {
			err = bodyErr
		}
		return "", err
	}
	return readBody(r, limit)
}

// readBody reads a whole body of at most limit bytes. A longer one is errTooLarge; up to twice the
// limit is taken in nevertheless, since many clients read no answer before they have sent all.
func readBody(r *http.Request, limit int64) (string, error) {
	if r.ContentLength > limit {
		io.CopyN(io.Discard, r.Body, 2*limit)
		return "", errTooLarge
	}
	buf := getBuffer()
	defer buf.release()
	// Memory is spent as the bytes arrive, not as they are announced.
	b := buf.b[:0]
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Body.Read(b[len(b):min(cap(b), int(limit)+1)])
		b = b[:len(b)+n]
		buf.b = b
		if int64(len(b)) > limit {
			io.CopyN(io.Discard, r.Body, limit)
			return "", errTooLarge
		}
		if err == io.EOF {
			return string(b), nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", errSlowBody
		}
		if err != nil {
			return "", err
		}
	}
}
