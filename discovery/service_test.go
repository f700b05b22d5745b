package discovery

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
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/api"
)

const token = "0123456789abcdef0123456789abcdef"

// request makes one request of a handler and returns the answer.
func request(h http.Handler, method, target, form string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(form))
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}

func TestNewToken(t *testing.T) {
	url32 := regexp.MustCompile(`^http://here\.example:8/[0-9a-f]{32}$`)
	tests := []struct {
		name, method, target, form string
		status                     int
		size, body                 string
	}{
		{"default", "GET", "/new", "", 200, "3", ""},
		{"query", "GET", "/new?size=5", "", 200, "5", ""},
		{"form", "POST", "/new", "size=1", 200, "1", ""},
		{"form by PUT", "PUT", "/new", "size=9", 200, "9", ""},
		{"any method", "DELETE", "/new?size=2", "", 200, "2", ""},
		{"empty size", "GET", "/new?size=", "", 200, "3", ""},
		{"not a number", "GET", "/new?size=abc", "", 400, "", "size is not a number: \"abc\"\n"},
		{"fraction", "GET", "/new?size=3.5", "", 400, "", "size is not a number: \"3.5\"\n"},
		{"huge", "GET", "/new?size=99999999999999999999", "", 400, "", "size is not a number: \"99999999999999999999\"\n"},
		{"zero", "GET", "/new?size=0", "", 400, "", "size must be from 1 to 9: 0\n"},
		{"negative", "GET", "/new?size=-1", "", 400, "", "size must be from 1 to 9: -1\n"},
		{"too large", "GET", "/new?size=10", "", 400, "", "size must be from 1 to 9: 10\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := newKeys()
			log := newJournal()
			s := NewService(ServiceOptions{Keys: store, Logger: log})
			resp := request(s, tt.method, "http://here.example:8"+tt.target, tt.form)
			body := bodyOf(resp)
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status != 200 {
				if body != tt.body {
					t.Errorf("body %q, want %q", body, tt.body)
				}
				if store.index != 3 {
					t.Error("something was written")
				}
				return
			}
			if !url32.MatchString(body) {
				t.Fatalf("body %q, want a URL and no newline", body)
			}
			made := strings.TrimPrefix(body, "http://here.example:8/")
			if got := *store.nodes[registryKey+"/"+made+"/_config/size"].Value; got != tt.size {
				t.Errorf("size %s, want %s", got, tt.size)
			}
			if got := store.ttls[registryKey+"/"+made]; got != "604800" {
				t.Errorf("ttl of the token %q, want 604800", got)
			}
			if want := fmt.Sprintf("[INFO]  discovery token created: token=%s... size=%s", made[:8], tt.size); !strings.HasPrefix(log.lines()[0], want) {
				t.Errorf("log %q, want %q", log.lines()[0], want)
			}
		})
	}
}

func TestNewTokenOptions(t *testing.T) {
	store := newKeys()
	s := NewService(ServiceOptions{Keys: store, PublicURL: "https://discovery.example/base/", TokenTTL: -1, MaxSize: 20})
	body := bodyOf(request(s, "GET", "/new?size=20", ""))
	if !regexp.MustCompile(`^https://discovery\.example/base/[0-9a-f]{32}$`).MatchString(body) {
		t.Errorf("body %q", body)
	}
	if len(store.ttls) != 0 {
		t.Errorf("ttls %v, want none", store.ttls)
	}
	r := httptest.NewRequest("GET", "https://here.example/new", nil) // sets r.TLS
	w := httptest.NewRecorder()
	NewService(ServiceOptions{Keys: store}).ServeHTTP(w, r)
	if !strings.HasPrefix(w.Body.String(), "https://here.example/") {
		t.Errorf("URL over TLS: %q", w.Body)
	}
	for _, failing := range []http.Handler{
		text(503, `{"message":"no leader"}`),
		// The directory is made, and then the size is not.
		&recorder{next: store, intercept: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 2 {
				w.WriteHeader(500)
			}
			return n == 2
		}},
	} {
		log := newJournal()
		resp := request(NewService(ServiceOptions{Keys: failing, Logger: log}), "GET", "/new", "")
		if body := bodyOf(resp); resp.StatusCode != 400 || body != "Unable to generate token\n" {
			t.Errorf("store failing: %d %q", resp.StatusCode, body)
		}
		if !strings.HasPrefix(log.lines()[0], "[ERROR] discovery token not created:") {
			t.Errorf("log %q", log.lines()[0])
		}
	}
}

