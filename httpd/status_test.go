package httpd_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/armon/go-metrics"
	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd"
)

func TestReadOnlyEndpoints(t *testing.T) {
	tests := []struct {
		path, allow, contentType, body string // body is a regular expression
	}{
		{"/version", "GET", "application/json", `{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}`},
		{"/health", "GET", "text/plain; charset=utf-8", `{"health":"true"}`},
		{"/livez", "GET,HEAD", "text/plain; charset=utf-8", "ok\n"},
		{"/readyz", "GET,HEAD", "text/plain; charset=utf-8", "ok\n"},
		{"/v2/machines", "GET,HEAD", "text/plain; charset=utf-8", "http://localhost:2379"},
		{"/v2/stats/self", "GET", "application/json", `{"name":"default","id":"8e9e05c52164694d","state":"StateLeader","startTime":"[^"]+",` +
			`"leaderInfo":{"leader":"8e9e05c52164694d","uptime":"[^"]+","startTime":"[^"]+"},"recvAppendRequestCnt":0,"sendAppendRequestCnt":0}`},
		{"/v2/stats/leader", "GET", "application/json", `{"leader":"8e9e05c52164694d","followers":{}}`},
		{"/v2/stats/store", "GET", "application/json", `{"getsSuccess":0,"getsFail":0,"setsSuccess":0,"setsFail":0,"deleteSuccess":0,"deleteFail":0,` +
			`"updateSuccess":0,"updateFail":0,"createSuccess":0,"createFail":0,"compareAndSwapSuccess":0,"compareAndSwapFail":0,` +
			`"compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"expireCount":0,"watchers":0}`},
		{"/quorate/v1/status", "GET", "application/json", `{"memberID":"8e9e05c52164694d","name":"default","clusterID":"[0-9a-f]+","leader":"8e9e05c52164694d",` +
			`"term":2,"raftIndex":4,"index":3,"version":{"etcdserver":"3.4.23","etcdcluster":"3.4.0"},"ready":true,"reasons":\[\],"voters":\["8e9e05c52164694d"\]}\n`},
		{"/debug/vars", "GET", "application/json; charset=utf-8", `(?s){\n"file_descriptor_limit": \d+,\n"memstats": {.*},\n` +
			`"raft.status": {"id":"8e9e05c52164694d","term":2,"commit":4,"lead":"8e9e05c52164694d","raftState":"StateLeader"}\n}\n`},
		{"/v2/auth/users", "GET", "", ""},
		{"/v2/auth/roles/", "GET", "", ""},
		{"/v2/auth/users/x", "GET,PUT,DELETE", "", ""},
		{"/v2/auth/enable", "GET,PUT,DELETE", "", ""},
	}
	r := start(t, httpd.Options{})
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			resp, body := r.do("GET", tt.path+"?ignored=%zz", "")
			if tt.body != "" && (resp.StatusCode != 200 || !regexp.MustCompile(`^(?:`+tt.body+`)$`).MatchString(body) ||
				resp.Header.Get("Content-Type") != tt.contentType || has(resp.Header, "X-Etcd-Cluster-Id")) {
				t.Errorf("got %d %s %v", resp.StatusCode, body, resp.Header)
			}
			if resp = r.want("PATCH", tt.path, "", 405, "Method Not Allowed\n"); resp.Header.Get("Allow") != tt.allow {
				t.Errorf("Allow = %s, want %s", resp.Header.Get("Allow"), tt.allow)
			}
			if tt.allow == "GET" {
				r.want("HEAD", tt.path, "", 405, "")
			}
			if !strings.HasPrefix(tt.path, "/v2/auth/") {
				r.want("GET", tt.path+"/", "", 404, "404 page not found\n")
			}
		})
	}
}

func TestNotFound(t *testing.T) {
	r := start(t, httpd.Options{})
	for _, path := range []string{"/", "/v2", "/v2/", "/v2/key", "/v2/keys.", "/V2/keys", "/v2/stats", "/v2/stats/", "/v2/stats/x",
		"/v2/membersx", "/v2/auth", "/v2/auth/", "/v2/auth/nothing", "/v2/auth/enable/", "/v1/keys/x", "/debug/pprof/", "/config/local/log/"} {
		r.want("GET", path, "", 404, "404 page not found\n")
	}
}

func TestReadyz(t *testing.T) {
	r := start(t, httpd.Options{})
	status := httpd.Status{Reasons: []string{"no leader is known", "120 entries behind"}}
	r.member.State = func() httpd.Status { return status }
	r.want("GET", "/readyz", "", 503, "not ready\n")
	r.want("GET", "/readyz?verbose", "", 503, "not ready\n- no leader is known\n- 120 entries behind\n")
	r.want("GET", "/livez", "", 200, "ok\n")
	status = httpd.Status{Ready: true, Reasons: []string{"the disk is slow"}}
	r.want("GET", "/readyz?verbose=1", "", 200, "ok\n- the disk is slow\n")
}

