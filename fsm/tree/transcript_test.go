package tree

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
)

var update = flag.Bool("update", false, "rewrite the transcripts with what the tree does now")

// epoch is when the clock of a transcript stands at 0.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// TestTranscripts plays the files in testdata: lines that begin with "> " are commands, and what they
// print follows.
//
//	at SECONDS                 moves the clock, then expires what is due
//	set|create|update|compareAndSwap|compareAndDelete|delete PATH [ARG…]
//	                           ARG: value=V ttl=SECONDS dir recursive inorder refresh prevValue=V prevIndex=N
//	skip N                     index steps without an event
//	get PATH [recursive] [sorted]
//	watch NAME PATH [recursive] [stream] [since=N]
//	next NAME                  all that the watcher has for now
//	close NAME
//	stats                      the counters that are not 0
//	due                        when the next node is due
//
// Quoted text is as in Go. A line "history N" at the top sets the capacity of the history.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := string(text)
			if *update {
				want = play(t, want, false)
				if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			// Once as it is, and once with the state saved and read back after each command, which
			// must not show.
			for _, saved := range []bool{false, true} {
				if got := play(t, want, saved); got != want {
					t.Errorf("with state saved and read back: %v\n%s", saved, firstDifference(got, want))
				}
			}
		})
	}
}

// play carries out the commands of a transcript and returns it with what they print now.
func play(t *testing.T, text string, saved bool) string {
	var out strings.Builder
	capacity := 1000
	var p *player
	for line := range strings.Lines(text) {
		command, isCommand := strings.CutPrefix(line, "> ")
		setting, isSetting := strings.CutPrefix(line, "history ")
		if isCommand || isSetting || line == "\n" || line[0] == '#' {
			out.WriteString(line)
		}
		if isSetting {
			var err error
			if capacity, err = strconv.Atoi(strings.TrimSpace(setting)); err != nil {
				t.Fatal(err)
			}
		}
		if isCommand {
			if p == nil {
				p = &player{t: t, saved: saved, tree: New(capacity), now: epoch, watchers: make(map[string]*Watcher)}
			}
			out.WriteString(p.run(strings.TrimSpace(command)))
		}
	}
	return out.String()
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("got %d lines, want %d", len(g), len(w))
}

// player carries out the commands of one transcript.
type player struct {
	t        *testing.T
	saved    bool
	tree     *Tree
	now      int64
	watchers map[string]*Watcher
}

func (p *player) run(line string) string {
	words := split(line)
	args := make(map[string]string)
	for _, w := range words[1:] {
		name, value, _ := strings.Cut(w, "=")
		args[name] = value
	}
	has := func(name string) bool { _, ok := args[name]; return ok }
	number := func(name string) uint64 {
		if !has(name) {
			return 0
		}
		n, err := strconv.ParseUint(args[name], 10, 64)
		if err != nil {
			p.t.Fatalf("%s: %v", line, err)
		}
		return n
	}
	var out strings.Builder
	switch words[0] {
	case "at":
		seconds, err := strconv.ParseFloat(words[1], 64)
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = epoch + int64(seconds*1e9)
		b := p.tree.Begin(p.now)
		for _, e := range b.Expire() {
			out.Write(e.JSON())
		}
		b.End()
	case "skip":
		n, _ := strconv.Atoi(words[1])
		b := p.tree.Begin(p.now)
		b.Skip(n)
		b.End()
	case "get":
		a, err := p.tree.Get(words[1], has("recursive"), has("sorted"))
		if err != nil {
			return printError(err)
		}
		out.Write(a.AppendJSON(nil, p.now))
	case "watch":
		w, err := p.tree.Watch(words[2], has("recursive"), has("stream"), number("since"))
		if err != nil {
			return printError(err)
		}
		p.watchers[words[1]] = w
	case "close":
		p.watchers[words[1]].Close()
	case "next":
		return pending(p.watchers[words[1]])
	case "stats":
		return printStats(p.tree.Stats())
	case "due":
		at, ok := p.tree.NextExpiry()
		if !ok {
			return "never\n"
		}
		return fmt.Sprintf("%g\n", float64(at-epoch)/1e9)
	default:
		op := Op{
			Path: words[1], Value: args["value"], Dir: has("dir"), Recursive: has("recursive"), InOrder: has("inorder"),
			Refresh: has("refresh"), PrevValue: args["prevValue"], PrevIndex: number("prevIndex"),
		}
		op.Action = Action(slices.Index(actionNames[:], words[0]))
		if has("ttl") {
			op.Expires = p.now + int64(number("ttl"))*int64(time.Second)
		}
		b := p.tree.Begin(p.now)
		e, err := b.Do(op)
		b.End()
		if err != nil {
			out.WriteString(printError(err))
		} else {
			out.Write(e.JSON())
		}
	}
	if p.saved {
		var saved bytes.Buffer
		if _, err := p.tree.Snapshot().WriteTo(&saved); err != nil {
			p.t.Fatal(err)
		}
		if err := p.tree.Restore(&saved); err != nil {
			p.t.Fatalf("after %s: %v", line, err)
		}
	}
	return out.String()
}

// split splits at spaces outside of quotes, and removes the quotes.
func split(line string) []string {
	var words []string
	for line = strings.TrimSpace(line); line != ""; line = strings.TrimLeft(line, " ") {
		end := strings.IndexAny(line, ` "`)
		if end < 0 {
			return append(words, line)
		}
		word := line[:end]
		if line[end] == '"' {
			quoted, err := strconv.QuotedPrefix(line[end:])
			if err != nil {
				panic(line)
			}
			text, _ := strconv.Unquote(quoted)
			word += text
			end += len(quoted)
		}
		words, line = append(words, word), line[end:]
	}
	return words
}

func printError(err error) string {
	var e *api.Error
	if !errors.As(err, &e) {
		return fmt.Sprintf("error of type %T: %v\n", err, err)
	}
	return fmt.Sprintf("error %d %v (%s) index=%d\n", int(e.Code), e.Code, e.Cause, e.Index)
}

// pending returns what a watcher can deliver at once.
func pending(w *Watcher) string {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out strings.Builder
	for {
		e, err := w.Next(ctx)
		switch {
		case err == nil:
			out.Write(e.JSON())
		case errors.Is(err, ErrWatcherClosed):
			return out.String() + "closed\n"
		case out.Len() == 0:
			return "nothing\n"
		default:
			return out.String()
		}
	}
}

func printStats(s api.StoreStats) string {
	text, _ := json.Marshal(s)
	var counts map[string]int
	if err := json.Unmarshal(text, &counts); err != nil {
		return err.Error()
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] != 0 {
			out = append(out, fmt.Sprintf("%s=%d", name, counts[name]))
		}
	}
	return strings.Join(out, " ") + "\n"
}
