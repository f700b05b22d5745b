// Package auth decides who makes a request, whether that one may, and serves /v2/auth, where users
// and roles are managed (spec auth).
//
// What users and roles there are, and what they may do, is replicated state: package fsm/auth. Here
// are the parts that are each member's own: passwords, which are never stored or logged, the memory
// of those that were found good, and the limits on guessing them.
package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/httpd"
)

// Backend is what a Guard needs of a member of a cluster. All methods may be called at the same time.
type Backend interface {
	ClusterID() uint64
	// AuthState returns the users and roles that this member has applied. It is called for every
	// request, so it should be no more than a load.
	AuthState() *auth.State
	// ChangeAuth proposes a change and returns what came of it once this member has applied it. A
	// refusal is an *api.StatusError; any other error means that the outcome is unknown or nothing
	// could be done.
	ChangeAuth(ctx context.Context, c auth.Change) (auth.Outcome, error)
}

// Options are what a Guard can be told. The zero value of each field is usable.
type Options struct {
	// Guest is what requests without credentials may do once users and roles are put in force and
	// there is no role guest yet: GuestReadWrite, GuestRead or GuestNone. Empty means GuestReadWrite,
	// as in etcd.
	Guest string
	// Cost is that of new bcrypt hashes. Zero means 10, that of etcd.
	Cost int
	// Failures is how many logins of one address may fail at once, and FailureRate how many more each
	// second. Beyond that they are refused without a look at the password, unless it is one that was
	// found good before. Zero means 200 and 10.
	Failures    int
	FailureRate float64
	// Logger gets a line for each refused login. Nil means silence.
	Logger hclog.Logger
}

// The values of Options.Guest.
const (
	GuestReadWrite = "readwrite"
	GuestRead      = "read"
	GuestNone      = "none"
)

// guestPermissions returns what a setting of Options.Guest stands for.
func guestPermissions(setting string) auth.Permissions {
	p := auth.Everything()
	switch setting {
	case GuestRead:
		p.KV.Write = []string{}
	case GuestNone:
		p.KV.Read, p.KV.Write = []string{}, []string{}
	}
	return p
}

// Guard is the httpd.Authorizer and the handler of /v2/auth of one server. Until it has a backend it
// refuses everything.
type Guard struct {
	guest   auth.Permissions // of a role guest that has to be made
	log     hclog.Logger
	backend atomic.Pointer[Backend]
	logins  *logins
}

// New returns a Guard. It gets its backend with SetBackend.
func New(o Options) *Guard {
	if o.Cost == 0 {
		o.Cost = 10
	}
	if o.Failures == 0 {
		o.Failures = 200
	}
	if o.FailureRate == 0 {
		o.FailureRate = 10
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return &Guard{
		guest:  guestPermissions(o.Guest),
		log:    o.Logger,
		logins: newLogins(o.Cost, newLimiter(o.Failures, o.FailureRate, time.Now), o.Logger),
	}
}

// SetBackend says whose users and roles count. Call it before the server gets its own backend.
func (g *Guard) SetBackend(b Backend) { g.backend.Store(&b) }

// Enabled says whether Authorize could refuse anything. While it cannot, httpd need not make up a
// request to ask about.
func (g *Guard) Enabled() bool {
	b := g.backend.Load()
	return b == nil || (*b).AuthState().Enabled()
}

// errRefused is the answer to whoever may not, or is not who he says.
var errRefused = errors.New("insufficient credentials")

// Authorize implements httpd.Authorizer. When users and roles are not in force, everybody may do
// everything, and credentials are not looked at.
func (g *Guard) Authorize(r *http.Request, a httpd.Access) error {
	b := g.backend.Load()
	if b == nil {
		return errRefused
	}
	state := (*b).AuthState()
	if !state.Enabled() {
		return nil
	}
	user, err := g.identify(r, state)
	if err != nil {
		return err
	}
	access := auth.Access{Key: a.Key, Write: a.Kind == httpd.Write, Recursive: a.Recursive}
	var ok bool
	switch {
	case a.Kind == httpd.Admin:
		ok = user != nil && user.IsAdmin()
	case user == nil:
		ok = state.GuestMay(access)
	default:
		ok = state.UserMay(user, access)
	}
	if !ok {
		return errRefused
	}
	return nil
}

// identify returns who makes a request: a user, or nil for a guest. Credentials that are not good are
// an error, whatever else the request has to show: it is not a guest's then (spec auth 3.1).
func (g *Guard) identify(r *http.Request, state *auth.State) (*auth.User, error) {
	if r.Header.Get("Authorization") == "" {
		// The certificate of a proxy is not that of whoever it speaks for.
		if _, proxied := r.Header[api.HeaderProxy]; proxied {
			return nil, nil
		}
		return certificateUser(r.TLS, state), nil
	}
	name, password, ok := r.BasicAuth()
	if !ok {
		g.logins.malformed(r.RemoteAddr)
		return nil, errRefused
	}
	user := state.User(name)
	hash := ""
	if user != nil {
		hash = user.Hash
	}
	if !g.logins.check(name, password, hash, r.RemoteAddr) {
		return nil, errRefused
	}
	return user, nil
}

// certificateUser returns the user whom the client's certificate names, if there is one: the first
// common name along the verified chains that is a user's (spec auth 6).
func certificateUser(state *tls.ConnectionState, users *auth.State) *auth.User {
	if state == nil {
		return nil
	}
	for _, chain := range state.VerifiedChains {
		for _, certificate := range chain {
			if user := users.User(certificate.Subject.CommonName); user != nil {
				return user
			}
		}
	}
	return nil
}
