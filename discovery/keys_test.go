package discovery

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
)

// keys is as much of the v2 keys API as discovery needs, in memory. It answers like etcd.
type keys struct {
	mu      sync.Mutex
	index   uint64
	nodes   map[string]*api.Node
	history []*api.Event
	changed chan struct{}     // closed and replaced at every event
	ttls    map[string]string // of the writes that had one
	waiting chan string       // gets the path of every wait that has to wait
}

func newKeys() *keys {
	return &keys{
		index: 3, nodes: map[string]*api.Node{}, changed: make(chan struct{}),
		ttls: map[string]string{}, waiting: make(chan string, 1000),
	}
}

func (k *keys) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, ok := strings.CutPrefix(r.URL.Path, "/v2/keys")
	if !ok {
		http.NotFound(w, r)
		return
	}
	if err := r.ParseForm(); err != nil {
		panic(err)
	}
	key = path.Clean("/" + key)
	if r.Form.Get("wait") == "true" {
		k.wait(w, r, key)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.nodes[key]
	switch r.Method {
	case "GET", "HEAD":
		if n == nil {
			k.refuse(w, api.KeyNotFound, k.deepest(key))
			return
		}
		shown := *n
		for name, child := range k.nodes {
			if n.Dir && path.Dir(name) == key && !strings.HasPrefix(path.Base(name), "_") {
				shown.Nodes = append(shown.Nodes, child)
			}
		}
		// Any order will do for etcd; this one is wrong on purpose.
		slices.SortFunc(shown.Nodes, func(a, b *api.Node) int { return int(b.CreatedIndex) - int(a.CreatedIndex) })
		k.answer(w, 200, &api.Event{Action: "get", Node: &shown})
	case "PUT":
		if n != nil && r.Form.Get("prevExist") == "false" {
			k.refuse(w, api.KeyExists, key)
			return
		}
		if ttl := r.Form.Get("ttl"); ttl != "" {
			k.ttls[key] = ttl
		}
		k.answer(w, 201, k.write(key, r.Form.Get("value"), r.Form.Get("dir") == "true"))
	case "DELETE":
		if n == nil {
			k.refuse(w, api.KeyNotFound, k.deepest(key))
			return
		}
		if p := r.Form.Get("prevIndex"); p != "" && p != strconv.FormatUint(n.ModifiedIndex, 10) {
			k.refuse(w, api.CompareFailed, key)
			return
		}
		delete(k.nodes, key)
		k.index++
		k.answer(w, 200, k.publish(&api.Event{Action: "delete", Node: &api.Node{Key: key, ModifiedIndex: k.index, CreatedIndex: n.CreatedIndex}}))
	default:
		http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	}
}

// put writes a key from outside.
func (k *keys) put(key, value string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.write(key, value, false)
}

// write needs k.mu.
func (k *keys) write(key, value string, dir bool) *api.Event {
	k.index++
	for d := path.Dir(key); d != "/"; d = path.Dir(d) {
		if k.nodes[d] == nil {
			k.nodes[d] = &api.Node{Key: d, Dir: true, CreatedIndex: k.index, ModifiedIndex: k.index}
		}
	}
	n := &api.Node{Key: key, Dir: dir, CreatedIndex: k.index, ModifiedIndex: k.index}
	if !dir {
		n.Value = &value
	}
	k.nodes[key] = n
	return k.publish(&api.Event{Action: "create", Node: n})
}

func (k *keys) publish(e *api.Event) *api.Event {
	k.history = append(k.history, e)
	close(k.changed)
	k.changed = make(chan struct{})
	return e
}

func (k *keys) wait(w http.ResponseWriter, r *http.Request, key string) {
	from, _ := strconv.ParseUint(r.Form.Get("waitIndex"), 10, 64)
	recursive := r.Form.Get("recursive") == "true"
	flushed := false
	for {
		k.mu.Lock()
		for _, e := range k.history {
			rest, below := strings.CutPrefix(e.Node.Key, key+"/")
			seen := e.Node.Key == key || below && recursive && !strings.HasPrefix(rest, "_")
			if seen && e.Node.ModifiedIndex >= from {
				if !flushed {
					w.Header().Set(api.HeaderIndex, strconv.FormatUint(k.index, 10))
				}
				json.NewEncoder(w).Encode(e)
				k.mu.Unlock()
				return
			}
		}
		if !flushed {
			flushed = true
			w.Header().Set(api.HeaderIndex, strconv.FormatUint(k.index, 10))
			w.(http.Flusher).Flush()
		}
		changed := k.changed
		k.mu.Unlock()
		k.waiting <- r.URL.Path
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// deepest returns the first part of the path that is missing, which is what etcd names as the cause.
func (k *keys) deepest(key string) string {
	for d := path.Dir(key); d != "/" && k.nodes[d] == nil; d = path.Dir(d) {
		key = d
	}
	return key
}

func (k *keys) answer(w http.ResponseWriter, status int, e *api.Event) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(api.HeaderIndex, strconv.FormatUint(k.index, 10))
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(e)
}

func (k *keys) refuse(w http.ResponseWriter, code api.Code, cause string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set(api.HeaderIndex, strconv.FormatUint(k.index, 10))
	w.WriteHeader(code.HTTPStatus())
	fmt.Fprintf(w, `{"errorCode":%d,"message":%q,"cause":%q,"index":%d}`+"\n", int(code), code.Error(), cause, k.index)
}

// ids returns what is registered under a directory, in order of creation.
func (k *keys) ids(dir string) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []*api.Node
	for name, n := range k.nodes {
		if path.Dir(name) == dir && !strings.HasPrefix(path.Base(name), "_") {
			found = append(found, n)
		}
	}
	slices.SortFunc(found, func(a, b *api.Node) int { return int(a.CreatedIndex) - int(b.CreatedIndex) })
	ids := make([]string, len(found))
	for i, n := range found {
		ids[i] = path.Base(n.Key)
	}
	return ids
}

// recorder notes requests before it passes them on, and lets a test answer some of them itself.
type recorder struct {
	next http.Handler
	// intercept, if set, may answer the nth request, counted from 1, and then returns true.
	intercept func(n int, w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests []string
}

func (rec *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	entry := r.Method + " " + r.URL.Path
	if r.URL.RawQuery != "" {
		entry += "?" + r.URL.RawQuery
	}
	if len(body) > 0 {
		entry += " " + string(body)
	}
	rec.mu.Lock()
	rec.requests = append(rec.requests, entry)
	n := len(rec.requests)
	rec.mu.Unlock()
	if rec.intercept == nil || !rec.intercept(n, w, r) {
		rec.next.ServeHTTP(w, r)
	}
}

func (rec *recorder) sequence() []string {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return slices.Clone(rec.requests)
}

// serve starts a server for the test and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// journal is a logger whose lines can be read.
type journal struct {
	hclog.Logger
	mu   sync.Mutex
	buf  strings.Builder
	text string        // what when was asked for
	seen chan struct{} // closed when it was written
}

func newJournal() *journal {
	j := &journal{}
	j.Logger = hclog.New(&hclog.LoggerOptions{Output: j, DisableTime: true, Level: hclog.Trace})
	return j
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.text != "" && strings.Contains(string(b), j.text) {
		j.text = ""
		close(j.seen)
	}
	return j.buf.Write(b)
}

// when returns what is closed once the text is logged. It is for one text.
func (j *journal) when(text string) <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text, j.seen = text, make(chan struct{})
	return j.seen
}

func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Split(strings.TrimSuffix(j.buf.String(), "\n"), "\n")
}

func equalLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
