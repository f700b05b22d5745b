// Package auth is who may do what, as far as the members agree on it: users, roles, and the switch
// that puts them in force (spec auth).
//
// A [State] is immutable: a [Change] makes a new one, so readers need no lock and a snapshot is a
// pointer. Like the key tree it is deterministic. It reads no clock and never sees a password: the
// member that receives a request hashes it, and the hash is what the members agree on. Whether a
// password fits a hash is not decided here either.
package auth

import (
	"maps"
	"slices"
	"strings"
)

const (
	// Root is the name of the user without whom nothing is switched on, and of the role that may do
	// everything. The role is built in: it is never stored or changed. The user always has it.
	Root = "root"
	// Guest is the name of the role that requests without credentials have.
	Guest = "guest"
)

// User is a user as it is stored. It is immutable.
type User struct {
	Name string `json:"user"`
	// Hash is the bcrypt hash of the password.
	Hash string `json:"hash"`
	// Roles are names; there may be no such role. Nil and empty look different in answers.
	Roles []string `json:"roles"`
}

// IsAdmin says whether the user may change users, roles and members.
func (u *User) IsAdmin() bool { return slices.Contains(u.Roles, Root) }

// Role is a named set of permissions. It is immutable.
type Role struct {
	Name        string      `json:"role"`
	Permissions Permissions `json:"permissions"`
}

// Permissions are what a role grants. The level above Patterns is part of the wire format.
type Permissions struct {
	KV Patterns `json:"kv"`
}

// Patterns say which keys may be read and written. See [Matches] for their form.
type Patterns struct {
	Read  []string `json:"read"`
	Write []string `json:"write"`
}

// IsEmpty says whether there is no pattern at all.
func (p Permissions) IsEmpty() bool { return len(p.KV.Read) == 0 && len(p.KV.Write) == 0 }

// Everything are the permissions of role root, and of the role guest that etcd makes.
func Everything() Permissions {
	return Permissions{Patterns{Read: []string{"/*"}, Write: []string{"/*"}}}
}

var rootRole = &Role{Name: Root, Permissions: Everything()}

// State is all users and roles, and whether they are in force. The zero State has none, and lets
// everybody do everything. All methods may be called at the same time.
type State struct {
	enabled bool
	// founded says that the first change was made, which takes more steps than later ones.
	founded bool
	users   map[string]*User
	roles   map[string]*Role
	// size is the length of all users and roles in JSON, in bytes.
	size int
}

// Enabled says whether users and roles are in force.
func (s *State) Enabled() bool { return s.enabled }

// IsZero says whether nothing has ever been changed.
func (s *State) IsZero() bool { return s == nil || !s.founded }

// User returns a user, or nil if there is none of that name.
func (s *State) User(name string) *User { return s.users[name] }

// Role returns a role, or nil if there is none of that name. There always is a role root.
func (s *State) Role(name string) *Role {
	if name == Root {
		return rootRole
	}
	return s.roles[name]
}

// Users returns all users but the hidden ones, whose names begin with an underscore, by name.
func (s *State) Users() []*User {
	var out []*User
	for _, name := range slices.Sorted(maps.Keys(s.users)) {
		if !strings.HasPrefix(name, "_") {
			out = append(out, s.users[name])
		}
	}
	return out
}

// Roles returns all roles but the hidden ones, root included, by name.
func (s *State) Roles() []*Role {
	names := append(slices.Collect(maps.Keys(s.roles)), Root)
	slices.Sort(names)
	var out []*Role
	for _, name := range names {
		if !strings.HasPrefix(name, "_") {
			out = append(out, s.Role(name))
		}
	}
	return out
}
