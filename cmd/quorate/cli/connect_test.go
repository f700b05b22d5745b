package cli

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"testing"
)

func TestFindEndpointsInDNS(t *testing.T) {
	secure := []*net.SRV{{Target: "a.example.", Port: 2379}, {Target: "b.example.", Port: 2380}}
	plain := []*net.SRV{{Target: "c.example.", Port: 2379}}
	tests := []struct {
		name          string
		secure, plain []*net.SRV
		insecure      bool
		want          []string
		domain        string // what certificates are checked against
		stderr, err   string
	}{
		{"secure", secure, nil, false, []string{"https://a.example:2379", "https://b.example:2380"}, "example", "", ""},
		{"both", secure[:1], plain, false, []string{"https://a.example:2379"}, "example", "ignoring discovered insecure endpoint \"http://c.example:2379\"\n", ""},
		{"both accepted", secure[:1], plain, true, []string{"https://a.example:2379", "http://c.example:2379"}, "", "", ""},
		{"plain", nil, plain, false, nil, "", "ignoring discovered insecure endpoint \"http://c.example:2379\"\n",
			"Error:  example has plain-text endpoints only; --insecure-discovery accepts them"},
		{"none", nil, nil, true, nil, "", "", "Error:  no SRV record of client endpoints in example: no such host"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := &globals{
				endpoints: "http://not.asked", discoverySRV: "example", insecureDiscovery: tt.insecure,
				getenv: func(string) string { return "" },
				lookupSRV: func(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
					records := map[string][]*net.SRV{"etcd-client-ssl": tt.secure, "etcd-client": tt.plain}[service]
					if records == nil || proto != "tcp" || name != "example" {
						return "", nil, errors.New("no such host")
					}
					return "", records, nil
				},
			}
			var stderr bytes.Buffer
			got, domain, err := g.findEndpoints(t.Context(), &stderr)
			if !slices.Equal(got, tt.want) || domain != tt.domain || stderr.String() != tt.stderr {
				t.Errorf("endpoints %q, domain %q, stderr %q\nwant      %q, domain %q, stderr %q", got, domain, &stderr, tt.want, tt.domain, tt.stderr)
			}
			if err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{
		"http://a:1/v2/keys": "http://a:1/v2/keys",
		"a b":                "'a b'",
		"$(x)&'y'":           `'$(x)&'\''y'\'''`,
		"":                   "''",
	} {
		if got := shellQuote(in); got != want {
			t.Errorf("shellQuote(%q) = %s, want %s", in, got, want)
		}
	}
}
