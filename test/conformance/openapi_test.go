package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/gorilla/mux"
	"golang.org/x/crypto/bcrypt"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/discovery"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/auth"
	"github.com/quorate/quorate/httpd/httpdtest"
)

// openAPI is the file that describes the API, and what of it has been seen in answers.
type openAPI struct {
	t    *testing.T
	file *openapi3.T
	next http.Handler

	mu   sync.Mutex
	seen map[string]bool // guarded by mu: "GET /path 200"
}

func loadOpenAPI(t *testing.T) *openAPI {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "httpd", "openapi.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := file.Validate(t.Context()); err != nil {
		t.Fatalf("openapi.yaml is no valid OpenAPI: %v", err)
	}
	openapi3filter.RegisterBodyDecoder(backup.ContentType, openapi3filter.FileBodyDecoder)
	return &openAPI{t: t, file: file, seen: map[string]bool{}}
}

var tokenPath = regexp.MustCompile(`^/(?:[0-9a-f]{32}|[0-9a-f]{40})(/.*)?$`)

// template returns the path in the file that a request's path is one of, and "" for none.
func (o *openAPI) template(path string) (template string, params map[string]string) {
	if o.file.Paths.Find(path) != nil && !strings.Contains(path, "{") {
		return path, nil
	}
	if m := tokenPath.FindStringSubmatch(path); m != nil {
		token := strings.TrimSuffix(strings.TrimPrefix(path, "/"), m[1])
		if strings.Trim(m[1], "/") == "" {
			return "/{token}", map[string]string{"token": token}
		}
		return "/{token}/{entry}", map[string]string{"token": token, "entry": m[1][1:]}
	}
	if key, ok := strings.CutPrefix(path, "/v2/keys/"); ok {
		if key == "" {
			return "/v2/keys", nil
		}
		return "/v2/keys/{key}", map[string]string{"key": key}
	}
	dir, name := path[:strings.LastIndexByte(path, '/')+1], path[strings.LastIndexByte(path, '/')+1:]
	if name == "" && slices.Contains([]string{"/v2/members/", "/v2/auth/users/", "/v2/auth/roles/"}, path) {
		return strings.TrimSuffix(path, "/"), nil
	}
	for _, in := range []string{"/v2/members/{id}", "/v2/auth/users/{name}", "/v2/auth/roles/{name}", "/debug/pprof/{profile}"} {
		if before, param, _ := strings.Cut(strings.TrimSuffix(in, "}"), "{"); before == dir {
			return in, map[string]string{param: name}
		}
	}
	return "", nil
}

// check holds an answer to the file, and with whole the request as well.
func (o *openAPI) check(r *http.Request, requestBody []byte, status int, header http.Header, body []byte, whole bool) error {
	template, params := o.template(r.URL.Path)
	if r.Method == http.MethodOptions || status == http.StatusMovedPermanently {
		return nil
	}
	item := o.file.Paths.Value(template)
	if item == nil {
		tooLong := strings.HasPrefix(r.URL.Path, "/v2/auth/") && status == http.StatusBadRequest // as etcd says
		if status != http.StatusNotFound && !tooLong {
			return fmt.Errorf("the path is not in openapi.yaml, and the answer has status %d", status)
		}
		return nil
	}
	operation := item.GetOperation(strings.ToUpper(r.Method))
	if operation == nil || r.Method != strings.ToUpper(r.Method) {
		if status != http.StatusMethodNotAllowed && status != http.StatusNotFound && !strings.HasPrefix(template, "/{token}") {
			return fmt.Errorf("the method is not in openapi.yaml, and the answer has status %d", status)
		}
		return nil
	}
	input := &openapi3filter.RequestValidationInput{
		Request: r, PathParams: params,
		Route:   &routers.Route{Spec: o.file, Path: template, PathItem: item, Method: r.Method, Operation: operation},
		Options: &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
	}
	if whole {
		r.Body = io.NopCloser(bytes.NewReader(requestBody))
		if err := openapi3filter.ValidateRequest(r.Context(), input); err != nil {
			return fmt.Errorf("the request: %w", err)
		}
	}
	o.mu.Lock()
	o.seen[fmt.Sprintf("%s %s %d", r.Method, template, status)] = true
	o.mu.Unlock()
	if len(body) == 0 && operation.Responses.Status(status) != nil {
		return nil // of HEAD, of what has none, of a watch that was given up
	}
	for _, one := range documents(header.Get("Content-Type"), body) {
		answer := &openapi3filter.ResponseValidationInput{RequestValidationInput: input, Status: status, Header: header, Options: input.Options}
		if err := openapi3filter.ValidateResponse(r.Context(), answer.SetBodyBytes(one)); err != nil {
			return fmt.Errorf("the answer: %w", err)
		}
	}
	return nil
}

