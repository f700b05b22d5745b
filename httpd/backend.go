// Package httpd serves the etcd v2 API over HTTP: keys and watches, members, statistics, health.
//
// It parses requests, asks a [Backend], and writes answers whose bytes are those of etcd 3.4.23
// with --enable-v2. It decides nothing about the data: what a write does is fsm/tree's business,
// and when it is safe to say so is the backend's. It knows nothing of raft.
//
// What it answers better than etcd is listed in docs/divergences.md.
package httpd

import (
	"context"
	"net/http"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/fsm/tree"
)

// Backend is what the API needs of a member of a cluster. All methods may be called at the same time.
type Backend interface {
	// ClusterID and MemberID do not change while the member runs.
	ClusterID() uint64
	MemberID() uint64
	// Tree holds what this member has applied. Plain reads and watches are served from it.
	Tree() *tree.Tree
	// RaftState returns the commit index and the current term as this member knows them.
	RaftState() (index, term uint64)
	// Do proposes a write and returns once this member has applied it. The error is an *api.Error:
	// a refusal of the tree, or code 300 when the outcome is unknown or nothing could be done.
	Do(ctx context.Context, w tree.Write) (*tree.Event, error)
	// Linearizable returns when Tree is at least as new as the moment of the call, or an
	// *api.Error with code 300.
	Linearizable(ctx context.Context) error

	// Backup takes the state of this member at one moment.
	Backup() (*backup.State, error)

	// Members returns all members in ascending order of their IDs.
	Members() []api.Member
	// Leader returns the member that leads, if this one knows of any.
	Leader() (api.Member, bool)
	// Voters returns the IDs of the members that have a vote, in ascending order.
	Voters() []uint64
	// TransferLeadership lets another voter lead, to if that is not 0, and returns the one that does.
	// A refusal is an *api.StatusError.
	TransferLeadership(ctx context.Context, to uint64) (api.Member, error)
	// AddMember, UpdateMember and RemoveMember change the membership. A refusal is an
	// *api.StatusError; any other error is logged and answered with 500.
	AddMember(ctx context.Context, peerURLs []string) (api.Member, error)
	UpdateMember(ctx context.Context, id uint64, peerURLs []string) error
	RemoveMember(ctx context.Context, id uint64) error

	Version() api.Version
	SelfStats() api.SelfStats
	// LeaderStats returns false on a member that does not lead.
	LeaderStats() (api.LeaderStats, bool)
	Status() Status
}

// Status is whether a member should get traffic, for /readyz.
type Status = api.Readiness

// AccessKind is what a request wants to do with what it addresses.
type AccessKind uint8

const (
	// Read and Write are for keys.
	Read AccessKind = iota
	Write
	// Admin is for members, users and roles: it needs the role root.
	Admin
)

// Access is what a request needs permission for.
type Access struct {
	Kind AccessKind
	// Key is the decoded request path behind /v2/keys, as it was sent: with a slash at its end if
	// there was one, and empty for /v2/keys itself. Patterns of roles are matched against this text
	// (spec auth 4).
	Key string
	// Recursive is the parameter of that name, on any method.
	Recursive bool
}

// Authorizer decides who may do what. It is asked after the parameters of a request were found to be
// good. Any error is a refusal, answered with 401 in the shape of the endpoint.
//
// Of the request it may look at the method, the URL, the header Authorization, the address of the client
// and the TLS connection; other headers need not be there. An Authorizer may have a method
// Enabled() bool: as long as it returns false, everything is allowed and Authorize is not called.
type Authorizer interface {
	Authorize(r *http.Request, access Access) error
}
