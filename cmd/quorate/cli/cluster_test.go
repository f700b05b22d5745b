//go:build linux

package cli_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

func TestMembersLikeEtcdctl(t *testing.T) {
	endpoint := etcd(t)
	etcdctl(t)
	for _, line := range []string{"member list", "member remove zz", "member remove " + "1", "cluster-health", "cluster-health now", "member update zzz http://127.0.0.1:1"} {
		t.Run(line, func(t *testing.T) {
			args := append([]string{"--endpoints", endpoint}, strings.Fields(line)...)
			want := runEtcdctl(t, "", args...)
			if got := quorate(t, "", args...); got != want {
				t.Errorf("%v\netcdctl: %v", got, want)
			}
		})
	}
}

// fake answers as a cluster of three members, one of which is not started.
type fake struct {
	*httptest.Server
	requests []string // those that change something
	refuse   string   // "STATUS BODY" for them
}

func newFake(t *testing.T) *fake {
	f := &fake{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/members", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"members":[
			{"id":"2943212f5e2cf73","name":"i1","peerURLs":["http://p1:1","http://p1:2"],"clientURLs":[%q]},
			{"id":"1b44ae42cbe11694","name":"","peerURLs":["http://p3:1"],"clientURLs":[]},
			{"id":"3760a4ec3b84f7fa","name":"i2","peerURLs":["http://p2:1"],"clientURLs":[]}]}`, f.URL)
	})
	mux.HandleFunc("GET /v2/members/leader", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"id":"2943212f5e2cf73","name":"i1","peerURLs":[],"clientURLs":[]}`)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"health":"true"}`) })
	change := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			f.requests = append(f.requests, r.Method+" "+r.URL.String()+" "+string(b))
			if f.refuse != "" {
				var status int
				_, body, _ := strings.Cut(f.refuse, " ")
				fmt.Sscan(f.refuse, &status)
				w.WriteHeader(status)
				io.WriteString(w, body)
				return
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	mux.HandleFunc("POST /v2/members", change(http.StatusCreated, `{"id":"1b44ae42cbe11694","name":"","peerURLs":["http://p3:1"],"clientURLs":[]}`))
	mux.HandleFunc("POST /quorate/v1/leader", change(http.StatusOK, `{"id":"3760a4ec3b84f7fa","name":"i2","peerURLs":["http://p2:1"],"clientURLs":[]}`))
	mux.HandleFunc("GET /quorate/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"leader":"2943212f5e2cf73","voters":["2943212f5e2cf73"]}`)
	})
	mux.HandleFunc("PUT /v2/members/", change(http.StatusNoContent, ""))
	mux.HandleFunc("DELETE /v2/members/", change(http.StatusNoContent, ""))
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func TestMembers(t *testing.T) {
	internal := "\nThe outcome may be unknown (the member's log has the reason): see 'quorate member list'.\n"
	tests := []struct {
		name    string
		args    string
		refuse  string
		want    result
		request string
	}{
		{"list", "member list", "", result{0,
			"2943212f5e2cf73: name=i1 peerURLs=http://p1:1,http://p1:2 clientURLs=URL isLeader=true\n" +
				"1b44ae42cbe11694[unstarted]: peerURLs=http://p3:1\n" +
				"3760a4ec3b84f7fa: name=i2 peerURLs=http://p2:1 clientURLs= isLeader=false\n", ""}, ""},
		{"add", "member add i3 http://p3:1", "", result{0, "Added member named i3 with ID 1b44ae42cbe11694 to cluster\n\n" +
			`ETCD_NAME="i3"` + "\n" +
			`ETCD_INITIAL_CLUSTER="i1=http://p1:1,i1=http://p1:2,i3=http://p3:1,i2=http://p2:1"` + "\n" +
			`ETCD_INITIAL_CLUSTER_STATE="existing"` + "\n", ""},
			`POST /v2/members {"peerURLs":["http://p3:1"]}`},
		{"add, taken", "member add i3 http://p1:1", `409 {"message":"membership: peerURL exists"}`,
			result{1, "", "membership: peerURL exists\n"}, `POST /v2/members {"peerURLs":["http://p1:1"]}`},
		// One request only: another member would try the same once more.
		{"add, refused", "member add i3 http://p3:1", `500 {"message":"Internal Server Error"}`,
			result{1, "", "Internal Server Error" + internal}, `POST /v2/members {"peerURLs":["http://p3:1"]}`},
		{"add, no rights", "member add i3 http://p3:1", `401 {"message":"Insufficient credentials"}`,
			result{1, "", "Insufficient credentials\n"}, `POST /v2/members {"peerURLs":["http://p3:1"]}`},
		{"remove", "member remove 02943212F5E2CF73", "", result{0, "Removed member 2943212f5e2cf73 from cluster\n", ""},
			"DELETE /v2/members/2943212f5e2cf73 "},
		{"remove by name", "member remove i2", "", result{1, "",
			"Found a member named i2; if this is correct, please use its ID, eg:\n\tquorate member remove 3760a4ec3b84f7fa\n" +
				"Names need not be unique, IDs are.\n\nCouldn't find a member in the cluster with an ID of i2.\n"}, ""},
		{"update", "member update 3760a4ec3b84f7fa http://q:1,http://q:2", "", result{0, "Updated member with ID 3760a4ec3b84f7fa in cluster\n", ""},
			`PUT /v2/members/3760a4ec3b84f7fa {"peerURLs":["http://q:1","http://q:2"]}`},
		{"transfer", "member transfer-leader", "", result{0, "Member 3760a4ec3b84f7fa leads (name=i2)\n", ""}, "POST /quorate/v1/leader "},
		{"transfer, refused", "member transfer-leader 1b44ae42cbe11694", `409 {"message":"member 1b44ae42cbe11694 does not vote yet"}`,
			result{1, "", "member 1b44ae42cbe11694 does not vote yet\n"}, "POST /quorate/v1/leader?to=1b44ae42cbe11694 "},
		{"promote, votes", "member promote 2943212F5E2CF73", "", result{0, "Member 2943212F5E2CF73 votes\n", ""}, ""},
		{"promote, not started", "member promote --wait 0 1b44ae42cbe11694", "", result{1, "",
			"Member 1b44ae42cbe11694 does not vote yet: it has not started, or does not reach the leader\n"}, ""},
		{"promote, unknown", "member promote zzz", "", result{1, "", "Couldn't find a member in the cluster with an ID of zzz.\n"}, ""},
		{"update, unknown", "member update zzz http://q:1", `404 {"message":"No such member: zzz"}`,
			result{1, "", "No such member: zzz\n"}, `PUT /v2/members/zzz {"peerURLs":["http://q:1"]}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.refuse = tt.refuse
			got := quorate(t, "", append([]string{"-C", f.URL}, strings.Fields(tt.args)...)...)
			got.out = strings.ReplaceAll(got.out, f.URL, "URL")
			if got != tt.want {
				t.Errorf("%v\nwant %v", got, tt.want)
			}
			if all := strings.Join(f.requests, "; "); all != tt.request {
				t.Errorf("sent %q, want %q", all, tt.request)
			}
		})
	}
}

func TestClusterHealth(t *testing.T) {
	healthy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"health":true}`) }))
	defer healthy.Close()
	sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, `{"health": "false"}`)
	}))
	defer sick.Close()
	gone := refused(t)
	host := strings.TrimPrefix(gone, "http://")

	up := "member 1 is healthy: got healthy result from " + healthy.URL + "\n"
	down := fmt.Sprintf("failed to check the health of member 2 on %s: Get \"%s/health\": dial tcp %s: connect: connection refused\n", gone, gone, host)
	tests := []struct {
		name    string
		members string
		code    int
		out     string
	}{
		{"healthy", `{"id":"1","clientURLs":["` + healthy.URL + `"]}`, 0, up + "cluster is healthy\n"},
		{"the second URL answers", `{"id":"2","clientURLs":["` + gone + `","` + healthy.URL + `"]}`, 0,
			down + "member 2 is healthy: got healthy result from " + healthy.URL + "\ncluster is healthy\n"},
		{"degraded", `{"id":"1","clientURLs":["` + healthy.URL + `"]},{"id":"2","clientURLs":["` + gone + `"]},{"id":"3","clientURLs":[]},{"id":"4","clientURLs":["` + sick.URL + `"]}`, 5,
			up + down + "member 2 is unreachable: [" + gone + "] are all unreachable\n" +
				"member 3 is unreachable: no available published client urls\n" +
				"member 4 is unhealthy: got unhealthy result from " + sick.URL + "\ncluster is degraded\n"},
		{"unavailable", `{"id":"4","clientURLs":["` + sick.URL + `"]}`, 5,
			"member 4 is unhealthy: got unhealthy result from " + sick.URL + "\ncluster is unavailable\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, `{"members":[`+tt.members+`]}`)
			}))
			defer s.Close()
			if got, want := quorate(t, "", "-C", s.URL, "cluster-health"), (result{tt.code, tt.out, ""}); got != want {
				t.Errorf("%v\nwant %v", got, want)
			}
		})
	}
	t.Run("forever", func(t *testing.T) {
		r := start(t, "-C", etcd(t), "cluster-health", "--forever")
		r.out.wait(t, "cluster is healthy\n\nnext check after 10 second...\n\n")
		r.stop()
		if code := r.end(t); code != 0 {
			t.Errorf("exit code %d after Ctrl-C, want 0", code)
		}
	})
}

