package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
)

// encoded is a State as it stands in a snapshot, with the lists sorted by name: equal states have
// equal bytes.
type encoded struct {
	Enabled bool    `json:"enabled"`
	Founded bool    `json:"founded"`
	Users   []*User `json:"users,omitempty"`
	Roles   []*Role `json:"roles,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (s *State) MarshalJSON() ([]byte, error) {
	e := encoded{Enabled: s.enabled, Founded: s.founded}
	for name := range sortedKeys(s.users) {
		e.Users = append(e.Users, s.users[name])
	}
	for name := range sortedKeys(s.roles) {
		e.Roles = append(e.Roles, s.roles[name])
	}
	return json.Marshal(e)
}

// UnmarshalJSON implements json.Unmarshaler. It refuses what no State is written as.
func (s *State) UnmarshalJSON(b []byte) error {
	var e encoded
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("read users and roles: %w", err)
	}
	out := State{enabled: e.Enabled, founded: e.Founded}
	if len(e.Users) > 0 {
		out.users = make(map[string]*User, len(e.Users))
	}
	for _, u := range e.Users {
		if u == nil || u.Name == "" || out.users[u.Name] != nil {
			return errors.New("read users and roles: a user without a name, or twice")
		}
		out.users[u.Name] = u
		out.size += sizeOf(u)
	}
	if len(e.Roles) > 0 {
		out.roles = make(map[string]*Role, len(e.Roles))
	}
	for _, r := range e.Roles {
		if r == nil || r.Name == "" || r.Name == Root || out.roles[r.Name] != nil {
			return errors.New("read users and roles: a role without a name, or twice")
		}
		out.roles[r.Name] = r
		out.size += sizeOf(r)
	}
	if e.Enabled && out.users[Root] == nil {
		return errors.New("read users and roles: in force, but without user root")
	}
	if !e.Founded && (e.Enabled || len(e.Users)+len(e.Roles) > 0) {
		return errors.New("read users and roles: there are some, but none was ever made")
	}
	*s = out
	return nil
}

// sortedKeys goes through the keys of a map in order.
func sortedKeys[V any](m map[string]V) iter.Seq[string] {
	return slices.Values(slices.Sorted(maps.Keys(m)))
}
