package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
)

// generic is what follows most reasons.
func generic(reason string) []string {
	return []string{
		"E | failed to join discovery cluster (" + reason + ")",
		"I | discovery token URL was used, but failed to bootstrap the cluster.",
		"I | please generate a new discovery token and try to bootstrap again.",
	}
}

// text answers every request with the same.
func text(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(api.HeaderIndex, "9")
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

// TestFailures is the table of spec discovery 4.
func TestFailures(t *testing.T) {
	const dir = "/discovery/tok"
	// filled returns a directory with a size and some registrations.
	filled := func(size string, pairs ...string) *keys {
		k := newKeys()
		k.put(dir+"/_config/size", size)
		for i := 0; i < len(pairs); i += 2 {
			k.put(dir+"/"+pairs[i], pairs[i+1])
		}
		return k
	}
	withMember := func(dataDir string) {
		os.MkdirAll(filepath.Join(dataDir, "member"), 0o700)
		os.WriteFile(filepath.Join(dataDir, "member", "identity.json"), nil, 0o600)
	}
	registeredLines := func(o Options) []string {
		return []string{
			`E | member "n" has previously registered with discovery service token (` + o.URL + `).`,
			`E | But etcd could not find valid cluster configuration in the given data dir (` + o.DataDir + `).`,
			`I | Please check the given data dir path if the previous bootstrap succeeded`,
			`I | or use a new discovery token if the previous bootstrap failed.`,
		}
	}
	duplicateName := func(o Options) []string {
		return []string{
			`E | member with duplicated name has registered with discovery service token(` + o.URL + `).`,
			`E | please check (cURL) the discovery token for more information.`,
			`E | please do not reuse the discovery token and generate a new one to bootstrap the cluster.`,
		}
	}
	is := func(lines ...string) func(Options) []string { return func(Options) []string { return lines } }

	tests := []struct {
		name     string
		server   http.Handler
		path     string           // behind the address; empty for that of the token
		change   func(o *Options) // may be nil
		dataDir  func(string)     // fills the data directory; may be nil
		reason   error            // nil when there is no value for it
		lines    func(Options) []string
		requests int
		fallback bool
	}{
		{name: "cluster full", server: filled("1", "b", "b=http://h:2"),
			reason: ErrFull, lines: is(generic("discovery: cluster is full")...), requests: 2, fallback: true},
		{name: "no token", server: newKeys(),
			reason: ErrSizeNotFound, lines: is(generic("discovery: size key not found (100: Key not found (/discovery) [3])")...), requests: 1},
		{name: "size not an integer", server: filled("three"),
			reason: ErrBadSize, lines: is(generic("discovery: size key is bad")...), requests: 1},
		{name: "size empty", server: filled(""),
			reason: ErrBadSize, lines: is(generic("discovery: size key is bad")...), requests: 1},
		{name: "size negative", server: filled("-3"),
			reason: ErrBadSize, lines: is(generic("discovery: size key is bad")...), requests: 1},
		{name: "size zero", server: filled("0"),
			reason: ErrBadSize, lines: is(generic("discovery: size key is bad")...), requests: 1},
		{name: "size with a sign", server: filled("+3"),
			reason: ErrBadSize, lines: is(generic("discovery: size key is bad")...), requests: 1},
		{name: "size is a directory", server: text(200, `{"action":"get","node":{"key":"/discovery/tok/_config/size","dir":true}}`),
			reason: ErrBadSize, lines: is(generic("discovery: size key is bad")...), requests: 1},
		{name: "ID registered with another value", server: filled("2", "7", "n=http://h:9"),
			reason: ErrRegistered, lines: registeredLines, requests: 3},
		{name: "ID registered, data directory in use", server: filled("2", "7", "n=http://h:1"), dataDir: withMember,
			reason: ErrRegistered, lines: registeredLines, requests: 3},
		{name: "ID registered, data directory unknown", server: filled("2", "7", "n=http://h:1"), change: func(o *Options) { o.DataDir = "" },
			reason: ErrRegistered, lines: registeredLines, requests: 3},
		{name: "two names equal", server: filled("2", "b", "n=http://h:2"),
			reason: ErrDuplicateName, lines: duplicateName, requests: 6},
		{name: "value is not a URL list", server: filled("2", "b", "bogus"),
			reason: ErrInvalidURL, lines: is(generic("discovery: invalid URL")...), requests: 6},
		{name: "value is empty", server: filled("2", "b", ""),
			reason: ErrInvalidURL, lines: is(generic("discovery: invalid URL")...), requests: 6},
		{name: "one URL under two names", server: filled("2", "b", "b=http://h:1"),
			reason: ErrDuplicateURL, lines: is("C | discovery cluster b=http://h:1,n=http://h:1 has duplicate url"), requests: 6},
		{name: "own peer URL is none", server: filled("2"), change: func(o *Options) { o.PeerURLs = []string{"unix://h:1"} },
			reason: ErrInvalidURL, lines: is(generic("discovery: invalid URL: URL scheme must be http or https: unix://h:1")...), requests: 0},
		{name: "HTML page", server: text(200, "<html></html>"),
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "404 in plain text", server: text(404, "404 page not found\n"),
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "other JSON", server: text(200, `{"kind":"Status"}`),
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "other JSON with 404", server: text(404, `{"kind":"Status"}`),
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "empty answer", server: text(200, ""),
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "redirect to nowhere", server: text(302, ""),
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "holes in the listing", server: text(200, `{"action":"get","node":{"key":"/x","value":"1","nodes":[null,{"key":"/x/b","value":"b=http://h:2"}]}}`),
			reason: ErrFull, lines: is(generic("discovery: cluster is full")...), requests: 2, fallback: true},
		{name: "no path in the URL", server: filled("1"), path: "/",
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...), requests: 1},
		{name: "credentials wanted", server: text(401, `{"errorCode":110,"message":"The request requires user authentication","cause":"Insufficient credentials","index":0}`),
			reason: api.Unauthorized, lines: is(generic("110: The request requires user authentication (Insufficient credentials) [0]")...), requests: 1},
		{name: "URL not parseable", server: newKeys(), change: func(o *Options) { o.URL = ":%" },
			lines: is(generic(`parse ":%": missing protocol scheme`)...)},
		{name: "URL without scheme", server: newKeys(), change: func(o *Options) { o.URL = "foo/bar" },
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...)},
		{name: "URL with a strange scheme", server: newKeys(), change: func(o *Options) { o.URL = "ftp://h:1/v2/keys/t" },
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...)},
		{name: "URL without host", server: newKeys(), change: func(o *Options) { o.URL = "http:///v2/keys/t" },
			reason: ErrBadEndpoint, lines: is(generic("discovery: bad discovery endpoint")...)},
		{name: "bad proxy", server: newKeys(), change: func(o *Options) { o.Proxy = "%" },
			lines: is(generic(`invalid proxy address "%"`)...)},
		{name: "CA file missing", server: newKeys(), change: func(o *Options) { o.CAFile = "nope.pem" },
			reason: os.ErrNotExist, lines: is(generic("open nope.pem: no such file or directory")...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := &recorder{next: tt.server}
			at := tt.path
			if at == "" {
				at = "/v2/keys" + dir
			}
			o := Options{
				URL: serve(t, rec) + at, Name: "n", MemberID: 7, PeerURLs: []string{"http://h:1"}, DataDir: t.TempDir(),
				sleep: func(context.Context, time.Duration) error { return errStop },
			}
			if tt.change != nil {
				tt.change(&o)
			}
			if tt.dataDir != nil {
				tt.dataDir(o.DataDir)
			}
			cluster, err := Join(context.Background(), o)
			var f *Failure
			if !errors.As(err, &f) {
				t.Fatalf("Join = %q, %v, want a Failure", cluster, err)
			}
			if tt.reason != nil && !errors.Is(err, tt.reason) {
				t.Errorf("Join: %v, want %v", err, tt.reason)
			}
			if tt.lines != nil {
				equalLines(t, "lines", printed(f), tt.lines(o))
			}
			if f.Fallback != tt.fallback {
				t.Errorf("Fallback = %t", f.Fallback)
			}
			if got := rec.sequence(); len(got) != tt.requests {
				t.Errorf("%d requests, want %d: %q", len(got), tt.requests, got)
			}
		})
	}
}

