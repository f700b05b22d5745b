package httpd

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
)

func newRequest(method, query, contentType, body string) *http.Request {
	r := &http.Request{
		Method: method, URL: &url.URL{Path: "/v2/keys/k", RawQuery: query}, Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

// parseTest runs the parsers as the server does.
func parseTest(r *http.Request) (req keyRequest, err error) {
	var form string
	if r.Method == "PUT" || r.Method == "POST" {
		form, err = readForm(r, 10<<20)
	}
	err = parseKeyRequest(&req, r.Method, strings.TrimPrefix(r.URL.Path, keysPrefix), r.URL.RawQuery, form, err)
	return req, err
}

// The order of checks decides which of several mistakes a client hears of (spec keys 3.3). Each row
// holds the mistake of its own and all later ones.
func TestParseOrder(t *testing.T) {
	mistakes := []struct {
		query string
		code  api.Code
		cause string
	}{
		{"x=%zz", api.InvalidForm, `invalid URL escape "%zz"`},
		{"prevIndex=-1", api.IndexNotNumber, `invalid value for "prevIndex"`},
		{"waitIndex=", api.IndexNotNumber, `invalid value for "waitIndex"`},
		{"recursive", api.InvalidField, `invalid value for "recursive"`},
		{"sorted=yes", api.InvalidField, `invalid value for "sorted"`},
		{"wait=tRUE", api.InvalidField, `invalid value for "wait"`},
		{"dir=on", api.InvalidField, `invalid value for "dir"`},
		{"quorum=2", api.InvalidField, `invalid value for "quorum"`},
		{"stream=+", api.InvalidField, `invalid value for "stream"`},
		{"wait=true", api.InvalidField, `"wait" can only be used with GET requests`},
		{"prevValue=", api.PrevValueRequired, `"prevValue" cannot be empty`},
		{"noValueOnSuccess=", api.InvalidField, `invalid value for "noValueOnSuccess"`},
		{"ttl=1.5", api.TTLNotNumber, `invalid value for "ttl"`},
		{"prevExist=", api.InvalidField, `invalid value for prevExist`},
		{"refresh=x", api.InvalidField, `invalid value for refresh`},
		{"refresh=true&value=v", api.RefreshValue, `A value was provided on a refresh`},
		{"refresh=true", api.RefreshTTLRequired, `No TTL value set`},
	}
	for i, want := range mistakes {
		t.Run(want.cause, func(t *testing.T) {
			var all []string
			for _, m := range mistakes[i:] {
				all = append(all, m.query)
			}
			for _, method := range []string{"PUT", "POST", "DELETE", "HEAD"} {
				_, err := parseTest(newRequest(method, strings.Join(all, "&"), "", ""))
				var got *api.Error
				if !errors.As(err, &got) || got.Code != want.code || got.Cause != want.cause || got.Index != 0 {
					t.Errorf("%s: got %v, want %d %s", method, err, want.code, want.cause)
				}
			}
		})
	}
}

func TestParseSources(t *testing.T) {
	tests := []struct {
		name, method, query, contentType, body string
		want                                   string // value, or the cause of the error
	}{
		{"query", "PUT", "value=q", "", "", "q"},
		{"body wins over query", "PUT", "value=q", formType, "value=b", "b"},
		{"empty body value wins too", "PUT", "value=q", formType, "value=", ""},
		{"first of repeated", "PUT", "", formType, "value=1&value=2", "1"},
		{"plus is a space", "PUT", "", formType, "value=a+b%2Bc", "a b+c"},
		{"escaped name", "PUT", "", formType, "%76alue=x", "x"},
		{"empty pairs", "PUT", "&&&", formType, "&&value=x&&=y", "x"},
		{"equals sign in value", "PUT", "", formType, "value=a=b", "a=b"},
		{"type with charset", "PUT", "", "Application/X-WWW-form-urlencoded; charset=utf-8", "value=x", "x"},
		{"other type is ignored", "PUT", "", "text/plain", "value=%zz", ""},
		{"no type is ignored", "PUT", "", "", "value=x", ""},
		{"multipart is ignored", "PUT", "", "multipart/form-data; boundary=x", "value=x", ""},
		{"DELETE has no body", "DELETE", "", formType, "value=%zz", ""},
		{"GET has no body", "GET", "", formType, "value=%zz", ""},
		{"bad type", "PUT", "", "a/b/c", "value=x", "mime: unexpected content after media subtype"},
		{"bad type parameter", "PUT", "", formType + "; =", "value=x", "mime: invalid media parameter"},
		{"body error before query error", "PUT", "a=%yy", formType, "value=%zz", `invalid URL escape "%zz"`},
		{"semicolon", "PUT", "a=1;b=2", "", "", "invalid semicolon separator in query"},
		{"semicolon after escape", "GET", "a=%zz&b;c", "", "", "invalid semicolon separator in query"},
		{"escape after semicolon", "GET", "b;c&a=%zz", "", "", "invalid semicolon separator in query"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req, err := parseTest(newRequest(tt.method, tt.query, tt.contentType, tt.body))
			got := req.value
			var e *api.Error
			if errors.As(err, &e) {
				got = e.Cause
				if e.Code != api.InvalidForm {
					t.Errorf("code = %d, want %d", e.Code, api.InvalidForm)
				}
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestParseBodyLimit(t *testing.T) {
	const limit = 100
	for _, tt := range []struct {
		name      string
		size      int
		announced bool
		want      error
	}{
		{"at the limit", limit, true, nil},
		{"at the limit, chunked", limit, false, nil},
		{"one more", limit + 1, true, errTooLarge},
		{"one more, chunked", limit + 1, false, errTooLarge},
		{"far more, chunked", 100 * limit, false, errTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRequest("PUT", "", formType, strings.Repeat("x", tt.size))
			if !tt.announced {
				r.ContentLength = -1
			}
			body, err := readForm(r, limit)
			if err != tt.want || err == nil && len(body) != tt.size {
				t.Errorf("read %d bytes and %v, want %v", len(body), err, tt.want)
			}
		})
	}
}

func TestWrite(t *testing.T) {
	tests := []struct {
		method, query string
		want          tree.Write
	}{
		{"PUT", "value=v", tree.Write{Op: tree.Op{Action: tree.Set, Value: "v"}}},
		{"PUT", "prevIndex=0", tree.Write{Op: tree.Op{Action: tree.Set}}},
		{"PUT", "dir=true&ttl=5", tree.Write{Op: tree.Op{Action: tree.Set, Dir: true}, TTL: 5, HasTTL: true}},
		{"PUT", "ttl=0", tree.Write{Op: tree.Op{Action: tree.Set}, HasTTL: true}},
		{"PUT", "ttl=", tree.Write{Op: tree.Op{Action: tree.Set}}},
		{"PUT", "prevExist=false&prevValue=x&prevIndex=7", tree.Write{Op: tree.Op{Action: tree.Create}}},
		{"PUT", "prevExist=true", tree.Write{Op: tree.Op{Action: tree.Update}}},
		{"PUT", "prevExist=true&prevIndex=7", tree.Write{Op: tree.Op{Action: tree.CompareAndSwap, PrevIndex: 7}}},
		{"PUT", "prevValue=x&value=y", tree.Write{Op: tree.Op{Action: tree.CompareAndSwap, PrevValue: "x", Value: "y"}}},
		{"PUT", "refresh=1&ttl=9&prevExist=t", tree.Write{Op: tree.Op{Action: tree.Update, Refresh: true}, TTL: 9, HasTTL: true}},
		{"POST", "value=v&prevExist=true&prevValue=z", tree.Write{Op: tree.Op{Action: tree.Create, InOrder: true, Value: "v"}}},
		{"DELETE", "value=v&ttl=3", tree.Write{Op: tree.Op{Action: tree.Delete}}},
		{"DELETE", "dir=true&recursive=true", tree.Write{Op: tree.Op{Action: tree.Delete, Dir: true, Recursive: true}}},
		{"DELETE", "prevValue=x&recursive=true", tree.Write{Op: tree.Op{Action: tree.CompareAndDelete, PrevValue: "x"}}},
		{"DELETE", "prevIndex=0&dir=true", tree.Write{Op: tree.Op{Action: tree.Delete, Dir: true}}},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.query, func(t *testing.T) {
			req, err := parseTest(newRequest(tt.method, tt.query, "", ""))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Path = "/k"
			if got := req.operation(tt.method); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// reference reads a request with net/http's ParseForm and checks it by the letter of the
// specification (spec keys 3).
func reference(r *http.Request) (keyRequest, error) {
	req := keyRequest{key: "/k", path: "/k"}
	if err := r.ParseForm(); err != nil {
		return req, &api.Error{Code: api.InvalidForm, Cause: err.Error()}
	}
	get := func(name string) (string, bool) { return r.Form.Get(name), r.Form.Has(name) }
	for _, p := range []struct {
		name string
		to   *uint64
	}{{"prevIndex", &req.prevIndex}, {"waitIndex", &req.waitIndex}} {
		if v, ok := get(p.name); ok {
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				return req, &api.Error{Code: api.IndexNotNumber, Cause: `invalid value for "` + p.name + `"`}
			}
			*p.to = n
		}
	}
	flag := func(name, quote string, to *bool) error {
		if v, ok := get(name); ok {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return &api.Error{Code: api.InvalidField, Cause: "invalid value for " + quote + name + quote}
			}
			*to = b
		}
		return nil
	}
	for _, p := range []struct {
		name string
		to   *bool
	}{{"recursive", &req.recursive}, {"sorted", &req.sorted}, {"wait", &req.wait}, {"dir", &req.dir},
		{"quorum", &req.quorum}, {"stream", &req.stream}} {
		if err := flag(p.name, `"`, p.to); err != nil {
			return req, err
		}
	}
	if req.wait && r.Method != "GET" {
		return req, errWaitMethod
	}
	var ok bool
	if req.prevValue, ok = get("prevValue"); ok && req.prevValue == "" {
		return req, errPrevValue
	}
	if err := flag("noValueOnSuccess", `"`, &req.noValue); err != nil {
		return req, err
	}
	if v, _ := get("ttl"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return req, errTTL
		}
		req.ttl, req.hasTTL = n, true
	}
	if _, ok := get("prevExist"); ok {
		var exist bool
		if err := flag("prevExist", "", &exist); err != nil {
			return req, err
		}
		req.prevExist = mustNotExist
		if exist {
			req.prevExist = mustExist
		}
	}
	if err := flag("refresh", "", &req.refresh); err != nil {
		return req, err
	}
	req.value, _ = get("value")
	if req.refresh && req.value != "" {
		return req, errValue
	}
	if req.refresh && !req.hasTTL {
		return req, errNoTTL
	}
	return req, nil
}

// FuzzParseRequest holds the parser to the reference.
func FuzzParseRequest(f *testing.F) {
	for _, query := range []string{"", "value=x", "recursive=true&sorted=false", "wait=1&waitIndex=18446744073709551616",
		"prevExist=false&prevValue=a%20b+c", "%zz", "a;b", "ttl=&refresh=t", "prevIndex=007&dir=T&quorum=0&stream=F",
		"noValueOnSuccess=True&%76alue=%00", "=&&==&value", "refresh=true&ttl=5&value="} {
		f.Add(uint8(0), query, "", "")
		f.Add(uint8(2), "value=q", formType, query)
	}
	f.Add(uint8(2), "a=%q", formType+"; charset=utf-8", "value=%")
	f.Add(uint8(3), "", formType+"; =", "value=x")
	f.Add(uint8(3), "", "a/b/", "value=x")
	f.Add(uint8(2), "", "multipart/form-data; boundary=b", "--b")
	methods := []string{"GET", "HEAD", "PUT", "POST", "DELETE"}
	f.Fuzz(func(t *testing.T, m uint8, query, contentType, body string) {
		if strings.Count(query, "&") > 9000 || strings.Count(body, "&") > 9000 {
			t.Skip("the reference, net/url, refuses so many pairs; etcd and we do not count them")
		}
		method := methods[int(m)%len(methods)]
		got, gotErr := parseTest(newRequest(method, query, contentType, body))
		want, wantErr := reference(newRequest(method, query, contentType, body))
		var g, w *api.Error
		errors.As(gotErr, &g)
		errors.As(wantErr, &w)
		switch {
		case (g == nil) != (w == nil):
			t.Fatalf("error %v, want %v", gotErr, wantErr)
		case g != nil && *g != *w:
			t.Fatalf("error %+v, want %+v", *g, *w)
		case g == nil && got != want:
			t.Fatalf("got %+v, want %+v", got, want)
		}
	})
}
