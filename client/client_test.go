//go:build linux

package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

const (
	getBody     = `{"action":"get","node":{"key":"/a","value":"1","modifiedIndex":4,"createdIndex":4}}` + "\n"
	timeoutBody = `{"errorCode":300,"message":"Raft Internal Error","cause":"etcdserver: request timed out","index":0}` + "\n"
)

// serve runs a server that counts its requests.
func serve(t *testing.T, h http.HandlerFunc) (url string, count *atomic.Int32) {
	t.Helper()
	count = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count.Add(1)
		h(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, count
}

// refused returns the URL of a port that nobody listens on, and that nobody else gets meanwhile.
func refused(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", address.(*syscall.SockaddrInet4).Port)
}

func ok(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set(api.HeaderIndex, "7")
	w.Header().Set(api.HeaderRaftIndex, "70")
	w.Header().Set(api.HeaderRaftTerm, "2")
	fmt.Fprint(w, getBody)
}

func status(code int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// hangUp takes the request and closes the connection without an answer.
func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// halfBody breaks off in the middle of a successful answer.
func halfBody(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	fmt.Fprint(w, getBody)
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// silent never answers. A server only notices that the client has gone once the body is read.
func silent(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

func newClient(t *testing.T, c client.Config) *client.Client {
	t.Helper()
	cl, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.CloseIdleConnections)
	return cl
}

// The first endpoint fails; does the second one see the request? Failures after which a write may
// have happened must not be followed by a second attempt.
func TestFailOver(t *testing.T) {
	tests := []struct {
		name     string
		first    http.HandlerFunc // nil: connection refused
		write    bool             // whether a write goes on to the second endpoint
		writeErr string
	}{
		{name: "connection refused", write: true},
		{name: "hangs up", first: hangUp, writeErr: "client: etcd cluster is unavailable or misconfigured; error #0: EOF"},
		{name: "breaks off", first: halfBody, writeErr: "client: etcd cluster is unavailable or misconfigured; error #0: unexpected EOF"},
		{name: "coded 500", first: status(500, timeoutBody), writeErr: "300: Raft Internal Error (etcdserver: request timed out) [0]"},
		{name: "503 with a message", first: status(503, `{"message":"During election"}`), writeErr: "During election"},
		{name: "502 of a proxy", first: status(502, "Bad Gateway"), writeErr: "unexpected status code 502"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			first := refused(t)
			if tt.first != nil {
				first, _ = serve(t, tt.first)
			}
			second, count := serve(t, ok)
			endpoints := []string{first, second}

			keys := newClient(t, client.Config{Endpoints: endpoints}).Keys("")
			if _, err := keys.Get(t.Context(), "/a", client.GetOptions{}); err != nil {
				t.Errorf("Get: %v", err)
			}
			if got := count.Load(); got != 1 {
				t.Errorf("after Get the second endpoint saw %d requests, want 1", got)
			}
			// The endpoint that answered is asked first from now on.
			if _, err := keys.Set(t.Context(), "/a", "1", client.SetOptions{}); err != nil {
				t.Errorf("Set at the endpoint that answered: %v", err)
			}

			writes := map[string]func(*client.Client) error{
				"Set": func(c *client.Client) error {
					_, err := c.Keys("").Set(t.Context(), "/a", "1", client.SetOptions{})
					return err
				},
				"CreateInOrder": func(c *client.Client) error {
					_, err := c.Keys("").CreateInOrder(t.Context(), "/a", "1", 0)
					return err
				},
				"Delete": func(c *client.Client) error {
					_, err := c.Keys("").Delete(t.Context(), "/a", client.DeleteOptions{})
					return err
				},
			}
			for name, write := range writes {
				count.Store(0)
				err := write(newClient(t, client.Config{Endpoints: endpoints}))
				if tt.write {
					if err != nil || count.Load() != 1 {
						t.Errorf("%s: %v, second endpoint saw %d requests, want success there", name, err, count.Load())
					}
					continue
				}
				if err == nil || err.Error() != tt.writeErr {
					t.Errorf("%s: error %q, want %q", name, err, tt.writeErr)
				}
				if count.Load() != 0 {
					t.Errorf("%s was repeated at the second endpoint", name)
				}
			}
		})
	}
}

func TestHeaderTimeout(t *testing.T) {
	slow, slowCount := serve(t, silent)
	fast, _ := serve(t, ok)
	config := client.Config{Endpoints: []string{slow, fast}, HeaderTimeout: 50 * time.Millisecond}
	want := "client: endpoint " + slow + " exceeded header timeout"

	if _, err := newClient(t, config).Keys("").Get(t.Context(), "/a", client.GetOptions{}); err != nil {
		t.Errorf("Get goes on to the second endpoint: %v", err)
	}
	_, err := newClient(t, config).Keys("").Set(t.Context(), "/a", "1", client.SetOptions{})
	var failed *client.ConnectError
	if !errors.As(err, &failed) || len(failed.Errors) != 1 || failed.Errors[0].Error() != want {
		t.Errorf("Set: %v, want one error %q", err, want)
	}
	if failed != nil && !failed.Sent {
		t.Error("Set: the error hides that the write may have happened")
	}
	if got := slowCount.Load(); got != 2 {
		t.Errorf("the slow endpoint saw %d requests, want 2", got)
	}
}

func TestConnectErrorText(t *testing.T) {
	a, b := refused(t), ""
	b, _ = serve(t, status(503, `{"message":"During election"}`))
	_, err := newClient(t, client.Config{Endpoints: []string{a, b}}).Members().Leader(t.Context())
	host := strings.TrimPrefix(a, "http://")
	want := "client: etcd cluster is unavailable or misconfigured" +
		"; error #0: dial tcp " + host + ": connect: connection refused" +
		"; error #1: client: etcd member " + b + " has no leader"
	if err == nil || err.Error() != want {
		t.Fatalf("error %q\nwant  %q", err, want)
	}
	var message *api.StatusError
	if !errors.As(err, &message) || message.Message != "During election" {
		t.Errorf("the member's own message is lost: %v", message)
	}
	var failed *client.ConnectError
	if !errors.As(err, &failed) || strings.Count(failed.Detail(), "\n") != 2 {
		t.Errorf("Detail: want two lines, got %q", failed.Detail())
	}
}

func TestContext(t *testing.T) {
	slow, _ := serve(t, silent)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := newClient(t, client.Config{Endpoints: []string{slow}}).Keys("").Get(ctx, "/a", client.GetOptions{})
	if err != context.DeadlineExceeded {
		t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestKeyRequests(t *testing.T) {
	yes := true
	tests := []struct {
		name string
		do   func(*client.Keys) (*client.Response, error)
		want string
	}{
		{"get", func(k *client.Keys) (*client.Response, error) {
			return k.Get(t.Context(), "a", client.GetOptions{})
		}, "GET /p/a?quorum=false&recursive=false&sorted=false "},
		{"list", func(k *client.Keys) (*client.Response, error) {
			return k.Get(t.Context(), "/a//b/../", client.GetOptions{Quorum: true, Recursive: true, Sort: true})
		}, "GET /p/a/?quorum=true&recursive=true&sorted=true "},
		{"root", func(k *client.Keys) (*client.Response, error) {
			return k.Get(t.Context(), "/", client.GetOptions{})
		}, "GET /p/?quorum=false&recursive=false&sorted=false "},
		{"escapes", func(k *client.Keys) (*client.Response, error) {
			return k.Get(t.Context(), "/a b/%2F?x#y\xff", client.GetOptions{})
		}, "GET /p/a%20b/%252F%3Fx%23y%FF?quorum=false&recursive=false&sorted=false "},
		{"set", func(k *client.Keys) (*client.Response, error) {
			return k.Set(t.Context(), "/a", "b c&d", client.SetOptions{})
		}, "PUT /p/a value=b+c%26d"},
		{"empty value", func(k *client.Keys) (*client.Response, error) {
			return k.Set(t.Context(), "/a", "", client.SetOptions{})
		}, "PUT /p/a value="},
		{"conditions", func(k *client.Keys) (*client.Response, error) {
			return k.Set(t.Context(), "/a", "2", client.SetOptions{PrevValue: "1", PrevIndex: 4, PrevExist: &yes, TTL: 1500 * time.Millisecond})
		}, "PUT /p/a?prevExist=true&prevIndex=4&prevValue=1 ttl=2&value=2"},
		{"refresh", func(k *client.Keys) (*client.Response, error) {
			return k.Set(t.Context(), "/a", "ignored", client.SetOptions{PrevExist: &yes, Refresh: true, TTL: time.Minute})
		}, "PUT /p/a?prevExist=true refresh=true&ttl=60"},
		{"directory", func(k *client.Keys) (*client.Response, error) {
			return k.Set(t.Context(), "/a", "", client.SetOptions{Dir: true, PrevExist: new(bool)})
		}, "PUT /p/a?dir=true&prevExist=false "},
		{"create", func(k *client.Keys) (*client.Response, error) {
			return k.Create(t.Context(), "/a", "1", 0)
		}, "PUT /p/a?prevExist=false value=1"},
		{"in order", func(k *client.Keys) (*client.Response, error) {
			return k.CreateInOrder(t.Context(), "/q", "1", time.Second)
		}, "POST /p/q ttl=1&value=1"},
		{"delete", func(k *client.Keys) (*client.Response, error) {
			return k.Delete(t.Context(), "/a", client.DeleteOptions{Dir: true, Recursive: true, PrevValue: "1", PrevIndex: 4})
		}, "DELETE /p/a?dir=true&prevIndex=4&prevValue=1&recursive=true "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got string
			url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got = r.Method + " " + r.RequestURI + " " + string(body)
				ok(w, r)
			})
			res, err := tt.do(newClient(t, client.Config{Endpoints: []string{url}}).Keys("/p"))
			if err != nil {
				t.Fatal(err)
			}
			if got != tt.want {
				t.Errorf("sent %q\nwant %q", got, tt.want)
			}
			if res.Node.Key != "/a" || res.Index != 7 || res.RaftIndex != 70 || res.RaftTerm != 2 {
				t.Errorf("response %+v", res)
			}
		})
	}
}

func TestKeyErrors(t *testing.T) {
	tests := []struct {
		name string
		h    http.HandlerFunc
		want error
	}{
		{"coded", status(404, `{"errorCode":100,"message":"Key not found","cause":"/a","index":5}`), api.KeyNotFound},
		{"a web page", status(200, "<html>"), client.ErrInvalidJSON},
		{"not found by something else", status(404, "404 page not found"), client.ErrInvalidJSON},
		{"another JSON", status(200, `{"x":1}`), client.ErrInvalidJSON},
		{"null", status(200, `null`), client.ErrInvalidJSON},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, _ := serve(t, tt.h)
			_, err := newClient(t, client.Config{Endpoints: []string{url}}).Keys("").Get(t.Context(), "/a", client.GetOptions{})
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

func TestWatcher(t *testing.T) {
	event := func(index int) string {
		return fmt.Sprintf(`{"action":"set","node":{"key":"/a","value":"1","modifiedIndex":%d,"createdIndex":4}}`, index)
	}
	tests := []struct {
		name    string
		after   uint64
		answers []string // "" = status and headers only
		want    []string // waitIndex of each request
	}{
		{"from now", 0, []string{event(9), event(12)}, []string{"0", "10"}},
		{"after an index", 5, []string{event(9), event(12)}, []string{"6", "10"}},
		// The header said 7: nothing after 7 is missed by asking again.
		{"interrupted at once", 0, []string{"", event(9)}, []string{"0", "8"}},
		{"interrupted later", 5, []string{"", event(9)}, []string{"6", "6"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set(api.HeaderIndex, "7")
				got = append(got, r.URL.Query().Get("waitIndex"))
				fmt.Fprint(w, tt.answers[len(got)-1])
			})
			c := newClient(t, client.Config{Endpoints: []string{url}, HeaderTimeout: time.Minute})
			w := c.Keys("").Watcher("/a", client.WatchOptions{AfterIndex: tt.after})
			for _, a := range tt.answers {
				if a == "" {
					continue
				}
				if _, err := w.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("waited for %q, want %q", got, tt.want)
			}
		})
	}
}

// A watch is not bound by the header time-out: some proxies hold the header back until the body.
func TestWatchWithoutTimeout(t *testing.T) {
	release := make(chan struct{})
	timeout := 10 * time.Millisecond
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		ok(w, r)
	})
	c := newClient(t, client.Config{Endpoints: []string{url}, HeaderTimeout: timeout})
	time.AfterFunc(5*timeout, func() { close(release) })
	if _, err := c.Keys("").Watcher("/a", client.WatchOptions{}).Next(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRedirects(t *testing.T) {
	target, count := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _, given := r.BasicAuth(); given {
			t.Error("the password was sent to a host that is no endpoint")
		}
		if r.Method != http.MethodPut {
			t.Errorf("method %s after the redirect, want PUT", r.Method)
		}
		ok(w, r)
	})
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _, given := r.BasicAuth(); !given {
			t.Error("the endpoint got no credentials")
		}
		http.Redirect(w, r, target+r.URL.Path, http.StatusTemporaryRedirect)
	})
	c := newClient(t, client.Config{Endpoints: []string{url}, Username: "root", Password: "x"})
	if _, err := c.Keys("").Set(t.Context(), "/a", "1", client.SetOptions{}); err != nil || count.Load() != 1 {
		t.Errorf("Set: %v, target saw %d requests", err, count.Load())
	}

	loop, loops := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
	})
	c = newClient(t, client.Config{Endpoints: []string{loop}})
	if _, err := c.Keys("").Get(t.Context(), "/a", client.GetOptions{}); !errors.Is(err, client.ErrTooManyRedirects) {
		t.Errorf("error %v, want %v", err, client.ErrTooManyRedirects)
	}
	if got := loops.Load(); got != 11 {
		t.Errorf("%d requests, want 1 and 10 redirects", got)
	}

	lost, _ := serve(t, status(http.StatusFound, ""))
	c = newClient(t, client.Config{Endpoints: []string{lost}})
	if _, err := c.Keys("").Get(t.Context(), "/a", client.GetOptions{}); !errors.Is(err, client.ErrNoLocation) {
		t.Errorf("error %v, want %v", err, client.ErrNoLocation)
	}
}