func printed(f *Failure) []string {
	var lines []string
	for _, l := range f.Lines {
		lines = append(lines, l.String())
	}
	return lines
}

// TestRegistrationIsNotRepeated: whether it was stored is unknown, so the attempt ends. The next start
// finds out.
func TestRegistrationIsNotRepeated(t *testing.T) {
	noLeader := func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	tests := []struct {
		name   string
		stored bool // before the answer is spoilt
		answer func(w http.ResponseWriter)
		reason string // %s for the address; empty for any
		again  []string
	}{
		{"503", false, noLeader, "client: etcd member %s has no leader", []string{"PUT", "GET", "GET", "GET"}},
		{"504", false, func(w http.ResponseWriter) { w.WriteHeader(http.StatusGatewayTimeout) },
			"client: etcd member %s returns server error [Gateway Timeout]", []string{"PUT", "GET", "GET", "GET"}},
		{"connection lost", false, func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }, "EOF", []string{"PUT", "GET", "GET", "GET"}},
		{"stored, answer lost", true, func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }, "EOF", []string{"PUT", "GET", "GET"}},
		{"stored, then 503", true, noLeader, "client: etcd member %s has no leader", []string{"PUT", "GET", "GET"}},
		{"stored, empty answer", true, func(w http.ResponseWriter) {}, "discovery: bad discovery endpoint", []string{"PUT", "GET", "GET"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := newKeys()
			store.put("/t/_config/size", "1")
			rec := &recorder{next: store}
			rec.intercept = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n != 3 {
					return false
				}
				if tt.stored {
					store.put("/t/7", "n=http://h:1")
				}
				tt.answer(w)
				return true
			}
			address := serve(t, rec)
			o := Options{URL: address + "/v2/keys/t", Name: "n", MemberID: 7, PeerURLs: []string{"http://h:1"}, DataDir: t.TempDir()}
			_, err := Join(context.Background(), o)
			var f *Failure
			if !errors.As(err, &f) {
				t.Fatalf("Join: %v, want a Failure", err)
			}
			if want := strings.ReplaceAll(tt.reason, "%s", address); err.Error() != want {
				t.Errorf("Join: %v, want %s", err, want)
			}
			equalLines(t, "lines", printed(f), generic(err.Error()))
			first := len(rec.sequence())
			if first != 3 {
				t.Errorf("%d requests, want 3", first)
			}

			// The next start, with a data directory that holds no more than a lock.
			os.MkdirAll(filepath.Join(o.DataDir, "member"), 0o700)
			os.WriteFile(filepath.Join(o.DataDir, "member", "lock"), nil, 0o600)
			cluster, err := Join(context.Background(), o)
			if err != nil || cluster != "n=http://h:1" {
				t.Fatalf("second Join = %q, %v", cluster, err)
			}
			var methods []string
			for _, r := range rec.sequence()[first+2:] {
				methods = append(methods, r[:3])
			}
			if !slices.Equal(methods, tt.again) {
				t.Errorf("second Join after its reads: %v, want %v", methods, tt.again)
			}
		})
	}
}