// documents splits what a stream has sent.
func documents(contentType string, body []byte) [][]byte {
	if contentType != "application/json" {
		return [][]byte{body}
	}
	var all [][]byte
	for d := json.NewDecoder(bytes.NewReader(body)); ; {
		var one json.RawMessage
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			return append(all, body) // and let the validator say so
		}
		all = append(all, one)
	}
}

// ServeHTTP lets the server answer and checks what it has said.
func (o *openAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen := &witness{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		header := w.Header().Clone()
		if seen.body.Len() > 0 && header.Get("Content-Type") == "" { // net/http will find it out
			header.Set("Content-Type", http.DetectContentType(seen.body.Bytes()))
		}
		if err := o.check(r, nil, seen.status, header, seen.body.Bytes(), false); err != nil {
			o.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
	}()
	o.next.ServeHTTP(seen, r)
}

// witness keeps a copy of an answer.
type witness struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *witness) WriteHeader(status int) { w.status = status; w.ResponseWriter.WriteHeader(status) }

func (w *witness) Write(b []byte) (int, error) { w.body.Write(b); return w.ResponseWriter.Write(b) }

func (w *witness) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// served is a server with everything switched on, without raft.
func served(t *testing.T, o httpd.Options) (*httpd.Server, *httpdtest.Member) {
	t.Helper()
	member := httpdtest.New(1000)
	t.Cleanup(member.Close)
	guard := auth.New(auth.Options{Cost: bcrypt.MinCost})
	guard.SetBackend(member)
	o.Authorizer, o.Auth, o.Pprof = guard, guard, true
	var server *httpd.Server
	o.Routes = func(router *mux.Router) {
		service := discovery.NewService(discovery.ServiceOptions{Keys: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { server.TrustedKeys().ServeHTTP(w, r) })})
		router.MatcherFunc(func(r *http.Request, _ *mux.RouteMatch) bool { return service.Matches(r.URL.Path) }).Handler(service)
	}
	server = httpd.NewServer(o, member)
	return server, member
}

// TestCorpusAgainstOpenAPI plays the corpus, and holds every answer to the file.
func TestCorpusAgainstOpenAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("it plays most of the corpus once more")
	}
	o := loadOpenAPI(t)
	server, _ := served(t, httpd.Options{})
	o.next = server
	front := httptest.NewServer(o)
	defer front.Close()
	// What is left out waits for keys to expire and events to come, with answers as in the other files.
	files := Files(t, "ttl.json", "expire.json", "watch.json", "watch-history.json")
	Replay(t, front.URL, append([]string{"--skip-tags", "better", "--phases", "serial,exclusive"}, files...)...)
	if len(o.seen) < 40 {
		t.Errorf("only %d kinds of answers were seen", len(o.seen))
	}
}

