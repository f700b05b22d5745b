//go:build linux && partition

package partition

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// watch is an open request that waits for events, one or a stream of them.
type watch struct {
	t    *testing.T
	name string
	done chan struct{} // closed when the answer has ended

	mu     sync.Mutex // guards what follows
	events []*api.Event
}

// open starts a watch, /a?wait=true, and returns when the member has answered its headers, which it does
// once it will miss nothing.
func open(t *testing.T, m *cluster.Member, path string) *watch {
	t.Helper()
	w := newWatch(t, m, path)
	body, err := request(t.Context(), m, path)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		w.read(body)
	}()
	return w
}

// follow is open for a stream of all events after an index. A member ends a stream whose reader cannot keep up,
// as happens when it applies at once what it has missed; the reader then goes on from where it is, as clients do.
func follow(t *testing.T, m *cluster.Member, dir string, after uint64) *watch {
	t.Helper()
	path := func(after uint64) string {
		return fmt.Sprintf("%s?wait=true&recursive=true&stream=true&waitIndex=%d", dir, after+1)
	}
	w := newWatch(t, m, dir)
	body, err := request(t.Context(), m, path(after))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.done)
		for {
			w.read(body)
			if events := w.seen(); len(events) > 0 {
				after = events[len(events)-1].Node.ModifiedIndex
			}
			body, err = request(t.Context(), m, path(after))
			if t.Context().Err() != nil {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return w
}

func newWatch(t *testing.T, m *cluster.Member, path string) *watch {
	w := &watch{t: t, name: path + " on " + m.Name, done: make(chan struct{})}
	t.Cleanup(func() { // the test's context has ended
		select {
		case <-w.done:
		case <-time.After(cluster.Deadline):
			t.Errorf("watch %s did not end", w.name)
		}
	})
	return w
}

func request(ctx context.Context, m *cluster.Member, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ClientURL+"/v2/keys"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("watch %s on %s: %s", path, m.Name, resp.Status)
	}
	return resp.Body, nil
}

// read takes events until the answer ends.
func (w *watch) read(body io.ReadCloser) {
	defer body.Close()
	lines := bufio.NewReader(body)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var e api.Event
		if err := json.Unmarshal(line, &e); err != nil {
			w.t.Errorf("watch %s: event %q: %v", w.name, line, err)
			return
		}
		w.mu.Lock()
		w.events = append(w.events, &e)
		w.mu.Unlock()
	}
}

// seen are the events so far.
func (w *watch) seen() []*api.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.events[:len(w.events):len(w.events)]
}