// TestRegisteredSinceTheRead: the directory did not show our ID yet, and then the store knew it.
func TestRegisteredSinceTheRead(t *testing.T) {
	for value, want := range map[string]error{"n=http://h:1": nil, "m=http://h:1": ErrRegistered} {
		store := newKeys()
		store.put("/t/_config/size", "1")
		rec := &recorder{next: store}
		rec.intercept = func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 3 {
				store.put("/t/7", value)
			}
			return false
		}
		_, err := Join(context.Background(), Options{
			URL: serve(t, rec) + "/v2/keys/t", Name: "n", MemberID: 7, PeerURLs: []string{"http://h:1"}, DataDir: t.TempDir(),
		})
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("Join with %q there: %v, want %v", value, err, want)
		}
	}
}

// TestRetries: reads and waits are tried for ever, with growing pauses.
func TestRetries(t *testing.T) {
	var pauses []time.Duration
	log := newJournal()
	_, err := Join(context.Background(), Options{
		// Nobody listens there.
		URL: "http://127.0.0.1:1/v2/keys/t", Name: "n", PeerURLs: []string{"http://h:1"}, Logger: log,
		sleep: func(_ context.Context, d time.Duration) error {
			if pauses = append(pauses, d); len(pauses) == 10 {
				return errStop
			}
			return nil
		},
	})
	if !errors.Is(err, errStop) {
		t.Fatalf("Join: %v", err)
	}
	var seconds []int
	for _, p := range pauses {
		seconds = append(seconds, int(p/time.Second))
	}
	if want := []int{2, 4, 8, 16, 32, 64, 128, 256, 256, 256}; !slices.Equal(seconds, want) {
		t.Errorf("pauses %v, want %v", seconds, want)
	}
	equalLines(t, "log", log.lines()[:4], []string{
		"[ERROR] discovery: error #0: dial tcp 127.0.0.1:1: connect: connection refused",
		"[INFO]  discovery: cluster status check: error connecting to http://127.0.0.1:1, retrying in 2s",
		"[ERROR] discovery: error #0: dial tcp 127.0.0.1:1: connect: connection refused",
		"[INFO]  discovery: cluster status check: error connecting to http://127.0.0.1:1, retrying in 4s",
	})
}

