package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/auth"
	"github.com/quorate/quorate/httpd/httpdtest"
)

// run is a server with users and roles, whose hashes are cheap.
type run struct {
	*httpd.Server
	t      *testing.T
	member *httpdtest.Member
	log    *log
}

// log is what was logged.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func start(t *testing.T, change func(*auth.Options)) *run {
	t.Helper()
	r := &run{t: t, member: httpdtest.New(1000), log: &log{}}
	t.Cleanup(r.member.Close)
	options := auth.Options{Cost: 4, Logger: hclog.New(&hclog.LoggerOptions{Output: r.log})}
	if change != nil {
		change(&options)
	}
	guard := auth.New(options)
	guard.SetBackend(r.member)
	r.Server = httpd.NewServer(httpd.Options{Authorizer: guard, Auth: guard, Pprof: true, Routes: func(rt *mux.Router) {
		rt.PathPrefix("/trusted").Handler(http.StripPrefix("/trusted", http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			r.TrustedKeys().ServeHTTP(w, req)
		})))
	}}, r.member)
	return r
}

// request makes a request: "METHOD PATH", and after that the credentials "user:password" if any.
func request(line, body string) *http.Request {
	words := strings.Fields(line)
	req := httptest.NewRequest(words[0], words[1], strings.NewReader(body))
	if len(words) > 2 {
		req.Header.Set("Authorization", basic(words[2]))
	}
	if strings.HasPrefix(words[1], "/v2/keys") && body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

func basic(credentials string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(credentials))
}

