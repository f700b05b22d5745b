package differential

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
)

// history compares the first event of the past that a watch gets, or that there is none.
func (p *pair) history(key string, recursive bool, since uint64) {
	p.logf("history %s recursive=%v since=%d", key, recursive, since)
	want := p.etcdHistory(key, recursive, since)
	w, err := p.tree.Watch(key, recursive, false, since)
	if err != nil {
		p.equal("history "+key, showError(err), want)
		return
	}
	defer w.Close()
	p.equal("history "+key, strings.Join(pending(w), ""), want)
	p.equal("start index", fmt.Sprint(w.StartIndex()), fmt.Sprint(p.etcd.Index()))
}

// etcdHistory returns what etcd has of the past for a watch, without foreign removals.
func (p *pair) etcdHistory(key string, recursive bool, since uint64) string {
	for {
		full := path.Join(prefix, key)
		w, err := p.etcd.Watch(full, recursive, false, since)
		if err != nil {
			return p.showEtcd(nil, err)
		}
		e := received(w)
		w.Remove()
		switch {
		case e == nil:
			return ""
		case !isForeignRemoval(e, full, recursive):
			return p.showEtcd(e, nil)
		}
		p.counts[foreignRemoval]++
		if since = e.Node.ModifiedIndex + 1; since > p.etcd.Index() {
			return ""
		}
	}
}

func isForeignRemoval(e *v2store.Event, key string, recursive bool) bool {
	dir := e.Node.Key
	return (e.Action == v2store.Delete || e.Action == v2store.Expire) && e.Node.Dir &&
		key != dir && !strings.HasPrefix(key, dir+"/") && !(recursive && strings.HasPrefix(dir, key+"/"))
}

// streamFromPast compares all that a stream gets of the past with what single watches on etcd get
// one after the other.
func (p *pair) streamFromPast(key string, recursive bool, since uint64) {
	p.logf("stream %s recursive=%v since=%d", key, recursive, since)
	w, err := p.tree.Watch(key, recursive, true, since)
	if err != nil {
		p.t.Errorf("stream %s: %v", key, err)
		return
	}
	defer w.Close()
	var want []string
	for at := since; at <= p.etcd.Index(); {
		line := p.etcdHistory(key, recursive, at)
		if line == "" {
			break
		}
		want = append(want, line)
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			p.t.Fatal(err)
		}
		at = e.Node.ModifiedIndex + 1
	}
	if len(want) > 1 {
		p.counts[streamFromThePast]++
	}
	p.equal("stream "+key, strings.Join(pending(w), ""), strings.Join(want, ""))
}

// watchPair is one live watch on both stores.
type watchPair struct {
	pair      *pair
	key       string
	recursive bool
	stream    bool
	etcd      v2store.Watcher
	tree      *tree.Watcher
}

func (p *pair) watch(key string, recursive, stream bool, since uint64) {
	p.logf("watch %s recursive=%v stream=%v since=%d", key, recursive, stream, since)
	full := path.Join(prefix, key)
	want, err := p.etcd.Watch(full, recursive, stream, since)
	if err != nil {
		p.t.Fatal(err)
	}
	got, err := p.tree.Watch(key, recursive, stream, since)
	if err != nil {
		p.t.Fatal(err)
	}
	p.equal("start index", fmt.Sprint(got.StartIndex()), fmt.Sprint(want.StartIndex()))
	p.watches = append(p.watches, &watchPair{p, full, recursive, stream, want, got})
}

func (w *watchPair) close() {
	w.etcd.Remove()
	w.tree.Close()
}

// compare compares what both have delivered since the last time.
func (w *watchPair) compare() {
	if w.pair.parted {
		return
	}
	var want []string
	var last *v2store.Event
	for e := received(w.etcd); e != nil; e = received(w.etcd) {
		if w.stream && e == last && e.Node.Key == w.key && isRemoval(e) {
			w.pair.counts[removalTwice]++
			continue
		}
		last = e
		want = append(want, w.pair.showEtcd(e, nil))
	}
	w.pair.equal(fmt.Sprintf("watch %s recursive=%v stream=%v", w.key, w.recursive, w.stream),
		strings.Join(pending(w.tree), ""), strings.Join(want, ""))
}

func isRemoval(e *v2store.Event) bool {
	return e.Action == v2store.Delete || e.Action == v2store.CompareAndDelete || e.Action == v2store.Expire
}

// received returns an event that is there, or nil.
func received(w v2store.Watcher) *v2store.Event {
	select {
	case e := <-w.EventChan():
		return e // nil if closed
	default:
		return nil
	}
}

// pending returns the events that are there.
func pending(w *tree.Watcher) []string {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var lines []string
	for {
		e, err := w.Next(ctx)
		if err != nil {
			return lines
		}
		lines = append(lines, string(e.JSON()))
	}
}
