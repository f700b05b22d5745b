//go:build linux && faults

package linearizability

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/cluster"
)

const (
	root    = "/faults"
	setDir  = root + "/set"
	ttlDir  = root + "/ttl"
	lockDir = root + "/lock"
)

func readFile(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func stateOf(n *api.Node) State {
	s := State{Created: n.CreatedIndex, Modified: n.ModifiedIndex}
	if n.Value != nil {
		s.Value = *n.Value
	}
	return s
}

func eventOf(e *api.Event) Event {
	out := Event{Action: e.Action, Key: e.Node.Key, State: stateOf(e.Node)}
	if e.PrevNode != nil {
		before := stateOf(e.PrevNode)
		out.Before = &before
	}
	return out
}

// do sends one operation, once, to the member in a slot and notes what came of it.
func (r *run) do(ctx context.Context, o Op, slot int) Op {
	m, life := r.place(slot)
	o.Member, o.Life = m.Name, life
	method, path, body := request(o)
	contentType := ""
	if body != "" {
		contentType = cluster.Form
	}
	o.Call = time.Since(r.start)
	resp, err := m.Do(ctx, method, path, contentType, body)
	o.Return = time.Since(r.start)
	if now, later := r.place(slot); now != m || later != life {
		o.Life = -1
	}
	judge(&o, resp, err)
	if o.Kind == Get && o.Outcome == Lost {
		return o // says nothing
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, o)
	return o
}

// request writes an operation as the API has it.
func request(o Op) (method, path, body string) {
	path = "/v2/keys" + o.Key
	form := url.Values{}
	if o.Value != "" {
		form.Set("value", o.Value)
	}
	if o.TTL > 0 {
		form.Set("ttl", fmt.Sprint(o.TTL))
	}
	switch o.Kind {
	case Get:
		return http.MethodGet, path, ""
	case QGet:
		return http.MethodGet, path + "?quorum=true", ""
	case Delete:
		return http.MethodDelete, path, ""
	case CAD:
		return http.MethodDelete, path + "?prevValue=" + url.QueryEscape(o.Prev), ""
	case Post:
		return http.MethodPost, path, form.Encode()
	case CASValue:
		form.Set("prevValue", o.Prev)
	case CASIndex:
		form.Set("prevIndex", fmt.Sprint(o.PrevIndex))
	case Create:
		form.Set("prevExist", "false")
	}
	return http.MethodPut, path, form.Encode()
}

// sent says whether a request that ended with an error may have reached a server.
func sent(err error) bool {
	var network *net.OpError
	return !errors.As(err, &network) || network.Op != "dial"
}

// judge reads an answer. Whatever is not clear is Lost.
func judge(o *Op, resp cluster.Response, err error) {
	var refusal struct {
		ErrorCode int    `json:"errorCode"`
		Cause     string `json:"cause"`
		Index     uint64 `json:"index"`
	}
	switch {
	case !sent(err):
		o.Outcome, o.Cause = Unsent, err.Error()
	case err != nil:
		o.Outcome, o.Cause = Lost, err.Error()
	case resp.Status == http.StatusServiceUnavailable:
		o.Outcome, o.Cause = Unsent, resp.Body // there is no member behind the server yet
	case resp.OK():
		e, err := resp.Event()
		if err != nil || e.Node == nil {
			o.Outcome, o.Cause = Lost, fmt.Sprintf("no event in %v", resp)
			return
		}
		o.Outcome, o.Index, o.Event = OK, resp.Index(), eventOf(e)
	case json.Unmarshal([]byte(resp.Body), &refusal) != nil:
		o.Outcome, o.Cause = Lost, resp.String()
	case refusal.ErrorCode >= 300:
		o.Outcome, o.Code, o.Cause = Lost, refusal.ErrorCode, refusal.Cause
	default:
		o.Outcome, o.Code, o.Cause, o.Index = Refused, refusal.ErrorCode, refusal.Cause, refusal.Index
	}
}

// client sends one operation after the other to the member in its slot.
type client struct {
	*run
	id, slot int
	rng      *rand.Rand
	count    int // of values, so that no two are equal
}

// send is do with a time limit, which is mostly longer than the server's own, and then a pause.
func (c *client) send(ctx context.Context, o Op) Op {
	limit := 12 * time.Second
	switch c.rng.IntN(10) {
	case 0:
		limit = 500 * time.Millisecond
	case 1, 2:
		limit = 3 * time.Second
	}
	// The end of the work does not cut requests off: then their outcomes would be open.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	o.Client = c.id
	o = c.do(limited, o, c.slot)
	pause := time.Duration(2+c.rng.IntN(20)) * time.Millisecond
	if o.Outcome == Unsent {
		pause += 100 * time.Millisecond
	}
	sleep(ctx, pause)
	return o
}

func (c *client) value() string {
	c.count++
	return fmt.Sprintf("%d-%d", c.id, c.count)
}

// unique is a value that no client writes.
func (r *run) unique() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.values++
	return fmt.Sprintf("fill-%d", r.values)
}

