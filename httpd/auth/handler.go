package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/httpd"
)

const prefix = "/v2/auth"

// maxBody bounds the body of a request, in bytes.
const maxBody = 1 << 20

var (
	errCredentials = &api.StatusError{Status: http.StatusUnauthorized, Message: "Insufficient credentials"}
	errPath        = &api.StatusError{Status: http.StatusBadRequest, Message: "Invalid path"}
	errJSON        = &api.StatusError{Status: http.StatusBadRequest, Message: "Invalid JSON in request body."}
	errUserName    = &api.StatusError{Status: http.StatusBadRequest, Message: "User JSON name does not match the name in the URL"}
	errUserBoth    = &api.StatusError{Status: http.StatusBadRequest, Message: "User JSON contains both roles and grant/revoke"}
	errRoleName    = &api.StatusError{Status: http.StatusBadRequest, Message: "Role JSON name does not match the name in the URL"}
	errRoleBoth    = &api.StatusError{Status: http.StatusBadRequest, Message: "Role JSON contains both permissions and grant/revoke"}
	errStarting    = &api.StatusError{Status: http.StatusServiceUnavailable, Message: "this member is starting"}
)

// ServeHTTP serves /v2/auth/enable, and /v2/auth/users and /v2/auth/roles with what is below them. The
// server has found the method to be allowed (httpd.Options.Auth).
func (g *Guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := g.serve(w, r)
	if err == nil {
		return
	}
	refusal := &api.StatusError{Status: http.StatusInternalServerError, Message: "Internal Server Error"}
	if !errors.As(err, &refusal) {
		g.log.Error("request failed", "method", r.Method, "path", hclog.Quote(r.URL.Path), "error", err)
	}
	body, err := json.Marshal(struct {
		Message string `json:"message"`
	}{refusal.Message})
	if err != nil {
		g.log.Error("answer not written", "error", err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(refusal.Status)
	w.Write(body)
}

// serve checks first the path, then permission, then the body, as etcd does (spec auth 2).
func (g *Guard) serve(w http.ResponseWriter, r *http.Request) error {
	b := g.backend.Load()
	if b == nil {
		return errStarting
	}
	pieces := strings.Split(strings.TrimPrefix(path.Clean(strings.TrimPrefix(r.URL.Path, prefix)), "/"), "/")
	if len(pieces) > 2 {
		return errPath
	}
	q := &request{guard: g, backend: *b, w: w, r: r}
	if pieces[0] == "enable" {
		return q.serveSwitch()
	}
	if err := q.admin(); err != nil {
		return err
	}
	state := q.backend.AuthState()
	if len(pieces) == 1 {
		if err := q.checkQuery(); err != nil {
			return err
		}
		if pieces[0] == "users" {
			return q.listUsers(state)
		}
		return q.write(http.StatusOK, struct {
			Roles []*auth.Role `json:"roles"`
		}{state.Roles()})
	}
	name := pieces[1]
	switch pieces[0] + " " + r.Method {
	case "users GET":
		return q.getUser(state, name)
	case "users PUT":
		return q.putUser(name)
	case "roles GET":
		return q.getRole(state, name)
	case "roles PUT":
		return q.putRole(name)
	case "users DELETE":
		return q.remove(auth.DeleteUser, name)
	case "roles DELETE":
		return q.remove(auth.DeleteRole, name)
	}
	http.NotFound(w, r)
	return nil
}

// request is one request to /v2/auth.
type request struct {
	guard   *Guard
	backend Backend
	w       http.ResponseWriter
	r       *http.Request
}

// admin lets pass who may change users and roles. The answers of all others lack the cluster's ID.
func (q *request) admin() error {
	if q.guard.Authorize(q.r, httpd.Access{Kind: httpd.Admin}) != nil {
		return errCredentials
	}
	q.setHeader()
	return nil
}

func (q *request) setHeader() {
	q.w.Header().Set(api.HeaderClusterID, api.FormatID(q.backend.ClusterID()))
	q.w.Header().Set("Content-Type", "application/json")
}

// checkQuery refuses a malformed query, as etcd does on some endpoints, and as it does: with 500.
func (q *request) checkQuery() error {
	if err := q.r.ParseForm(); err != nil {
		return &api.StatusError{Status: http.StatusInternalServerError, Message: "Internal Server Error"}
	}
	return nil
}

func (q *request) write(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	q.w.WriteHeader(status)
	q.w.Write(append(b, '\n'))
	return nil
}

func (q *request) change(c auth.Change) (auth.Outcome, error) {
	return q.backend.ChangeAuth(q.r.Context(), c)
}

func (q *request) serveSwitch() error {
	if q.r.Method == http.MethodGet {
		q.setHeader()
		return q.write(http.StatusOK, struct {
			Enabled bool `json:"enabled"`
		}{q.backend.AuthState().Enabled()})
	}
	if err := q.admin(); err != nil {
		return err
	}
	if q.r.Method == http.MethodDelete {
		if _, err := q.change(auth.Change{Op: auth.Disable}); err != nil {
			return err
		}
		q.guard.log.Warn("users and roles are no longer in force: everybody may do everything", "remote", q.r.RemoteAddr)
		return nil
	}
	if _, err := q.change(auth.Change{Op: auth.Enable, Guest: &q.guard.guest}); err != nil {
		return err
	}
	q.guard.log.Info("users and roles are in force", "remote", q.r.RemoteAddr)
	if role := q.backend.AuthState().Role(auth.Guest); role != nil && len(role.Permissions.KV.Write) > 0 {
		q.guard.log.Warn("requests without credentials may write: revoke what role guest need not have", "write", role.Permissions.KV.Write)
	}
	return nil
}

// shownUser is a user as GET shows it, with whole roles.
type shownUser struct {
	User  string       `json:"user"`
	Roles []*auth.Role `json:"roles,omitempty"`
}

// listUsers leaves out roles that do not exist.
func (q *request) listUsers(state *auth.State) error {
	var list struct {
		Users []shownUser `json:"users"`
	}
	for _, user := range state.Users() {
		shown := shownUser{User: user.Name}
		for _, name := range user.Roles {
			if role := state.Role(name); role != nil {
				shown.Roles = append(shown.Roles, role)
			}
		}
		list.Users = append(list.Users, shown)
	}
	return q.write(http.StatusOK, list)
}

// getUser answers 404 for a role that does not exist, as etcd does, although the list leaves it out.
func (q *request) getUser(state *auth.State, name string) error {
	user := state.User(name)
	if user == nil {
		return auth.NoUser(name)
	}
	if err := q.checkQuery(); err != nil {
		return err
	}
	shown := shownUser{User: name}
	for _, name := range user.Roles {
		role := state.Role(name)
		if role == nil {
			return auth.NoRole(name)
		}
		shown.Roles = append(shown.Roles, role)
	}
	return q.write(http.StatusOK, shown)
}

func (q *request) getRole(state *auth.State, name string) error {
	role := state.Role(name)
	if role == nil {
		return auth.NoRole(name)
	}
	return q.write(http.StatusOK, role)
}

// decode reads a JSON value from the body and leaves what follows it.
func (q *request) decode(v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(q.w, q.r.Body, maxBody)).Decode(v); err != nil {
		if tooLong, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return &api.StatusError{Status: http.StatusRequestEntityTooLarge,
				Message: fmt.Sprintf("the body of the request is larger than %d bytes", tooLong.Limit)}
		}
		return errJSON
	}
	return nil
}