func (r *run) send(req *http.Request) *httptest.ResponseRecorder {
	r.t.Helper()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// do sends a request that has to be answered with 2xx.
func (r *run) do(line, body string) {
	r.t.Helper()
	if w := r.send(request(line, body)); w.Code/100 != 2 {
		r.t.Fatalf("%s %s: %d %s", line, body, w.Code, w.Body)
	}
}

// step is a request and its answer.
type step struct {
	line, body string
	status     int
	want       string // the body, without the newline at its end
}

func (r *run) steps(steps []step) {
	r.t.Helper()
	for _, s := range steps {
		w := r.send(request(s.line, s.body))
		got := w.Body.String()
		if got = strings.TrimSuffix(got, "\n"); w.Code != s.status || s.want != "*" && got != s.want {
			r.t.Errorf("%s %s: %d %s\nwant %d %s", s.line, s.body, w.Code, got, s.status, s.want)
			continue
		}
		// Successes end with a newline, and so do the errors of keys, and those that are plain text.
		keys := strings.Contains(s.line, " /v2/keys")
		newline := w.Code < 300 && got != "" || keys || w.Code == 405
		if strings.HasPrefix(s.line, "HEAD ") || s.want == "*" {
			newline = strings.HasSuffix(w.Body.String(), "\n") // httptest keeps a body that HEAD would not have
		}
		if strings.HasSuffix(w.Body.String(), "\n") != newline {
			r.t.Errorf("%s %s: %q, and it should end with a newline: %v", s.line, s.body, w.Body, newline)
		}
		if w.Code == 405 {
			continue
		}
		if w.Header().Get("Content-Type") != "application/json" && s.want != "*" {
			r.t.Errorf("%s: type %q", s.line, w.Header().Get("Content-Type"))
		}
		hidden := !keys && (w.Code == 401 || strings.Contains(got, "Invalid path"))
		if id := w.Header().Get("X-Etcd-Cluster-Id"); (id == "") != hidden {
			r.t.Errorf("%s: %d with cluster ID %q", s.line, w.Code, id)
		}
		if w.Header().Get("WWW-Authenticate") != "" {
			r.t.Errorf("%s: asks for a login", s.line)
		}
	}
}

const (
	none    = `{"message":"Insufficient credentials"}`
	none110 = `{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}`
	rootObj = `{"role":"root","permissions":{"kv":{"read":["/*"],"write":["/*"]}}}`
)

// What is decided from the request alone; what depends on the state has its table in fsm/auth.
func TestEndpoints(t *testing.T) {
	start(t, nil).steps([]step{
		{"GET /v2/auth/enable", "", 200, `{"enabled":false}`},
		{"GET /v2/auth/enable?%zz", "", 200, `{"enabled":false}`},
		{"DELETE /v2/auth/enable", "", 409, `{"message":"auth: already disabled"}`},
		{"PUT /v2/auth/enable", "", 409, `{"message":"auth: No root user available, please create one"}`},
		{"POST /v2/auth/enable", "", 405, "Method Not Allowed"},
		{"GET /v2/auth/users", "", 200, `{"users":null}`},
		{"GET /v2/auth/users/", "", 200, `{"users":null}`},
		{"GET /v2/auth/roles", "", 200, `{"roles":[` + rootObj + `]}`},
		{"GET /v2/auth/roles/root", "", 200, rootObj},
		{"PUT /v2/auth/users", "{}", 405, "Method Not Allowed"},
		{"GET /v2/auth/users?%zz", "", 500, `{"message":"Internal Server Error"}`},
		{"GET /v2/auth/roles?a;b", "", 500, `{"message":"Internal Server Error"}`},
		{"GET /v2/auth/roles/root?%zz", "", 200, rootObj},

		{"GET /v2/auth/users/a/b", "", 400, `{"message":"Invalid path"}`},
		{"PUT /v2/auth/users/a%2Fb", `{"user":"a/b"}`, 400, `{"message":"Invalid path"}`},
		{"POST /v2/auth/roles/a/b/", "", 400, `{"message":"Invalid path"}`},
		{"POST /v2/auth/roles/a/", "", 405, "Method Not Allowed"},

		{"PUT /v2/auth/users/bob", "", 400, `{"message":"Invalid JSON in request body."}`},
		{"PUT /v2/auth/users/bob", "[]", 400, `{"message":"Invalid JSON in request body."}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob","password":5}`, 400, `{"message":"Invalid JSON in request body."}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob","password":"` + strings.Repeat("x", 1<<20) + `"}`, 413, `{"message":"the body of the request is larger than 1048576 bytes"}`},
		{"PUT /v2/auth/users/bob", "null", 400, `{"message":"User JSON name does not match the name in the URL"}`},
		{"PUT /v2/auth/users/bob", `{"user":"bo","roles":["a"],"grant":["b"]}`, 400, `{"message":"User JSON name does not match the name in the URL"}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob","roles":["a"],"grant":["b"]}`, 400, `{"message":"User JSON contains both roles and grant/revoke"}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob","roles":["a"],"revoke":["b"]}`, 400, `{"message":"User JSON contains both roles and grant/revoke"}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob"}`, 400, `{"message":"auth: Cannot create user bob with an empty password"}`},
		{"PUT /v2/auth/users/bob", `{"USER":"bob","Password":"p","else":1} and more`, 201, `{"user":"bob","roles":null}`},
		{"PUT /v2/auth/users/bob?%zz", `{"user":"bob","password":"p"}`, 200, `{"user":"bob","roles":[]}`},
		{"PUT /v2/auth/users/carol", `{"user":"carol","password":"p","roles":["r2","r1"]}`, 200, `{"user":"carol","roles":["r2","r1"]}`},
		{"PUT /v2/auth/users/dan", `{"user":"dan","password":"p","roles":[]}`, 201, `{"user":"dan","roles":[]}`},
		{"PUT /v2/auth/users/a%20%3Cb%3E/", `{"user":"a <b>","password":"p"}`, 201, `{"user":"a \u003cb\u003e","roles":null}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob","grant":["x"],"password":"q"}`, 200, `{"user":"bob","roles":["x"]}`},
		{"GET /v2/auth/users/bob", "", 404, `{"message":"auth: Role x does not exist."}`},
		{"GET /v2/auth/users/bob?%zz", "", 500, `{"message":"Internal Server Error"}`},
		{"GET /v2/auth/users/eve?%zz", "", 404, `{"message":"auth: User eve does not exist."}`},
		{"GET /v2/auth/users", "", 200, `{"users":[{"user":"a \u003cb\u003e"},{"user":"bob"},{"user":"carol"},{"user":"dan"}]}`},
		{"DELETE /v2/auth/users/eve", "", 404, `{"message":"auth: User eve does not exist"}`},
		{"DELETE /v2/auth/users/%ff", "", 404, `{"message":"auth: User ` + `\ufffd` + ` does not exist"}`},
		{"GET /v2/auth/users/%ff", "", 404, `{"message":"auth: User ` + `\ufffd` + ` does not exist."}`},
		{"DELETE /v2/auth/roles/%ff", "", 404, `{"message":"auth: Role ` + `\ufffd` + ` doesn't exist."}`},
		{"DELETE /v2/auth/users/dan", "", 200, ""},

		{"PUT /v2/auth/roles/r1", "", 400, `{"message":"Invalid JSON in request body."}`},
		{"PUT /v2/auth/roles/r1", `{}`, 400, `{"message":"Role JSON name does not match the name in the URL"}`},
		{"PUT /v2/auth/roles/r1", `{"role":"r1","permissions":{"kv":{"read":["/a"]}},"grant":{"kv":{"read":["/b"]}}}`, 400, `{"message":"Role JSON contains both permissions and grant/revoke"}`},
		{"PUT /v2/auth/roles/r1", `{"role":"r1","grant":{"kv":{"read":[]}},"permissions":{"kv":{"read":["/b","/a"]}}}`, 201, `{"role":"r1","permissions":{"kv":{"read":["/b","/a"],"write":null}}}`},
		{"PUT /v2/auth/roles/r1", `{"role":"r1","grant":{"kv":{"write":["/c"]}},"revoke":{"kv":{"read":["/b"]}}}`, 200, `{"role":"r1","permissions":{"kv":{"read":["/a"],"write":["/c"]}}}`},
		{"PUT /v2/auth/roles/root", `{"role":"root"}`, 403, `{"message":"auth: Cannot modify role root: is root role."}`},
		{"GET /v2/auth/roles/r2", "", 404, `{"message":"auth: Role r2 does not exist."}`},
		{"DELETE /v2/auth/roles/r2", "", 404, `{"message":"auth: Role r2 doesn't exist."}`},
		{"DELETE /v2/auth/roles/r1", "", 200, ""},
		{"PUT /v2/auth/roles/r9", `{"role":"r9"}`, 201, `{"role":"r9","permissions":{"kv":{"read":null,"write":null}}}`},
	})
}

// session makes the users and roles of spec auth 5 and puts them in force.
func session(r *run) {
	r.t.Helper()
	for _, s := range [][2]string{
		{"PUT /v2/auth/users/root", `{"user":"root","password":"pw"}`},
		{"PUT /v2/auth/users/bob", `{"user":"bob","password":"b:pw","roles":["ghost","r1"]}`},
		{"PUT /v2/auth/users/carol", `{"user":"carol","password":"cpw","roles":["root"]}`},
		{"PUT /v2/auth/roles/r1", `{"role":"r1","permissions":{"kv":{"read":["/x/*","/exact"],"write":["/x/*","/exact"]}}}`},
		{"PUT /v2/auth/roles/guest", `{"role":"guest","permissions":{"kv":{"read":["/pub*"],"write":["/pub/w"]}}}`},
		{"PUT /v2/keys/x/a", "value=1"}, {"PUT /v2/keys/pub/w", "value=1"}, {"PUT /v2/keys/exact", "value=1"},
		{"PUT /v2/auth/enable", ""},
	} {
		r.do(s[0], s[1])
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	r := start(t, nil)
	session(r)
	r.steps([]step{
		{"GET /v2/auth/enable nobody:x", "", 200, `{"enabled":true}`},
		{"PUT /v2/auth/enable", "", 401, none},
		{"PUT /v2/auth/enable bob:b:pw", "", 401, none},
		{"PUT /v2/auth/enable carol:cpw", "", 409, `{"message":"auth: already enabled"}`},
		{"DELETE /v2/auth/users/root root:pw", "", 403, `{"message":"auth: Cannot delete root user while auth is enabled."}`},
		{"GET /v2/auth/users", "", 401, none},
		{"GET /v2/auth/users/bob bob:b:pw", "", 401, none},
		{"GET /v2/auth/users/bob carol:cpw", "", 404, `{"message":"auth: Role ghost does not exist."}`},
		{"GET /v2/auth/users/bob/x", "", 400, `{"message":"Invalid path"}`},
		{"POST /v2/auth/users/bob", "", 405, "Method Not Allowed"},
		{"PUT /v2/auth/users/bob bob:b:pw", "not json", 401, none},
		{"PUT /v2/auth/roles/r1 root:wrong", "", 401, none},
		{"GET /v2/members nobody:x", "", 200, "*"},
		{"POST /v2/members", "", 401, none},
		{"PUT /v2/members/1 bob:b:pw", "", 401, none},
		{"DELETE /v2/members/zz carol:cpw", "", 404, `{"message":"No such member: zz"}`},

		{"GET /v2/keys/g", "", 401, none110},
		{"GET /v2/keys/g?recursive=perhaps", "", 400, "*"},
		{"PATCH /v2/keys/g", "", 405, "Method Not Allowed"},
		{"GET /v2/keys/pub/w", "", 200, "*"},
		{"PUT /v2/keys/pub/w", "value=2", 200, "*"},
		{"PUT /v2/keys/pub/v", "value=2", 401, none110},
		{"GET /v2/keys/pub/w bob:wrong", "", 401, none110},
		{"GET /v2/keys/pub/w nobody:b:pw", "", 401, none110},
		{"GET /v2/keys/pub/w bob:b:pw", "", 401, none110},
		{"HEAD /v2/keys/x/a", "", 401, none110},
		{"GET /v2/keys/x/a bob:b:pw", "", 200, "*"},
		{"GET /v2/keys/x bob:b:pw", "", 401, none110},
		{"GET /v2/keys/x/ bob:b:pw", "", 200, "*"},
		{"GET /v2/keys bob:b:pw", "", 401, none110},
		{"GET /v2/keys root:pw", "", 200, "*"},
		{"GET /v2/keys/%78/a bob:b:pw", "", 200, "*"},
		{"POST /v2/keys/x/ bob:b:pw", "value=1", 201, "*"},
		{"POST /v2/keys/x bob:b:pw", "value=1", 401, none110},
		{"DELETE /v2/keys/exact?recursive=true bob:b:pw", "", 401, none110},
		{"DELETE /v2/keys/exact bob:b:pw", "", 200, "*"},
		{"GET /v2/keys/x/?wait=true&recursive=true&waitIndex=1 bob:b:pw", "", 200, "*"},
		{"GET /v2/keys/none?wait=true bob:b:pw", "", 401, none110},

		{"PUT /v2/auth/roles/r1 root:pw", `{"role":"r1","revoke":{"kv":{"write":["/x/*"]}}}`, 200, "*"},
		{"PUT /v2/keys/x/a bob:b:pw", "value=3", 401, none110},
		{"DELETE /v2/auth/roles/guest root:pw", "", 200, ""},
		{"GET /v2/keys/pub/w", "", 401, none110},
		{"DELETE /v2/auth/enable bob:b:pw", "", 401, none},
		{"DELETE /v2/auth/enable root:pw", "", 200, ""},
		{"GET /v2/keys/x/a nobody:x", "", 200, "*"},
	})
	if w := r.send(request("GET /v2/keys/g", "")); w.Header().Get("X-Etcd-Index") == "0" {
		t.Error("the index is hidden after switching off")
	}
}

// The ways to say who one is, on a path of guests and on one that only root may use.
func TestIdentity(t *testing.T) {
	r := start(t, nil)
	session(r)
	root := strings.TrimPrefix(basic("root:pw"), "Basic ")
	tests := []struct {
		name   string
		header []string
		keys   int // GET of a key that guests may read
		admin  int
	}{
		{"nothing", nil, 200, 401},
		{"empty", []string{""}, 200, 401},
		{"blank", []string{" "}, 401, 401},
		{"good", []string{"Basic " + root}, 200, 200},
		{"lower case", []string{"basic " + root}, 200, 200},
		{"wrong password", []string{basic("root:wp")}, 401, 401},
		{"empty password", []string{basic("root:")}, 401, 401},
		{"no colon", []string{basic("rootpw")}, 401, 401},
		{"no user", []string{basic(":pw")}, 401, 401},
		{"nothing in it", []string{basic(":")}, 401, 401},
		{"unknown user", []string{basic("toor:pw")}, 401, 401},
		{"not base64", []string{"Basic !!!"}, 401, 401},
		{"scheme alone", []string{"Basic"}, 401, 401},
		{"another scheme", []string{"Bearer " + root}, 401, 401},
		{"two headers, the first counts", []string{"Basic " + root, basic("root:wp")}, 200, 200},
		{"two headers, the first is wrong", []string{basic("root:wp"), "Basic " + root}, 401, 401},
		{"two headers, the first is empty", []string{"", basic("root:wp")}, 200, 401},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				line string
				want int
			}{{"GET /v2/keys/pub/w", tt.keys}, {"GET /v2/auth/roles", tt.admin}} {
				req := request(c.line, "")
				req.Header["Authorization"] = tt.header
				if w := r.send(req); w.Code != c.want {
					t.Errorf("%s: %d %s, want %d", c.line, w.Code, w.Body, c.want)
				}
			}
		})
	}
}

