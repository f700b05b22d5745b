package discovery

import (
	"slices"
	"strings"
	"testing"
)

func TestParseRegistration(t *testing.T) {
	tests := []struct {
		value string
		want  []Pair
		err   string
	}{
		{"n1=http://127.0.0.1:1", []Pair{{"n1", "http://127.0.0.1:1"}}, ""},
		{"n1=http://h:1,n1=https://h:2", []Pair{{"n1", "http://h:1"}, {"n1", "https://h:2"}}, ""},
		{",n1=http://h:1,,", []Pair{{"n1", "http://h:1"}}, ""},
		{"n1= http://h:1 ", []Pair{{"n1", "http://h:1"}}, ""},
		{"n1=http://[::1]:2380", []Pair{{"n1", "http://[::1]:2380"}}, ""},
		{"", nil, `"" names no member`},
		{",", nil, `"," names no member`},
		{"b", nil, "URL scheme must be http or https: "},
		{"=http://h:1", nil, `"=http://h:1" has no name`},
		{"b=ftp://h:9", nil, "URL scheme must be http or https: ftp://h:9"},
		{"b=http://127.0.0.1", nil, `URL address does not have the form "host:port": http://127.0.0.1`},
		{"b=http://:2380", nil, `URL address does not have the form "host:port": http://:2380`},
		{"b=http://h:", nil, `URL address does not have the form "host:port": http://h:`},
		{"b=http://h:9/x", nil, "URL must not contain a path: http://h:9/x"},
		{"b=http://h:9?x", nil, "URL must be only scheme, host and port: http://h:9?x"},
		{"b=http://u@h:9", nil, "URL must be only scheme, host and port: http://u@h:9"},
		{"b=http://h:9#", nil, "URL must be only scheme, host and port: http://h:9#"},
		{"b=:%", nil, `parse ":%": missing protocol scheme`},
	}
	for _, tt := range tests {
		got, err := ParseRegistration(tt.value)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if !slices.Equal(got, tt.want) || text != tt.err {
			t.Errorf("ParseRegistration(%q) = %v, %q, want %v, %q", tt.value, got, text, tt.want, tt.err)
		}
	}
}

// FuzzParseRegistration: whatever is accepted can be written and read again, and a list of it is the
// list of its parts.
func FuzzParseRegistration(f *testing.F) {
	for _, seed := range []string{
		"n1=http://127.0.0.1:23802,n1=http://127.0.0.1:23803", "a=http://h:1,,b=https://[::1]:2", "", ",", "=", "a==", "b",
		"b=http://h:9/x", "a= http://h:1 ", "a=http://h:1%2C", "a=http://%41:1", "\x00=http://h:1", "a=http://h:99999999",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		pairs, err := ParseRegistration(value)
		if err != nil {
			return
		}
		if len(pairs) == 0 {
			t.Fatalf("ParseRegistration(%q) is empty", value)
		}
		var texts []string
		for _, p := range pairs {
			if p.Name == "" || strings.ContainsAny(p.Name, ",=") || strings.Contains(p.URL, ",") {
				t.Errorf("ParseRegistration(%q) has %+v", value, p)
			}
			texts = append(texts, p.String())
		}
		again, err := ParseRegistration(strings.Join(texts, ","))
		if err != nil || !slices.Equal(again, pairs) {
			t.Errorf("ParseRegistration(%q) = %v, and of that %v, %v", value, pairs, again, err)
		}
	})
}
