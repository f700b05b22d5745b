package httpdtest

import (
	"context"

	"github.com/quorate/quorate/fsm/auth"
)

// AuthState returns the users and roles, and whether they are in force.
func (m *Member) AuthState() *auth.State { return m.auth.Load() }

// ChangeAuth applies the change at once.
func (m *Member) ChangeAuth(ctx context.Context, c auth.Change) (auth.Outcome, error) {
	if m.Fail != nil {
		if err := m.Fail(ctx); err != nil {
			return auth.Outcome{}, err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied.Add(1)
	state, out, err := m.auth.Load().Apply(&c)
	m.auth.Store(state)
	b := m.tree.Begin(0)
	b.Skip(out.Steps)
	b.End()
	return out, err
}