func TestSync(t *testing.T) {
	tests := []struct {
		name    string
		body    string
		want    []string // sorted; nil: unchanged
		wantErr error
	}{
		{"two members", `{"members":[{"clientURLs":["http://a:1","http://b:2"]},{"clientURLs":["https://c:3","unix://x"]},{"clientURLs":["http://a:1"]}]}`,
			[]string{"http://a:1", "http://b:2", "https://c:3"}, nil},
		{"nothing published", `{"members":[{"clientURLs":[]}]}`, nil, client.ErrNoEndpoints},
		{"not etcd", `[]`, nil, client.ErrInvalidJSON},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, _ := serve(t, status(200, tt.body))
			c := newClient(t, client.Config{Endpoints: []string{url}})
			if err := c.Sync(t.Context()); !errors.Is(err, tt.wantErr) {
				t.Fatalf("Sync: %v, want %v", err, tt.wantErr)
			}
			want := tt.want
			if want == nil {
				want = []string{url}
			}
			if got := slices.Sorted(slices.Values(c.Endpoints())); !slices.Equal(got, want) {
				t.Errorf("endpoints %q, want %q", got, want)
			}
		})
	}
}

func TestEndpoints(t *testing.T) {
	tests := []struct {
		in, want, err string
	}{
		{in: "127.0.0.1:2379", want: "http://127.0.0.1:2379"},
		{in: " https://h:1/ ", want: "https://h:1"},
		{in: "http://h:1/gateway/", want: "http://h:1/gateway"},
		{in: "http://[::1]:1", want: "http://[::1]:1"},
		{in: "ftp://h", err: `client: endpoint "ftp://h": scheme must be http or https`},
		{in: "http://", err: `client: endpoint "http://" has no host`},
	}
	for _, tt := range tests {
		c, err := client.New(client.Config{Endpoints: []string{tt.in}})
		if tt.err != "" {
			if err == nil || err.Error() != tt.err {
				t.Errorf("%q: error %q, want %q", tt.in, err, tt.err)
			}
			continue
		}
		if err != nil || c.Endpoints()[0] != tt.want {
			t.Errorf("%q: %v, %v; want %s", tt.in, c, err, tt.want)
		}
	}
	if _, err := client.New(client.Config{}); !errors.Is(err, client.ErrNoEndpoints) {
		t.Errorf("no endpoint: error %v", err)
	}
}

