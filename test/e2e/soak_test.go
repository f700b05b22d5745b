//go:build linux && (soak || e2e)

package e2e

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
)

var soakTime = flag.Duration("duration", soakDefault, "how long TestSoak puts load on its cluster")

// What may be left when the load has gone, and what memory may have been needed. The same load makes the same
// use of memory after ten seconds and after ten minutes: keys and the history are bounded.
const (
	soakGoroutines = 40
	soakFiles      = 25
	soakMemory     = 400 << 20 // resident, in bytes, at any time
	soakKeys       = 1000      // per worker at most
)

// usage is what a process needs, from its own metrics.
type usage struct{ goroutines, files, memory int }

func usageOf(ctx context.Context, m *cluster.Member) (u usage, err error) {
	resp, err := m.Do(ctx, http.MethodGet, "/metrics", "", "")
	if err := answered(resp, err); err != nil {
		return u, err
	}
	for line := range strings.Lines(resp.Body) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		switch name {
		case "go_goroutines":
			u.goroutines = int(value)
		case "process_open_fds":
			u.files = int(value)
		case "process_resident_memory_bytes":
			u.memory = int(value)
		}
	}
	return u, nil
}

// soak is load of every kind on one cluster.
type soak struct {
	t *testing.T
	c *cluster.Cluster

	client  *http.Client
	members []*cluster.Member // those that stay
	done    map[string]*atomic.Int64
	other   atomic.Int64 // requests refused or without an answer
}

// TestSoak mixes reads, writes of every kind, watches, times to live, connections that break off, users on and
// off, members that come and go, changes of the leader and snapshots, for a long time. Afterwards no member
// may hold more than before, and all hold the same.
func TestSoak(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "it measures Quorate")
	s := &soak{t: t, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}, done: map[string]*atomic.Int64{"member": new(atomic.Int64)}}
	s.c = start(t, 3, "--snapshot-count=5000", "--event-history=1000", "--auth-guest=readwrite")
	s.members = slices.Clone(s.c.Members)
	s.eventually("a user root", http.MethodPut, "/v2/auth/users/root", `{"user":"root","password":"secret"}`)
	before := s.settled("before the load", nil)

	ctx, cancel := context.WithTimeout(t.Context(), *soakTime)
	defer cancel()
	var workers sync.WaitGroup
	for w := range 3 {
		s.every(ctx, &workers, 0, fmt.Sprint("write", w), func(ctx context.Context, n int) error { return s.write(ctx, w, n) })
		s.every(ctx, &workers, 0, fmt.Sprint("read", w), func(ctx context.Context, n int) error { return s.read(ctx, w, n) })
	}
	for w := range 12 {
		s.every(ctx, &workers, 0, fmt.Sprint("watch", w), func(ctx context.Context, n int) error { return s.watch(ctx, w, n) })
	}
	s.every(ctx, &workers, 10*time.Millisecond, "ttl", s.expire)
	s.every(ctx, &workers, 50*time.Millisecond, "broken", s.breakOff)
	s.every(ctx, &workers, 3*time.Second, "users", s.users)
	s.every(ctx, &workers, 4*time.Second, "leader", s.changeLeader)
	most := make(map[*cluster.Member]usage)
	s.every(ctx, &workers, time.Second, "measure", func(ctx context.Context, _ int) error {
		var errs error
		for _, m := range s.members {
			u, err := usageOf(ctx, m)
			errs = errors.Join(errs, err)
			old := most[m]
			most[m] = usage{max(u.goroutines, old.goroutines), max(u.files, old.files), max(u.memory, old.memory)}
		}
		return errs
	})
	// What can fail the test belongs to its own goroutine.
	for n := 0; ctx.Err() == nil; n++ {
		s.addAndRemove(n)
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
	workers.Wait()
	s.client.CloseIdleConnections()
	s.report()

	s.eventually("users switched off", http.MethodDelete, "/v2/auth/enable", "")
	after := s.settled("after the load", before)
	for _, m := range s.members {
		t.Logf("%s: goroutines %d before, %d at most, %d after; files %d, %d, %d; MiB resident %d, %d, %d", m.Name,
			before[m].goroutines, most[m].goroutines, after[m].goroutines, before[m].files, most[m].files, after[m].files,
			before[m].memory>>20, most[m].memory>>20, after[m].memory>>20)
		if most[m].memory > soakMemory {
			t.Errorf("%s had %d MiB, more than %d", m.Name, most[m].memory>>20, soakMemory>>20)
		}
	}
	s.c.WaitEqual()
}

// settled waits until each member has no more goroutines and files than it had before, within a margin, and
// returns what it has.
func (s *soak) settled(when string, before map[*cluster.Member]usage) map[*cluster.Member]usage {
	s.t.Helper()
	now := make(map[*cluster.Member]usage)
	for _, m := range s.members {
		cluster.Eventually(s.t, m.Name+" to hold little "+when, func(ctx context.Context) error {
			u, err := usageOf(ctx, m)
			if err != nil {
				return err
			}
			old, ok := before[m]
			if ok && (u.goroutines > old.goroutines+soakGoroutines || u.files > old.files+soakFiles) {
				return fmt.Errorf("%+v, before the load %+v", u, old)
			}
			now[m] = u
			return nil
		})
	}
	return now
}

