package httpd_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/httpd"
)

const self = `{"id":"8e9e05c52164694d","name":"default","peerURLs":["http://localhost:2380"],"clientURLs":["http://localhost:2379"]}`

func TestMembers(t *testing.T) {
	const url = "http://127.0.0.1:1"
	tests := []struct {
		name, method, path, contentType, body string
		status                                int
		want                                  string
	}{
		{"list", "GET", "", "", "", 200, `{"members":[` + self + `]}` + "\n"},
		{"list with slash", "GET", "/", "", "", 200, `{"members":[` + self + `]}` + "\n"},
		{"leader", "GET", "/leader", "", "", 200, self + "\n"},
		{"one by its ID", "GET", "/8e9e05c52164694d", "", "", 404, `{"message":"Not found"}`},
		{"leader with slash", "GET", "/leader/", "", "", 404, `{"message":"Not found"}`},
		{"other method", "HEAD", "", "", "", 405, ""},
		{"DELETE without ID", "DELETE", "/", "", "", 405, "Method Not Allowed\n"},
		{"PUT without ID", "PUT", "", "", "", 405, "Method Not Allowed\n"},
		{"POST without type", "POST", "", "", "{}", 415, `{"message":"Bad Content-Type , accept application/json"}`},
		{"POST with other type", "POST", "", "text/plain", "{}", 415, `{"message":"Bad Content-Type text/plain, accept application/json"}`},
		{"type is case-sensitive", "POST", "", "Application/JSON", "{}", 415, `{"message":"Bad Content-Type Application/JSON, accept application/json"}`},
		{"unless it has parameters", "POST", "", "Application/JSON; charset=utf-8", "{}", 400, `{"message":"no valid URLs given"}`},
		{"POST without body", "POST", "", "application/json", "", 400, `{"message":"unexpected end of JSON input"}`},
		{"no list", "POST", "", "application/json", `{"peerURLs":"x"}`, 400, `{"message":"json: cannot unmarshal string into Go struct field .peerURLs of type []string"}`},
		{"empty list", "POST", "", "application/json", `{"peerURLs":[]}`, 400, `{"message":"no valid URLs given"}`},
		{"scheme", "POST", "", "application/json", `{"peerURLs":["ftp://a:1"]}`, 400, `{"message":"URL scheme must be http, https, unix, or unixs: ftp://a:1"}`},
		{"port", "POST", "", "application/json", `{"peerURLs":["http://a"]}`, 400, `{"message":"URL address does not have the form \"host:port\": http://a"}`},
		{"path", "POST", "", "application/json", `{"peerURLs":["http://a:1/"]}`, 400, `{"message":"URL must not contain a path: http://a:1/"}`},
		{"bad port", "POST", "", "application/json", `{"peerURLs":["http://a:x"]}`, 400, `{"message":"parse \"http://a:x\": invalid port \":x\" after host"}`},
		{"taken URL", "POST", "", "application/json", `{"peerURLs":["http://localhost:2380"]}`, 409, `{"message":"membership: peerURL exists"}`},
		{"ID that is no number", "DELETE", "/zzz", "", "", 404, `{"message":"No such member: zzz"}`},
		{"ID before body", "PUT", "/zzz", "", "", 404, `{"message":"No such member: zzz"}`},
		{"unknown ID, shown without zeros", "DELETE", "/00AB", "", "", 404, `{"message":"No such member: ab"}`},
		{"update of unknown", "PUT", "/12", "application/json", `{"peerURLs":["` + url + `"]}`, 404, `{"message":"No such member: 12"}`},
		{"update", "PUT", "/08E9E05C52164694D", "application/json", `{"peerURLs":["http://b:1"," http://a:1","http://b:1"]}`, 204, ""},
		{"list after update", "GET", "", "", "", 200, `{"members":[` + strings.Replace(self, `"http://localhost:2380"`, `"http://a:1","http://b:1"`, 1) + `]}` + "\n"},
		{"remove", "DELETE", "/8e9e05c52164694d", "", "", 204, ""},
		{"remove again", "DELETE", "/8e9e05c52164694d", "", "", 410, `{"message":"Member permanently removed: 8e9e05c52164694d"}`},
		{"update of removed", "PUT", "/8e9e05c52164694d", "application/json", `{"peerURLs":["` + url + `"]}`, 410, `{"message":"Member permanently removed: 8e9e05c52164694d"}`},
	}
	r := start(t, httpd.Options{})
	for _, tt := range tests {
		req, err := http.NewRequest(tt.method, "http://"+r.addr+"/v2/members"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		if tt.contentType != "" {
			req.Header.Set("Content-Type", tt.contentType)
		}
		resp, body := r.send(req)
		if resp.StatusCode != tt.status || body != tt.want {
			t.Errorf("%s: got %d %s, want %d %s", tt.name, resp.StatusCode, body, tt.status, tt.want)
		}
		if (resp.Header.Get("X-Etcd-Cluster-Id") == "cdf818194e3a8c32") == (tt.method == "HEAD") {
			t.Errorf("%s: X-Etcd-Cluster-Id: %v", tt.name, resp.Header)
		}
		wantAllow := ""
		if tt.method == "HEAD" {
			wantAllow = "GET,POST,DELETE,PUT"
		}
		if got := resp.Header.Get("Allow"); got != wantAllow {
			t.Errorf("%s: Allow = %q, want %q", tt.name, got, wantAllow)
		}
		if tt.status == 204 && has(resp.Header, "Content-Type") {
			t.Errorf("%s: Content-Type on 204", tt.name)
		}
	}
}

func TestAddMember(t *testing.T) {
	r := start(t, httpd.Options{})
	req, err := http.NewRequest("POST", "http://"+r.addr+"/v2/members/ignored", strings.NewReader(`{"peerURLs":["http://127.0.0.1:1"],"name":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, body := r.send(req)
	added := r.member.Members()[1]
	want := `{"id":"` + added.ID + `","name":"","peerURLs":["http://127.0.0.1:1"],"clientURLs":[]}` + "\n"
	if resp.StatusCode != 201 || body != want {
		t.Errorf("got %d %s, want 201 %s", resp.StatusCode, body, want)
	}
	r.want("GET", "/v2/machines", "", 200, "http://localhost:2379") // it has published no URLs yet
}

func TestLeaderUnknown(t *testing.T) {
	r := start(t, httpd.Options{})
	r.member.NoLeader.Store(true)
	r.want("GET", "/v2/members/leader", "", 503, `{"message":"During election"}`)
	r.want("GET", "/v2/stats/leader", "", 403, `{"message":"not current leader"}`)
	r.want("GET", "/v2/members", "", 200, `{"members":[`+self+`]}`+"\n")
	resp := r.want("GET", "/health", "", 503, `{"health":"false"}`+"\n")
	if got := resp.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("Content-Type of /health: %s", got)
	}
}

// What the backend reports otherwise is in the log only.
type brokenMembers struct{ httpd.Backend }

func (brokenMembers) RemoveMember(context.Context, uint64) error { return errors.New("secret detail") }
func (brokenMembers) AddMember(context.Context, []string) (api.Member, error) {
	return api.Member{}, api.ErrTimeout
}

func TestMemberChangeFails(t *testing.T) {
	r := start(t, httpd.Options{})
	r.SetBackend(brokenMembers{r.member})
	r.want("DELETE", "/v2/members/1", "", 500, `{"message":"Internal Server Error"}`)
	req, err := http.NewRequest("POST", "http://"+r.addr+"/v2/members", strings.NewReader(`{"peerURLs":["http://a:1"]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if resp, body := r.send(req); resp.StatusCode != 500 || body != `{"message":"Internal Server Error"}` {
		t.Errorf("got %d %s", resp.StatusCode, body)
	}
}
