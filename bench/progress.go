//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
)

// progress is the cluster.TB of a program: it writes to stderr, and a failure unwinds to withTB.
type progress struct {
	out      io.Writer
	cleanups []func()
	failed   bool
}

// failure is what Fatalf panics with.
type failure struct{ error }

func (p *progress) Helper() {}

func (p *progress) Logf(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

func (p *progress) Errorf(format string, args ...any) {
	p.failed = true
	p.Logf(format, args...)
}

func (p *progress) Fatalf(format string, args ...any) {
	p.failed = true
	panic(failure{fmt.Errorf(format, args...)})
}

func (p *progress) Failed() bool { return p.failed }

func (p *progress) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

// scope runs f and then what f registered for cleaning up, also when f fails.
func (p *progress) scope(f func()) {
	outer := p.cleanups
	p.cleanups = nil
	defer func() {
		for i := len(p.cleanups) - 1; i >= 0; i-- {
			p.cleanups[i]()
		}
		p.cleanups = outer
	}()
	f()
}

// withTB runs f with a progress and returns its failure.
func withTB(out io.Writer, f func(*progress)) (err error) {
	p := &progress{out: out}
	defer func() {
		switch r := recover().(type) {
		case nil:
			if p.failed {
				err = errors.New("a server misbehaved, see above")
			}
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	p.scope(func() { f(p) })
	return nil
}