// every does work again and again, with a pause, until ctx ends. The name without its number counts.
func (s *soak) every(ctx context.Context, workers *sync.WaitGroup, pause time.Duration, name string, work func(ctx context.Context, n int) error) {
	name = strings.TrimRight(name, "0123456789")
	if s.done[name] == nil {
		s.done[name] = new(atomic.Int64)
	}
	count := s.done[name]
	workers.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			one, cancel := context.WithTimeout(ctx, 15*time.Second)
			err := work(one, n)
			cancel()
			wait := pause
			if err != nil {
				s.other.Add(1)
				wait = max(wait, 20*time.Millisecond) // nobody hammers a cluster without a leader
			} else {
				count.Add(1)
			}
			if wait > 0 {
				select {
				case <-ctx.Done():
				case <-time.After(wait):
				}
			}
		}
	})
}

func (s *soak) report() {
	s.t.Helper()
	total := s.other.Load()
	for name, n := range s.done {
		s.t.Logf("%-8s %9d done", name, n.Load())
		total += n.Load()
		if n.Load() == 0 {
			s.t.Errorf("%s never worked", name)
		}
	}
	s.t.Logf("%d operations in %v, of which %d were refused, or had no answer", total, *soakTime, s.other.Load())
}

// root are the credentials that every request has: they do no harm while users are switched off.
var root = "Basic " + base64.StdEncoding.EncodeToString([]byte("root:secret"))

// send sends a request with a form or JSON, and reads the answer up to its end.
func (s *soak) send(ctx context.Context, m *cluster.Member, method, path, body string) error {
	req, err := http.NewRequestWithContext(ctx, method, m.ClientURL+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", root)
	switch {
	case strings.HasPrefix(body, "{"):
		req.Header.Set("Content-Type", "application/json")
	case body != "":
		req.Header.Set("Content-Type", cluster.Form)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

func (s *soak) member(n int) *cluster.Member { return s.members[n%len(s.members)] }

func (s *soak) write(ctx context.Context, w, n int) error {
	m, key := s.member(w+n), fmt.Sprintf("/v2/keys/soak/%d/%d", w, rand.IntN(soakKeys))
	value := url.Values{"value": {strings.Repeat("x", rand.IntN(500))}}
	switch n % 10 {
	case 0:
		return s.send(ctx, m, http.MethodDelete, key, "")
	case 1:
		return s.send(ctx, m, http.MethodPut, key+"?prevExist=true", value.Encode())
	case 2:
		return s.send(ctx, m, http.MethodPut, key+"?prevValue=x", value.Encode())
	}
	return s.send(ctx, m, http.MethodPut, key, value.Encode())
}

func (s *soak) read(ctx context.Context, w, n int) error {
	key := fmt.Sprintf("/v2/keys/soak/%d/%d", w, rand.IntN(soakKeys))
	switch n % 20 {
	case 0:
		key = "/v2/keys/soak?recursive=true&sorted=true"
	case 1, 2, 3:
		key += "?quorum=true"
	}
	return s.send(ctx, s.member(w+n), http.MethodGet, key, "")
}

// watch waits for an event, or reads a stream for a while and goes away.
func (s *soak) watch(ctx context.Context, w, n int) error {
	path := fmt.Sprintf("/v2/keys/soak/%d?wait=true&recursive=true", w%3)
	if w%2 == 0 {
		return s.send(ctx, s.member(w+n), http.MethodGet, path, "")
	}
	streaming, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(2000))*time.Millisecond)
	defer cancel()
	err := s.send(streaming, s.member(w+n), http.MethodGet, path+"&stream=true", "")
	if streaming.Err() != nil {
		return nil // gone away, as meant
	}
	return err
}

// expire makes keys that go by themselves.
func (s *soak) expire(ctx context.Context, n int) error {
	return s.send(ctx, s.member(n), http.MethodPost, "/v2/keys/ttl?ttl=2", "value=x")
}

// breakOff sends half a request and goes away.
func (s *soak) breakOff(ctx context.Context, n int) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(s.member(n).ClientURL, "http://"))
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, "PUT /v2/keys/soak/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nvalue="[:20+rand.IntN(40)])
	return errors.Join(err, conn.Close())
}

// users switches users on, and off again.
func (s *soak) users(ctx context.Context, n int) error {
	method := http.MethodPut
	if n%2 == 1 {
		method = http.MethodDelete
	}
	return s.send(ctx, s.member(n), method, "/v2/auth/enable", "")
}

// eventually repeats what has to succeed.
func (s *soak) eventually(what, method, path, body string) {
	s.t.Helper()
	cluster.Eventually(s.t, what, func(ctx context.Context) error {
		return s.send(ctx, s.members[0], method, path, body)
	})
}

func (s *soak) changeLeader(ctx context.Context, n int) error {
	return s.send(ctx, s.member(n), http.MethodPost, "/quorate/v1/leader", "")
}

// addAndRemove adds a member, lets it catch up, and removes it. That is done to its end also when the time is
// up, so that the others are as before.
func (s *soak) addAndRemove(n int) {
	s.t.Helper()
	fourth := s.c.Join(fmt.Sprintf("extra%d", n))
	defer s.c.Forget(fourth)
	s.eventually(fourth.Name+" is added", http.MethodPost, "/v2/members", `{"peerURLs":["`+fourth.PeerURL+`"]}`)
	fourth.Start()
	cluster.Eventually(s.t, fourth.Name+" takes part", func(ctx context.Context) error {
		return s.send(ctx, fourth, http.MethodGet, "/v2/keys/?quorum=true", "")
	})
	s.eventually(fourth.Name+" is removed", http.MethodDelete, "/v2/members/"+s.c.ID(fourth), "")
	fourth.Wait()
	s.done["member"].Add(1)
}
