package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// DefaultPrefix is where the keys of the v2 API are.
const DefaultPrefix = "/v2/keys"

// Response is an event with what the headers of the answer say.
type Response struct {
	*api.Event
	// Index is X-Etcd-Index: the store's index when a read was answered or a watch began, and the
	// event's own for a write.
	Index     uint64
	RaftIndex uint64
	RaftTerm  uint64
	ClusterID string
}

// Keys reads and writes the keys below one URL path.
type Keys struct {
	client *Client
	prefix string
}

// Keys returns access to the keys below prefix, which is used as it is: "/v2/keys" for a member, the
// path of a token's parent for a discovery service. Empty means [DefaultPrefix].
func (c *Client) Keys(prefix string) *Keys {
	if prefix == "" {
		prefix = DefaultPrefix
	}
	return &Keys{client: c, prefix: prefix}
}

// GetOptions are the parameters of a read.
type GetOptions struct {
	// Quorum asks for a linearizable read instead of the member's own, perhaps older, state.
	Quorum    bool
	Recursive bool
	Sort      bool
}

// SetOptions are the conditions and properties of a write. The zero value writes unconditionally
// and for ever.
type SetOptions struct {
	// TTL is the life of the node, in whole seconds rounded up; zero means for ever.
	TTL time.Duration
	// PrevValue and PrevIndex make the write conditional; "" and 0 mean no condition.
	PrevValue string
	PrevIndex uint64
	// PrevExist, if set, demands that the node exists, or that it does not.
	PrevExist *bool
	// Refresh renews the TTL, keeps the value, and wakes no watcher.
	Refresh bool
	// Dir makes a directory; the value is not sent.
	Dir bool
}

// DeleteOptions are the conditions of a removal.
type DeleteOptions struct {
	PrevValue string
	PrevIndex uint64
	// Dir allows an empty directory to be removed, Recursive one with everything below it.
	Dir       bool
	Recursive bool
}

// Get reads a key or lists a directory.
func (k *Keys) Get(ctx context.Context, key string, o GetOptions) (*Response, error) {
	return k.do(ctx, request{method: http.MethodGet, path: k.path(key), query: url.Values{
		"quorum":    {strconv.FormatBool(o.Quorum)},
		"recursive": {strconv.FormatBool(o.Recursive)},
		"sorted":    {strconv.FormatBool(o.Sort)},
	}})
}

// Set writes a key.
func (k *Keys) Set(ctx context.Context, key, value string, o SetOptions) (*Response, error) {
	query := url.Values{}
	if o.PrevValue != "" {
		query.Set("prevValue", o.PrevValue)
	}
	if o.PrevIndex != 0 {
		query.Set("prevIndex", strconv.FormatUint(o.PrevIndex, 10))
	}
	if o.PrevExist != nil {
		query.Set("prevExist", strconv.FormatBool(*o.PrevExist))
	}
	form := url.Values{}
	switch {
	case o.Dir:
		query.Set("dir", "true")
	case !o.Refresh:
		form.Set("value", value)
	}
	if o.Refresh {
		form.Set("refresh", "true")
	}
	setTTL(form, o.TTL)
	return k.send(ctx, http.MethodPut, key, query, form)
}

// Create writes a key that must not exist yet; ttl zero means for ever.
func (k *Keys) Create(ctx context.Context, key, value string, ttl time.Duration) (*Response, error) {
	return k.Set(ctx, key, value, SetOptions{PrevExist: new(bool), TTL: ttl})
}

// CreateInOrder writes a new key below dir, whose name is made from the index.
func (k *Keys) CreateInOrder(ctx context.Context, dir, value string, ttl time.Duration) (*Response, error) {
	form := url.Values{"value": {value}}
	setTTL(form, ttl)
	return k.send(ctx, http.MethodPost, dir, nil, form)
}

// Update writes a key that must exist; ttl zero makes it permanent.
func (k *Keys) Update(ctx context.Context, key, value string, ttl time.Duration) (*Response, error) {
	exist := true
	return k.Set(ctx, key, value, SetOptions{PrevExist: &exist, TTL: ttl})
}

