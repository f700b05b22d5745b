package linearizability

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// Kind says what an operation asks for.
type Kind string

// The operations of the clients.
const (
	Put      Kind = "put"
	Get      Kind = "get"  // from one member alone, possibly old
	QGet     Kind = "qget" // quorum=true
	CASValue Kind = "cas-value"
	CASIndex Kind = "cas-index"
	Delete   Kind = "delete"
	CAD      Kind = "cad"    // compareAndDelete by value
	Create   Kind = "create" // prevExist=false
	Post     Kind = "post"   // an in-order key below Key
)

// writes says whether the operation can change anything.
func (k Kind) writes() bool { return k != Get && k != QGet }

// Outcome says what a client knows about an operation.
type Outcome string

// The outcomes. There are three for a write that was sent, never two.
const (
	OK      Outcome = "ok"
	Refused Outcome = "refused" // by a rule of the API, with a code below 300
	// Lost is an operation without a final answer: a time-out, a connection that broke, an answer of
	// code 300. It may have been done, may be done later, or never.
	Lost Outcome = "lost"
	// Unsent is one that no server has seen: there was no connection, or the member was not up.
	Unsent Outcome = "unsent"
)

// Op is one request of one client.
type Op struct {
	Client int    `json:"client"`
	Member string `json:"member"` // whom it was sent to
	// Life counts the runs of the member's process; -1 when another began before the answer came.
	Life int  `json:"life"`
	Kind Kind `json:"kind"`
	// Key is the key asked for, and with Post the directory.
	Key       string `json:"key"`
	Value     string `json:"value,omitempty"` // to be written; no two operations have the same
	Prev      string `json:"prev,omitempty"`
	PrevIndex uint64 `json:"prevIndex,omitempty"`
	TTL       int    `json:"ttl,omitempty"` // seconds

	// Call and Return are when it was sent and when the answer was complete, since the start of the run.
	Call    time.Duration `json:"call"`
	Return  time.Duration `json:"return"`
	Outcome Outcome       `json:"outcome"`
	// Code and Cause are those of a refusal; with Lost what is known about the reason.
	Code  int    `json:"code,omitempty"`
	Cause string `json:"cause,omitempty"`
	// Index is the store's index that the answer names.
	Index uint64 `json:"index,omitempty"`
	// Event is what an answer with OK holds.
	Event Event `json:"event,omitzero"`
}

func (o Op) String() string {
	s := fmt.Sprintf("%s %s", o.Kind, o.Key)
	if o.Value != "" {
		s += " = " + o.Value
	}
	if o.Prev != "" {
		s += " if " + o.Prev
	}
	if o.PrevIndex > 0 {
		s += fmt.Sprintf(" if index %d", o.PrevIndex)
	}
	if o.TTL > 0 {
		s += fmt.Sprintf(" for %d s", o.TTL)
	}
	s += fmt.Sprintf(" on %s by client %d [%v, %v]: %s", o.Member, o.Client, ms(o.Call), ms(o.Return), o.Outcome)
	switch o.Outcome {
	case OK:
		s += fmt.Sprintf(" at index %d, %v", o.Index, o.Event)
	default:
		s += fmt.Sprintf(" %d %s at index %d", o.Code, o.Cause, o.Index)
	}
	return s
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// State is a key at one index.
type State struct {
	Value    string `json:"value"`
	Created  uint64 `json:"created"`
	Modified uint64 `json:"modified"`
}

// Event is what an answer or a watcher says: the node after the event, and before it.
type Event struct {
	Action string `json:"action"`
	Key    string `json:"key"`
	State
	Before *State `json:"before,omitempty"`
}

func (e Event) String() string {
	s := fmt.Sprintf("%s %s = %q (created %d, modified %d)", e.Action, e.Key, e.Value, e.Created, e.Modified)
	if e.Before != nil {
		s += fmt.Sprintf(" before %q (created %d, modified %d)", e.Before.Value, e.Before.Created, e.Before.Modified)
	}
	return s
}

// removes says that the key is gone after the event.
func (e Event) removes() bool {
	return e.Action == "delete" || e.Action == "compareAndDelete" || e.Action == "expire"
}

// same says whether two descriptions of one event agree.
func (e Event) same(o Event) bool {
	if e.Action != o.Action || e.Key != o.Key || e.State != o.State || (e.Before == nil) != (o.Before == nil) {
		return false
	}
	return e.Before == nil || *e.Before == *o.Before
}

// Seen is an event with the time at which a watcher got it.
type Seen struct {
	At     time.Duration `json:"at"`
	Member string        `json:"member"`
	Event
}

// Watch is what one client saw that watches everything, and asks for what follows the last event
// whenever its connection ends.
type Watch struct {
	Client int `json:"client"`
	// From is the index of the first event that it asked for.
	From   uint64 `json:"from"`
	Events []Seen `json:"events"`
}

// Final is all that a member holds at the end.
type Final struct {
	Member   string           `json:"member"`
	Index    uint64           `json:"index"`
	Checksum string           `json:"checksum"`
	Keys     map[string]State `json:"keys"`
}

// History is everything that was told to the clients of one run.
type History struct {
	Seed int64 `json:"seed"`
	// Start is the store's index before the first operation; no key is there.
	Start   uint64  `json:"start"`
	Ops     []Op    `json:"ops"`
	Watches []Watch `json:"watches"`
	Finals  []Final `json:"finals"`
	// Complete says that all watchers came as far as the last write.
	Complete bool `json:"complete"`
	// Well is when the last fault had ended and all members were healthy again.
	Well time.Duration `json:"well"`
	// Steady says that no member has seen a change of the term between Well and the end.
	Steady bool `json:"steady"`
	// Stall is by how much timers of the machine were late after Well.
	Stall time.Duration `json:"stall,omitempty"`
	// Stepped says that the system's clock was changed in this time: what is said about TTLs cannot be
	// judged.
	Stepped bool `json:"stepped,omitempty"`
}

// Save writes the history to a file, which Load reads.
func (h *History) Save(path string) error {
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}

// Load reads a history that Save has written.
func Load(path string) (*History, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h := new(History)
	if err := json.Unmarshal(b, h); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return h, nil
}

// byCall returns the operations in the order in which they were sent.
func (h *History) byCall() []*Op {
	ops := make([]*Op, len(h.Ops))
	for i := range h.Ops {
		ops[i] = &h.Ops[i]
	}
	slices.SortStableFunc(ops, func(a, b *Op) int { return int(a.Call - b.Call) })
	return ops
}

// Violation is something that no correct server says.
type Violation struct {
	Check string // the promise that is broken
	Text  string
}

func (v Violation) String() string { return v.Check + ": " + v.Text }

// violations collects them, with a bound for each check.
type violations struct {
	check string
	list  []Violation
	more  int
}

const maxViolations = 20

func (v *violations) add(format string, args ...any) {
	if len(v.list) == maxViolations {
		v.more++
		return
	}
	v.list = append(v.list, Violation{v.check, fmt.Sprintf(format, args...)})
}

func (v *violations) result() []Violation {
	if v.more > 0 {
		v.list = append(v.list, Violation{v.check, fmt.Sprintf("%d more of the kind", v.more)})
		v.more = 0
	}
	return v.list
}