func TestHealth(t *testing.T) {
	tests := []struct {
		name    string
		h       http.HandlerFunc
		want    bool
		wantErr bool
	}{
		{"etcd 3.4", status(200, `{"health":"true"}`), true, false},
		{"a truth value", status(200, `{"health":true}`), true, false},
		{"etcd 2.3, unhealthy", status(503, `{"health": "false"}`+"\n"), false, false},
		{"something else", status(200, `OK`), false, true},
		{"no answer", hangUp, false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url, _ := serve(t, tt.h)
			got, err := newClient(t, client.Config{Endpoints: []string{url}}).Health(t.Context(), url)
			if got != tt.want || (err != nil) != tt.wantErr {
				t.Errorf("Health = %v, %v", got, err)
			}
		})
	}
}

func TestAuthRequests(t *testing.T) {
	var got []string
	url, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.RequestURI+" "+string(body))
		w.WriteHeader(http.StatusOK)
	})
	auth := newClient(t, client.Config{Endpoints: []string{url}}).Auth()
	ctx := t.Context()
	p := client.Patterns{Read: []string{"/p/*"}}
	for _, err := range []error{
		auth.AddUser(ctx, "bob", "pw"),
		auth.GrantRoles(ctx, "bob", []string{"dev"}),
		auth.RevokeRoles(ctx, "bob", []string{"dev"}),
		auth.RemoveUser(ctx, "a b"),
		auth.AddRole(ctx, "dev"),
		auth.GrantPermissions(ctx, "dev", p),
		auth.RevokePermissions(ctx, "dev", p),
		auth.Enable(ctx),
		auth.Disable(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		`PUT /v2/auth/users/bob {"user":"bob","password":"pw","roles":null}`,
		`PUT /v2/auth/users/bob {"user":"bob","roles":null,"grant":["dev"]}`,
		`PUT /v2/auth/users/bob {"user":"bob","roles":null,"revoke":["dev"]}`,
		`DELETE /v2/auth/users/a%20b `,
		`PUT /v2/auth/roles/dev {"role":"dev","permissions":{"kv":{"read":null,"write":null}}}`,
		`PUT /v2/auth/roles/dev {"role":"dev","grant":{"kv":{"read":["/p/*"],"write":null}}}`,
		`PUT /v2/auth/roles/dev {"role":"dev","revoke":{"kv":{"read":["/p/*"],"write":null}}}`,
		`PUT /v2/auth/enable `,
		`DELETE /v2/auth/enable `,
	}
	if !slices.Equal(got, want) {
		t.Errorf("sent\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if auth.AddUser(ctx, "", "pw") == nil || auth.AddRole(ctx, "") == nil {
		t.Error("an empty name was sent")
	}
}

// What goes out encrypted is not sent on without: neither where an answer sends it, nor to the URLs
// that a cluster has besides.
func TestNoWayFromTLSToPlain(t *testing.T) {
	plain, count := serve(t, ok)
	handler := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain+r.URL.Path, http.StatusTemporaryRedirect)
	}
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler(w, r) }))
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	c := newClient(t, client.Config{Endpoints: []string{secure.URL}, Username: "root", Password: "x", TLS: &tls.Config{RootCAs: roots}})
	if _, err := c.Keys("").Set(t.Context(), "/a", "1", client.SetOptions{}); !errors.Is(err, client.ErrPlainRedirect) || count.Load() > 0 {
		t.Errorf("Set: %v after %d requests without TLS, want %v", err, count.Load(), client.ErrPlainRedirect)
	}

	for _, tt := range []struct{ urls, want []string }{
		{[]string{plain, "https://b:1"}, []string{"https://b:1"}},
		{[]string{plain}, []string{secure.URL}},
	} {
		handler = func(w http.ResponseWriter, _ *http.Request) {
			json.NewEncoder(w).Encode(map[string]any{"members": []map[string]any{{"id": "1", "clientURLs": tt.urls}}})
		}
		if err := c.SetEndpoints([]string{secure.URL}); err != nil {
			t.Fatal(err)
		}
		if err := c.Sync(t.Context()); err != nil || !slices.Equal(c.Endpoints(), tt.want) {
			t.Errorf("Sync of %q: %v, endpoints %q, want %q", tt.urls, err, c.Endpoints(), tt.want)
		}
	}
}
