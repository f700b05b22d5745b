//go:build linux

package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// newHTTPClient makes a client without limits of its own: each request brings its context.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Response is the whole answer to a request.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Index is X-Etcd-Index, and 0 when the answer has none.
func (r Response) Index() uint64 { return r.number(api.HeaderIndex) }

// RaftIndex is X-Raft-Index, and 0 when the answer has none.
func (r Response) RaftIndex() uint64 { return r.number(api.HeaderRaftIndex) }

// Term is X-Raft-Term, and 0 when the answer has none.
func (r Response) Term() uint64 { return r.number(api.HeaderRaftTerm) }

func (r Response) number(header string) uint64 {
	n, err := strconv.ParseUint(r.Header.Get(header), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// OK says whether the request was done: any 2xx.
func (r Response) OK() bool { return r.Status/100 == 2 }

// Event reads the body as the answer to a key request.
func (r Response) Event() (*api.Event, error) {
	var e api.Event
	if err := json.Unmarshal([]byte(r.Body), &e); err != nil {
		return nil, fmt.Errorf("read event %q: %w", clip(r.Body, 200), err)
	}
	return &e, nil
}

// Value is the value of the node in the body, and "" when there is none.
func (r Response) Value() string {
	e, err := r.Event()
	if err != nil || e.Node == nil || e.Node.Value == nil {
		return ""
	}
	return *e.Node.Value
}

func (r Response) String() string {
	return fmt.Sprintf("%d %s", r.Status, clip(strings.TrimSpace(r.Body), 300))
}

// Do sends one request to the member's client URL. Path may have a query. An error means that there is
// no complete answer; for a write that leaves its outcome open. It is never sent twice.
func (m *Member) Do(ctx context.Context, method, path, contentType, body string) (Response, error) {
	return m.cluster.do(ctx, method, *m.target.Load()+path, contentType, body)
}

// Fetch gets any URL, such as one below the peer URL.
func (c *Cluster) Fetch(ctx context.Context, url string) (Response, error) {
	return c.do(ctx, http.MethodGet, url, "", "")
}

func (c *Cluster) do(ctx context.Context, method, url, contentType, body string) (Response, error) {
	// A reader without a known type keeps net/http from sending a request again by itself.
	var reader io.Reader
	if body != "" {
		reader = struct{ io.Reader }{strings.NewReader(body)}
	}
	req, err := http.NewRequestWithContext(ctx, method, url, reader)
	if err != nil {
		return Response{}, err
	}
	req.ContentLength = int64(len(body))
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return Response{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return Response{resp.StatusCode, resp.Header, string(b)}, err
}

// Form is the content type of key writes.
const Form = "application/x-www-form-urlencoded"

// Put sets a key, /a/b, to a value. Further form fields come in pairs: "ttl", "5".
func (m *Member) Put(ctx context.Context, key, value string, fields ...string) (Response, error) {
	form := url.Values{"value": {value}}
	for i := 0; i+1 < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return m.Do(ctx, http.MethodPut, "/v2/keys"+key, Form, form.Encode())
}

// Get reads a key from the member alone; the answer may be old.
func (m *Member) Get(ctx context.Context, key string) (Response, error) {
	return m.Do(ctx, http.MethodGet, "/v2/keys"+key, "", "")
}

// QuorumGet reads a key linearizably.
func (m *Member) QuorumGet(ctx context.Context, key string) (Response, error) {
	return m.Do(ctx, http.MethodGet, "/v2/keys"+key+"?quorum=true", "", "")
}

// Delete removes a key.
func (m *Member) Delete(ctx context.Context, key string) (Response, error) {
	return m.Do(ctx, http.MethodDelete, "/v2/keys"+key, "", "")
}

// Listing reads everything below a directory and returns the values by key, and the store's index.
func (m *Member) Listing(ctx context.Context, dir string) (values map[string]string, index uint64, err error) {
	resp, err := m.Get(ctx, dir+"?recursive=true")
	if err != nil {
		return nil, 0, err
	}
	values = map[string]string{}
	if resp.Status == http.StatusNotFound {
		return values, resp.Index(), nil
	}
	if !resp.OK() {
		return nil, 0, fmt.Errorf("list %s: %v", dir, resp)
	}
	e, err := resp.Event()
	if err != nil {
		return nil, 0, err
	}
	var walk func(*api.Node)
	walk = func(n *api.Node) {
		if n.Value != nil {
			values[n.Key] = *n.Value
		}
		for _, child := range n.Nodes {
			walk(child)
		}
	}
	walk(e.Node)
	return values, resp.Index(), nil
}

// MemberList asks the member who belongs to the cluster.
func (m *Member) MemberList(ctx context.Context) ([]api.Member, error) {
	resp, err := m.Do(ctx, http.MethodGet, "/v2/members", "", "")
	if err != nil {
		return nil, err
	}
	var list struct{ Members []api.Member }
	if err := json.Unmarshal([]byte(resp.Body), &list); err != nil || !resp.OK() {
		return nil, fmt.Errorf("list members: %v (%v)", resp, err)
	}
	return list.Members, nil
}

// LeaderOf asks the member who leads.
func (m *Member) LeaderOf(ctx context.Context) (api.Member, error) {
	resp, err := m.Do(ctx, http.MethodGet, "/v2/members/leader", "", "")
	if err != nil {
		return api.Member{}, err
	}
	var leader api.Member
	if err := json.Unmarshal([]byte(resp.Body), &leader); err != nil || !resp.OK() {
		return api.Member{}, fmt.Errorf("ask for the leader: %v (%v)", resp, err)
	}
	return leader, nil
}

// ChangeMembers sends a POST, PUT or DELETE to /v2/members/ID with these peer URLs. ID may be empty.
func (m *Member) ChangeMembers(ctx context.Context, method, id string, peerURLs ...string) (Response, error) {
	body := ""
	if len(peerURLs) > 0 {
		b, err := json.Marshal(map[string][]string{"peerURLs": peerURLs})
		if err != nil {
			return Response{}, err
		}
		body = string(b)
	}
	path := "/v2/members"
	if id != "" {
		path += "/" + id
	}
	return m.Do(ctx, method, path, "application/json", body)
}