// userBody is the body of a PUT of a user.
type userBody struct {
	User     string   `json:"user"`
	Password string   `json:"password"`
	Roles    []string `json:"roles"`
	Grant    []string `json:"grant"`
	Revoke   []string `json:"revoke"`
}

func (q *request) putUser(name string) error {
	var in userBody
	if err := q.decode(&in); err != nil {
		return err
	}
	if in.User != name {
		return errUserName
	}
	c := auth.UserChange{Roles: in.Roles, Grant: in.Grant, Revoke: in.Revoke}
	if c.IsUpdate() && len(in.Roles) > 0 {
		return errUserBoth
	}
	if in.Password != "" {
		var err error
		if c.Hash, err = q.guard.logins.hash(q.r.Context(), in.Password); err != nil {
			return err
		}
	}
	out, err := q.change(auth.Change{Op: auth.PutUser, Name: name, User: &c})
	if err != nil {
		return err
	}
	// Whoever names the roles of a new user gets 200.
	status := http.StatusOK
	if out.Created && len(in.Roles) == 0 {
		status = http.StatusCreated
	}
	return q.write(status, struct {
		User  string   `json:"user"`
		Roles []string `json:"roles"`
	}{out.User.Name, out.User.Roles})
}

// roleBody is the body of a PUT of a role.
type roleBody struct {
	Role        string           `json:"role"`
	Permissions auth.Permissions `json:"permissions"`
	Grant       auth.Permissions `json:"grant"`
	Revoke      auth.Permissions `json:"revoke"`
}

func (q *request) putRole(name string) error {
	var in roleBody
	if err := q.decode(&in); err != nil {
		return err
	}
	if in.Role != name {
		return errRoleName
	}
	c := auth.RoleChange{Permissions: in.Permissions, Grant: in.Grant, Revoke: in.Revoke}
	if c.IsUpdate() && !in.Permissions.IsEmpty() {
		return errRoleBoth
	}
	out, err := q.change(auth.Change{Op: auth.PutRole, Name: name, Role: &c})
	if err != nil {
		return err
	}
	status := http.StatusOK
	if out.Created {
		status = http.StatusCreated
	}
	return q.write(status, out.Role)
}

// remove answers 200 with nothing in it.
func (q *request) remove(op auth.Op, name string) error {
	c := auth.Change{Op: op, Name: name}
	if !utf8.ValidString(name) {
		// Nobody has such a name, so this is a refusal; and it must be made here, since the members
		// tell each other names in JSON.
		_, _, err := q.backend.AuthState().Apply(&c)
		return err
	}
	_, err := q.change(c)
	return err
}
