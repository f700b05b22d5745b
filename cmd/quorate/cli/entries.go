package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// ttlTolerance is how far two times to live may be apart and still count as equal: they are whole
// seconds, read at different times from different clocks.
const ttlTolerance = 5 * time.Second

// entry is a key or a directory.
type entry struct {
	value string
	dir   bool
	// implied marks a directory that comes by itself with what is in it: not empty, and for ever.
	implied  bool
	expires  time.Time // zero: never
	modified uint64    // its modified index, when it was read from a cluster
}

// entries are what is in a store or a file, by key.
type entries map[string]entry

func (e entries) keys() []string { return slices.Sorted(maps.Keys(e)) }

// String counts them, without directories that are implied.
func (e entries) String() string {
	keys, dirs := 0, 0
	for _, x := range e {
		switch {
		case !x.dir:
			keys++
		case !x.implied:
			dirs++
		}
	}
	return fmt.Sprintf("%d keys and %d directories", keys, dirs)
}

// readEntries reads everything below prefix that is not hidden, in one linearizable read, and the
// index of the store at that moment. A prefix that does not exist is empty.
func readEntries(ctx context.Context, keys *client.Keys, prefix string) (entries, *client.Response, error) {
	r, err := keys.Get(ctx, prefix, client.GetOptions{Quorum: true, Recursive: true})
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == api.KeyNotFound {
		return entries{}, &client.Response{Index: refused.Index}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	found := entries{}
	found.add(r.Node, time.Now())
	if x := found[r.Node.Key]; x.implied {
		delete(found, r.Node.Key) // the prefix itself is nobody's business
	}
	return found, r, nil
}

func (e entries) add(n *api.Node, now time.Time) {
	x := entry{dir: n.Dir, value: value(n), modified: n.ModifiedIndex}
	x.implied = len(n.Nodes) > 0 && n.Expiration == nil
	if n.Expiration != nil {
		// Time left as the server sees it, so that clocks need not agree.
		x.expires = now.Add(time.Duration(n.TTL) * time.Second)
	}
	if n.Key != "" {
		e[n.Key] = x
	}
	for _, child := range n.Nodes {
		e.add(child, now)
	}
}

// dirsAbove returns all directories that hold something of e.
func (e entries) dirsAbove() map[string]bool {
	above := map[string]bool{"/": true}
	for key := range e {
		for dir := path.Dir(key); !above[dir]; dir = path.Dir(dir) {
			above[dir] = true
		}
	}
	return above
}

// change is one step from one set of entries to another.
type change struct {
	key      string
	from, to *entry // nil: it is not there
}

// paint is String in the colour of what is done.
func (c change) paint(out io.Writer) string {
	switch {
	case c.from == nil:
		return paint(out, good, c.String())
	case c.to == nil:
		return paint(out, bad, c.String())
	}
	return paint(out, warn, c.String())
}

func (c change) String() string {
	switch {
	case c.from == nil:
		return "+ " + c.key + c.to.describe()
	case c.to == nil:
		return "- " + c.key + c.from.describe()
	}
	return "~ " + c.key + c.from.describe() + " ->" + c.to.describe()
}

func (e entry) describe() string {
	text := "/"
	if !e.dir {
		text = " " + quoteShort(e.value)
	}
	if !e.expires.IsZero() {
		text += fmt.Sprintf(" (%v left)", time.Until(e.expires).Round(time.Second))
	}
	return text
}

func quoteShort(s string) string {
	if r := []rune(s); len(r) > 60 {
		return fmt.Sprintf("%q...", string(r[:60]))
	}
	return fmt.Sprintf("%q", s)
}

// compare lists what turns have into want, sorted by key. What want does not mention is left alone
// unless prune is set.
func compare(have, want entries, prune bool) []change {
	var changes []change
	for key, w := range want {
		h, exists := have[key]
		switch {
		case w.implied, exists && h.implied && w.dir && w.expires.IsZero():
		case !exists:
			changes = append(changes, change{key: key, to: &w})
		case !h.same(w):
			changes = append(changes, change{key, &h, &w})
		}
	}
	if prune {
		above := want.dirsAbove()
		for key, h := range have {
			w, wanted := want[key]
			switch {
			case wanted && !w.implied:
			case !h.dir || !above[key]:
				changes = append(changes, change{key: key, from: &h})
			case !h.expires.IsZero():
				// Wanted for what is in it, and for ever.
				changes = append(changes, change{key, &h, &entry{dir: true}})
			}
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return strings.Compare(a.key, b.key) })
	return changes
}

// same tells whether there is nothing to do to turn e into o.
func (e entry) same(o entry) bool {
	if e.dir != o.dir || e.value != o.value || e.expires.IsZero() != o.expires.IsZero() {
		return false
	}
	return e.expires.Sub(o.expires).Abs() <= ttlTolerance
}

// apply makes the changes, with parallel requests at a time, and returns how many were made. Each is
// conditional on what was read before, so that nobody else's write is lost; what has changed in the
// meantime is part of the error. If stderr is a terminal, it shows there how far it is.
func apply(ctx context.Context, stderr io.Writer, keys *client.Keys, changes []change, parallel int) (int, error) {
	var removals, dirs, files []change
	for _, c := range changes {
		switch {
		case c.to == nil || c.from != nil && c.from.dir != c.to.dir:
			removals = append(removals, c)
		case c.to.dir:
			dirs = append(dirs, c)
		default:
			files = append(files, c)
		}
	}
	// What is to go goes first, the deepest first of all; a key in the place of a directory follows.
	slices.Reverse(removals)
	a := &applier{keys: keys, bar: newBar(stderr, len(changes))}
	defer a.bar.end()
	a.each(ctx, removals, 1)
	for _, c := range removals {
		if c.to != nil && c.to.dir {
			dirs = append(dirs, change{key: c.key, to: c.to})
		} else if c.to != nil {
			files = append(files, change{key: c.key, to: c.to})
		}
	}
	slices.SortFunc(dirs, func(a, b change) int { return cmp.Compare(a.key, b.key) })
	a.each(ctx, dirs, 1)
	a.each(ctx, files, parallel)
	if len(a.failed) >= maxFailures {
		a.failed = append(a.failed, errors.New("gave up after so many failures"))
	}
	return a.made, errors.Join(append(a.failed, ctx.Err())...)
}

// maxFailures is how many failures apply collects before it gives up.
const maxFailures = 20

type applier struct {
	keys *client.Keys

	mu     sync.Mutex // guards the fields below
	bar    *bar
	made   int
	failed []error
}

func (a *applier) each(ctx context.Context, changes []change, parallel int) {
	work := make(chan change)
	var wait sync.WaitGroup
	for range parallel {
		wait.Go(func() {
			for c := range work {
				err := a.one(ctx, c)
				a.mu.Lock()
				if err != nil {
					a.failed = append(a.failed, fmt.Errorf("%s: %w", c.key, err))
				} else if c.to == nil || c.from == nil || c.from.dir == c.to.dir {
					a.made++ // the first half of a replacement does not count
				}
				a.bar.show(a.made)
				a.mu.Unlock()
			}
		})
	}
	for _, c := range changes {
		a.mu.Lock()
		enough := len(a.failed) >= maxFailures
		a.mu.Unlock()
		if enough || ctx.Err() != nil {
			break
		}
		work <- c
	}
	close(work)
	wait.Wait()
}

func (a *applier) one(ctx context.Context, c change) error {
	ctx, cancel := context.WithTimeout(ctx, bulkTimeout)
	defer cancel()
	if c.to == nil || c.from != nil && c.from.dir != c.to.dir {
		o := client.DeleteOptions{PrevIndex: c.from.modified}
		if c.from.dir {
			// Not recursively: what was put there meanwhile is not ours to remove.
			o = client.DeleteOptions{Dir: true}
		}
		_, err := a.keys.Delete(ctx, c.key, o)
		if errors.Is(err, api.KeyNotFound) {
			return nil
		}
		return err
	}
	o := client.SetOptions{Dir: c.to.dir, PrevExist: new(bool)}
	if !c.to.expires.IsZero() {
		// Sub-second remains count as a second: the server takes whole ones.
		if o.TTL = time.Until(c.to.expires); o.TTL <= 0 {
			return nil // expired on the way here
		}
	}
	if c.from != nil {
		*o.PrevExist = true
		if !c.to.dir {
			o.PrevIndex = c.from.modified
		}
	}
	_, err := a.keys.Set(ctx, c.key, c.to.value, o)
	if c.to.dir && c.from == nil && errors.Is(err, api.KeyExists) {
		// It was made as the parent of something; only its time to live is missing.
		*o.PrevExist = true
		_, err = a.keys.Set(ctx, c.key, "", o)
	}
	return err
}

// bulkTimeout bounds each request of the verbs that move many keys: a listing of a large store takes a while.
const bulkTimeout = time.Minute