// Before the member is ready its server is up and says what it waits for.
func TestWaiting(t *testing.T) {
	r := serve(t, httpd.NewServer(httpd.Options{}, nil))
	r.want("GET", "/v2/keys/a", "", 503, `{"message":"this member is starting"}`)
	r.SetWaiting("waiting for 2 more members to register")
	for _, path := range []string{"/v2/keys/a?wait=true", "/v2/members", "/v2/stats/self", "/version", "/v2/machines"} {
		resp := r.want("GET", path, "", 503, `{"message":"waiting for 2 more members to register"}`)
		if resp.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", path, resp.Header)
		}
	}
	r.want("PUT", "/v2/keys/a", "value=1", 503, `{"message":"waiting for 2 more members to register"}`)
	r.want("GET", "/health", "", 503, `{"health":"false"}`+"\n")
	r.want("GET", "/livez", "", 200, "ok\n")
	r.want("GET", "/readyz?verbose", "", 503, "not ready\n- waiting for 2 more members to register\n")
	if resp, _ := r.do("GET", "/metrics", ""); resp.StatusCode != 200 {
		t.Errorf("/metrics: %d", resp.StatusCode)
	}
	ready := start(t, httpd.Options{})
	r.SetBackend(ready.member)
	r.want("GET", "/v2/keys", "", 200, `{"action":"get","node":{"dir":true}}`+"\n")
	r.want("GET", "/readyz", "", 200, "ok\n")
}

func TestHealthNeedsQuorumRead(t *testing.T) {
	t.Parallel()
	r := start(t, httpd.Options{})
	r.member.Fail = func(ctx context.Context) error {
		<-ctx.Done() // within 1s
		return api.ErrTimeout
	}
	r.want("GET", "/health", "", 503, `{"health":"false"}`+"\n")
}

func TestCORS(t *testing.T) {
	tests := []struct {
		name    string
		allowed []string
		origin  string
		want    string
	}{
		{"default, no origin", nil, "", "*"},
		{"default, origin", nil, "http://x", "*"},
		{"star in the list", []string{"http://a.example", "*"}, "http://x", "*"},
		{"listed", []string{"http://a.example", "http://b.example:1"}, "http://b.example:1", "http://b.example:1"},
		{"not listed", []string{"http://a.example"}, "http://a.example:80", ""},
		{"no origin", []string{"http://a.example"}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, httpd.Options{CORS: tt.allowed})
			for _, target := range []string{"/v2/keys", "/v2/keys/none", "/v2/keys//x", "/nothing", "/version"} {
				for _, method := range []string{"GET", "PATCH", "OPTIONS"} {
					req, err := http.NewRequest(method, "http://"+r.addr+target, nil)
					if err != nil {
						t.Fatal(err)
					}
					if tt.origin != "" {
						req.Header.Set("Origin", tt.origin)
					}
					resp, body := r.send(req)
					if got := resp.Header.Get("Access-Control-Allow-Origin"); got != tt.want {
						t.Errorf("%s %s: allowed origin %q, want %q", method, target, got, tt.want)
					}
					if has(resp.Header, "Access-Control-Allow-Methods") != (tt.want != "") {
						t.Errorf("%s %s: %v", method, target, resp.Header)
					}
					if method == "OPTIONS" && (resp.StatusCode != 200 || body != "" || resp.ContentLength != 0) {
						t.Errorf("OPTIONS %s: %d %s", target, resp.StatusCode, body)
					}
				}
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	r := start(t, httpd.Options{})
	r.do("PUT", "/v2/keys/a", "value=1")
	r.do("PUT", "/v2/keys/a?prevValue=x", "value=1")
	r.do("PUT", "/v2/keys/a?dir=x", "value=1") // refused before it counts
	r.do("GET", "/v2/keys/a", "")
	r.do("GET", "/v2/keys/none", "")
	r.do("GET", "/v2/keys/?recursive=true&quorum=true", "")
	r.do("GET", "/health", "")
	r.watch("/v2/keys/a?wait=true")
	resp, body := r.do("POST", "/metrics", "")
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	for _, line := range []string{
		`etcd_http_received_total{method="PUT"} 2`,
		`etcd_http_received_total{method="GET"} 2`,
		`etcd_http_received_total{method="QGET"} 1`,
		`etcd_http_failed_total{code="412",method="PUT"} 1`,
		`etcd_http_failed_total{code="404",method="GET"} 1`,
		`etcd_http_successful_duration_seconds_count{method="PUT"} 1`,
		`etcd_http_successful_duration_seconds_bucket{method="PUT",le="2.048"} 1`,
		`etcd_debugging_store_reads_total{action="get"} 2`,
		`etcd_debugging_store_reads_total{action="getRecursive"} 1`,
		`etcd_debugging_store_writes_total{action="set"} 1`,
		`etcd_debugging_store_writes_total{action="compareAndSwap"} 1`,
		`etcd_debugging_store_watch_requests_total 1`,
		`etcd_debugging_store_watchers 1`,
		`etcd_server_has_leader 1`,
		`etcd_server_is_leader 1`,
		`etcd_server_health_success 1`,
		`etcd_server_health_failures 0`,
		`etcd_server_proposals_committed_total 6`,
		`etcd_server_version{server_version="3.4.23"} 1`,
		`etcd_cluster_version{cluster_version="3.4.0"} 1`,
		`etcd_server_id{server_id="8e9e05c52164694d"} 1`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("/metrics has no line %s", line)
		}
	}
	for _, name := range []string{"go_goroutines ", "process_open_fds "} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("/metrics has no %s", name)
		}
	}
}

func TestRaftMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	if err := httpd.InstallRaftMetrics(reg); err != nil {
		t.Fatal(err)
	}
	metrics.SetGauge([]string{"raft", "peers"}, 3)
	r := start(t, httpd.Options{Registry: reg})
	if _, body := r.do("GET", "/metrics", ""); !strings.Contains(body, "\nquorate_raft_peers 3\n") {
		t.Errorf("/metrics has no quorate_raft_peers:\n%s", body)
	}
}

func TestLogLevel(t *testing.T) {
	var out strings.Builder
	log := hclog.New(&hclog.LoggerOptions{Level: hclog.Info, Output: &out})
	r := start(t, httpd.Options{Logger: log})
	for _, tt := range []struct {
		body   string
		status int
		want   string
		level  hclog.Level
	}{
		{`{"Level":"ERROR"}`, 204, "", hclog.Error},
		{`{"level":"warning"}`, 204, "", hclog.Warn},
		{`{"Level":"bogus"}`, 400, `{"message":"Invalid log level bogus"}`, hclog.Warn},
		{`{"Level":`, 400, `{"message":"Invalid json body"}`, hclog.Warn},
		{`{"Level":"DEBUG"}`, 204, "", hclog.Debug},
	} {
		r.want("PUT", "/config/local/log", tt.body, tt.status, tt.want)
		if got := log.GetLevel(); got != tt.level {
			t.Errorf("after %s the level is %v, want %v", tt.body, got, tt.level)
		}
	}
	r.want("GET", "/config/local/log", "", 405, "Method Not Allowed\n")
	r.do("GET", "/v2/keys/none?value=secret", "")
	r.do("GET", "/version", "")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Shutdown(ctx); err != nil { // so that nobody writes to the log any more
		t.Error(err)
	}
	for _, want := range []string{
		`[DEBUG] request: method=GET path="/v2/keys/none" status=404`,
		`[DEBUG] request: method=GET path="/version" status=200`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the log has a value in it:\n%s", out.String())
	}
}

func TestLogLevelNeedsPermission(t *testing.T) {
	r := start(t, httpd.Options{Authorizer: &refuser{}})
	r.want("PUT", "/config/local/log", `{"Level":"DEBUG"}`, 401, `{"message":"Insufficient credentials"}`)
}

func TestPprof(t *testing.T) {
	r := start(t, httpd.Options{Pprof: true})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
		if resp, body := r.do("GET", path, ""); resp.StatusCode != 200 || body == "" {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// Others add their endpoints through Options; /v2/auth is handed over with the method checked.
func TestSeams(t *testing.T) {
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(r.URL.Path)
	})
	r := start(t, httpd.Options{Auth: hello, Routes: func(rt *mux.Router) { rt.Handle("/console", hello) }})
	r.want("GET", "/console", "", 200, `"/console"`+"\n")
	r.want("PUT", "/v2/auth/users/a%20b", "", 200, `"/v2/auth/users/a b"`+"\n")
	r.want("GET", "/v2/auth/roles/", "", 200, `"/v2/auth/roles/"`+"\n")
	r.want("PUT", "/v2/auth/users", "", 405, "Method Not Allowed\n")
}

func TestStatusWithChecksum(t *testing.T) {
	r := start(t, httpd.Options{})
	sum := func() string {
		_, body := r.do("GET", "/quorate/v1/status?checksum=true", "")
		var status api.MemberStatus
		if err := json.Unmarshal([]byte(body), &status); err != nil || status.Checksum == "" {
			t.Fatalf("status %s: %v", body, err)
		}
		return status.Checksum
	}
	before := sum()
	r.do("PUT", "/v2/keys/a", "value=1")
	if after := sum(); after == before {
		t.Errorf("the checksum %s did not change with the keys", after)
	}
	r.want("GET", "/quorate/v1/status?checksum=maybe", "", 400, `{"message":"checksum is true or false, not \"maybe\""}`)
}

func TestTransferLeadership(t *testing.T) {
	r := start(t, httpd.Options{})
	for _, tt := range []struct {
		method, query string
		status        int
	}{
		{"POST", "", 200},
		{"POST", "?to=" + r.member.Self.ID, 200},
		{"POST", "?to=1", 409},
		{"POST", "?to=nobody", 404},
		{"GET", "", 405},
	} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(tt.method, "/quorate/v1/leader"+tt.query, nil))
		if w.Code != tt.status {
			t.Errorf("%s with %q: %d %s, want %d", tt.method, tt.query, w.Code, w.Body, tt.status)
		}
		if w.Code == 200 && !strings.Contains(w.Body.String(), r.member.Self.ID) {
			t.Errorf("with %q the answer is %s, want the leader", tt.query, w.Body)
		}
	}
}