// Delete removes a key or a directory.
func (k *Keys) Delete(ctx context.Context, key string, o DeleteOptions) (*Response, error) {
	query := url.Values{}
	if o.PrevValue != "" {
		query.Set("prevValue", o.PrevValue)
	}
	if o.PrevIndex != 0 {
		query.Set("prevIndex", strconv.FormatUint(o.PrevIndex, 10))
	}
	if o.Dir {
		query.Set("dir", "true")
	}
	if o.Recursive {
		query.Set("recursive", "true")
	}
	return k.do(ctx, request{method: http.MethodDelete, path: k.path(key), query: query})
}

// Indexes asks a member how far it is, without reading a key: the Response has no event.
func (k *Keys) Indexes(ctx context.Context) (*Response, error) {
	a, err := k.client.do(ctx, request{method: http.MethodHead, path: k.path("/")})
	if err != nil {
		return nil, err
	}
	return fromHeader(a.header), decode(a, nil, http.StatusOK)
}

// WatchOptions say where a watch begins and what it covers.
type WatchOptions struct {
	// AfterIndex is the index of the last event already known; 0 means from now on.
	AfterIndex uint64
	// Recursive covers everything below the key as well.
	Recursive bool
}

// Watcher delivers the events of a key one after the other. It is not safe for concurrent use.
type Watcher struct {
	keys      *Keys
	key       string
	recursive bool
	next      uint64 // the index to wait for; 0 = from now on
}

// Watcher returns a watcher. Nothing is sent before Next.
func (k *Keys) Watcher(key string, o WatchOptions) *Watcher {
	w := &Watcher{keys: k, key: key, recursive: o.Recursive}
	if o.AfterIndex > 0 {
		w.next = o.AfterIndex + 1
	}
	return w
}

// Next waits for the next event. An error does not end the watcher: calling Next again continues
// where it was. After [api.EventIndexCleared] that is impossible: read again, and start a new
// watcher after the index of that answer.
func (w *Watcher) Next(ctx context.Context) (*Response, error) {
	for {
		res, err := w.keys.do(ctx, request{
			method: http.MethodGet,
			path:   w.keys.path(w.key),
			query: url.Values{
				"wait":      {"true"},
				"recursive": {strconv.FormatBool(w.recursive)},
				"waitIndex": {strconv.FormatUint(w.next, 10)},
			},
			wait: true,
			onHeader: func(h http.Header) {
				// A watch from "now" knows from its header which index that was, so an interrupted
				// one misses nothing when it is continued.
				if index := fromHeader(h).Index; w.next == 0 && index > 0 {
					w.next = index + 1
				}
			},
		})
		// The member ended the watch without an event; its status was out already.
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return nil, err
		}
		w.next = res.Node.ModifiedIndex + 1
		return res, nil
	}
}

func (k *Keys) send(ctx context.Context, method, key string, query, form url.Values) (*Response, error) {
	return k.do(ctx, request{
		method:      method,
		path:        k.path(key),
		query:       query,
		body:        []byte(form.Encode()),
		contentType: "application/x-www-form-urlencoded",
	})
}

// do returns io.EOF for a success without a body.
func (k *Keys) do(ctx context.Context, r request) (*Response, error) {
	a, err := k.client.do(ctx, r)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		if coded, ok := refusal(a).(*api.Error); ok {
			return nil, coded
		}
		return nil, ErrInvalidJSON
	}
	if len(a.body) == 0 {
		return nil, io.EOF
	}
	res := fromHeader(a.header)
	if json.Unmarshal(a.body, &res.Event) != nil || res.Event == nil || res.Node == nil {
		return nil, ErrInvalidJSON
	}
	return res, nil
}

// path joins prefix and key. A trailing slash stays: permissions tell /a from /a/ (spec auth 4).
func (k *Keys) path(key string) string {
	p := "/" + k.prefix + "/" + key
	clean := path.Clean(p)
	if strings.HasSuffix(p, "/") && key != "" && clean != "/" {
		clean += "/"
	}
	return clean
}

func fromHeader(h http.Header) *Response {
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(h.Get(name), 10, 64)
		return n
	}
	return &Response{
		Index:     number(api.HeaderIndex),
		RaftIndex: number(api.HeaderRaftIndex),
		RaftTerm:  number(api.HeaderRaftTerm),
		ClusterID: h.Get(api.HeaderClusterID),
	}
}

func setTTL(form url.Values, ttl time.Duration) {
	if ttl > 0 {
		form.Set("ttl", strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10))
	}
}