// keys are the registers that are in use. One that has had its share of operations is left to rest, so
// that the history of each is short enough to be searched.
type keys struct {
	mu         sync.Mutex
	generation [3]int // guarded by mu, as below
	used       [3]int
}

const operationsPerKey = 120

func (k *keys) take(i int) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.used[i]++; k.used[i] > operationsPerKey {
		k.generation[i]++
		k.used[i] = 0
	}
	return fmt.Sprintf("%s/%d-%d", registerDir, i, k.generation[i])
}

// startClients begins all the work. The group ends some time after ctx.
func (r *run) startClients(ctx context.Context) *sync.WaitGroup {
	var group sync.WaitGroup
	registers := &keys{}
	id := 0
	start := func(slot int, work func(*client, context.Context)) {
		c := &client{run: r, id: id, slot: slot, rng: rand.New(rand.NewPCG(uint64(r.seed), uint64(1000+id)))}
		id++
		group.Go(func() {
			for ctx.Err() == nil {
				work(c, ctx)
			}
		})
	}
	for slot := range r.size {
		for range 3 {
			seen := map[string]Event{}
			start(slot, func(c *client, ctx context.Context) { c.register(ctx, registers, seen) })
		}
		start(slot, func(c *client, ctx context.Context) { c.send(ctx, Op{Kind: Post, Key: setDir, Value: c.value()}) })
		start(slot, (*client).live)
		start(slot, (*client).lock)
		start(slot, func(c *client, ctx context.Context) { c.read(ctx, registers) })
	}
	return &group
}

// register is one operation on one of the registers. seen is what this client knows about them.
func (c *client) register(ctx context.Context, registers *keys, seen map[string]Event) {
	key := registers.take(c.rng.IntN(3))
	o := Op{Key: key}
	last, ok := seen[key]
	switch n := c.rng.IntN(100); {
	case n < 22:
		o.Kind, o.Value = Put, c.value()
	case n < 50:
		o.Kind = QGet
	case n < 60:
		o.Kind = Get
	case n < 64:
		o.Kind, o.Value = Create, c.value()
	case n < 66:
		o.Kind = Delete
	case !ok:
		o.Kind = QGet
	case n < 82:
		o.Kind, o.Value, o.Prev = CASValue, c.value(), last.Value
	case n < 97:
		o.Kind, o.Value, o.PrevIndex = CASIndex, c.value(), last.Modified
	default:
		o.Kind, o.Prev = CAD, last.Value
	}
	o = c.send(ctx, o)
	switch {
	case o.Outcome == OK && !o.Event.removes():
		seen[key] = o.Event
	case o.Outcome == Lost && o.Value != "" && c.rng.IntN(2) == 0:
		// Somebody who is not sure may well go on as if it had been done.
		seen[key] = Event{State: State{Value: o.Value, Modified: last.Modified + 1}}
	case o.Outcome == Refused || o.Event.removes():
		delete(seen, key)
	}
}

// live makes a key for a second or more, and looks at it until it is gone.
func (c *client) live(ctx context.Context) {
	ttl := 1 + c.rng.IntN(3)
	o := c.send(ctx, Op{Kind: Create, Key: fmt.Sprintf("%s/%d-%d", ttlDir, c.id, c.count), Value: c.value(), TTL: ttl})
	if o.Outcome != OK {
		return
	}
	late := o.Return + time.Duration(ttl)*time.Second + 2*time.Second
	for ctx.Err() == nil && time.Since(c.start) < late {
		sleep(ctx, 100*time.Millisecond)
		if c.send(ctx, Op{Kind: Get, Key: o.Key}).Code == 100 {
			return
		}
	}
}

// lock takes a lock that ends by itself, and mostly gives it back before.
func (c *client) lock(ctx context.Context) {
	o := c.send(ctx, Op{Kind: Create, Key: lockDir + "/one", Value: c.value(), TTL: 1 + c.rng.IntN(2)})
	if o.Outcome != OK {
		sleep(ctx, 50*time.Millisecond)
		return
	}
	sleep(ctx, time.Duration(c.rng.IntN(100))*time.Millisecond)
	if c.rng.IntN(5) > 0 {
		c.send(ctx, Op{Kind: CAD, Key: o.Key, Prev: o.Value})
	}
}

// read reads from the member alone.
func (c *client) read(ctx context.Context, registers *keys) {
	registers.mu.Lock()
	i := c.rng.IntN(3)
	key := fmt.Sprintf("%s/%d-%d", registerDir, i, registers.generation[i])
	registers.mu.Unlock()
	c.send(ctx, Op{Kind: Get, Key: key})
}