// Longer passwords count by their first 72 bytes.
func TestLongPasswords(t *testing.T) {
	r := start(t, nil)
	long := strings.Repeat("0123456789", 10)
	r.do("PUT /v2/auth/users/root", `{"user":"root","password":"`+long+`"}`)
	r.do("PUT /v2/auth/enable", "")
	r.do("GET /v2/auth/users root:"+long, "")
	r.do("GET /v2/auth/users root:"+long[:72], "")
	if w := r.send(request("GET /v2/auth/users root:"+long[:71], "")); w.Code != 401 {
		t.Errorf("71 of 72 bytes: %d", w.Code)
	}
}

func TestGuestOfTheFirstSwitch(t *testing.T) {
	tests := []struct{ setting, want, warning string }{
		{"", `{"role":"guest","permissions":{"kv":{"read":["/*"],"write":["/*"]}}}`, "may write"},
		{auth.GuestReadWrite, `{"role":"guest","permissions":{"kv":{"read":["/*"],"write":["/*"]}}}`, "may write"},
		{auth.GuestRead, `{"role":"guest","permissions":{"kv":{"read":["/*"],"write":[]}}}`, ""},
		{auth.GuestNone, `{"role":"guest","permissions":{"kv":{"read":[],"write":[]}}}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.setting, func(t *testing.T) {
			r := start(t, func(o *auth.Options) { o.Guest = tt.setting })
			r.do("PUT /v2/auth/users/root", `{"user":"root","password":"pw"}`)
			r.do("PUT /v2/auth/enable", "")
			r.steps([]step{{"GET /v2/auth/roles/guest root:pw", "", 200, tt.want}})
			if warned := strings.Contains(r.log.String(), "may write"); warned != (tt.warning != "") {
				t.Errorf("logged:\n%s", r.log)
			}
		})
	}
}

// Index steps as seen by a client (spec keys 8.2).
func TestIndexSteps(t *testing.T) {
	r := start(t, nil)
	at := r.member.Tree().Index()
	for _, s := range []struct {
		line, body string
		steps      uint64
	}{
		{"PUT /v2/auth/roles/root", `{"role":"root"}`, 0},
		{"PUT /v2/auth/users/root", `{"user":"root","password":"pw"}`, 5},
		{"PUT /v2/auth/users/root", `{"user":"root","password":"pw"}`, 1},
		{"PUT /v2/auth/users/x", `{"user":"x"}`, 0},
		{"PUT /v2/auth/enable", "", 2},
		{"DELETE /v2/auth/enable root:pw", "", 1},
		{"PUT /v2/auth/enable", "", 1},
		{"DELETE /v2/auth/roles/guest root:pw", "", 1},
		{"DELETE /v2/auth/roles/guest root:pw", "", 0},
	} {
		r.send(request(s.line, s.body))
		now := r.member.Tree().Index()
		if now != at+s.steps {
			t.Errorf("%s %s: %d steps, want %d", s.line, s.body, now-at, s.steps)
		}
		at = now
	}
}

// Profiles and the checksum of everything are for root; what else is there besides keys is free.
func TestWhatElseIsGuarded(t *testing.T) {
	r := start(t, nil)
	const cmdline = "GET /debug/pprof/cmdline"
	r.do(cmdline, "")
	session(r)
	for _, tt := range []struct {
		line string
		want int
	}{
		{cmdline, 401}, {cmdline + " bob:b:pw", 401}, {cmdline + " root:pw", 200}, {"GET /debug/pprof/", 401}, {"GET /debug/pprof/heap", 401},
		{"GET /quorate/v1/status", 200}, {"GET /quorate/v1/status?checksum=true", 401}, {"GET /quorate/v1/status?checksum=true carol:cpw", 200},
		{"GET /debug/vars", 200}, {"GET /version bob:wrong", 200}, {"GET /health", 200}, {"GET /metrics", 200}, {"GET /v2/machines", 200},
		{"GET /v2/stats/store nobody:x", 200}, {"PUT /config/local/log", 401},
	} {
		if w := r.send(request(tt.line, "")); w.Code != tt.want {
			t.Errorf("%s: %d %s, want %d", tt.line, w.Code, w.Body, tt.want)
		}
	}
}

// A part of the process, such as a discovery service, reaches keys that strangers do not.
func TestTrustedKeys(t *testing.T) {
	r := start(t, nil)
	session(r)
	const key = "/v2/keys/_etcd/registry/t"
	for _, line := range []string{"GET " + key, "GET " + key + " bob:b:pw"} {
		if w := r.send(request(line, "")); w.Code != 401 {
			t.Errorf("%s: %d, want 401", line, w.Code)
		}
	}
	if w := r.send(request("GET "+key+" root:pw", "")); w.Code != 404 {
		t.Errorf("root: %d, want 404", w.Code)
	}
	put := request("PUT /trusted"+key+"?value=3", "")
	put.Header.Set("Authorization", basic("bob:wrong"))
	if w := r.send(put); w.Code != 201 {
		t.Errorf("trusted: %d %s, want 201", w.Code, w.Body)
	}
	r.do("GET /trusted"+key, "")
	for _, path := range []string{"/v2/members", "/v2/auth/users", "/v2/keysx", "/version"} {
		if w := r.send(request("GET /trusted"+path, "")); w.Code != 404 {
			t.Errorf("trusted %s: %d, want 404", path, w.Code)
		}
	}
}

// Before it knows whose users count, a Guard lets nobody in.
func TestFailClosed(t *testing.T) {
	guard := auth.New(auth.Options{})
	if guard.Authorize(request("GET /v2/keys/a", ""), httpd.Access{Key: "/a"}) == nil {
		t.Error("a Guard without a backend let a request pass")
	}
	w := httptest.NewRecorder()
	guard.ServeHTTP(w, request("GET /v2/auth/users", ""))
	if w.Code != 503 {
		t.Errorf("%d %s, want 503", w.Code, w.Body)
	}
}

// What could not be done is 500, and the reason is in the log only.
func TestWithoutAQuorum(t *testing.T) {
	r := start(t, nil)
	r.do("PUT /v2/auth/users/root", `{"user":"root","password":"pw"}`)
	r.member.Fail = func(context.Context) error { return api.ErrTimeout }
	const answer = `{"message":"Internal Server Error"}`
	r.steps([]step{
		{"PUT /v2/auth/users/bob", `{"user":"bob","password":"p"}`, 500, answer},
		{"PUT /v2/auth/roles/r", `{"role":"r"}`, 500, answer},
		{"DELETE /v2/auth/users/root", "", 500, answer},
		{"PUT /v2/auth/enable", "", 500, answer},
		{"GET /v2/auth/users", "", 200, `{"users":[{"user":"root","roles":[` + rootObj + `]}]}`},
	})
	if !strings.Contains(r.log.String(), "etcdserver: request timed out") {
		t.Errorf("logged:\n%s", r.log)
	}
}
