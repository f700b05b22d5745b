package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"runtime"
	"sync"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sync/singleflight"
)

// maxPassword is how much of a password counts, in bytes: bcrypt looks at no more.
const maxPassword = 72

// maxKnown bounds the number of credentials that are known to be good.
const maxKnown = 10_000

// maxLoggedName is how much of a user name goes into the log, in bytes.
const maxLoggedName = 64

// logins finds out whether a password is a user's. bcrypt is slow by design, tens of milliseconds, so
// what was found good is remembered: not the password, but its MAC under a key that lives as long as
// this process, and the hash it was good for. When the user gets another hash, or is removed, that no
// longer counts.
//
// What was found wrong is not remembered. It costs one of the tokens that each address has.
type logins struct {
	log     hclog.Logger
	metrics *metrics
	cost    int
	limiter *limiter
	slots   chan struct{} // one for each bcrypt computation that may run
	turns   turns
	checks  singleflight.Group
	macs    sync.Pool     // of *macState
	nobody  func() string // a hash that no password is good for

	mu    sync.RWMutex
	known map[mac]string // guarded by mu: to the hash that it was good for
}

// mac stands for a user name and a password.
type mac [sha256.Size]byte

// macState is an HMAC with room for its input and its sum.
type macState struct {
	hash.Hash
	buf []byte
}

func newLogins(cost int, l *limiter, log hclog.Logger) *logins {
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	return &logins{
		log:     log,
		metrics: newMetrics(),
		cost:    cost,
		limiter: l,
		slots:   make(chan struct{}, max(1, runtime.GOMAXPROCS(0)-1)), // one processor is left for all else
		turns:   newTurns(),
		macs:    sync.Pool{New: func() any { return &macState{Hash: hmac.New(sha256.New, key)} }},
		nobody: sync.OnceValue(func() string {
			password := make([]byte, 32)
			rand.Read(password)
			h, err := bcrypt.GenerateFromPassword(password, cost)
			if err != nil {
				return "" // compares in no time, and still to nothing
			}
			return string(h)
		}),
		known: make(map[mac]string),
	}
}

// check says whether the password is that of the user with the given hash, and logs if not. The hash
// is empty if there is no such user, which takes as long to find out as that a password is wrong.
// remote is the address that the login came from.
func (l *logins) check(name, password, hash, remote string) bool {
	password = truncate(password)
	m := l.mac(name, password)
	if l.isKnown(m, hash) {
		l.metrics.known.Inc()
		return true
	}
	// Equal logins from one place that come while the first is looked at share its answer.
	from := remoteHost(remote)
	ok, _, _ := l.checks.Do(string(m[:])+hash+from.String(), func() (any, error) {
		return l.look(name, password, hash, m, from, remote), nil
	})
	return ok.(bool)
}

// look is check without a shortcut.
func (l *logins) look(name, password, hash string, m mac, from netip.Addr, remote string) bool {
	if !l.admit(name, from, remote) {
		return false
	}
	turn := l.turns.of(from)
	turn <- struct{}{}
	defer func() { <-turn }()
	l.slots <- struct{}{}
	defer func() { <-l.slots }()
	if l.isKnown(m, hash) { // found good while this one waited
		l.limiter.giveBack(from)
		l.metrics.known.Inc()
		return true
	}
	against, reason := hash, "wrong password"
	if hash == "" {
		against, reason = l.nobody(), "no such user"
	}
	err := bcrypt.CompareHashAndPassword([]byte(against), []byte(password))
	if err != nil || hash == "" {
		l.metrics.refused.Inc()
		l.log.Warn("login refused", "user", loggedName(name), "remote", remote, "reason", reason)
		return false
	}
	l.limiter.giveBack(from)
	l.metrics.checked.Inc()
	l.remember(m, hash)
	return true
}

// malformed takes note of a login that cannot be read.
func (l *logins) malformed(remote string) {
	if l.admit("", remoteHost(remote), remote) {
		l.metrics.refused.Inc()
		l.log.Warn("login refused", "remote", remote, "reason", "the Authorization header is not understood")
	}
}

// admit takes a token from the address. The first login that is not admitted is logged.
func (l *logins) admit(name string, from netip.Addr, remote string) bool {
	ok, first := l.limiter.take(from)
	if !ok {
		l.metrics.limited.Inc()
	}
	if first {
		l.log.Warn("too many logins from one address have failed: more are refused unread", "user", loggedName(name), "remote", remote)
	}
	return ok
}

func loggedName(name string) hclog.Quote {
	if len(name) > maxLoggedName {
		name = name[:maxLoggedName] + "..."
	}
	return hclog.Quote(name)
}

// hash returns the hash of a new password.
func (l *logins) hash(ctx context.Context, password string) (string, error) {
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	h, err := bcrypt.GenerateFromPassword([]byte(truncate(password)), l.cost)
	return string(h), err
}

func truncate(password string) string { return password[:min(len(password), maxPassword)] }

func (l *logins) mac(name, password string) (m mac) {
	h := l.macs.Get().(*macState)
	h.Reset()
	h.buf = binary.AppendUvarint(h.buf[:0], uint64(len(name)))
	h.buf = append(h.buf, name...)
	h.buf = append(h.buf, password...)
	h.Write(h.buf)
	clear(h.buf)
	copy(m[:], h.Sum(h.buf[:0]))
	l.macs.Put(h)
	return m
}

// isKnown says whether the credentials have been found good for the hash.
func (l *logins) isKnown(m mac, hash string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return hash != "" && l.known[m] == hash
}

func (l *logins) remember(m mac, hash string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.known[m]; !ok && len(l.known) >= maxKnown {
		for old := range l.known { // in no order
			delete(l.known, old)
			break
		}
	}
	l.known[m] = hash
}