// TestServiceRequests is the table of what is let through and what is not.
func TestServiceRequests(t *testing.T) {
	const value = "value=c%3Dhttp%3A%2F%2Fh3%3A1"
	const dir = registryKey + "/" + token
	long := "value=" + url.QueryEscape(strings.Repeat("c=http://h:1,", 400))
	tests := []struct {
		name, method, target, form string
		status                     int
		want                       string // part of the body
	}{
		{"directory", "GET", "/" + token, "", 200, `"key":"` + dir + `","dir":true`},
		{"directory with a slash", "GET", "/" + token + "/", "", 200, `"key":"` + dir + `","dir":true`},
		{"directory does not show the size", "GET", "/" + token + "?recursive=true", "", 200, `"value":"a=http://h1:1"`},
		{"size", "GET", "/" + token + "/_config/size?quorum=false&recursive=false&sorted=false", "", 200, `"value":"3"`},
		{"registration", "GET", "/" + token + "/a1", "", 200, `"value":"a=http://h1:1"`},
		{"no such registration", "GET", "/" + token + "/a2", "", 404, `{"errorCode":100,"message":"Key not found","cause":"` + dir + `/a2","index":7}`},
		{"past event", "GET", "/" + token + "/a1?wait=true&waitIndex=5", "", 200, `"action":"create"`},
		{"head", "HEAD", "/" + token, "", 200, ""},
		{"register", "PUT", "/" + token + "/c3?prevExist=false", value, 201, `"value":"c=http://h3:1"`},
		{"register, all in the form", "PUT", "/" + token + "/c3", value + "&prevExist=false", 201, `"value":"c=http://h3:1"`},
		{"register, all in the query", "PUT", "/" + token + "/c3?prevExist=false&" + value, "", 201, `"value":"c=http://h3:1"`},
		{"register again", "PUT", "/" + token + "/a1?prevExist=false", "value=a%3Dhttp%3A%2F%2Fh1%3A1", 412,
			`{"errorCode":105,"message":"Key already exists","cause":"` + dir + `/a1","index":7}`},
		{"deregister", "DELETE", "/" + token + "/a1", "", 200, `"action":"delete"`},
		{"deregister unknown", "DELETE", "/" + token + "/a2", "", 404, `"errorCode":100`},
		{"unknown token", "GET", "/" + strings.Repeat("f", 32) + "/_config/size", "", 404, `"errorCode":100`},
		{"unknown token, register", "PUT", "/" + strings.Repeat("f", 32) + "/c3?prevExist=false", value, 404, `"errorCode":100`},

		{"overwrite", "PUT", "/" + token + "/a1", value, 403, "prevExist=false is required"},
		{"overwrite only", "PUT", "/" + token + "/a1?prevExist=true", value, 403, "prevExist=false is required"},
		{"form beats query", "PUT", "/" + token + "/a1?prevExist=false", value + "&prevExist=true", 403, "prevExist=false is required"},
		{"bogus value", "PUT", "/" + token + "/c3?prevExist=false", "value=bogus", 400, "URL scheme must be http or https: "},
		{"no value", "PUT", "/" + token + "/c3?prevExist=false", "", 400, "names no member"},
		{"path in the URL", "PUT", "/" + token + "/c3?prevExist=false", "value=a%3Dhttp%3A%2F%2Fh%3A1%2Fx", 400, "must not contain a path"},
		{"long value", "PUT", "/" + token + "/c3?prevExist=false", long, 400, "longer than 4096 bytes"},
		{"huge body", "PUT", "/" + token + "/c3?prevExist=false", "value=" + strings.Repeat("x", 70000), 413, "too large"},
		{"bad form", "PUT", "/" + token + "/c3?prevExist=false", "value=%zz", 400, "invalid URL escape"},
		{"directory for a member", "PUT", "/" + token + "/c3?prevExist=false&dir=true", value, 400, "dir is not allowed"},
		{"short-lived", "PUT", "/" + token + "/c3?prevExist=false", value + "&ttl=5", 400, "ttl is not allowed"},
		{"bad ID", "PUT", "/" + token + "/xyz?prevExist=false", value, 400, "A member ID is 1 to 16 hex digits"},
		{"long ID", "PUT", "/" + token + "/12345678901234567?prevExist=false", value, 400, "A member ID is"},
		{"below an ID", "PUT", "/" + token + "/c3/d4?prevExist=false", value, 400, "A member ID is"},
		{"climbing", "PUT", "/" + token + "/../x?prevExist=false", value, 400, "A member ID is"},
		{"read a bad ID", "GET", "/" + token + "/xyz", "", 404, "404 page not found"},
		{"post a registration", "POST", "/" + token + "/c3", value, 405, "Method Not Allowed"},
		{"change the size", "PUT", "/" + token + "/_config/size", "value=9", 403, "cannot be changed"},
		{"delete the size", "DELETE", "/" + token + "/_config/size", "", 403, "cannot be changed"},
		{"post a size", "POST", "/" + token + "/_config/size", "value=9", 403, "cannot be changed"},
		{"delete the configuration", "DELETE", "/" + token + "/_config?recursive=true", "", 403, "cannot be changed"},
		{"read the configuration", "GET", "/" + token + "/_config", "", 404, "404 page not found"},
		{"delete the token", "DELETE", "/" + token + "?recursive=true", "", 403, "can only be read"},
		{"write the token", "PUT", "/" + token + "?dir=true", "", 403, "can only be read"},
		{"post into the token", "POST", "/" + token + "/", value, 403, "can only be read"},

		{"no listing of tokens", "GET", "/", "", 404, "404 page not found"},
		{"short token", "GET", "/0123456789abcdef", "", 404, "404 page not found"},
		{"token of 33", "GET", "/" + token + "0", "", 404, "404 page not found"},
		{"token of 40", "GET", "/" + token + "01234567", "", 404, `"errorCode":100`},
		{"capital letters", "GET", "/" + strings.ToUpper(token), "", 404, "404 page not found"},
		{"below new", "GET", "/new/x", "", 404, "404 page not found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := newKeys()
			store.put(dir+"/_config/size", "3")
			store.put(dir+"/a1", "a=http://h1:1")
			store.put(dir+"/b2", "b=http://h2:1")
			store.put("/other", "1")
			s := NewService(ServiceOptions{Keys: store})
			resp := request(s, tt.method, tt.target, tt.form)
			body := bodyOf(resp)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%s %s = %d %s, want %d with %s", tt.method, tt.target, resp.StatusCode, body, tt.status, tt.want)
			}
			if strings.Contains(body, "_config") && tt.method == "GET" && !strings.Contains(tt.target, "_config") {
				t.Errorf("the size is listed: %s", body)
			}
			changes := tt.status == 201 || tt.method == "DELETE" && tt.status == 200
			if !changes && store.index != 7 {
				t.Error("something was written")
			}
			if tt.status == 400 || tt.status == 403 {
				var e refusal
				if json.Unmarshal([]byte(body), &e) != nil || int(e.Code) != tt.status || e.Message == "" {
					t.Errorf("no error that a node understands: %s", body)
				}
			}
		})
	}
}

