package store

import (
	"context"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/fsm/auth"
)

// AuthState returns the users and roles that this member has applied, and whether they are in force.
func (s *Store) AuthState() *auth.State { return s.fsm.Auth() }

// ChangeAuth replicates a change of users and roles and returns what came of it once this member has
// applied it. The error is the refusal, an *api.StatusError, or an *api.Error of code 300, after
// which the outcome may be unknown.
func (s *Store) ChangeAuth(ctx context.Context, c auth.Change) (auth.Outcome, error) {
	if err := c.Check(); err != nil {
		return auth.Outcome{}, err // would stop every member
	}
	if err := s.introduced(ctx); err != nil {
		return auth.Outcome{}, err
	}
	result, err := s.pipeline.propose(ctx, &fsm.Command{Kind: fsm.KindAuth, Auth: &c})
	if err != nil {
		return auth.Outcome{}, err
	}
	return *result.Auth, result.Err
}
