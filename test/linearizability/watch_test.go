//go:build linux && faults

package linearizability

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

// watcher follows all keys. It stays with a member for some seconds and goes on with the next one, or
// does so when its connection ends.
type watcher struct {
	*run
	slot   int
	stream bool // else it asks for one event at a time
	rng    *rand.Rand
	client *http.Client

	mu   sync.Mutex
	got  Watch // guarded by mu
	next uint64
}

type watchers struct {
	list  []*watcher
	group sync.WaitGroup
}

// startWatchers begins two watchers for each member, from an index on.
func (r *run) startWatchers(ctx context.Context, from uint64) *watchers {
	all := &watchers{}
	for i := range 2 * r.size {
		w := &watcher{
			run: r, slot: i % r.size, stream: i < r.size,
			rng:    rand.New(rand.NewPCG(uint64(r.seed), uint64(2000+i))),
			client: &http.Client{Transport: &http.Transport{DisableCompression: true}},
			got:    Watch{Client: i, From: from},
			next:   from,
		}
		all.list = append(all.list, w)
		all.group.Go(func() {
			defer w.client.CloseIdleConnections()
			for ctx.Err() == nil {
				w.stay(ctx)
				if w.rng.IntN(2) == 0 {
					w.slot = (w.slot + 1) % r.size
				}
			}
		})
	}
	return all
}

// await waits until every watcher has come to an index.
func (ws *watchers) await(r *run, index uint64) {
	for _, w := range ws.list {
		cluster.Eventually(r, fmt.Sprintf("watcher %d to come to index %d", w.got.Client, index), func(context.Context) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.next <= index {
				return fmt.Errorf("it waits for %d", w.next)
			}
			return nil
		})
	}
}

// wait returns what all have seen, when they have ended.
func (ws *watchers) wait() []Watch {
	ws.group.Wait()
	var out []Watch
	for _, w := range ws.list {
		out = append(out, w.got)
	}
	return out
}

// stay watches one member for a while.
func (w *watcher) stay(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(500+w.rng.IntN(4000))*time.Millisecond)
	defer cancel()
	m, _ := w.place(w.slot)
	for ctx.Err() == nil {
		if err := w.ask(ctx, m); err != nil {
			sleep(ctx, 20*time.Millisecond)
			return
		}
	}
}

// ask opens one watch and reads it to its end.
func (w *watcher) ask(ctx context.Context, m *cluster.Member) error {
	url := fmt.Sprintf("%s/v2/keys%s?wait=true&recursive=true&waitIndex=%d&stream=%t", m.ClientURL, root, w.next, w.stream)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(resp.Body)
		if resp.StatusCode == http.StatusBadRequest {
			w.Errorf("watcher %d cannot go on at %d on %s: %s", w.got.Client, w.next, m.Name, body)
		}
		return fmt.Errorf("%d %s", resp.StatusCode, body)
	}
	lines := bufio.NewReader(resp.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var e api.Event
		if err := json.Unmarshal(line, &e); err != nil || e.Node == nil {
			return fmt.Errorf("event %q: %v", line, err)
		}
		at := time.Since(w.start)
		w.mu.Lock()
		w.got.Events = append(w.got.Events, Seen{At: at, Member: m.Name, Event: eventOf(&e)})
		w.next = e.Node.ModifiedIndex + 1
		w.mu.Unlock()
	}
}
