package client

import (
	"context"
	"net/http"

	"github.com/quorate/quorate/api"
)

const authPath = "/v2/auth"

// User is a user as the server shows it: the password never appears.
type User struct {
	Name  string `json:"user"`
	Roles []Role `json:"roles"`
}

// Role is a role with the key patterns it may read and write.
type Role struct {
	Name        string      `json:"role"`
	Permissions Permissions `json:"permissions"`
}

// Permissions are the patterns of a role.
type Permissions struct {
	KV Patterns `json:"kv"`
}

// Patterns are paths; a final * stands for anything that follows.
type Patterns struct {
	Read  []string `json:"read"`
	Write []string `json:"write"`
}

// Auth reads and changes users, roles and the switch that puts them in force (spec auth). Refusals
// are *api.StatusError.
type Auth struct {
	client *Client
}

// Auth returns access to users and roles.
func (c *Client) Auth() Auth { return Auth{c} }

// Enabled tells whether credentials are checked.
func (a Auth) Enabled(ctx context.Context) (bool, error) {
	var state struct {
		Enabled bool `json:"enabled"`
	}
	err := a.client.call(ctx, http.MethodGet, authPath+"/enable", nil, &state, http.StatusOK)
	return state.Enabled, err
}

// Enable switches the checks on; a user named root must exist.
func (a Auth) Enable(ctx context.Context) error {
	return a.client.call(ctx, http.MethodPut, authPath+"/enable", nil, nil, http.StatusOK)
}

// Disable switches the checks off.
func (a Auth) Disable(ctx context.Context) error {
	return a.client.call(ctx, http.MethodDelete, authPath+"/enable", nil, nil, http.StatusOK)
}

// Users returns all users, sorted by name.
func (a Auth) Users(ctx context.Context) ([]User, error) {
	var list struct {
		Users []User `json:"users"`
	}
	err := a.client.call(ctx, http.MethodGet, authPath+"/users", nil, &list, http.StatusOK)
	return list.Users, err
}

// User returns one user.
func (a Auth) User(ctx context.Context, name string) (User, error) {
	var u User
	err := a.client.call(ctx, http.MethodGet, authPath+"/users/"+name, nil, &u, http.StatusOK)
	return u, err
}

// AddUser creates a user. The server takes the same request as a change of the password when the
// user exists; ask for the user first where that matters.
func (a Auth) AddUser(ctx context.Context, name, password string) error {
	return a.putUser(ctx, userBody{Name: name, Password: password})
}

// SetPassword changes the password of a user.
func (a Auth) SetPassword(ctx context.Context, name, password string) error {
	return a.putUser(ctx, userBody{Name: name, Password: password})
}

// GrantRoles gives roles to a user, all or none. They need not exist.
func (a Auth) GrantRoles(ctx context.Context, name string, roles []string) error {
	return a.putUser(ctx, userBody{Name: name, Grant: roles})
}

// RevokeRoles takes roles from a user, all or none.
func (a Auth) RevokeRoles(ctx context.Context, name string, roles []string) error {
	return a.putUser(ctx, userBody{Name: name, Revoke: roles})
}

// RemoveUser removes a user.
func (a Auth) RemoveUser(ctx context.Context, name string) error {
	return a.client.call(ctx, http.MethodDelete, authPath+"/users/"+name, nil, nil, http.StatusOK)
}

// Roles returns all roles, sorted by name, root included.
func (a Auth) Roles(ctx context.Context) ([]Role, error) {
	var list struct {
		Roles []Role `json:"roles"`
	}
	err := a.client.call(ctx, http.MethodGet, authPath+"/roles", nil, &list, http.StatusOK)
	return list.Roles, err
}

// Role returns one role.
func (a Auth) Role(ctx context.Context, name string) (Role, error) {
	var r Role
	err := a.client.call(ctx, http.MethodGet, authPath+"/roles/"+name, nil, &r, http.StatusOK)
	return r, err
}

// AddRole creates a role without any permission.
func (a Auth) AddRole(ctx context.Context, name string) error {
	return a.putRole(ctx, roleBody{Name: name, Permissions: &Permissions{}})
}

// GrantPermissions adds patterns to a role.
func (a Auth) GrantPermissions(ctx context.Context, name string, p Patterns) error {
	return a.putRole(ctx, roleBody{Name: name, Grant: &Permissions{p}})
}

// RevokePermissions removes patterns from a role; those it does not have are ignored.
func (a Auth) RevokePermissions(ctx context.Context, name string, p Patterns) error {
	return a.putRole(ctx, roleBody{Name: name, Revoke: &Permissions{p}})
}

// RemoveRole removes a role; users keep its name without effect.
func (a Auth) RemoveRole(ctx context.Context, name string) error {
	return a.client.call(ctx, http.MethodDelete, authPath+"/roles/"+name, nil, nil, http.StatusOK)
}

type userBody struct {
	Name     string   `json:"user"`
	Password string   `json:"password,omitempty"`
	Roles    []string `json:"roles"`
	Grant    []string `json:"grant,omitempty"`
	Revoke   []string `json:"revoke,omitempty"`
}

func (a Auth) putUser(ctx context.Context, u userBody) error {
	if u.Name == "" {
		return &api.StatusError{Status: http.StatusBadRequest, Message: "client: user name is empty"}
	}
	return a.client.call(ctx, http.MethodPut, authPath+"/users/"+u.Name, u, nil, http.StatusOK, http.StatusCreated)
}

type roleBody struct {
	Name        string       `json:"role"`
	Permissions *Permissions `json:"permissions,omitempty"`
	Grant       *Permissions `json:"grant,omitempty"`
	Revoke      *Permissions `json:"revoke,omitempty"`
}

func (a Auth) putRole(ctx context.Context, r roleBody) error {
	if r.Name == "" {
		return &api.StatusError{Status: http.StatusBadRequest, Message: "client: role name is empty"}
	}
	return a.client.call(ctx, http.MethodPut, authPath+"/roles/"+r.Name, r, nil, http.StatusOK, http.StatusCreated)
}