// TestTroubleOnTheWay spoils one request of a run after the other. None of that matters in the end.
func TestTroubleOnTheWay(t *testing.T) {
	unavailable := func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	outdated := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusBadRequest)
		io.WriteString(w, `{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [10/9]","index":9}`)
	}
	nothing := func(w http.ResponseWriter) { w.Header().Set(api.HeaderIndex, "5") }
	const (
		put      = "PUT /v2/keys/t/7?prevExist=false value=n%3Dhttp%3A%2F%2Fh%3A1"
		confirm  = "GET /v2/keys/t/7?recursive=false&wait=true&waitIndex=5"
		wait     = "GET /v2/keys/t?recursive=true&wait=true&waitIndex=6"
		size     = "GET /v2/keys/t/_config/size?quorum=false&recursive=false&sorted=false"
		list     = "GET /v2/keys/t?quorum=false&recursive=false&sorted=false"
		checking = "cluster status check"
		waiting  = "waiting for other nodes"
	)
	tests := []struct {
		name   string
		nth    int // request that is spoilt
		how    func(w http.ResponseWriter)
		during string // what the log says; empty for nothing
		pause  time.Duration
		want   []string
	}{
		{"first size", 1, unavailable, checking, 2 * time.Second, []string{size, size, list, put, confirm, size, list, wait, list}},
		{"first list", 2, unavailable, checking, 2 * time.Second, []string{size, list, size, list, put, confirm, size, list, wait, list}},
		{"confirmation", 4, unavailable, checking, 2 * time.Second, []string{size, list, put, confirm, size, list, wait, list}},
		{"confirmation outdated", 4, outdated, "", 0, []string{size, list, put, confirm, size, list, wait, list}},
		{"confirmation empty", 4, nothing, "", 0, []string{size, list, put, confirm, size, list, wait, list}},
		{"second list", 6, unavailable, checking, 2 * time.Second, []string{size, list, put, confirm, size, list, size, list, wait, list}},
		{"wait", 7, unavailable, waiting, 2 * time.Second, []string{size, list, put, confirm, size, list, wait, size, list, wait, list}},
		{"wait outdated", 7, outdated, "", time.Second, []string{size, list, put, confirm, size, list, wait, list, wait, list}},
		{"wait empty", 7, nothing, "", time.Second, []string{size, list, put, confirm, size, list, wait, list, wait, list}},
		{"last list", 8, unavailable, checking, 2 * time.Second, []string{size, list, put, confirm, size, list, wait, list, size, list}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			store := newKeys()
			store.put("/t/_config/size", "2")
			rec := &recorder{next: store}
			rec.intercept = func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == tt.nth {
					tt.how(w)
					return true
				}
				return false
			}
			log := newJournal()
			var pauses []time.Duration
			o := Options{
				URL: serve(t, rec) + "/v2/keys/t", Name: "n", MemberID: 7, PeerURLs: []string{"http://h:1"}, Logger: log,
				sleep: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil },
			}
			done := start(Join, o)
			await(t, "wait", store.waiting)
			store.put("/t/b", "b=http://h:2")
			got := await(t, "end", done)
			if got.err != nil || got.cluster != "n=http://h:1,b=http://h:2" {
				t.Fatalf("Join = %q, %v", got.cluster, got.err)
			}
			equalLines(t, "requests", rec.sequence(), tt.want)
			var want []time.Duration
			if tt.pause != 0 {
				want = []time.Duration{tt.pause}
			}
			if !slices.Equal(pauses, want) {
				t.Errorf("pauses %v, want %v", pauses, want)
			}
			retry := ""
			for _, l := range log.lines() {
				if strings.Contains(l, "retrying") {
					retry = l
				}
			}
			wantRetry := ""
			if tt.during != "" {
				wantRetry = fmt.Sprintf("[INFO]  discovery: %s: error connecting to %s, retrying in 2s", tt.during, strings.TrimSuffix(o.URL, "/v2/keys/t"))
			}
			if retry != wantRetry {
				t.Errorf("log %q, want %q", retry, wantRetry)
			}
		})
	}
}

