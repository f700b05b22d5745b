package auth

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// maxAddresses bounds how many addresses a limiter keeps in mind.
const maxAddresses = 10_000

// limiter bounds the failures of each remote address: a bucket of tokens that fills slowly.
type limiter struct {
	burst float64
	rate  float64 // tokens per second
	now   func() time.Time

	mu      sync.Mutex
	buckets map[netip.Addr]*bucket // guarded by mu; an address that is not in it has a full one
}

type bucket struct {
	tokens float64
	at     time.Time // when there were so many
	empty  bool      // the last to come got none
}

func newLimiter(burst int, rate float64, now func() time.Time) *limiter {
	return &limiter{burst: float64(burst), rate: rate, now: now, buckets: make(map[netip.Addr]*bucket)}
}

// take takes a token if there is one. What turns out to be no failure gives it back. first says that
// the address has just run out.
func (l *limiter) take(from netip.Addr) (ok, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[from]
	if b == nil {
		if len(l.buckets) >= maxAddresses {
			l.forget()
		}
		b = &bucket{tokens: l.burst, at: l.now()}
		l.buckets[from] = b
	}
	l.fill(b)
	if b.tokens < 1 {
		first = !b.empty
		b.empty = true
		return false, first
	}
	b.tokens--
	b.empty = false
	return true, false
}

func (l *limiter) giveBack(from netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[from]; b != nil {
		l.fill(b)
		if b.tokens = b.tokens + 1; b.tokens >= l.burst {
			delete(l.buckets, from)
		}
	}
}

func (l *limiter) fill(b *bucket) {
	now := l.now()
	if elapsed := now.Sub(b.at).Seconds(); elapsed > 0 {
		b.tokens = min(l.burst, b.tokens+elapsed*l.rate)
	}
	b.at = now
}

// forget removes the fullest of a few buckets. An attacker with that many addresses is not stopped by
// remembering them either.
func (l *limiter) forget() {
	const few = 8
	var fullest netip.Addr
	most, seen := -1.0, 0
	for from, b := range l.buckets { // in no order
		l.fill(b)
		if b.tokens > most {
			fullest, most = from, b.tokens
		}
		if seen++; seen == few {
			break
		}
	}
	delete(l.buckets, fullest)
}

// remoteHost returns what the failures of an address, such as http.Request.RemoteAddr, are counted
// under: for IPv6 its network, since whoever has one address there has them all. What is no IP
// address counts as one.
func remoteHost(remote string) netip.Addr {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is6() {
		if network, err := ip.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return ip
}

// turns let each address wait for one bcrypt computation at a time. Those that guess in large numbers
// queue up behind themselves, and whoever comes from elsewhere is next.
type turns struct {
	seed  maphash.Seed
	lanes [64]chan struct{}
}

func newTurns() turns {
	t := turns{seed: maphash.MakeSeed()}
	for i := range t.lanes {
		t.lanes[i] = make(chan struct{}, 1)
	}
	return t
}

// of returns the turn of an address, taken by sending to it. A few addresses share each one; which ones
// cannot be known from outside.
func (t *turns) of(from netip.Addr) chan struct{} {
	return t.lanes[maphash.Comparable(t.seed, from)%uint64(len(t.lanes))]
}