func TestServiceMatches(t *testing.T) {
	s := NewService(ServiceOptions{Keys: newKeys()})
	for path, want := range map[string]bool{
		"/new": true, "/" + token: true, "/" + token + "/": true, "/" + token + "/a/b": true, "/" + token + "01234567/_config/size": true,
		"": false, "/": false, "/new/": false, "/v2/keys": false, "/" + token[1:]: false, "/" + token + "0/a": false, "/x/" + token: false,
	} {
		if got := s.Matches(path); got != want {
			t.Errorf("Matches(%q) = %t", path, got)
		}
	}
	s = NewService(ServiceOptions{Keys: newKeys(), Next: text(418, "next")})
	if resp := request(s, "GET", "/v2/keys", ""); resp.StatusCode != 418 {
		t.Errorf("not passed on: %d", resp.StatusCode)
	}
}

// TestPassedThrough: nothing but the path changes on the way to the keys handler.
func TestPassedThrough(t *testing.T) {
	var got *http.Request
	var body []byte
	s := NewService(ServiceOptions{Keys: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("quorum") == "true" {
			w.Header().Set(api.HeaderIndex, "1")
			fmt.Fprint(w, `{"action":"get","node":{"value":"3"}}`)
			return
		}
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("X-Etcd-Index", "77")
		w.WriteHeader(418)
		fmt.Fprint(w, "answer")
	})})
	for _, method := range []string{"GET", "PUT"} {
		r := httptest.NewRequest(method, "/"+token+"/ab?prevExist=false&x=%20y", strings.NewReader("value=a%3Dhttp://h:1&%41=b"))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Mine", "z")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if want := "/v2/keys/_etcd/registry/" + token + "/ab?prevExist=false&x=%20y"; got.RequestURI != want || got.URL.String() != want {
			t.Errorf("%s arrived as %s and %s, want %s", method, got.RequestURI, got.URL, want)
		}
		if got.Header.Get("X-Mine") != "z" || string(body) != "value=a%3Dhttp://h:1&%41=b" || got.ContentLength != int64(len(body)) {
			t.Errorf("%s arrived with %v and %q", method, got.Header, body)
		}
		if w.Code != 418 || w.Header().Get("X-Etcd-Index") != "77" || w.Body.String() != "answer" {
			t.Errorf("%s was answered %d %v %s", method, w.Code, w.Header(), w.Body)
		}
		if r.URL.Path != "/"+token+"/ab" {
			t.Errorf("the request itself was changed: %s", r.URL)
		}
	}
}

