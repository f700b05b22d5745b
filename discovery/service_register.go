package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"

	"github.com/quorate/quorate/api"
)

// register serves PUT of one registration. It is refused when the value is not one, and when as many
// nodes as the token wants are there already.
//
// Nodes count for themselves, so the refusal is a courtesy to those that came late; what must hold is
// that nobody of the first ones is ever refused. Registrations of one token through this member take
// turns. Two members may each let in a last one: the order of creation, the same for all, then says
// which of them was too many, and that one is taken back.
func (s *Service) register(w http.ResponseWriter, r *http.Request, token, id string) {
	cause := token + "/" + id
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "The request is too large", cause)
		return
	}
	if err := s.checkForm(r, body); err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, errOverwrite) {
			status = http.StatusForbidden
		}
		refuse(w, status, "Registration refused: "+err.Error(), cause)
		return
	}
	leave, err := s.turns.take(r.Context(), token)
	if err != nil {
		return // the client has gone
	}
	defer leave()

	d, bad := s.directory(r.Context(), token)
	if bad != nil {
		bad.send(w)
		return
	}
	full := fmt.Sprintf("The cluster is full: %d of %d members have registered", d.size, d.size)
	// One who is there already is told so by the store.
	if _, again := d.find(id); !again && len(d.members) >= d.size {
		refuse(w, http.StatusForbidden, full, cause)
		return
	}
	put := moved(r, cause)
	put.Body = io.NopCloser(bytes.NewReader(body))
	put.ContentLength = int64(len(body))
	put.TransferEncoding = nil
	a := &stored{header: http.Header{}, status: http.StatusOK}
	s.opts.Keys.ServeHTTP(a, put)
	if a.status == http.StatusCreated && s.retract(r.Context(), token, id) {
		refuse(w, http.StatusForbidden, full, cause)
		return
	}
	a.send(w)
}

var errOverwrite = errors.New("prevExist=false is required")

// checkForm looks at the parameters of a registration, as the keys handler will read them.
func (s *Service) checkForm(r *http.Request, body []byte) error {
	form := &http.Request{Method: r.Method, URL: r.URL, Header: r.Header, Body: io.NopCloser(bytes.NewReader(body))}
	if err := form.ParseForm(); err != nil {
		return err
	}
	for _, name := range []string{"dir", "ttl", "refresh", "prevValue", "prevIndex", "inOrder"} {
		if form.Form.Has(name) {
			return fmt.Errorf("%s is not allowed", name)
		}
	}
	if form.Form.Get("prevExist") != "false" {
		return errOverwrite
	}
	value := form.Form.Get("value")
	if len(value) > s.opts.MaxValueBytes {
		return fmt.Errorf("the value is longer than %d bytes", s.opts.MaxValueBytes)
	}
	_, err := ParseRegistration(value)
	return err
}

// directory reads a token, linearizably. When that fails, the answer to give is returned instead.
func (s *Service) directory(ctx context.Context, token string) (*directory, *stored) {
	quorum := url.Values{"quorum": {"true"}}
	size := s.ask(ctx, http.MethodGet, token+"/_config/size", quorum)
	list := size
	if size.status == http.StatusOK {
		list = s.ask(ctx, http.MethodGet, token, quorum)
	}
	if list.status != http.StatusOK {
		return nil, list
	}
	var d directory
	var sizeEvent, listEvent api.Event
	err := errors.Join(json.Unmarshal(size.body.Bytes(), &sizeEvent), json.Unmarshal(list.body.Bytes(), &listEvent))
	if err == nil && (sizeEvent.Node == nil || sizeEvent.Node.Value == nil || listEvent.Node == nil) {
		err = errors.New("no such node in the answer")
	}
	if err == nil {
		d.size, err = strconv.Atoi(*sizeEvent.Node.Value)
	}
	if err != nil {
		s.opts.Logger.Error("discovery token not readable", "token", short(token), "error", err)
		bad := &stored{header: http.Header{}}
		refuse(bad, http.StatusInternalServerError, "The token is not readable", token)
		return nil, bad
	}
	d.members = members(listEvent.Node)
	return &d, nil
}

// retract takes a registration back if it came too late after all, and says whether it did. When
// that cannot be found out the registration stands; the node will see for itself.
func (s *Service) retract(ctx context.Context, token, id string) bool {
	d, bad := s.directory(ctx, token)
	if bad != nil || !d.excludes(id) {
		return false
	}
	late, ok := d.find(id)
	if !ok {
		return false
	}
	// By index, so that nothing but this very registration goes.
	a := s.ask(ctx, http.MethodDelete, token+"/"+id, url.Values{"prevIndex": {strconv.FormatUint(late.created, 10)}})
	if a.status != http.StatusOK {
		s.opts.Logger.Warn("late registration not taken back", "token", short(token), "member", id, "error", a.failure())
	}
	return true
}

// turns lets one at a time do something, separately for every key. The zero value is ready.
type turns struct {
	mu    sync.Mutex
	lines map[string]*line // guarded by mu; only those with somebody in them
}

type line struct {
	turn    chan struct{} // holds the turn while nobody has it
	waiting int           // whoever has the turn included; guarded by turns.mu
}

// take waits for the turn and returns how to give it back.
func (t *turns) take(ctx context.Context, key string) (leave func(), err error) {
	t.mu.Lock()
	if t.lines == nil {
		t.lines = map[string]*line{}
	}
	l := t.lines[key]
	if l == nil {
		l = &line{turn: make(chan struct{}, 1)}
		l.turn <- struct{}{}
		t.lines[key] = l
	}
	l.waiting++
	t.mu.Unlock()

	quit := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if l.waiting--; l.waiting == 0 {
			delete(t.lines, key)
		}
	}
	select {
	case <-l.turn:
		return func() { l.turn <- struct{}{}; quit() }, nil
	case <-ctx.Done():
		quit()
		return nil, ctx.Err()
	}
}
