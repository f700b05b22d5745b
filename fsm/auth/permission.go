package auth

import "strings"

// Access is what somebody wants to do with a key.
type Access struct {
	// Key is the text that patterns are held against: the decoded request path behind /v2/keys as it
	// was sent, with a slash at its end if there was one, and empty for /v2/keys itself.
	Key   string
	Write bool
	// Recursive is the parameter of that name. It narrows what a user may do, whatever the method.
	Recursive bool
}

// UserMay says whether a user has permission: one of the roles grants it. Roles that do not exist
// grant nothing, and what guests may do is not added (spec auth 3.1).
func (s *State) UserMay(u *User, a Access) bool {
	for _, name := range u.Roles {
		if name == Root {
			return true
		}
		if role := s.roles[name]; role != nil && role.grants(a) {
			return true
		}
	}
	return false
}

// GuestMay says whether a request without credentials has permission. It does not matter whether it
// is recursive: that is how etcd does it (spec auth 4).
func (s *State) GuestMay(a Access) bool {
	a.Recursive = false
	role := s.roles[Guest]
	return role != nil && role.grants(a)
}

func (r *Role) grants(a Access) bool {
	patterns := r.Permissions.KV.Read
	if a.Write {
		patterns = r.Permissions.KV.Write
	}
	for _, p := range patterns {
		if a.Recursive && !strings.HasSuffix(p, "*") {
			continue // it names one key, not what is below
		}
		if Matches(p, a.Key) {
			return true
		}
	}
	return false
}

// Matches says whether a pattern covers a text. A star at the end stands for anything that follows,
// slashes included; without one the text must be equal. No other character is special, and the empty
// pattern matches nothing (spec auth 4).
func Matches(pattern, text string) bool {
	if pattern == "" {
		return false
	}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(text, prefix)
	}
	return text == pattern
}
