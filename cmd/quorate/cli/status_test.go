//go:build linux

package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/quorate/quorate/client"
)

func TestStatus(t *testing.T) {
	got := quorate(t, "", "-C", etcd(t), "status")
	want := regexp.MustCompile(`^ID +NAME +ENDPOINT +STATE +HEALTHY +TERM +RAFT INDEX +LAG +INDEX +VERSION
[0-9a-f]+ +m0 +http://\S+ +leader +yes +\d+ +\d+ +0 +\d+ +3\.4\.\d+
$`)
	if got.code != 0 || !want.MatchString(got.out) {
		t.Errorf("%v", got)
	}

	// One of two is gone.
	gone := refused(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"members":[{"id":"1","name":"up","clientURLs":[%q]},{"id":"2","name":"down","clientURLs":[%q]},{"id":"3","name":"","clientURLs":[]}]}`, etcd(t), gone)
	}))
	defer s.Close()
	got = quorate(t, "", "-C", s.URL, "--no-sync", "-o", "json", "status")
	var status struct {
		Members []struct {
			Name, State    string
			Healthy        bool
			RaftIndex, Lag uint64
		}
	}
	if err := json.Unmarshal([]byte(got.out), &status); err != nil || got.code != 5 {
		t.Fatalf("%v: %v", err, got)
	}
	var lines []string
	for _, m := range status.Members {
		lines = append(lines, fmt.Sprint(m.Name, " ", m.State, " ", m.Healthy, " ", m.RaftIndex > 0, " ", m.Lag))
	}
	wantLines := "up leader true true 0; down unreachable false false 0;  unstarted false false 0"
	if all := strings.Join(lines, "; "); all != wantLines {
		t.Errorf("members %q\nwant    %q", all, wantLines)
	}
}

func TestStatusOfLearner(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/members":
			fmt.Fprintf(w, `{"members":[{"id":"1","name":"a","clientURLs":[%q]},{"id":"2","name":"b","clientURLs":[%q]}]}`, s.URL, s.URL)
		case "/v2/stats/self":
			io.WriteString(w, `{"state":"StateFollower"}`)
		case "/quorate/v1/status":
			io.WriteString(w, `{"voters":["1"]}`)
		default:
			io.WriteString(w, `{"health":"true"}`)
		}
	}))
	defer s.Close()
	got := quorate(t, "", "-C", s.URL, "--no-sync", "status")
	if want := regexp.MustCompile(`(?m)^1 .* follower .*\n2 .* learner `); got.code != 0 || !want.MatchString(got.out) {
		t.Errorf("%v", got)
	}
}

func TestHealth(t *testing.T) {
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"health":"false"}`)
	}))
	defer sick.Close()
	gone := refused(t)
	tests := []struct {
		endpoints string
		code      int
		out       string
	}{
		{etcd(t), 0, etcd(t) + " is healthy\n"},
		{sick.URL, 1, sick.URL + " is unhealthy\n"},
		{etcd(t) + "," + sick.URL, 1, etcd(t) + " is healthy\n" + sick.URL + " is unhealthy\n"},
		{gone, 1, fmt.Sprintf("%s is unreachable: Get \"%s/health\": dial tcp %s: connect: connection refused\n", gone, gone, strings.TrimPrefix(gone, "http://"))},
	}
	for _, tt := range tests {
		if got, want := quorate(t, "", "-C", tt.endpoints, "health"), (result{tt.code, tt.out, ""}); got != want {
			t.Errorf("%v\nwant %v", got, want)
		}
	}
}

func TestDiscovery(t *testing.T) {
	endpoint, k, ctx := etcd(t), keys(t), t.Context()
	made := quorate(t, "", "-C", endpoint, "discovery", "new", "--size", "2")
	form := regexp.MustCompile(`^` + regexp.QuoteMeta(endpoint) + `/v2/keys(/_etcd/registry/[0-9a-f]{32})\n$`)
	m := form.FindStringSubmatch(made.out)
	if made.code != 0 || m == nil {
		t.Fatalf("discovery new: %v", made)
	}
	token, dir := strings.TrimSpace(made.out), m[1]
	if r, err := k.Get(ctx, dir, client.GetOptions{}); err != nil || r.Node.TTL < 600000 {
		t.Errorf("the token does not expire after 7 days: %v, %v", r, err)
	}

	show := func(want string) {
		t.Helper()
		if got := quorate(t, "", "discovery", "show", token); got != (result{0, want, ""}) {
			t.Errorf("discovery show: %v\nwant %q", got, want)
		}
	}
	show("size 2, registered 0, waiting for 2\n")
	// Order is that of registration, not of names.
	for _, n := range []string{"b", "a", "c"} {
		if _, err := k.Create(ctx, dir+"/"+n, "n"+n+"=http://"+n+":2380", 0); err != nil {
			t.Fatal(err)
		}
	}
	show("size 2, registered 3, complete\nb  nb=http://b:2380\na  na=http://a:2380\nc  nc=http://c:2380  (too late)\n")
	if got := quorate(t, "", "discovery", "forget", token, "a"); got != (result{0, "", ""}) {
		t.Errorf("forget of a registration: %v", got)
	}
	show("size 2, registered 2, complete\nb  nb=http://b:2380\nc  nc=http://c:2380\n")
	if got := quorate(t, "", "discovery", "forget", token); got != (result{0, "", ""}) {
		t.Errorf("forget: %v", got)
	}
	if got := quorate(t, "", "discovery", "show", token); got.code != 4 || !strings.Contains(got.err, "100: Key not found") {
		t.Errorf("show of a removed token: %v", got)
	}

	other := quorate(t, "", "discovery", "new", "--ttl", "0", endpoint+"/v2/keys/tokens/")
	if other.code != 0 || !strings.HasPrefix(other.out, endpoint+"/v2/keys/tokens/") {
		t.Errorf("new in a directory: %v", other)
	}
	// A directory that is no token is not removed.
	if got := quorate(t, "", "discovery", "forget", endpoint+"/v2/keys/tokens"); got.code != 4 {
		t.Errorf("forget of a directory: %v", got)
	}

	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/new" || r.FormValue("size") == "7" {
			http.Error(w, "no such size", http.StatusBadRequest)
			return
		}
		io.WriteString(w, "https://discovery.example/"+r.FormValue("size"))
	}))
	defer service.Close()
	if got := quorate(t, "", "discovery", "new", "--size", "5", service.URL); got != (result{0, "https://discovery.example/5\n", ""}) {
		t.Errorf("new at a service: %v", got)
	}
	if got := quorate(t, "", "discovery", "new", "--size", "7", service.URL); got.code != 4 || !strings.Contains(got.err, "no such size") {
		t.Errorf("new at a service that refuses: %v", got)
	}
	for _, args := range []string{"discovery new --size 0", "discovery show", "discovery show nonsense", "discovery forget"} {
		if got := quorate(t, "", strings.Fields(args)...); got.code != 1 || got.err == "" {
			t.Errorf("%s: %v", args, got)
		}
	}
}