// TestOpenAPI makes at least one good request of each operation, and bad ones, and holds requests and
// answers to the file.
func TestOpenAPI(t *testing.T) {
	o := loadOpenAPI(t)
	server, member := served(t, httpd.Options{})
	front := httptest.NewServer(server)
	defer front.Close()
	const form, asJSON = "application/x-www-form-urlencoded", "application/json"
	send := func(method, target, contentType, body string, status int, user string) string {
		t.Helper()
		r, err := http.NewRequest(method, front.URL+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		if name, password, ok := strings.Cut(user, ":"); ok {
			r.SetBasicAuth(name, password)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != status {
			t.Errorf("%s %s: status %d, want %d: %s", method, target, resp.StatusCode, status, got)
		}
		// What was done must have been asked for as the file says.
		if err := o.check(r, []byte(body), resp.StatusCode, resp.Header, got, resp.StatusCode < 300); err != nil {
			t.Errorf("%s %s: %v", method, target, err)
		}
		return string(got)
	}
	steps := []struct {
		method, target, contentType, body string
		status                            int
	}{
		{"PUT", "/v2/keys/a", form, "value=1", 201},
		{"PUT", "/v2/keys/a", form, "value=2&ttl=100&prevExist=true", 200},
		{"PUT", "/v2/keys/a?prevValue=2&value=3", "", "", 200},
		{"PUT", "/v2/keys/a?prevIndex=1&value=3", "", "", 412},
		{"PUT", "/v2/keys/a?prevExist=false", form, "value=3", 412},
		{"PUT", "/v2/keys/a/b", form, "value=3", 400},
		{"PUT", "/v2/keys/d/e?dir=true&noValueOnSuccess=true", "", "", 201},
		{"PUT", "/v2/keys/d", form, "value=1", 403},
		{"PUT", "/v2/keys/nope", form, "value=1&prevExist=true", 404},
		{"PUT", "/v2/keys/a", form, "ttl=200&refresh=true&prevExist=true", 200},
		{"PUT", "/v2/keys/a", form, "ttl=soon", 400},
		{"PUT", "/v2/keys", form, "value=1", 400},
		{"POST", "/v2/keys/queue", form, "value=1", 201},
		{"POST", "/v2/keys", form, "value=1", 201},
		{"GET", "/v2/keys", "", "", 200},
		{"GET", "/v2/keys/?recursive=true&sorted=true&quorum=false", "", "", 200},
		{"GET", "/v2/keys/a?quorum=true", "", "", 200},
		{"GET", "/v2/keys/a?wait=true&waitIndex=4", "", "", 200},
		{"GET", "/v2/keys/a?recursive=perhaps", "", "", 400},
		{"GET", "/v2/keys/nope", "", "", 404},
		{"HEAD", "/v2/keys/a", "", "", 200},
		{"HEAD", "/v2/keys", "", "", 200},
		{"DELETE", "/v2/keys/a?prevValue=nope", "", "", 412},
		{"DELETE", "/v2/keys/a?prevValue=3", "", "", 200},
		{"DELETE", "/v2/keys/d", "", "", 403},
		{"DELETE", "/v2/keys/d?recursive=true&dir=true", "", "", 200},
		{"DELETE", "/v2/keys", "", "", 400},

		{"GET", "/v2/members", "", "", 200},
		{"GET", "/v2/members/leader", "", "", 200},
		{"GET", "/v2/members/1", "", "", 404},
		{"POST", "/v2/members", asJSON, `{"peerURLs":["http://127.0.0.1:7001"]}`, 201},
		{"POST", "/v2/members", asJSON, `{"peerURLs":["http://127.0.0.1:7001"]}`, 409},
		{"POST", "/v2/members/1", asJSON, `{"peerURLs":["http://127.0.0.1:7002"]}`, 201},
		{"POST", "/v2/members", asJSON, `{`, 400},
		{"POST", "/v2/members", "text/plain", `{}`, 415},
		{"PUT", "/v2/members/8e9e05c52164694d", asJSON, `{"peerURLs":["http://127.0.0.1:7003"]}`, 204},
		{"PUT", "/v2/members/abc", asJSON, `{"peerURLs":["http://127.0.0.1:7004"]}`, 404},
		{"DELETE", "/v2/members/8e9e05c52164694d", "", "", 204},
		{"DELETE", "/v2/members/8e9e05c52164694d", "", "", 410},
		{"DELETE", "/v2/members/abc", "", "", 404},
		{"POST", "/quorate/v1/leader", "", "", 200},
		{"POST", "/quorate/v1/leader?to=1", "", "", 409},
		{"POST", "/quorate/v1/leader?to=nobody", "", "", 404},
		{"GET", "/v2/machines", "", "", 200},
		{"HEAD", "/v2/machines", "", "", 200},
		{"GET", "/v2/stats/self", "", "", 200},
		{"GET", "/v2/stats/leader", "", "", 200},
		{"GET", "/v2/stats/store", "", "", 200},

		{"GET", "/version", "", "", 200},
		{"GET", "/health", "", "", 200},
		{"GET", "/livez", "", "", 200},
		{"HEAD", "/livez", "", "", 200},
		{"GET", "/readyz?verbose", "", "", 200},
		{"HEAD", "/readyz", "", "", 200},
		{"GET", "/metrics", "", "", 200},
		{"GET", "/debug/vars", "", "", 200},
		{"GET", "/debug/pprof/cmdline", "", "", 200},
		{"PUT", "/config/local/log", asJSON, `{"Level":"INFO"}`, 204},
		{"PUT", "/config/local/log", asJSON, `{"Level":"LOUD"}`, 400},
		{"GET", "/quorate/v1/status?checksum=true", "", "", 200},
		{"GET", "/quorate/v1/status?checksum=perhaps", "", "", 400},
		{"GET", "/quorate/v1/snapshot?quorum=true", "", "", 200},
		{"GET", "/quorate/v1/snapshot?quorum=perhaps", "", "", 400},
		{"GET", "/quorate/v1/openapi.yaml", "", "", 200},
		{"GET", "/quorate/v1/nothing", "", "", 404},
		{"GET", "/new?size=x", "", "", 400},
		{"PUT", "/new", "", "", 200},
		{"POST", "/new", "", "", 200},

		{"GET", "/v2/auth/enable", "", "", 200},
		{"PUT", "/v2/auth/enable", "", "", 409},
		{"GET", "/v2/auth/users", "", "", 200},
		{"PUT", "/v2/auth/users/root", asJSON, `{"user":"root","password":"secret"}`, 201},
		{"PUT", "/v2/auth/users/bob", asJSON, `{"user":"bob","password":"x","roles":["dev"]}`, 200},
		{"PUT", "/v2/auth/users/bob", asJSON, `{"user":"eve","password":"x"}`, 400},
		{"PUT", "/v2/auth/users/bob", asJSON, `{"user":"bob","grant":["dev"]}`, 409},
		{"GET", "/v2/auth/users/root", "", "", 200},
		{"GET", "/v2/auth/users/nobody", "", "", 404},
		{"GET", "/v2/auth/roles", "", "", 200},
		{"PUT", "/v2/auth/roles/dev", asJSON, `{"role":"dev","permissions":{"kv":{"read":["/*"],"write":[]}}}`, 201},
		{"PUT", "/v2/auth/roles/dev", asJSON, `{"role":"dev","grant":{"kv":{"read":[],"write":["/dev/*"]}}}`, 200},
		{"PUT", "/v2/auth/roles/dev", asJSON, `{`, 400},
		{"GET", "/v2/auth/roles/dev", "", "", 200},
		{"GET", "/v2/auth/roles/nobody", "", "", 404},
		{"GET", "/v2/auth/users/", "", "", 200},
		{"GET", "/v2/auth/users/bob", "", "", 200},
		{"PUT", "/v2/auth/enable", "", "", 200},
	}
	for _, s := range steps {
		send(s.method, s.target, s.contentType, s.body, s.status, "")
	}

	// The discovery service, which works for strangers.
	made, err := url.Parse(send("GET", "/new?size=3", "", "", 200, ""))
	if err != nil {
		t.Fatal(err)
	}
	send("GET", made.Path+"?recursive=true", "", "", 200, "")
	send("PUT", made.Path+"/abc?prevExist=false", form, "value=n1%3Dhttp%3A%2F%2F127.0.0.1%3A7001", 201, "")
	send("PUT", made.Path+"/not-hex", form, "value=x", 400, "")
	send("PUT", made.Path+"/_config/size", form, "value=9", 403, "")
	send("GET", made.Path+"/abc", "", "", 200, "")
	send("GET", made.Path+"/_config/size", "", "", 200, "")
	send("DELETE", made.Path+"/abc", "", "", 200, "")
	send("DELETE", made.Path, "", "", 403, "")

	// With users and roles in force.
	for _, wrong := range []string{"nobody:x", "bob:x", "root:wrong"} {
		for _, s := range []struct{ method, target, body string }{
			{"PUT", "/v2/auth/enable", ""}, {"DELETE", "/v2/auth/enable", ""},
			{"GET", "/v2/auth/users", ""}, {"GET", "/v2/auth/roles", ""},
			{"GET", "/v2/auth/users/root", ""}, {"PUT", "/v2/auth/users/x", `{"user":"x"}`}, {"DELETE", "/v2/auth/users/bob", ""},
			{"GET", "/v2/auth/roles/dev", ""}, {"PUT", "/v2/auth/roles/x", `{"role":"x"}`}, {"DELETE", "/v2/auth/roles/dev", ""},
			{"POST", "/v2/members", `{"peerURLs":["http://127.0.0.1:7009"]}`}, {"PUT", "/v2/members/1", `{"peerURLs":["http://127.0.0.1:7009"]}`}, {"DELETE", "/v2/members/1", ""},
			{"POST", "/quorate/v1/leader", ""}, {"GET", "/quorate/v1/snapshot", ""}, {"GET", "/quorate/v1/status?checksum=true", ""},
			{"PUT", "/config/local/log", `{"Level":"INFO"}`}, {"GET", "/debug/pprof/heap", ""},
		} {
			send(s.method, s.target, asJSON, s.body, 401, wrong)
		}
		send("PUT", "/v2/keys/x", form, "value=1", 401, wrong)
	}
	send("GET", "/v2/keys/nope", "", "", 401, "root:wrong")
	send("DELETE", "/v2/auth/roles/root", "", "", 403, "root:secret")
	send("DELETE", "/v2/auth/users/root", "", "", 403, "root:secret")
	send("DELETE", "/v2/auth/users/bob", "", "", 200, "root:secret")
	send("DELETE", "/v2/auth/users/bob", "", "", 404, "root:secret")
	send("DELETE", "/v2/auth/roles/dev", "", "", 200, "root:secret")
	send("DELETE", "/v2/auth/roles/dev", "", "", 404, "root:secret")
	send("DELETE", "/v2/auth/enable", "", "", 200, "root:secret")

	// Without a leader, and then without a member.
	member.NoLeader.Store(true)
	send("GET", "/v2/members/leader", "", "", 503, "")
	send("GET", "/v2/stats/leader", "", "", 403, "")
	send("GET", "/health", "", "", 503, "")
	member.Fail = func(context.Context) error { return errors.New("no leader") }
	member.State = func() httpd.Status { return httpd.Status{Reasons: []string{"no leader"}} }
	send("PUT", "/v2/keys/x", form, "value=1", 500, "")
	send("GET", "/v2/keys/x?quorum=true", "", "", 500, "")
	send("GET", "/quorate/v1/snapshot?quorum=true", "", "", 503, "")
	send("GET", "/readyz?verbose", "", "", 503, "")
	front.Config.Handler = httpd.NewServer(httpd.Options{Auth: http.NotFoundHandler()}, nil)
	for _, path := range []string{"/v2/keys", "/v2/keys/x", "/v2/members", "/v2/members/leader", "/v2/machines", "/v2/stats/self", "/v2/auth/enable",
		"/v2/auth/users", "/v2/auth/roles/x", "/version", "/quorate/v1/status", "/quorate/v1/snapshot"} {
		send("GET", path, "", "", 503, "")
	}

	var missing []string
	for path, item := range o.file.Paths.Map() {
		for method := range item.Operations() {
			succeeded := slices.ContainsFunc([]int{200, 201, 204}, func(status int) bool { return o.seen[fmt.Sprintf("%s %s %d", method, path, status)] })
			if refused := path == "/v2/keys" && (method == "PUT" || method == "DELETE") || path == "/v2/members/{id}" && method == "GET"; !succeeded && !refused {
				missing = append(missing, method+" "+path)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("in openapi.yaml, and not tried with success: %v", missing)
	}
}
