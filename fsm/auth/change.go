package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"github.com/quorate/quorate/api"
)

// Op says what a change does.
type Op string

// The operations. They are in logs on disk: never give one another meaning.
const (
	PutUser    Op = "putUser"
	DeleteUser Op = "deleteUser"
	PutRole    Op = "putRole"
	DeleteRole Op = "deleteRole"
	Enable     Op = "enable"
	Disable    Op = "disable"
)

// Change is what a request asks for. What comes of it is decided by [State.Apply], in the order of
// the log, not by the member that received the request.
type Change struct {
	Op Op `json:"op"`
	// Name is that of the user or role.
	Name string      `json:"name,omitempty"`
	User *UserChange `json:"user,omitempty"` // with PutUser
	Role *RoleChange `json:"role,omitempty"` // with PutRole
	// Guest is what role guest gets if Enable has to make it.
	Guest *Permissions `json:"guest,omitempty"`
}

// UserChange is what is to become of a user. With Grant or Revoke it changes one; with Roles it makes
// one; with neither it makes one, or changes the password if there is one.
type UserChange struct {
	// Hash is the bcrypt hash of the new password, and empty when none was given.
	Hash   string   `json:"hash,omitempty"`
	Roles  []string `json:"roles"`
	Grant  []string `json:"grant,omitempty"`
	Revoke []string `json:"revoke,omitempty"`
}

// RoleChange is what is to become of a role: with Grant or Revoke it changes one, else it makes one
// with Permissions.
type RoleChange struct {
	Permissions Permissions `json:"permissions"`
	Grant       Permissions `json:"grant"`
	Revoke      Permissions `json:"revoke"`
}

// IsUpdate says whether the role must be there already.
func (c *RoleChange) IsUpdate() bool { return !c.Grant.IsEmpty() || !c.Revoke.IsEmpty() }

// IsUpdate says whether the user must be there already.
func (c *UserChange) IsUpdate() bool { return len(c.Grant) > 0 || len(c.Revoke) > 0 }

// Check says what is wrong with a change that no member would have proposed.
func (c *Change) Check() error {
	switch c.Op {
	case Disable:
		return nil
	case Enable:
		if c.Guest == nil {
			return errors.New("enable without permissions of guest")
		}
		return nil
	case PutUser, DeleteUser, PutRole, DeleteRole:
		if c.Name == "" || c.Op == PutUser && c.User == nil || c.Op == PutRole && c.Role == nil {
			return fmt.Errorf("%s is incomplete", c.Op)
		}
		return nil
	}
	return fmt.Errorf("operation %q on users and roles is not known to this version of quorate: run a newer one", c.Op)
}

// Outcome is what came of a change.
type Outcome struct {
	// Steps is how far the index moves, which it can do on a refusal too. The steps are those of
	// etcd (spec auth 1).
	Steps int
	// User or Role is what a PutUser or PutRole made. Of user root it may lack role root, which the
	// user keeps nevertheless.
	User *User
	Role *Role
	// Created says that the user or role was not there before.
	Created bool
}

// foundingSteps is what the first change costs: etcd makes three directories and the switch.
const foundingSteps = 4

// maxSize bounds all users and roles together, in bytes of JSON, so that a snapshot can always be
// read again.
const maxSize = 16 << 20