// TestWaitIsFlushed: the headers of a wait arrive before there is anything to tell.
func TestWaitIsFlushed(t *testing.T) {
	store := newKeys()
	store.put(registryKey+"/"+token+"/_config/size", "3")
	address := serve(t, NewService(ServiceOptions{Keys: store}))
	resp, err := http.Get(address + "/" + token + "?recursive=true&wait=true&waitIndex=5")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("X-Etcd-Index") != "4" {
		t.Errorf("headers of the wait: %d %v", resp.StatusCode, resp.Header)
	}
	store.put(registryKey+"/"+token+"/a1", "a=http://h:1")
	if body := bodyOf(resp); !strings.Contains(body, "a=http://h:1") {
		t.Errorf("event %q", body)
	}
}

// TestJoinThroughService: six nodes want to be in a cluster of three, all at once. Three get in, and
// all three see the same cluster; the others are told that it is full, and none stays registered.
func TestJoinThroughService(t *testing.T) {
	store := newKeys()
	address := serve(t, NewService(ServiceOptions{Keys: store}))
	resp, err := http.Get(address + "/new?size=3")
	if err != nil {
		t.Fatal(err)
	}
	url := bodyOf(resp)
	resp.Body.Close()

	var done [6]<-chan outcome
	for i := range done {
		done[i] = start(Join, Options{
			URL: url, Name: fmt.Sprintf("n%d", i), DataDir: t.TempDir(),
			PeerURLs: []string{fmt.Sprintf("http://10.0.0.%d:2380", i), fmt.Sprintf("http://10.0.1.%d:2380", i)},
		})
	}
	clusters := map[string]int{}
	full := 0
	for i := range done {
		got := await(t, "end", done[i])
		switch {
		case got.err == nil:
			clusters[got.cluster]++
		case errors.Is(got.err, ErrFull):
			full++
		default:
			t.Errorf("Join of n%d: %v", i, got.err)
		}
	}
	if len(clusters) != 1 || full != 3 {
		t.Errorf("clusters %v, %d times full", clusters, full)
	}
	dir := registryKey + "/" + strings.TrimPrefix(url, address+"/")
	if ids := store.ids(dir); len(ids) != 3 {
		t.Errorf("registered: %v", ids)
	}
	if got, err := Lookup(context.Background(), Options{URL: url}); err != nil || clusters[got] != 3 {
		t.Errorf("Lookup = %q, %v", got, err)
	}
}

