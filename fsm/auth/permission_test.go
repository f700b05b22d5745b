package auth

import (
	"regexp"
	"strings"
	"testing"
)

// The tables of spec auth 4.
func TestMatches(t *testing.T) {
	tests := []struct{ pattern, yes, no string }{
		{"/x/*", "/x/ /x/a /x/a/b", "/x /xy /"},
		{"/pre*", "/pre /prefix/z", "/pr"},
		{"/exact", "/exact", "/exact/ /exact/a"},
		{"/*", "/ /a /a/b", "-"},
		{"*", "- / /a", ""},
		{"nolead*", "", "/nolead - /"},
		{"", "", "- / /a"},
		{"/a*/b", "/a*/b", "/ax/b /a/b"},
		{"/a**", "/a* /a*b", "/a /ab"},
	}
	words := func(list string) []string { // "-" stands for the empty text
		return strings.Split(strings.ReplaceAll(list, "-", ""), " ")
	}
	for _, tt := range tests {
		for _, text := range words(tt.yes) {
			if tt.yes != "" && !Matches(tt.pattern, text) {
				t.Errorf("%q does not match %q", tt.pattern, text)
			}
		}
		for _, text := range words(tt.no) {
			if tt.no != "" && Matches(tt.pattern, text) {
				t.Errorf("%q matches %q", tt.pattern, text)
			}
		}
	}
}

func TestPermissions(t *testing.T) {
	s := play(t, &State{},
		putUser(Root, "h"), putUser("admin", "h", Root),
		putRole("x", patterns(list("/x/*", "/exact"), list("/x/*", "/exact"))),
		putRole("reader", patterns(list("/r*"), nil)),
		putRole("hole", patterns(list(""), list(""))),
		putUser("bob", "h", "ghost", "x", "reader"), putUser("eve", "h"), putUser("hal", "h", "hole"),
		putRole(Guest, patterns(list("/pub*", "/d"), list("/d"))),
		putUser("named", "h", Guest),
	)
	const read, write = false, true
	tests := []struct {
		who       string // "" is a guest
		key       string
		write     bool
		recursive bool
		want      bool
	}{
		{Root, "", write, true, true},
		{"admin", "", write, true, true},
		{"bob", "/x/a", write, false, true},
		{"bob", "/x/", read, false, true},
		{"bob", "/x", read, false, false},
		{"bob", "/x/", write, true, true},
		{"bob", "/x", write, true, false},
		{"bob", "/exact", write, false, true},
		{"bob", "/exact", write, true, false},
		{"bob", "/exact", read, true, false},
		{"bob", "/r", read, true, true},
		{"bob", "/r", write, false, false},
		{"bob", "/pub", read, false, false}, // what guests may is not added
		{"eve", "/x/a", read, false, false},
		{"eve", "/pub", read, false, false},
		{"hal", "", read, false, false},
		{"hal", "/a", write, true, false},
		{"named", "/d", write, false, true},
		{"named", "/d", write, true, false},
		{"", "/pub/a", read, false, true},
		{"", "/d", write, true, true}, // as in etcd, the flag is ignored
		{"", "/d/", write, false, false},
		{"", "", read, false, false},
		{"", "/pub", write, false, false},
	}
	for _, tt := range tests {
		a := Access{Key: tt.key, Write: tt.write, Recursive: tt.recursive}
		got := false
		if tt.who == "" {
			got = s.GuestMay(a)
		} else {
			got = s.UserMay(s.User(tt.who), a)
		}
		if got != tt.want {
			t.Errorf("%q with %+v: %v, want %v", tt.who, a, got, tt.want)
		}
	}
	if s = play(t, s, Change{Op: DeleteRole, Name: Guest}); s.GuestMay(Access{Key: "/pub"}) {
		t.Error("without a role guest, guests may read")
	}
}

// Matches is the same as a regular expression made of the pattern.
func FuzzMatches(f *testing.F) {
	for _, seed := range [][2]string{{"", ""}, {"*", ""}, {"/a*", "/ab"}, {"/a*/b", "/a*/b"}, {"**", "*"}, {"/", "/"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if strings.ToValidUTF8(pattern, "") != pattern || strings.ToValidUTF8(text, "") != text {
			Matches(pattern, text) // an expression cannot say what these are
			return
		}
		expr := regexp.QuoteMeta(pattern)
		if strings.HasSuffix(pattern, "*") {
			expr = regexp.QuoteMeta(pattern[:len(pattern)-1]) + ".*"
		}
		want := pattern != "" && regexp.MustCompile(`(?s)\A`+expr+`\z`).MatchString(text)
		if got := Matches(pattern, text); got != want {
			t.Errorf("Matches(%q, %q) = %v", pattern, text, got)
		}
	})
}