// Apply returns the state after a change that Check found nothing wrong with. A refusal is an
// *api.StatusError, and an outcome like any other: every member reaches the same one.
func (s *State) Apply(c *Change) (*State, Outcome, error) {
	switch c.Op {
	case PutUser:
		return s.putUser(c.Name, c.User)
	case DeleteUser:
		if s.enabled && c.Name == Root {
			return s, Outcome{}, refuse(http.StatusForbidden, "Cannot delete root user while auth is enabled.")
		}
		next, out := s.founding()
		user := s.users[c.Name]
		if user == nil {
			return next, out, refuse(http.StatusNotFound, "User %s does not exist", c.Name)
		}
		next.users = maps.Clone(s.users)
		delete(next.users, c.Name)
		next.size -= sizeOf(user)
		out.Steps++
		return next, out, nil

	case PutRole:
		return s.putRole(c.Name, c.Role)
	case DeleteRole:
		if c.Name == Root {
			return s, Outcome{}, errRootRole
		}
		next, out := s.founding()
		role := s.roles[c.Name]
		if role == nil {
			return next, out, refuse(http.StatusNotFound, "Role %s doesn't exist.", c.Name)
		}
		next.roles = maps.Clone(s.roles)
		delete(next.roles, c.Name)
		next.size -= sizeOf(role)
		out.Steps++
		return next, out, nil

	case Enable:
		if s.enabled {
			return s, Outcome{}, refuse(http.StatusConflict, "already enabled")
		}
		if s.users[Root] == nil {
			return s, Outcome{}, refuse(http.StatusConflict, "No root user available, please create one")
		}
		next, out := s.founding()
		if s.roles[Guest] == nil {
			if err := next.storeRole(&Role{Name: Guest, Permissions: *c.Guest}); err != nil {
				return s, Outcome{}, err
			}
			out.Steps++
		}
		next.enabled = true
		out.Steps++
		return next, out, nil

	default: // Disable
		if !s.enabled {
			return s, Outcome{}, refuse(http.StatusConflict, "already disabled")
		}
		next, out := s.founding()
		next.enabled = false
		out.Steps++
		return next, out, nil
	}
}

// founding returns a copy of s that has been founded, and what that costs.
func (s *State) founding() (*State, Outcome) {
	next := *s
	if s.founded {
		return &next, Outcome{}
	}
	next.founded = true
	return &next, Outcome{Steps: foundingSteps}
}

func (s *State) putUser(name string, c *UserChange) (*State, Outcome, error) {
	old := s.users[name]
	if old == nil && c.IsUpdate() {
		return s, Outcome{}, NoUser(name)
	}
	if old == nil || len(c.Roles) > 0 {
		if c.Hash == "" {
			return s, Outcome{}, refuse(http.StatusBadRequest, "Cannot create user %s with an empty password", name)
		}
		if old != nil {
			return s, Outcome{}, refuse(http.StatusConflict, "User %s already exists.", name)
		}
		user := withRoot(&User{Name: name, Hash: c.Hash, Roles: c.Roles})
		return s.putUserRecord(user, true)
	}

	user := &User{Name: name, Hash: old.Hash}
	if c.Hash != "" {
		user.Hash = c.Hash
	}
	roles := setOf(old.Roles)
	if twice, ok := roles.add(c.Grant); !ok {
		return s, Outcome{}, refuse(http.StatusConflict, "Granting duplicate role %s for user %s", twice, name)
	}
	for _, role := range c.Revoke {
		if !roles.remove(role) {
			return s, Outcome{}, refuse(http.StatusConflict, "Revoking ungranted role %s for user %s", role, name)
		}
	}
	user.Roles = roles.sorted()
	// That nil and empty differ here is visible in etcd: the first change of nothing is one.
	if reflect.DeepEqual(old, user) {
		return s, Outcome{}, refuse(http.StatusBadRequest, "User not updated. Use grant/revoke/password to update the user.")
	}
	return s.putUserRecord(user, false)
}

func (s *State) putUserRecord(user *User, created bool) (*State, Outcome, error) {
	next, out := s.founding()
	stored := withRoot(user)
	size := s.size + sizeOf(stored)
	if old := s.users[user.Name]; old != nil {
		size -= sizeOf(old)
	}
	if size > maxSize && size > s.size {
		return s, Outcome{}, errTooMuch
	}
	next.size = size
	next.users = maps.Clone(s.users)
	if next.users == nil {
		next.users = make(map[string]*User)
	}
	next.users[user.Name] = stored
	out.Steps++
	out.User, out.Created = user, created
	return next, out, nil
}

// withRoot returns the user with role root if it is user root.
func withRoot(u *User) *User {
	if u.Name != Root || u.IsAdmin() {
		return u
	}
	c := *u
	c.Roles = append(slices.Clip(u.Roles), Root)
	return &c
}