// TestRestartedService: a service keeps nothing to itself.
func TestRestartedService(t *testing.T) {
	store := newKeys()
	var mu sync.Mutex
	s := NewService(ServiceOptions{Keys: store})
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now := s
		mu.Unlock()
		if now == nil {
			panic(http.ErrAbortHandler)
		}
		now.ServeHTTP(w, r)
	}))
	url := address + "/" + token
	store.put(registryKey+"/"+token+"/_config/size", "2")
	restarted := false
	o := Options{URL: url, Name: "a", PeerURLs: []string{"http://h:1"}, sleep: func(context.Context, time.Duration) error {
		// The wait was cut and the service does not answer; now it is back.
		mu.Lock()
		defer mu.Unlock()
		s = NewService(ServiceOptions{Keys: store})
		restarted = true
		return nil
	}}
	first := &recorder{next: store}
	first.intercept = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.RawQuery, "wait=true") && strings.Contains(r.URL.RawQuery, "recursive=true") {
			mu.Lock()
			s = nil
			mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		return false
	}
	mu.Lock()
	s = NewService(ServiceOptions{Keys: first})
	mu.Unlock()
	done := start(Join, o)
	await(t, "wait at the second service", store.waiting)
	store.put(registryKey+"/"+token+"/b", "b=http://h:2")
	got := await(t, "end", done)
	if got.err != nil || got.cluster != "a=http://h:1,b=http://h:2" || !restarted {
		t.Errorf("Join = %q, %v; restarted %t", got.cluster, got.err, restarted)
	}
}

// TestLateRegistration: two services let in a last node each. The order of creation decides, and the
// one that was too late is taken back.
func TestLateRegistration(t *testing.T) {
	const dir = registryKey + "/" + token
	for _, tt := range []struct {
		name   string
		fail   string // method of the service's own requests after the registration that fails
		status int
		left   []string
	}{
		{"taken back", "", 403, []string{"a1", "b2"}},
		{"cannot be taken back", "DELETE", 403, []string{"a1", "b2", "c3"}},
		{"cannot be seen", "GET", 201, []string{"a1", "b2", "c3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newKeys()
			store.put(dir+"/_config/size", "2")
			store.put(dir+"/a1", "a=http://h1:1")
			registered := false
			s := NewService(ServiceOptions{Keys: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if registered && r.Method == tt.fail {
					http.Error(w, "no leader", http.StatusServiceUnavailable)
					return
				}
				if r.Method == "PUT" {
					store.put(dir+"/b2", "b=http://h2:1") // the other service is faster
					registered = true
				}
				store.ServeHTTP(w, r)
			})})
			resp := request(s, "PUT", "/"+token+"/c3?prevExist=false", "value=c%3Dhttp%3A%2F%2Fh3%3A1")
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d: %s", resp.StatusCode, tt.status, bodyOf(resp))
			}
			if ids := store.ids(dir); !slices.Equal(ids, tt.left) {
				t.Errorf("registered: %v, want %v", ids, tt.left)
			}
		})
	}
}

// TestFullAnswer: a node that comes too late is told so, one that is in is told that it is.
func TestFullAnswer(t *testing.T) {
	const dir = registryKey + "/" + token
	store := newKeys()
	store.put(dir+"/_config/size", "1")
	store.put(dir+"/a1", "a=http://h1:1")
	s := NewService(ServiceOptions{Keys: store})
	resp := request(s, "PUT", "/"+token+"/b2?prevExist=false", "value=b%3Dhttp%3A%2F%2Fh2%3A1")
	if want := `{"errorCode":403,"message":"The cluster is full: 1 of 1 members have registered","cause":"/` + token + `/b2","index":0}` + "\n"; resp.StatusCode != 403 || bodyOf(resp) != want {
		t.Errorf("too late: status %d, want 403 and %s", resp.StatusCode, want)
	}
	resp = request(s, "PUT", "/"+token+"/a1?prevExist=false", "value=a%3Dhttp%3A%2F%2Fh1%3A1")
	if resp.StatusCode != 412 {
		t.Errorf("again: status %d, want 412", resp.StatusCode)
	}
}

// TestUnreadableToken: what the store says is passed on, and nonsense is an error of the service.
func TestUnreadableToken(t *testing.T) {
	for _, tt := range []struct {
		keys   http.Handler
		status int
	}{
		{text(503, "{}"), 503},
		{text(200, "nonsense"), 500},
		{text(200, `{"node":{"value":"many"}}`), 500},
		{text(200, `{"node":{"dir":true}}`), 500},
	} {
		resp := request(NewService(ServiceOptions{Keys: tt.keys}), "PUT", "/"+token+"/b2?prevExist=false", "value=b%3Dhttp%3A%2F%2Fh2%3A1")
		if resp.StatusCode != tt.status {
			t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
		}
	}
}

