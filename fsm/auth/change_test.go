package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
)

func patterns(read, write []string) Permissions {
	return Permissions{Patterns{Read: read, Write: write}}
}

func list(words ...string) []string { return append([]string{}, words...) }

func putUser(name, hash string, roles ...string) Change {
	return Change{Op: PutUser, Name: name, User: &UserChange{Hash: hash, Roles: roles}}
}

func grantUser(name string, grant, revoke []string) Change {
	return Change{Op: PutUser, Name: name, User: &UserChange{Grant: grant, Revoke: revoke}}
}

func putRole(name string, p Permissions) Change {
	return Change{Op: PutRole, Name: name, Role: &RoleChange{Permissions: p}}
}

func grantRole(name string, grant, revoke Permissions) Change {
	return Change{Op: PutRole, Name: name, Role: &RoleChange{Grant: grant, Revoke: revoke}}
}

func enable() Change {
	p := Everything()
	return Change{Op: Enable, Guest: &p}
}

// play applies changes, each of which has to be sound, and ignores refusals.
func play(t testing.TB, s *State, changes ...Change) *State {
	t.Helper()
	for _, c := range changes {
		if err := c.Check(); err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		s, _, _ = s.Apply(&c)
	}
	return s
}

// Every row of spec auth 2, as a change with what was before it.
func TestChanges(t *testing.T) {
	root := putUser(Root, "h")
	tests := []struct {
		name   string
		before []Change
		change Change
		steps  int
		want   string // the user or role in JSON, or the refusal with its status
	}{
		{"the first change of all", nil, putUser("bob", "h"), 5, `{"user":"bob","hash":"h","roles":null}`},
		{"the second change", []Change{root}, putUser("bob", "h"), 1, `{"user":"bob","hash":"h","roles":null}`},
		{"a refusal can be the first", nil, Change{Op: DeleteUser, Name: "bob"}, 4, "404 auth: User bob does not exist"},
		{"a refusal can be the first, role", nil, Change{Op: DeleteRole, Name: "r"}, 4, "404 auth: Role r doesn't exist."},
		{"others cost nothing", nil, putUser("bob", ""), 0, "400 auth: Cannot create user bob with an empty password"},

		{"user with roles in their order", []Change{root}, putUser("carol", "h", "r2", "r1", "r2"), 1, `{"user":"carol","hash":"h","roles":["r2","r1","r2"]}`},
		{"user root gets role root", nil, root, 5, `{"user":"root","hash":"h","roles":["root"]}`},
		{"user root with roles", nil, putUser(Root, "h", "a"), 5, `{"user":"root","hash":"h","roles":["a","root"]}`},
		{"user with roles and no password", []Change{root, putUser("bob", "h")}, putUser("bob", "", "r"), 0, "400 auth: Cannot create user bob with an empty password"},
		{"user with roles exists", []Change{root, putUser("bob", "h")}, putUser("bob", "h", "r"), 0, "409 auth: User bob already exists."},
		{"password", []Change{root, putUser("bob", "h", "b", "a", "b")}, putUser("bob", "i"), 1, `{"user":"bob","hash":"i","roles":["a","b"]}`},
		{"nothing, for the first time", []Change{root, putUser("bob", "h")}, putUser("bob", ""), 1, `{"user":"bob","hash":"h","roles":[]}`},
		{"nothing", []Change{root, putUser("bob", "h"), putUser("bob", "")}, putUser("bob", ""), 0, "400 auth: User not updated. Use grant/revoke/password to update the user."},
		{"grant", []Change{root, putUser("bob", "h", "z")}, grantUser("bob", list("b", "a"), nil), 1, `{"user":"bob","hash":"h","roles":["a","b","z"]}`},
		{"grant and revoke", []Change{root, putUser("bob", "h", "z")}, grantUser("bob", list("a"), list("z")), 1, `{"user":"bob","hash":"h","roles":["a"]}`},
		{"grant what is revoked", []Change{root, putUser("bob", "h", "z")}, grantUser("bob", list("a"), list("a")), 0, "400 auth: User not updated. Use grant/revoke/password to update the user."},
		{"grant twice", []Change{root, putUser("bob", "h", "z")}, grantUser("bob", list("a", "z"), nil), 0, "409 auth: Granting duplicate role z for user bob"},
		{"grant the same twice", []Change{root, putUser("bob", "h")}, grantUser("bob", list("a", "a"), nil), 0, "409 auth: Granting duplicate role a for user bob"},
		{"revoke what is not there", []Change{root, putUser("bob", "h", "z")}, grantUser("bob", nil, list("z", "y")), 0, "409 auth: Revoking ungranted role y for user bob"},
		{"grant to nobody", []Change{root}, grantUser("bob", list("a"), nil), 0, "404 auth: User bob does not exist."},
		{"grant and password", []Change{root, putUser("bob", "h")}, Change{Op: PutUser, Name: "bob", User: &UserChange{Hash: "i", Grant: list("a")}}, 1, `{"user":"bob","hash":"i","roles":["a"]}`},
		{"revoke root from root", []Change{root}, grantUser(Root, nil, list(Root)), 1, `{"user":"root","hash":"h","roles":[]}`},
		{"revoke root from root again", []Change{root, grantUser(Root, nil, list(Root))}, grantUser(Root, nil, list(Root)), 1, `{"user":"root","hash":"h","roles":[]}`},
		{"grant root to root", []Change{root}, grantUser(Root, list(Root), nil), 0, "409 auth: Granting duplicate role root for user root"},
		{"delete user", []Change{root, putUser("bob", "h")}, Change{Op: DeleteUser, Name: "bob"}, 1, ""},
		{"delete nobody", []Change{root}, Change{Op: DeleteUser, Name: "bob"}, 0, "404 auth: User bob does not exist"},
		{"delete root", []Change{root}, Change{Op: DeleteUser, Name: Root}, 1, ""},
		{"delete root, in force", []Change{root, enable()}, Change{Op: DeleteUser, Name: Root}, 0, "403 auth: Cannot delete root user while auth is enabled."},

		{"role without anything", []Change{root}, putRole("r", Permissions{}), 1, `{"role":"r","permissions":{"kv":{"read":null,"write":null}}}`},
		{"role keeps the order", []Change{root}, putRole("r", patterns(list("/b", "/a"), list())), 1, `{"role":"r","permissions":{"kv":{"read":["/b","/a"],"write":[]}}}`},
		{"role exists", []Change{root, putRole("r", Permissions{})}, putRole("r", Permissions{}), 0, "409 auth: Role r already exists."},
		{"role grant", []Change{root, putRole("r", patterns(list("/z"), nil))}, grantRole("r", patterns(list("/b", "/a"), nil), Permissions{}), 1, `{"role":"r","permissions":{"kv":{"read":["/a","/b","/z"],"write":[]}}}`},
		{"role grant twice", []Change{root, putRole("r", patterns(list("/z"), nil))}, grantRole("r", patterns(list("/z"), nil), Permissions{}), 0, "409 auth: Granting duplicate read permission /z"},
		{"role grant the same twice", []Change{root, putRole("r", Permissions{})}, grantRole("r", patterns(nil, list("/z", "/z")), Permissions{}), 0, "409 auth: Granting duplicate write permission /z"},
		{"role revoke", []Change{root, putRole("r", patterns(list("/z"), list("/y")))}, grantRole("r", Permissions{}, patterns(list("/z", "/none"), nil)), 1, `{"role":"r","permissions":{"kv":{"read":[],"write":["/y"]}}}`},
		{"role revoke what is not there, for the first time", []Change{root, putRole("r", Permissions{})}, grantRole("r", Permissions{}, patterns(list("/z"), nil)), 1, `{"role":"r","permissions":{"kv":{"read":[],"write":[]}}}`},
		{"role revoke what is not there", []Change{root, putRole("r", patterns(list(), list()))}, grantRole("r", Permissions{}, patterns(list("/z"), nil)), 0, "400 auth: Role not updated. Use grant/revoke to update the role."},
		{"role unknown", []Change{root}, grantRole("r", patterns(list("/z"), nil), Permissions{}), 0, "404 auth: Role r does not exist."},
		{"role root, create", []Change{root}, putRole(Root, Permissions{}), 0, "403 auth: Cannot modify role root: is root role."},
		{"role root, update", []Change{root}, grantRole(Root, patterns(list("/z"), nil), Permissions{}), 0, "403 auth: Cannot modify role root: is root role."},
		{"role root, delete", nil, Change{Op: DeleteRole, Name: Root}, 0, "403 auth: Cannot modify role root: is root role."},
		{"delete role", []Change{root, putRole("r", Permissions{})}, Change{Op: DeleteRole, Name: "r"}, 1, ""},
		{"delete role in use", []Change{root, putRole("r", Permissions{}), putUser("bob", "h", "r")}, Change{Op: DeleteRole, Name: "r"}, 1, ""},
		{"delete no role", []Change{root}, Change{Op: DeleteRole, Name: "r"}, 0, "404 auth: Role r doesn't exist."},

		{"enable without root", []Change{putUser("bob", "h")}, enable(), 0, "409 auth: No root user available, please create one"},
		{"enable", []Change{root}, enable(), 2, ""},
		{"enable, with a guest", []Change{root, putRole(Guest, Permissions{})}, enable(), 1, ""},
		{"enable twice", []Change{root, enable()}, enable(), 0, "409 auth: already enabled"},
		{"disable", []Change{root, enable()}, Change{Op: Disable}, 1, ""},
		{"disable twice", nil, Change{Op: Disable}, 0, "409 auth: already disabled"},

		{"too much", []Change{root}, putRole("r", patterns(list(strings.Repeat("x", maxSize)), nil)), 0, "400 auth: Users and roles may take 16777216 bytes together, and these would take more."},
		{"too much, user", []Change{root}, putUser("bob", "h", strings.Repeat("x", maxSize)), 0, "400 auth: Users and roles may take 16777216 bytes together, and these would take more."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := play(t, &State{}, tt.before...)
			was := encode(t, s)
			next, out, err := s.Apply(&tt.change)
			if out.Steps != tt.steps {
				t.Errorf("%d steps, want %d", out.Steps, tt.steps)
			}
			got := ""
			var refusal *api.StatusError
			switch {
			case errors.As(err, &refusal):
				got = fmt.Sprint(refusal.Status, " ", refusal.Message)
			case err != nil:
				t.Fatal(err)
			case out.User != nil:
				got = toJSON(t, out.User)
			case out.Role != nil:
				got = toJSON(t, out.Role)
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if now := encode(t, s); now != was {
				t.Errorf("the state before has changed from %s to %s", was, now)
			}
			if now := encode(t, next); now != was && tt.steps == 0 {
				t.Errorf("no step, and the state went from %s to %s", was, now)
			}
		})
	}
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// encode returns the state as a snapshot has it, after a look whether it can be read again.
func encode(t testing.TB, s *State) string {
	t.Helper()
	text := toJSON(t, s)
	var back State
	if err := json.Unmarshal([]byte(text), &back); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if !equal(s, &back) {
		t.Fatalf("%s came back as\n%+v, want\n%+v", text, back, *s)
	}
	return text
}

// equal takes an empty map for none.
func equal(a, b *State) bool {
	x, y := *a, *b
	x.users, x.roles, y.users, y.roles = nil, nil, nil, nil
	return reflect.DeepEqual(x, y) && len(a.users) == len(b.users) && len(a.roles) == len(b.roles) &&
		(len(a.users) == 0 || reflect.DeepEqual(a.users, b.users)) && (len(a.roles) == 0 || reflect.DeepEqual(a.roles, b.roles))
}

func TestLists(t *testing.T) {
	s := play(t, &State{}, putUser("zoe", "h"), putUser("_hidden", "h"), putUser("adam", "h"), putRole("zeta", Permissions{}), putRole("_r", Permissions{}), putRole("alpha", Permissions{}))
	var names []string
	for _, u := range s.Users() {
		names = append(names, u.Name)
	}
	for _, r := range s.Roles() {
		names = append(names, r.Name)
	}
	if got, want := strings.Join(names, " "), "adam zoe alpha root zeta"; got != want {
		t.Errorf("listed: %s, want %s", got, want)
	}
	if s.User("_hidden") == nil || s.Role("_r") == nil {
		t.Error("what is hidden is not there")
	}
}

func TestRootKeepsItsRole(t *testing.T) {
	s := play(t, &State{}, putUser(Root, "h", "a"), grantUser(Root, nil, list(Root)))
	if u := s.User(Root); !u.IsAdmin() || strings.Join(u.Roles, " ") != "a root" {
		t.Errorf("root has roles %v", u.Roles)
	}
}

func TestUnsoundChanges(t *testing.T) {
	for _, c := range []Change{
		{}, {Op: "mergeUsers", Name: "a"}, {Op: PutUser, Name: "a"}, {Op: PutUser, User: &UserChange{}},
		{Op: PutRole, Name: "a"}, {Op: DeleteUser}, {Op: DeleteRole}, {Op: Enable},
	} {
		if c.Check() == nil {
			t.Errorf("nothing found wrong with %+v", c)
		}
	}
}

func TestDamagedStates(t *testing.T) {
	for _, text := range []string{
		`[]`, `{"founded":true,"users":[null]}`, `{"founded":true,"users":[{"user":""}]}`,
		`{"founded":true,"users":[{"user":"a"},{"user":"a"}]}`, `{"founded":true,"roles":[null]}`,
		`{"founded":true,"roles":[{"role":"a"},{"role":"a"}]}`, `{"founded":true,"roles":[{"role":"root"}]}`,
		`{"founded":true,"enabled":true}`, `{"enabled":true,"users":[{"user":"root"}]}`, `{"users":[{"user":"a"}]}`,
	} {
		if err := json.Unmarshal([]byte(text), new(State)); err == nil {
			t.Errorf("%s was read as a state", text)
		}
	}
}

// Whatever is asked for, the state stays one that a snapshot can hold, nothing panics, and two members
// reach the same one.
func FuzzChanges(f *testing.F) {
	for _, seed := range []string{
		`[{"op":"putUser","name":"root","user":{"hash":"h"}},{"op":"enable","guest":{}}]`,
		`[{"op":"putRole","name":"r","role":{"permissions":{"kv":{"read":["","*"]}}}},{"op":"putRole","name":"r","role":{"grant":{"kv":{"read":["/a"]}}}}]`,
		`[{"op":"putUser","name":"a","user":{"hash":"h","roles":["r","r"]}},{"op":"putUser","name":"a","user":{"grant":["x"],"revoke":["r"]}},{"op":"deleteUser","name":"a"}]`,
	} {
		f.Add([]byte(seed), "/a", true)
	}
	f.Fuzz(func(t *testing.T, data []byte, key string, recursive bool) {
		var changes []Change
		if json.Unmarshal(data, &changes) != nil {
			return
		}
		one, two := &State{}, &State{}
		for _, c := range changes {
			if c.Check() != nil {
				continue
			}
			var out, same Outcome
			var err, sameErr error
			one, out, err = one.Apply(&c)
			two, same, sameErr = two.Apply(&c)
			if out.Steps != same.Steps || fmt.Sprint(err) != fmt.Sprint(sameErr) {
				t.Fatalf("%+v: %+v %v, and then %+v %v", c, out, err, same, sameErr)
			}
			if err == nil && out.Steps == 0 {
				t.Fatalf("%+v was done and took no step", c)
			}
		}
		if a, b := encode(t, one), encode(t, two); a != b {
			t.Fatalf("two members differ: %s and %s", a, b)
		}
		if one.Enabled() && one.User(Root) == nil {
			t.Fatal("in force without a user root")
		}
		for _, u := range one.users {
			one.UserMay(u, Access{Key: key, Recursive: recursive})
		}
		one.GuestMay(Access{Key: key, Write: true, Recursive: recursive})
	})
}
