package auth_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/auth"
	"github.com/quorate/quorate/httpd/httpdtest"
)

const secret = "TOP-SECRET"

// castle is a server with secrets, on a port of its own. Bob may read /team/* and /file, and write
// /team/*, /exact and /q/; guests may read /pub/* and the directory /team/open, and write /pub/*.
type castle struct {
	*run
	addr    string
	conn    net.Conn // in use, or nil
	answers *bufio.Reader
}

func newCastle(t *testing.T, onlyNetHTTP bool) *castle {
	t.Helper()
	c := &castle{run: &run{t: t, member: httpdtest.New(1000), log: &log{}}}
	t.Cleanup(c.member.Close)
	guard := auth.New(auth.Options{Cost: 4, Failures: 100_000})
	guard.SetBackend(c.member)
	c.Server = httpd.NewServer(httpd.Options{Authorizer: guard, Auth: guard, Pprof: true, OnlyNetHTTP: onlyNetHTTP}, c.member)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.addr = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- c.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := c.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		<-served
	})
	for key, value := range map[string]string{
		"/secret": secret, "/team-secret/k": secret, "/teamwork": secret, "/_hidden/k": secret, "/team/open/k": "open", "/team/k": "k", "/file": "f",
		"/Team/k": secret, "/exact/k": secret, "/pub/k": "p", "/public": secret, "/q/k": secret, "/%2e%2e": secret, "/team%2Fk": secret,
	} {
		c.put(key, value)
	}
	c.do("PUT /v2/auth/users/root", `{"user":"root","password":"pw"}`)
	c.do("PUT /v2/auth/users/bob", `{"user":"bob","password":"pw","roles":["team"]}`)
	c.do("PUT /v2/auth/roles/team", `{"role":"team","permissions":{"kv":{"read":["/team/*","/file"],"write":["/team/*","/exact","/q/"]}}}`)
	c.do("PUT /v2/auth/enable", "")
	c.do("PUT /v2/auth/roles/guest root:pw", `{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}},"grant":{"kv":{"read":["/pub/*","/team/open"],"write":["/pub/*"]}}}`)
	return c
}

func (c *castle) put(key, value string) {
	c.t.Helper()
	if _, err := c.member.Do(c.t.Context(), tree.Write{Op: tree.Op{Action: tree.Set, Path: key, Value: value}}); err != nil {
		c.t.Fatal(err)
	}
}

// ask sends a request as it is, with the credentials of bob or none, and returns status and body.
func (c *castle) ask(who, method, target, form string) (int, string) {
	c.t.Helper()
	head := method + " " + target + " HTTP/1.1\r\nHost: a\r\n"
	if who != "" {
		head += "Authorization: " + basic(who+":pw") + "\r\n"
	}
	text := fmt.Sprintf("%sContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", head, len(form), form)
	for again := false; ; again = true {
		if c.conn == nil {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				c.t.Fatal(err)
			}
			c.t.Cleanup(func() { conn.Close() })
			c.conn, c.answers, again = conn, bufio.NewReader(conn), true
		}
		c.conn.SetDeadline(time.Now().Add(30 * time.Second))
		io.WriteString(c.conn, text)
		resp, err := http.ReadResponse(c.answers, &http.Request{Method: method})
		if err == nil {
			var body []byte
			body, err = io.ReadAll(resp.Body)
			if resp.Close || err != nil {
				c.conn = nil
			}
			if err == nil {
				return resp.StatusCode, string(body)
			}
		}
		if again {
			c.t.Fatalf("%s %s: %v", method, target, err)
		}
		c.conn = nil
	}
}

// Ways of writing a path that might be held against a pattern in one form and looked up in another.
var detours = []string{
	"/secret", "//secret", "/./secret", "/team/../secret", "/team/./../secret", "/team/k/../../secret", "/team//../secret", "/team/..%2fsecret", "/team%2f..%2fsecret",
	"/team/%2e%2e/secret", "/team/%2E%2e/secret", "/team/%2e./secret", "/team/..;/secret", "/team/..%00/secret", "/team/%00/../../secret",
	"%2fsecret", "%2Fsecret", "/%2fsecret", "/%2e/secret", "/secret/", "/secret//", "/secret%2f", "/secret/.", "/secret?", "/secret%20", "/secret%00",
	"/SECRET", "/Secret", "/team-secret/k", "/team-secret", "/team-secret/", "/teamwork", "/team*", "/*", "*", "/team/../*", "/team/../team-secret/k",
	"/Team/k", "/TEAM/k", "/_hidden/k", "/_hidden", "/_hidden/", "/team/../_hidden/k", "/exact/k", "/exact/", "/exact/../exact/k", "/public", "/pub/../public", "/q/k",
	"", "/", "//", "/.", "/..", "/team", "/team/..", "/team/../", "/team/../team", "/file/..", "/file/../secret", "/file/", "/exact",
	"/%2e%2e", "/%252e%252e", "/team/%252e%252e/secret", "/team%252Fk", "/team%252f..%252fsecret", "/team/%5c..%5csecret", "/team/%c0%ae%c0%ae/secret", "/team/%ef%bc%8f../secret",
	"/team/../../v2/keys/secret", "/team/../../keys/secret", "/../keys/secret", "/../auth/users", "/team/../../auth/users", "/team/..%2f..%2fauth/users",
}