func TestServiceCounters(t *testing.T) {
	store := newKeys()
	registry := prometheus.NewRegistry()
	s := NewService(ServiceOptions{Keys: store, Registerer: registry})
	request(s, "GET", "/new", "")
	request(s, "GET", "/new?size=x", "")
	request(s, "GET", "/"+token, "")
	request(s, "BREW", "/"+token, "")
	request(s, "GET", "/elsewhere", "")
	// A second service of the same process counts on.
	request(NewService(ServiceOptions{Keys: store, Registerer: registry}), "PUT", "/new", "")

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		for _, m := range f.Metric {
			var b bytes.Buffer
			for _, l := range m.Label {
				fmt.Fprintf(&b, " %s=%s", l.GetName(), l.GetValue())
			}
			got = append(got, fmt.Sprintf("%s%s %v", f.GetName(), b.String(), m.Counter.GetValue()))
		}
	}
	equalLines(t, "counters", got, []string{
		"endpoint_new_requests_total code=200 method=get 1",
		"endpoint_new_requests_total code=200 method=put 1",
		"endpoint_new_requests_total code=400 method=get 1",
		"endpoint_token_requests_total code=403 method=other 1",
		"endpoint_token_requests_total code=404 method=get 1",
	})
}

func TestTurns(t *testing.T) {
	var turns turns
	leave, err := turns.take(context.Background(), "a")
	if err != nil {
		t.Fatal(err)
	}
	other, err := turns.take(context.Background(), "b")
	if err != nil {
		t.Fatal(err)
	}
	other()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := turns.take(gone, "a"); err != context.Canceled {
		t.Errorf("take while taken: %v, want %v", err, context.Canceled)
	}
	next := make(chan struct{})
	go func() {
		leave, _ := turns.take(context.Background(), "a")
		leave()
		close(next)
	}()
	leave()
	await(t, "turn", next)
	if len(turns.lines) != 0 {
		t.Errorf("%d lines left", len(turns.lines))
	}
}

// A token is known to those it was given to: it has 128 random bits, and no request to the service, however
// it is written, leads from one token or from none to another.
func TestTokensCannotBeFound(t *testing.T) {
	store := newKeys()
	s := NewService(ServiceOptions{Keys: store})
	var tokens []string
	for range 20 {
		body := bodyOf(request(s, "GET", "http://here/new", ""))
		tokens = append(tokens, body[strings.LastIndexByte(body, '/')+1:])
	}
	mine := tokens[0]
	for i, other := range tokens[1:] {
		same := 0
		for j := range other {
			if other[j] == mine[j] {
				same++
			}
		}
		if len(other) != 32 || same > 16 {
			t.Errorf("token %d, %s, is much like %s", i+1, other, mine)
		}
	}
	for _, path := range []string{
		"/", "/?recursive=true", "/?wait=true&recursive=true&waitIndex=1", "/v2/keys/_etcd/registry?recursive=true", "/_etcd/registry", "/registry",
		"/" + mine[:31], "/" + mine + "0", "/" + strings.ToUpper(mine), "/" + strings.Repeat("0", 32), "/" + strings.Repeat("0", 40) + "?recursive=true",
		"/*", "/" + mine[:16] + "*", "/" + mine + "/..", "/" + mine + "/../?recursive=true", "/" + mine + "%2f..?recursive=true", "/" + mine + "/%2e%2e?recursive=true",
		"/" + mine + "/../" + strings.Repeat("0", 32), "/" + mine + "/_config/../..?recursive=true", "/" + mine + "/_config", "//", "/./", "/" + mine + "?recursive=true",
	} {
		for _, method := range []string{"GET", "PUT", "POST", "DELETE"} {
			r, err := http.NewRequest(method, "http://here"+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			for _, token := range tokens[1:] {
				if strings.Contains(w.Body.String(), token) {
					t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
				}
			}
		}
	}
	if n := len(store.nodes); n < 40 {
		t.Errorf("%d keys are left of 20 tokens with a directory and a size each", n)
	}
}