// Users and roles, step by step as in a session. Everything but the steps marked ours is compared with
// etcdctl, which works on users and roles with other names.
func TestAuthLikeEtcdctl(t *testing.T) {
	endpoint := etcd(t)
	etcdctl(t)
	steps := []struct {
		args  string
		stdin string
	}{
		{"user list", ""},
		{"user get USER", ""},
		{"user remove USER", ""},
		{"user grant USER --roles ROLE", ""},
		{"user add USER:pw", ""},
		{"user add USER2:", ""},
		{"user passwd USER", "secret\n"},
		{"user grant USER --roles ROLE --roles other", ""},
		{"user grant USER --roles ROLE", ""},
		{"user revoke USER --roles other", ""},
		{"user revoke USER --roles other", ""},
		{"role get ROLE", ""},
		{"role grant ROLE --path /a --read", ""},
		{"role remove ROLE", ""},
		{"role add ROLE", ""},
		{"role add ROLE", ""},
		{"role get ROLE", ""},
		{"user get USER", ""},
		{"role grant ROLE --path /a/* --read", ""},
		{"role grant ROLE --path /a/* --read", ""},
		{"role grant ROLE --path /b --readwrite", ""},
		{"role grant ROLE --path /c --rw", ""},
		{"role grant ROLE --path /d --write", ""},
		{"role revoke ROLE --path /b --write", ""},
		{"role get ROLE", ""},
		{"role get root", ""},
		{"role add root", ""},
		{"role grant root --path /x --read", ""},
		{"auth disable", ""},
		{"auth enable", ""},
		{"role remove ROLE", ""},
		{"user remove USER", ""},
	}
	for _, step := range steps {
		run := func(who string, run func(*testing.T, string, ...string) result) string {
			names := strings.NewReplacer("USER", "u-"+who, "ROLE", "r-"+who)
			args := append([]string{"--endpoints", endpoint}, strings.Fields(names.Replace(step.args))...)
			r := run(t, step.stdin, args...)
			// The prompt goes to standard error here, so that standard output is the result alone.
			r.out = strings.TrimPrefix(r.out, "New password: \n")
			r.err = strings.TrimPrefix(r.err, "New password: \n")
			// etcdctl switches the echo off even where there is no terminal.
			r.err = strings.ReplaceAll(r.err, "stty: 'standard input': Inappropriate ioctl for device\n", "")
			return strings.NewReplacer("u-"+who, "USER", "r-"+who, "ROLE").Replace(r.String())
		}
		want := run("theirs", runEtcdctl)
		if got := run("ours", quorate); got != want {
			t.Errorf("%s: %s\netcdctl: %s", step.args, got, want)
		}
	}
}

