package httpd_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd"
)

func itoa(n int) string { return strconv.Itoa(n) }

const cors = `Access-Control-Allow-Headers: accept, content-type, authorization
Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE
Access-Control-Allow-Origin: *
`

// The whole answers, byte for byte. They were taken from etcd 3.4.23, except for the cluster's ID
// and raft's index.
func TestRawAnswers(t *testing.T) {
	tests := []struct{ name, request, want string }{
		{"fresh root", "GET /v2/keys HTTP/1.1", "HTTP/1.1 200 OK\n" + cors +
			"Content-Type: application/json\nX-Etcd-Cluster-Id: cdf818194e3a8c32\nX-Etcd-Index: 3\nX-Raft-Index: 4\nX-Raft-Term: 2\n" +
			"Content-Length: 37\nConnection: close\n\n" + `{"action":"get","node":{"dir":true}}` + "\n"},
		{"set new", "PUT /v2/keys/foo HTTP/1.1\n\nvalue=bar", "HTTP/1.1 201 Created\n" + cors +
			"Content-Type: application/json\nX-Etcd-Cluster-Id: cdf818194e3a8c32\nX-Etcd-Index: 4\nX-Raft-Index: 5\nX-Raft-Term: 2\n" +
			"Content-Length: 88\nConnection: close\n\n" +
			`{"action":"set","node":{"key":"/foo","value":"bar","modifiedIndex":4,"createdIndex":4}}` + "\n"},
		{"head", "HEAD /v2/keys/foo/ HTTP/1.1", "HTTP/1.1 200 OK\n" + cors +
			"Content-Type: application/json\nX-Etcd-Cluster-Id: cdf818194e3a8c32\nX-Etcd-Index: 4\nX-Raft-Index: 5\nX-Raft-Term: 2\n" +
			"Content-Length: 88\nConnection: close\n\n"},
		{"missing", "GET /v2/keys/nope/a HTTP/1.1", "HTTP/1.1 404 Not Found\n" + cors +
			"Content-Type: application/json\nX-Etcd-Cluster-Id: cdf818194e3a8c32\nX-Etcd-Index: 4\n" +
			"Content-Length: 70\nConnection: close\n\n" +
			`{"errorCode":100,"message":"Key not found","cause":"/nope","index":4}` + "\n"},
		{"head of missing", "HEAD /v2/keys/nope/a HTTP/1.1", "HTTP/1.1 404 Not Found\n" + cors +
			"Content-Type: application/json\nX-Etcd-Cluster-Id: cdf818194e3a8c32\nX-Etcd-Index: 4\n" +
			"Content-Length: 70\nConnection: close\n\n"},
		{"bad parameter", "GET /v2/keys/foo?recursive HTTP/1.1", "HTTP/1.1 400 Bad Request\n" + cors +
			"Content-Type: application/json\nX-Etcd-Cluster-Id: cdf818194e3a8c32\nX-Etcd-Index: 0\n" +
			"Content-Length: 96\nConnection: close\n\n" +
			`{"errorCode":209,"message":"Invalid field","cause":"invalid value for \"recursive\"","index":0}` + "\n"},
		{"bad method", "PATCH /v2/keys/foo?dir=x HTTP/1.1", "HTTP/1.1 405 Method Not Allowed\n" + cors +
			"Allow: HEAD,GET,PUT,POST,DELETE\nContent-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff\n" +
			"Content-Length: 19\nConnection: close\n\nMethod Not Allowed\n"},
		{"lower-case method", "get /v2/keys/foo HTTP/1.1", "HTTP/1.1 405 Method Not Allowed\n" + cors +
			"Allow: HEAD,GET,PUT,POST,DELETE\nContent-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff\n" +
			"Content-Length: 19\nConnection: close\n\nMethod Not Allowed\n"},
		{"options anywhere", "OPTIONS /nothing//here HTTP/1.1", "HTTP/1.1 200 OK\n" + cors + "Content-Length: 0\nConnection: close\n\n"},
		{"not found", "GET /v2/keysfoo HTTP/1.1", "HTTP/1.1 404 Not Found\n" + cors +
			"Content-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff\n" +
			"Content-Length: 19\nConnection: close\n\n404 page not found\n"},
		{"redirect GET", "GET /v2/keys/a%20b//c/?x=%20y&z HTTP/1.1", "HTTP/1.1 301 Moved Permanently\n" + cors +
			"Content-Type: text/html; charset=utf-8\nLocation: /v2/keys/a%20b/c/?x=%20y&z\nContent-Length: 65\nConnection: close\n\n" +
			`<a href="/v2/keys/a%20b/c/?x=%20y&amp;z">Moved Permanently</a>.` + "\n\n"},
		{"redirect HEAD", "HEAD /v2/keys/.. HTTP/1.1", "HTTP/1.1 301 Moved Permanently\n" + cors +
			"Content-Type: text/html; charset=utf-8\nLocation: /v2\nConnection: close\n\n"},
		{"redirect PUT", "PUT /v2/keys/a/%2e%2e/b HTTP/1.1\n\nvalue=x", "HTTP/1.1 301 Moved Permanently\n" + cors +
			"Location: /v2/keys/b\nContent-Length: 0\nConnection: close\n\n"},
		{"redirect outside of keys", "GET /v2//members HTTP/1.1", "HTTP/1.1 301 Moved Permanently\n" + cors +
			"Content-Type: text/html; charset=utf-8\nLocation: /v2/members\nContent-Length: 46\nConnection: close\n\n" +
			`<a href="/v2/members">Moved Permanently</a>.` + "\n\n"},
		{"bad escape in path", "GET /v2/keys/%zz HTTP/1.1", "HTTP/1.1 400 Bad Request\n" +
			"Content-Type: text/plain; charset=utf-8\nConnection: close\n\n400 Bad Request"},
		{"asterisk", "GET * HTTP/1.1", "HTTP/1.1 400 Bad Request\n" + cors + "Connection: close\nContent-Length: 0\n\n"},
	}
	r := start(t, httpd.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := r.raw(tt.request); got != tt.want {
				t.Errorf("%s\n got %q\nwant %q", tt.request, got, tt.want)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	tests := []struct {
		method, target, form string
		status               int
		index                string
		body                 string
	}{
		{"PUT", "/v2/keys/a/b", "value=1", 201, "4", `{"action":"set","node":{"key":"/a/b","value":"1","modifiedIndex":4,"createdIndex":4}}`},
		{"PUT", "/v2/keys/a/b?noValueOnSuccess=true", "value=2", 200, "5", `{"action":"set"}`},
		{"GET", "/v2/keys/a/b", "", 200, "5", `{"action":"get","node":{"key":"/a/b","value":"2","modifiedIndex":5,"createdIndex":5}}`},
		{"GET", "/v2/keys/a/b?quorum=true", "", 200, "5", `{"action":"get","node":{"key":"/a/b","value":"2","modifiedIndex":5,"createdIndex":5}}`},
		{"GET", "/v2/keys/a/b?quorum=true&wait=true", "", 200, "5", `{"action":"get","node":{"key":"/a/b","value":"2","modifiedIndex":5,"createdIndex":5}}`},
		{"GET", "/v2/keys/?recursive=true&sorted=true", "", 200, "5", `{"action":"get","node":{"dir":true,"nodes":[{"key":"/a","dir":true,"nodes":[{"key":"/a/b","value":"2","modifiedIndex":5,"createdIndex":5}],"modifiedIndex":4,"createdIndex":4}]}}`},
		{"PUT", "/v2/keys/a/b?prevExist=false", "value=3", 412, "5", `{"errorCode":105,"message":"Key already exists","cause":"/a/b","index":5}`},
		{"PUT", "/v2/keys/a/b?prevValue=x&prevIndex=1", "value=3", 412, "5", `{"errorCode":101,"message":"Compare failed","cause":"[x != 2] [1 != 5]","index":5}`},
		{"PUT", "/v2/keys/a/b?prevIndex=5", "value=3", 200, "6", `{"action":"compareAndSwap","node":{"key":"/a/b","value":"3","modifiedIndex":6,"createdIndex":5},"prevNode":{"key":"/a/b","value":"2","modifiedIndex":5,"createdIndex":5}}`},
		{"POST", "/v2/keys/q", "value=j", 201, "7", `{"action":"create","node":{"key":"/q/00000000000000000007","value":"j","modifiedIndex":7,"createdIndex":7}}`},
		{"DELETE", "/v2/keys/a", "", 403, "7", `{"errorCode":102,"message":"Not a file","cause":"/a","index":7}`},
		{"DELETE", "/v2/keys/a?dir=true", "", 403, "7", `{"errorCode":108,"message":"Directory not empty","cause":"/a","index":7}`},
		{"DELETE", "/v2/keys/a/b/?prevValue=3&noValueOnSuccess=true", "", 200, "8", `{"action":"compareAndDelete","node":{"key":"/a/b","modifiedIndex":8,"createdIndex":5},"prevNode":{"key":"/a/b","value":"3","modifiedIndex":6,"createdIndex":5}}`},
		{"DELETE", "/v2/keys/a%2F?recursive=true", "", 200, "9", `{"action":"delete","node":{"key":"/a","dir":true,"modifiedIndex":9,"createdIndex":4},"prevNode":{"key":"/a","dir":true,"modifiedIndex":4,"createdIndex":4}}`},
		{"PUT", "/v2/keys", "value=1", 400, "9", `{"errorCode":107,"message":"Root is read only","cause":"/","index":9}`},
		{"GET", "/v2/keys/x?waitIndex=0x1", "", 400, "0", `{"errorCode":203,"message":"The given index in POST form is not a number","cause":"invalid value for \"waitIndex\"","index":0}`},
	}
	r := start(t, httpd.Options{})
	for _, tt := range tests {
		resp := r.want(tt.method, tt.target, tt.form, tt.status, tt.body+"\n")
		h := resp.Header
		if h.Get("Content-Type") != "application/json" || h.Get("X-Etcd-Cluster-Id") == "" || h.Get("X-Etcd-Index") != tt.index {
			t.Errorf("%s %s: headers %v, want X-Etcd-Index %s", tt.method, tt.target, h, tt.index)
		}
		success := tt.status < 300
		if has(h, "X-Raft-Index") != success || has(h, "X-Raft-Term") != success {
			t.Errorf("%s %s: raft headers on %d: %v", tt.method, tt.target, tt.status, h)
		}
	}
}

// A ttl whose time would not fit means permanent; etcd lets it wrap around into the past.
func TestOverflowingTTLIsPermanent(t *testing.T) {
	r := start(t, httpd.Options{})
	for _, ttl := range []string{"9223372036854775807", "18446744073709551615", "9223372036"} {
		for _, query := range []string{"", "?prevExist=true"} {
			_, body := r.do("PUT", "/v2/keys/long"+query, "value=1&ttl="+ttl)
			if strings.Contains(body, "errorCode") || strings.Contains(strings.Split(body, "prevNode")[0], "expiration") {
				t.Errorf("ttl=%s: %s", ttl, body)
			}
		}
	}
}

// net/http sends in chunks what is larger than 2048 bytes; otherwise the length is always known.
func TestLargeAnswers(t *testing.T) {
	for _, tt := range []struct {
		size    int
		chunked bool // by net/http
	}{{1900, false}, {2100, true}, {70 << 10, true}, {3 << 20, true}} {
		for _, onlyNetHTTP := range []bool{false, true} {
			r := start(t, httpd.Options{OnlyNetHTTP: onlyNetHTTP})
			value := strings.Repeat("v", tt.size)
			r.set("/large", value)
			resp, body := r.do("GET", "/v2/keys/large", "")
			if chunked := resp.ContentLength < 0; chunked != (tt.chunked && onlyNetHTTP) {
				t.Errorf("value of %d bytes: chunked = %v, want %v", tt.size, chunked, !chunked)
			}
			if !strings.Contains(body, `"`+value+`"`) || !strings.HasSuffix(body, "}}\n") {
				t.Errorf("value of %d bytes came back wrong in %d bytes", tt.size, len(body))
			}
		}
	}
}

// What could not be carried out, or has an unknown outcome, is code 300 with index 0.
func TestRaftErrors(t *testing.T) {
	r := start(t, httpd.Options{})
	r.set("/k", "v")
	r.member.Fail = func(context.Context) error { return api.ErrTimeout }
	const want = `{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}` + "\n"
	for _, tt := range []struct{ method, target, form string }{
		{"PUT", "/v2/keys/k", "value=x"}, {"POST", "/v2/keys/k", "value=x"}, {"DELETE", "/v2/keys/k", ""},
		{"GET", "/v2/keys/k?quorum=true", ""},
	} {
		resp := r.want(tt.method, tt.target, tt.form, 500, want)
		if h := resp.Header; h.Get("X-Etcd-Index") != "0" || has(h, "X-Raft-Index") || h.Get("X-Etcd-Cluster-Id") == "" {
			t.Errorf("%s: headers %v", tt.method, h)
		}
	}
	r.want("GET", "/v2/keys/k", "", 200, `{"action":"get","node":{"key":"/k","value":"v","modifiedIndex":4,"createdIndex":4}}`+"\n")
	// HEAD is never a quorum read.
	r.want("HEAD", "/v2/keys/k?quorum=true", "", 200, "")
}

func TestRequestTimeout(t *testing.T) {
	// 5s + 2 × election time-out, as etcd has it; the deadline is read from the context.
	r := start(t, httpd.Options{ElectionTimeout: 3 * time.Second})
	var left time.Duration
	r.member.Fail = func(ctx context.Context) error {
		deadline, _ := ctx.Deadline()
		left = time.Until(deadline)
		return api.ErrTimeout
	}
	r.do("PUT", "/v2/keys/k", "value=x")
	if left <= 0 || left > 11*time.Second+11*time.Second/64 {
		t.Errorf("a write has %v, want 11s or a little more", left)
	}
}

// refuser is an Authorizer that refuses everything and remembers what it was asked.
type refuser struct{ asked []httpd.Access }

func (a *refuser) Authorize(_ *http.Request, access httpd.Access) error {
	a.asked = append(a.asked, access)
	return api.Unauthorized
}

func TestAuthorization(t *testing.T) {
	tests := []struct {
		method, target string
		access         httpd.Access
	}{
		{"GET", "/v2/keys", httpd.Access{Kind: httpd.Read}},
		{"GET", "/v2/keys/", httpd.Access{Kind: httpd.Read, Key: "/"}},
		{"HEAD", "/v2/keys/a/", httpd.Access{Kind: httpd.Read, Key: "/a/"}},
		{"GET", "/v2/keys/a%2Fb?wait=true&recursive=true", httpd.Access{Kind: httpd.Read, Key: "/a/b", Recursive: true}},
		{"PUT", "/v2/keys/a?recursive=true", httpd.Access{Kind: httpd.Write, Key: "/a", Recursive: true}},
		{"POST", "/v2/keys/a", httpd.Access{Kind: httpd.Write, Key: "/a"}},
		{"DELETE", "/v2/keys/a", httpd.Access{Kind: httpd.Write, Key: "/a"}},
	}
	auth := &refuser{}
	r := start(t, httpd.Options{Authorizer: auth})
	for _, tt := range tests {
		auth.asked = nil
		body := `{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}` + "\n"
		if tt.method == "HEAD" {
			body = ""
		}
		resp := r.want(tt.method, tt.target, "", 401, body)
		if has(resp.Header, "Www-Authenticate") || !has(resp.Header, "X-Etcd-Cluster-Id") {
			t.Errorf("%s %s: headers %v", tt.method, tt.target, resp.Header)
		}
		if len(auth.asked) != 1 || auth.asked[0] != tt.access {
			t.Errorf("%s %s: asked for %+v, want %+v", tt.method, tt.target, auth.asked, tt.access)
		}
	}

	auth.asked = nil
	for _, tt := range []struct {
		method, target string
		status         int
	}{{"PATCH", "/v2/keys/a", 405}, {"GET", "/v2/keys/a?dir=x", 400}, {"GET", "/v2/members", 200}, {"GET", "/v2/machines", 200},
		{"GET", "/v2/stats/store", 200}, {"GET", "/health", 200}, {"GET", "/metrics", 200}} {
		if resp, body := r.do(tt.method, tt.target, ""); resp.StatusCode != tt.status {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.target, resp.StatusCode, body, tt.status)
		}
	}
	if len(auth.asked) != 0 {
		t.Errorf("asked for %+v, although nothing needs permission", auth.asked)
	}
	for _, method := range []string{"POST", "PUT", "DELETE"} {
		resp := r.want(method, "/v2/members/1", "", 401, `{"message":"Insufficient credentials"}`)
		if has(resp.Header, "X-Etcd-Cluster-Id") {
			t.Errorf("%s: headers %v", method, resp.Header)
		}
	}
}

// A backend that is an Authorizer is asked when Options names none.
type strictMember struct {
	httpd.Backend
	refuser
}

func TestBackendAuthorizes(t *testing.T) {
	r := start(t, httpd.Options{})
	r.SetBackend(&strictMember{Backend: r.member})
	if resp, body := r.do("GET", "/v2/keys/a", ""); resp.StatusCode != 401 {
		t.Errorf("got %d %s, want 401", resp.StatusCode, body)
	}
}
