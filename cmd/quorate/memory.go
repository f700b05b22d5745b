package main

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// collection says how much garbage may lie beside what lives, in percent, in a heap of a size. Most of a
// large store's memory are keys, which live long: half as much again beside them would be wasted. A small
// store is left to Go's default, or it would be collected all the time.
func collection(live uint64) (percent int) {
	switch {
	case live > 128<<20:
		return 25
	case live > 32<<20:
		return 40
	}
	return 100
}

// saveMemory adjusts the garbage collector to what the server holds, until stop is called. It begins after
// some seconds, so that a start with many keys is not slowed down. GOGC has the last word.
func saveMemory() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(5 * time.Second)
		defer ticker.Stop()
		live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
		percent := collection(0)
		for {
			select {
			case <-end:
				return
			case <-ticker.C:
			}
			metrics.Read(live)
			if want := collection(live[0].Value.Uint64()); want != percent {
				debug.SetGCPercent(want)
				percent = want
			}
		}
	}()
	return func() { close(end); <-done }
}