// Nothing that bob or a guest can write as a path, with whatever parameters, shows or changes what they
// have no right to; neither by the loop for plain requests nor by net/http.
func TestPathTricks(t *testing.T) {
	parameters := []string{
		"", "recursive=true", "recursive=true&sorted=true", "quorum=true&recursive=1", "recursive=false", "stream=true",
		"prevExist=true&value=x", "prevExist=false&value=x", "value=x", "value=x&recursive=true", "dir=true&value=", "ttl=1&value=x", "refresh=true&ttl=1&prevExist=true",
		"prevValue=" + secret + "&value=x", "prevValue=wrong&value=x", "prevIndex=1&value=x", "prevIndex=5&prevValue=" + secret,
		"dir=true", "dir=true&recursive=true", "recursive=true&prevValue=" + secret,
	}
	for name, only := range map[string]bool{"plain": false, "net-http": true} {
		t.Run(name, func(t *testing.T) {
			c := newCastle(t, only)
			before := secrets(t, c.member.Tree())
			n := 0
			for _, who := range []string{"", "bob"} {
				for _, detour := range detours {
					for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE"} {
						// Some parameters with each way, and all of them with some ways.
						some := []string{parameters[0], parameters[1], parameters[n%len(parameters)]}
						if n++; slices.Contains([]string{"/secret", "/team/../secret", "/team", ""}, detour) {
							some = parameters
						}
						for _, p := range some {
							c.trick(who, method, "/v2/keys"+detour, p)
						}
					}
					prefix := otherPrefixes[n%len(otherPrefixes)]
					c.trick(who, "GET", prefix+detour, "")
					c.trick(who, "PUT", prefix+detour, "value=x")
				}
			}
			if after := secrets(t, c.member.Tree()); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

// Other ways of writing /v2/keys.
var otherPrefixes = []string{"//v2/keys", "/v2//keys", "/v2/./keys", "/x/../v2/keys", "/v2%2fkeys", "/V2/keys"}

// trick makes a request that must get nowhere, as far as its answer tells.
func (c *castle) trick(who, method, path, parameters string) {
	c.t.Helper()
	target, form := path, parameters
	if method != "PUT" && method != "POST" {
		target, form = path+"?"+parameters, ""
	}
	status, body := c.ask(who, method, target, form)
	switch status {
	case 200, 201, 400, 401, 403, 404, 412:
		if strings.Contains(body, secret) {
			c.t.Errorf("%q: %s %s %s: %d %s", who, method, target, form, status, body)
		}
	case 301: // shows nothing but the request
	default:
		c.t.Errorf("%q: %s %s %s: %d %s", who, method, target, form, status, body)
	}
	// Whether there is such a key, or what is in it, is not told either.
	if path == "/v2/keys/secret" && status != 401 && status != 400 {
		c.t.Errorf("%q: %s %s %s: %d %s, want 401", who, method, target, form, status, body)
	}
}

// secrets lists the keys with secrets, and what is at the top.
func secrets(t *testing.T, keys *tree.Tree) string {
	t.Helper()
	var b strings.Builder
	for _, key := range []string{"/secret", "/team-secret/k", "/teamwork", "/_hidden/k", "/Team/k", "/exact/k", "/public", "/q/k", "/%2e%2e", "/team%2Fk", "/file"} {
		answer, err := keys.Get(key, false, false)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", key, err)
			continue
		}
		fmt.Fprintf(&b, "%s\n", answer.AppendJSON(nil, 0))
	}
	return b.String()
}

// What is next to a path is not below it: a pattern with a star covers what it says, for reading,
// watching, writing and in-order keys, and a right below a directory is none to the directory.
func TestPartialRights(t *testing.T) {
	tests := []struct {
		who, method, target, form string
		want                      int
	}{
		{"bob", "GET", "/v2/keys/team/k", "", 200},
		{"bob", "GET", "/v2/keys/team/", "", 200},
		{"bob", "GET", "/v2/keys/team/?recursive=true", "", 200},
		{"bob", "GET", "/v2/keys/team", "", 401},
		{"bob", "GET", "/v2/keys/team?recursive=true", "", 401},
		{"bob", "GET", "/v2/keys/?recursive=true", "", 401},
		{"bob", "GET", "/v2/keys?wait=true&recursive=true", "", 401},
		{"bob", "GET", "/v2/keys/?wait=true&recursive=true&waitIndex=5", "", 401},
		{"bob", "GET", "/v2/keys/?wait=true&recursive=true&stream=true&waitIndex=5", "", 401},
		{"bob", "GET", "/v2/keys/team?wait=true&recursive=true&waitIndex=5", "", 401},
		{"bob", "GET", "/v2/keys/secret?wait=true&waitIndex=5", "", 401},
		{"bob", "GET", "/v2/keys/team/k?wait=true&waitIndex=1", "", 200},
		{"bob", "GET", "/v2/keys/file", "", 200},
		{"bob", "GET", "/v2/keys/file?recursive=true", "", 401},
		{"bob", "GET", "/v2/keys/file?wait=true&recursive=true&waitIndex=5", "", 401},
		{"bob", "GET", "/v2/keys/file/", "", 401},
		{"bob", "PUT", "/v2/keys/file", "value=x", 401},
		{"bob", "POST", "/v2/keys/q/", "value=x", 201},
		{"bob", "POST", "/v2/keys/q", "value=x", 401},
		{"bob", "PUT", "/v2/keys/q/k", "value=x", 401},
		{"bob", "POST", "/v2/keys/", "value=x", 401},
		{"bob", "POST", "/v2/keys", "value=x", 401},
		{"bob", "POST", "/v2/keys/pub/", "value=x", 401}, // what guests may is not added
		{"bob", "DELETE", "/v2/keys/exact?recursive=true", "", 401},
		{"bob", "DELETE", "/v2/keys/exact?recursive=true&recursive=false", "", 401},
		{"bob", "DELETE", "/v2/keys/team?recursive=true", "", 401},
		{"bob", "PUT", "/v2/keys/new", "value=x&prevExist=false", 401},
		{"bob", "PUT", "/v2/keys/secret", "prevExist=true&value=x", 401},
		{"bob", "PUT", "/v2/keys/secret?prevValue=" + secret, "value=x", 401},
		{"bob", "DELETE", "/v2/keys/secret?prevValue=" + secret, "", 401},
		{"bob", "GET", "/v2/keys/none", "", 401}, // not 404
		{"", "GET", "/v2/keys/pub/k", "", 200},
		{"", "PUT", "/v2/keys/pub/k", "value=x", 200},
		{"", "GET", "/v2/keys/pub", "", 401},
		{"", "GET", "/v2/keys/team/k", "", 401},
		{"", "GET", "/v2/keys/team/open/k", "", 401},
		{"", "GET", "/v2/keys/team/open", "", 200}, // a listing shows what is in it, as in etcd
		{"", "PUT", "/v2/keys/team/open", "value=x", 401},
		{"root", "GET", "/v2/keys?recursive=true", "", 200},
	}
	for name, only := range map[string]bool{"plain": false, "net-http": true} {
		t.Run(name, func(t *testing.T) {
			c := newCastle(t, only)
			for _, tt := range tests {
				if status, body := c.ask(tt.who, tt.method, tt.target, tt.form); status != tt.want {
					t.Errorf("%q: %s %s %s: %d %s, want %d", tt.who, tt.method, tt.target, tt.form, status, body, tt.want)
				}
			}
		})
	}
}

// Credentials of any size are refused like others, and a name that long is not kept anywhere.
func TestOversizedCredentials(t *testing.T) {
	r := start(t, nil)
	session(r)
	for _, credentials := range []string{
		strings.Repeat("x", 1<<20) + ":pw", "root:" + strings.Repeat("x", 1<<20), strings.Repeat(":", 1<<20), "root:pw" + strings.Repeat("\x00", 1<<20),
	} {
		req := request("GET /v2/keys/pub/w", "")
		req.Header.Set("Authorization", basic(credentials))
		if w := r.send(req); w.Code != 401 {
			t.Errorf("%d bytes beginning with %.10q: %d %s", len(credentials), credentials, w.Code, w.Body)
		}
	}
	if n := len(r.log.String()); n > 10_000 {
		t.Errorf("the log has %d bytes", n)
	}
}
