package tree

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// encoded is what encoding/json makes of a value, with the newline of an answer.
func encoded(t *testing.T, v any) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// awkward strings, for keys and values.
var awkward = []string{
	"", "plain", `"quoted" \ back`, "<b>&amp;</b>", "\x00\x01\x1f\x7f\b\f\n\r\t", "é日本\U0001f600",
	"\u2028\u2029\u2027\u202a", "\xff\xfe", "ok\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\ufffd", "/",
}

func TestAppendString(t *testing.T) {
	for _, s := range awkward {
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(appendString(nil, s)); got != string(want) {
			t.Errorf("appendString(%q) = %s, want %s", s, got, want)
		}
	}
}

// Every byte, alone and next to each of its kind, at every place of a group of eight.
func TestAppendStringBytes(t *testing.T) {
	for c := range 256 {
		for _, other := range []byte{'x', byte(c), byte(c) ^ 1, byte(c) + 1, 0x80} {
			for at := range 16 {
				s := []byte("0123456789abcdef")
				s[at], s[(at+1)%16] = byte(c), other
				want, err := json.Marshal(string(s))
				if err != nil {
					t.Fatal(err)
				}
				if got := string(appendString(nil, string(s))); got != string(want) {
					t.Fatalf("appendString(%q) = %s, want %s", s, got, want)
				}
			}
		}
	}
}

// FuzzAppendJSON holds events and answers equal to what encoding/json makes of the wire types.
func FuzzAppendJSON(f *testing.F) {
	for i, s := range awkward {
		f.Add(s, awkward[len(awkward)-1-i], uint64(i), uint64(2*i), int64(i)*700_000_000, int64(3_000_000_000), byte(i))
	}
	f.Add("k", "v", uint64(1<<64-1), uint64(0), int64(1<<63-1), int64(0), byte(0xff))
	f.Fuzz(func(t *testing.T, key, value string, created, modified uint64, expires, now int64, bits byte) {
		n := &Node{Key: Clean(key), Value: value, Created: created, Modified: modified, Expires: max(expires, 0), Dir: bits&1 != 0}
		if n.Key == "/" {
			*n = Node{Key: "/", Dir: true} // the root has nothing else
		}
		now = max(now, 0)
		if n.Dir {
			n.Value = ""
		}
		e := &Event{Action: Action(bits>>1) % actions, Node: n, Index: modified, Time: now}
		if bits&0x10 != 0 && n.Key != "/" {
			e.Prev = &Node{Key: n.Key, Value: n.Key, Created: modified, Modified: created, Expires: n.Expires / 2}
		}
		if e.Action.removes() {
			e.Node = &Node{Key: n.Key, Created: created, Modified: modified, Dir: n.Dir}
		}
		want := encoded(t, e.Wire())
		if got := string(e.AppendJSON(nil, false)); got != want {
			t.Errorf("AppendJSON:\n got %s\nwant %s", got, want)
		}
		if got := string(e.JSON()); got != want {
			t.Errorf("JSON:\n got %s\nwant %s", got, want)
		}
		if got := string(e.AppendJSON([]byte("x"), false)); got != "x"+want {
			t.Errorf("AppendJSON after JSON:\n got %s\nwant x%s", got, want)
		}

		// The same strings in a tree, and a listing of it.
		tree := New(1)
		b := tree.Begin(now)
		for i, path := range []string{key, key + "/child", value + "/" + key, "a/b/" + value} {
			op := Op{Action: Set, Path: path, Value: value, Dir: bits>>(i+2)&1 != 0}
			if i > 1 {
				op.Expires = max(expires, 0)
			}
			_, _ = b.Do(op) // some of them are refused
		}
		b.End()
		for _, recursive := range []bool{false, true} {
			a, err := tree.Get("/", recursive, true)
			if err != nil {
				t.Fatal(err)
			}
			want := encoded(t, a.Event(now))
			if got := string(a.AppendJSON(nil, now)); got != want {
				t.Errorf("listing, recursive %v:\n got %s\nwant %s", recursive, got, want)
			}
		}
	})
}

// In pieces or not, an answer is the same.
func TestSendJSON(t *testing.T) {
	tree := New(1)
	b := tree.Begin(0)
	for i := range 2000 {
		if _, err := b.Do(Op{Action: Set, Path: fmt.Sprintf("/d%d/%d", i%7, i), Value: strings.Repeat("v", i%500)}); err != nil {
			t.Fatal(err)
		}
	}
	b.End()
	a, err := tree.Get("/", true, true)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Large() {
		t.Error("half a megabyte is not large")
	}
	var sent []byte
	pieces := 0
	rest := a.SendJSON(nil, 0, func(b []byte) []byte {
		pieces++
		sent = append(sent, b...)
		return b[:0]
	})
	if got, want := string(append(sent, rest...)), string(a.AppendJSON(nil, 0)); got != want {
		t.Errorf("in pieces it has %d bytes, otherwise %d, or differs", len(got), len(want))
	}
	if want := len(sent) / piece; pieces == 0 || pieces > want {
		t.Errorf("%d pieces of %d bytes, want at most %d", pieces, len(sent), want)
	}
}

func TestSecondsLeft(t *testing.T) {
	const second = int64(time.Second)
	tests := []struct{ left, want int64 }{
		{100 * second, 100}, {100*second - 1, 100}, {99*second + 1, 100}, {99 * second, 99},
		{1, 1}, {0, 0}, {-1, 0}, {1 - second, 0}, {-second, -1}, {-second - 1, -1}, {-2 * second, -2},
	}
	for _, tt := range tests {
		if got := secondsLeft(epoch+tt.left, epoch); got != tt.want {
			t.Errorf("secondsLeft for %v = %d, want %d", time.Duration(tt.left), got, tt.want)
		}
	}
}

func TestNoValue(t *testing.T) {
	for action := Get; action < actions; action++ {
		e := &Event{Action: action, Node: &Node{Key: "/k", Value: "v", Created: 1, Modified: 1}}
		want := `{"action":"` + action.String() + "\"}\n"
		if action.removes() {
			want = string(e.JSON()) // deletes ignore it
		}
		if got := string(e.AppendJSON(nil, true)); got != want {
			t.Errorf("%v without value = %s, want %s", action, got, want)
		}
	}
}

func TestEventStatus(t *testing.T) {
	n := &Node{Key: "/k"}
	tests := []struct {
		action Action
		prev   *Node
		want   int
	}{
		{Create, nil, 201}, {Set, nil, 201}, {Set, n, 200}, {Update, n, 200},
		{CompareAndSwap, n, 200}, {CompareAndDelete, n, 200}, {Delete, n, 200}, {Expire, n, 200},
	}
	for _, tt := range tests {
		if got := (&Event{Action: tt.action, Node: n, Prev: tt.prev}).Status(); got != tt.want {
			t.Errorf("%v, prev %v: status %d, want %d", tt.action, tt.prev != nil, got, tt.want)
		}
	}
}

func TestClean(t *testing.T) {
	tests := []struct{ path, want string }{
		{"", "/"}, {"/", "/"}, {"//", "/"}, {"a", "/a"}, {"/a/", "/a"}, {"//a//b", "/a/b"},
		{"/a/../..", "/"}, {"../a", "/a"}, {"/a/./b", "/a/b"}, {"/...", "/..."}, {"/a\x00", "/a\x00"},
	}
	for _, tt := range tests {
		if got := Clean(tt.path); got != tt.want {
			t.Errorf("Clean(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}