func TestAuth(t *testing.T) {
	endpoint := etcd(t)
	steps := []struct {
		args, stdin string
		want        result
	}{
		// etcdctl 3.4 would change the password instead.
		{"user add root:secret", "", result{0, "User root created\n", ""}},
		{"user add root:other", "", result{1, "", "User root already exists\n"}},
		{"user add bob", "pw\n", result{0, "User bob created\n", "New password: \n"}},
		// A user with a role that does not exist is hidden by the server, but exists.
		{"user grant bob --roles later", "", result{0, "User bob updated\n", ""}},
		{"user passwd nobody", "pw\n", result{1, "", "New password: \nauth: User nobody does not exist.\n"}},
		{"user grant bob --roles a,b", "", result{0, "User bob updated\n", ""}}, // one by one, not as "a,b"
		{"user revoke bob --roles b", "", result{0, "User bob updated\n", ""}},
		{"user add bob:other", "", result{1, "", "User bob already exists\n"}},
		{"user passwd bob", "pw2\n", result{0, "Password updated\n", "New password: \n"}},
		{"user revoke bob --roles later", "", result{0, "User bob updated\n", ""}},
		{"auth enable", "", result{0, "Authentication Enabled\n", ""}},
		{"user list", "", result{1, "", "Insufficient credentials\n"}},
		{"-u root:wrong auth disable", "", result{1, "", "Insufficient credentials\n"}},
		{"-u bob:pw2 set /auth 1", "", result{4, "", "Error:  110: The request requires user authentication (Insufficient credentials) [0]\n"}},
		{"set /auth 1", "", result{0, "1\n", ""}},
		{"-u root get /auth", "secret\n", result{0, "1\n", "Password: \n"}},
		{"-u root:secret user remove bob", "", result{0, "User bob removed\n", ""}},
		{"-u root:secret auth disable", "", result{0, "Authentication Disabled\n", ""}},
		{"user remove root", "", result{0, "User root removed\n", ""}},
	}
	for _, step := range steps {
		args := append([]string{"-C", endpoint}, strings.Fields(step.args)...)
		if got := quorate(t, step.stdin, args...); got != step.want {
			t.Errorf("%s: %v\nwant %v", step.args, got, step.want)
		}
	}
}

// proxy stands between the program and etcd, and can be cut.
type proxy struct {
	*httptest.Server
	gone atomic.Bool
}

func newProxy(t *testing.T, to string) *proxy {
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{}
	through := httputil.NewSingleHostReverseProxy(target)
	through.ErrorLog = log.New(io.Discard, "", 0)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.gone.Load() {
			panic(http.ErrAbortHandler)
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) cut() { p.gone.Store(true) }
