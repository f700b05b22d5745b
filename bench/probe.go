//go:build linux

package main

import (
	"slices"
	"sync"
	"time"
)

// pace is the time between two probes. A stall shorter than that cannot be seen.
const pace = 2 * time.Millisecond

// stall is what one who asks all the time has to wait.
type stall struct {
	mu   sync.Mutex
	took []time.Duration // guarded by mu
	err  error           // guarded by mu

	stop, done chan struct{}
}

// probe sends a request over and over on one connection, pausing between two, until end is called.
func probe(addr string, next func(n int) []byte) *stall {
	s := &stall{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		err := load{[]string{addr}, 1, nil}.each(func(_ int, c *conn) error {
			for n := 0; ; n++ {
				select {
				case <-s.stop:
					return nil
				case <-time.After(pace):
				}
				start := time.Now()
				if err := c.roundTrip(next(n)); err != nil {
					return err
				}
				s.mu.Lock()
				s.took = append(s.took, time.Since(start))
				s.mu.Unlock()
			}
		})
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = err
	}()
	return s
}

// end stops the probe and returns the times that requests took, in order.
func (s *stall) end() ([]time.Duration, error) {
	close(s.stop)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.took)
	return s.took, s.err
}