// TestReadTimeout: a read that is not answered in time is trouble like any other.
func TestReadTimeout(t *testing.T) {
	server := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	log := newJournal()
	_, err := Lookup(context.Background(), Options{
		URL: server + "/v2/keys/t", Logger: log, timeout: time.Millisecond,
		sleep: func(context.Context, time.Duration) error { return errStop },
	})
	if want := "[ERROR] discovery: error #0: context deadline exceeded"; !errors.Is(err, errStop) || log.lines()[0] != want {
		t.Errorf("Lookup: %v, log %q, want %q", err, log.lines()[0], want)
	}
}

// TestEventsThatAreNoNewNode: removals, repetitions and strangers' keys wake the wait; what counts is
// the directory.
func TestEventsThatAreNoNewNode(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "2")
	rec := &recorder{next: store}
	address := serve(t, rec)
	done := start(Join, Options{URL: address + "/v2/keys/t", Name: "n", MemberID: 7, PeerURLs: []string{"http://h:1"}})
	await(t, "wait", store.waiting)
	store.put("/t/7", "n=http://h:1") // the same again: a new index, but no new node
	await(t, "second wait", store.waiting)
	store.put("/t/_config/note", "hidden, wakes nobody for good")
	await(t, "the wait to go on", store.waiting)
	store.put("/t/b", "b=http://h:2")
	if got := await(t, "end", done); got.err != nil || got.cluster != "n=http://h:1,b=http://h:2" {
		t.Errorf("Join = %q, %v", got.cluster, got.err)
	}
}

// TestPushedOut: others were created before us after all, and the cluster is full without us.
func TestPushedOut(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "2")
	rec := &recorder{next: store}
	rec.intercept = func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 3 {
			store.put("/t/a", "a=http://h:2")
			store.put("/t/b", "b=http://h:3")
		}
		return false
	}
	_, err := Join(context.Background(), Options{URL: serve(t, rec) + "/v2/keys/t", Name: "n", MemberID: 7, PeerURLs: []string{"http://h:1"}})
	var f *Failure
	if !errors.As(err, &f) || !f.Fallback || !errors.Is(err, ErrFull) {
		t.Errorf("Join: %v, want %v with fallback", err, ErrFull)
	}
}

func TestCancelledJoin(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "2")
	address := serve(t, store)
	ctx, cancel := context.WithCancel(context.Background())
	done := start(func(_ context.Context, o Options) (string, error) { return Join(ctx, o) },
		Options{URL: address + "/v2/keys/t", Name: "n", PeerURLs: []string{"http://h:1"}})
	await(t, "wait", store.waiting)
	cancel()
	if got := await(t, "end", done); got.err != context.Canceled {
		t.Errorf("Join: %v, want %v", got.err, context.Canceled)
	}

	ctx, cancel = context.WithCancel(context.Background())
	_, err := Join(ctx, Options{URL: "http://127.0.0.1:1/t", Name: "n", PeerURLs: []string{"http://h:1"},
		sleep: func(ctx context.Context, d time.Duration) error {
			cancel()
			return sleep(ctx, time.Hour)
		}})
	if err != context.Canceled {
		t.Errorf("Join while pausing: %v, want %v", err, context.Canceled)
	}
}
