package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
)

func TestAppendKeyError(t *testing.T) {
	tests := []struct {
		err  api.Error
		want string
	}{
		{api.Error{Code: api.KeyNotFound, Cause: "/nope", Index: 8},
			`{"errorCode":100,"message":"Key not found","cause":"/nope","index":8}`},
		{api.Error{Code: api.NotFile, Index: 15}, `{"errorCode":102,"message":"Not a file","index":15}`},
		{api.Error{Code: api.InvalidField, Cause: `invalid value for "dir"`},
			`{"errorCode":209,"message":"Invalid field","cause":"invalid value for \"dir\"","index":0}`},
		{api.Error{Code: api.KeyNotFound, Cause: "/<é\xff\t>", Index: 1},
			`{"errorCode":100,"message":"Key not found","cause":"/\u003cé\ufffd\t\u003e","index":1}`},
	}
	for _, tt := range tests {
		if got := string(appendKeyError(nil, &tt.err)); got != tt.want+"\n" {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestAppendString(t *testing.T) {
	for c := range 256 {
		for _, s := range []string{string([]byte{byte(c)}), "a" + string(rune(c)) + "z", ""} {
			want, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := appendString(nil, s); string(got) != string(want) {
				t.Errorf("appendString(%q) = %s, want %s", s, got, want)
			}
		}
	}
}

func TestKeyError(t *testing.T) {
	refusal := &api.Error{Code: api.CompareFailed, Cause: "[1 != 2]", Index: 4}
	tests := []struct {
		name string
		err  error
		want api.Error
	}{
		{"refusal", refusal, *refusal},
		{"wrapped refusal", fmt.Errorf("apply: %w", refusal), *refusal},
		{"deadline", fmt.Errorf("propose: %w", context.DeadlineExceeded), *api.ErrTimeout},
		{"cancelled", context.Canceled, *api.ErrCanceled},
		{"other", errors.New("disk on fire"), api.Error{Code: api.RaftInternal, Cause: "disk on fire"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := keyError(tt.err); *got != tt.want {
				t.Errorf("got %+v, want %+v", *got, tt.want)
			}
		})
	}
}

func TestCleanPath(t *testing.T) {
	tests := []struct{ path, want string }{
		{"", "/"},
		{"/", "/"},
		{"//", "/"},
		{"/v2/keys", "/v2/keys"},
		{"/v2/keys/", "/v2/keys/"},
		{"/v2/keys/a/", "/v2/keys/a/"},
		{"/v2/keys//", "/v2/keys/"},
		{"/v2/keys/a//b", "/v2/keys/a/b"},
		{"/v2/keys/a/.", "/v2/keys/a"},
		{"/v2/keys/a/./", "/v2/keys/a/"},
		{"/v2/keys/..", "/v2"},
		{"/v2/keys/../../../x", "/x"},
		{"/v2/keys/...", "/v2/keys/..."},
		{"/v2/keys/.a/..b/c.", "/v2/keys/.a/..b/c."},
		{"keys", "/keys"},
	}
	for _, tt := range tests {
		if got := cleanPath(tt.path); got != tt.want {
			t.Errorf("cleanPath(%q) = %q, want %q", tt.path, got, tt.want)
		}
	}
}

// FuzzCleanPath checks that the short cut agrees with the full work, and that nothing climbs out.
func FuzzCleanPath(f *testing.F) {
	for _, p := range []string{"", "/", "/a/../b", "/..", "/./", "/a//", "/.a/..b/...", "a", "/a/."} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		clean := cleanPath(p)
		if isClean(p) != (p == clean) {
			t.Fatalf("isClean(%q) = %v, but it is cleaned to %q", p, isClean(p), clean)
		}
		if !isClean(clean) {
			t.Fatalf("cleanPath(%q) = %q is not clean", p, clean)
		}
		if trimmed := strings.TrimSuffix(clean, "/"); trimmed != "" && trimmed != path.Clean(trimmed) {
			t.Fatalf("cleanPath(%q) = %q", p, clean)
		}
	})
}