func (s *State) putRole(name string, c *RoleChange) (*State, Outcome, error) {
	if name == Root {
		return s, Outcome{}, errRootRole
	}
	old := s.roles[name]
	role := &Role{Name: name, Permissions: c.Permissions}
	if c.IsUpdate() {
		if old == nil {
			return s, Outcome{}, NoRole(name)
		}
		var err error
		if role.Permissions, err = old.Permissions.change(c); err != nil {
			return s, Outcome{}, err
		}
		if reflect.DeepEqual(old, role) {
			return s, Outcome{}, refuse(http.StatusBadRequest, "Role not updated. Use grant/revoke to update the role.")
		}
	} else if old != nil {
		return s, Outcome{}, refuse(http.StatusConflict, "Role %s already exists.", name)
	}
	next, out := s.founding()
	if err := next.storeRole(role); err != nil {
		return s, Outcome{}, err
	}
	out.Steps++
	out.Role, out.Created = role, old == nil
	return next, out, nil
}

// storeRole puts a role into s, which must be a copy that nobody else has seen.
func (s *State) storeRole(role *Role) error {
	size := s.size + sizeOf(role)
	if old := s.roles[role.Name]; old != nil {
		size -= sizeOf(old)
	}
	if size > maxSize && size > s.size {
		return errTooMuch
	}
	s.size = size
	roles := maps.Clone(s.roles)
	if roles == nil {
		roles = make(map[string]*Role)
	}
	roles[role.Name] = role
	s.roles = roles
	return nil
}

// change returns the permissions after all grants and then all revocations. Revoking what is not
// there is no mistake. The lists become sorted, and empty ones are not nil.
func (p Permissions) change(c *RoleChange) (Permissions, error) {
	change := func(kind string, have, grant, revoke []string) ([]string, error) {
		patterns := setOf(have)
		if twice, ok := patterns.add(grant); !ok {
			return nil, refuse(http.StatusConflict, "Granting duplicate %s permission %s", kind, twice)
		}
		for _, pattern := range revoke {
			patterns.remove(pattern)
		}
		return patterns.sorted(), nil
	}
	read, err := change("read", p.KV.Read, c.Grant.KV.Read, c.Revoke.KV.Read)
	if err != nil {
		return p, err
	}
	write, err := change("write", p.KV.Write, c.Grant.KV.Write, c.Revoke.KV.Write)
	if err != nil {
		return p, err
	}
	return Permissions{Patterns{Read: read, Write: write}}, nil
}

type set map[string]struct{}

func setOf(list []string) set {
	s := make(set, len(list))
	for _, one := range list {
		s[one] = struct{}{}
	}
	return s
}

// add puts all of list into the set, up to the first that is in it already.
func (s set) add(list []string) (twice string, ok bool) {
	for _, one := range list {
		if _, have := s[one]; have {
			return one, false
		}
		s[one] = struct{}{}
	}
	return "", true
}

func (s set) remove(one string) bool {
	_, ok := s[one]
	delete(s, one)
	return ok
}

// sorted returns what is in the set, never nil.
func (s set) sorted() []string {
	return slices.AppendSeq(make([]string, 0, len(s)), sortedKeys(s))
}

// sizeOf returns the length of a user or role in JSON.
func sizeOf(record any) int {
	b, err := json.Marshal(record)
	if err != nil {
		panic(err) // strings always marshal
	}
	return len(b)
}

// The refusals. All but the last are worded as etcd words them, differences included.
var (
	errRootRole = refuse(http.StatusForbidden, "Cannot modify role %s: is root role.", Root)
	errTooMuch  = refuse(http.StatusBadRequest, "Users and roles may take %d bytes together, and these would take more.", maxSize)
)

func refuse(status int, format string, args ...any) error {
	return &api.StatusError{Status: status, Message: "auth: " + fmt.Sprintf(format, args...)}
}

// NoUser is the refusal for a user that is not there. It is not used when one is to be deleted.
func NoUser(name string) error {
	return refuse(http.StatusNotFound, "User %s does not exist.", name)
}

// NoRole is the refusal for a role that is not there. It is not used when one is to be deleted.
func NoRole(name string) error {
	return refuse(http.StatusNotFound, "Role %s does not exist.", name)
}
