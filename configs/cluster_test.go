package configs

import (
	"context"
	"errors"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseInitialCluster(t *testing.T) {
	tests := []struct {
		name  string
		in    string
		want  InitialCluster
		canon string
		err   string
	}{
		{"one", "a=http://h:1", InitialCluster{"a": {"http://h:1"}}, "a=http://h:1", ""},
		{"three, sorted", "c=http://h:3,a=http://h:1,b=http://h:2", InitialCluster{"a": {"http://h:1"}, "b": {"http://h:2"}, "c": {"http://h:3"}},
			"a=http://h:1,b=http://h:2,c=http://h:3", ""},
		{"one name twice is one member", "a=http://h:2,a=http://h:1", InitialCluster{"a": {"http://h:1", "http://h:2"}}, "a=http://h:1,a=http://h:2", ""},
		{"empty pieces and spaces", ",a= http://h:1 ,,", InitialCluster{"a": {"http://h:1"}}, "a=http://h:1", ""},
		{"a name may be empty", "=http://h:1", InitialCluster{"": {"http://h:1"}}, "=http://h:1", ""},
		{"https and IPv6", "a=https://[::1]:1", InitialCluster{"a": {"https://[::1]:1"}}, "a=https://[::1]:1", ""},
		{"pairs are sorted as text", "a=http://h:1,a b=http://h:2", InitialCluster{"a": {"http://h:1"}, "a b": {"http://h:2"}}, "a b=http://h:2,a=http://h:1", ""},
		{"nothing", "", InitialCluster{}, "", ""},

		{"no port", "b=http://127.0.0.1", nil, "", `URL address does not have the form "host:port": http://127.0.0.1`},
		{"no equal sign", "b", nil, "", "URL scheme must be http or https: "},
		{"scheme", "b=ftp://h:9", nil, "", "URL scheme must be http or https: ftp://h:9"},
		{"path", "b=http://h:9/x", nil, "", "URL must not contain a path: http://h:9/x"},
		{"slash", "b=http://h:9/", nil, "", "URL must not contain a path: http://h:9/"},
		{"query", "b=http://h:9?x", nil, "", "URL must not contain a user, a query or a fragment: http://h:9?x"},
		{"user", "b=http://u@h:9", nil, "", "URL must not contain a user, a query or a fragment: http://u@h:9"},
		{"two equal signs", "a=b=http://h:9", nil, "", `parse "b=http://h:9": first path segment in URL cannot contain colon`},
		{"not a URL", "a=:%", nil, "", `parse ":%": missing protocol scheme`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseInitialCluster(tt.in)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("ParseInitialCluster(%q) = %v, want %s", tt.in, err, tt.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Fatalf("ParseInitialCluster(%q) = %v, %v, want %v", tt.in, got, err, tt.want)
			}
			if got.String() != tt.canon {
				t.Errorf("canonical form %q, want %q", got, tt.canon)
			}
		})
	}
}

// Whatever is accepted has a canonical form that means the same, and is its own canonical form.
func FuzzParseInitialCluster(f *testing.F) {
	for _, seed := range []string{"a=http://h:1,b=https://[fe80::1%25eth0]:2", "=http://:1", "a=http://h%41:1", "x", "a=http://a,b:1", "a=http://h:", "\x00=http://h:1", "a=http://[::%25\xa9]:1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseInitialCluster(s)
		if err != nil {
			return
		}
		again, err := ParseInitialCluster(c.String())
		if err != nil {
			t.Fatalf("%q is accepted, its canonical form %q is not: %v", s, c, err)
		}
		if !reflect.DeepEqual(again, c) || again.String() != c.String() {
			t.Fatalf("%q means %v, its canonical form %q means %v", s, c, c.String(), again)
		}
		_ = c.CheckDistinct()
	})
}

// hosts is a resolver without a network.
type hosts map[string][]string

func (h hosts) LookupIPAddr(_ context.Context, host string) ([]net.IPAddr, error) {
	ips, ok := h[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var addrs []net.IPAddr
	for _, ip := range ips {
		addrs = append(addrs, net.IPAddr{IP: net.ParseIP(ip)})
	}
	return addrs, nil
}

// The texts were taken from etcd 3.4.23.
func TestCheckBootstrap(t *testing.T) {
	names := hosts{"h1": {"10.0.0.9", "10.0.0.1"}, "h2": {"10.0.0.2"}}
	tests := []struct {
		name       string
		cluster    string
		advertised string
		change     func(*Config)
		err        string
	}{
		{"equal", "a=http://10.0.0.1:1,b=http://10.0.0.2:1", "http://10.0.0.1:1", nil, ""},
		{"equal names are not resolved", "a=http://nosuch:1", "http://nosuch:1", nil, ""},
		{"equal after resolving", "a=http://h1:1", "http://10.0.0.1:1", nil, ""},
		{"equal after resolving both", "a=http://h2:1,a=http://10.0.0.1:1", "http://h1:1,http://10.0.0.2:1", nil, ""},
		{"URLs of others do not matter", "a=http://10.0.0.1:1,b=http://nosuch:1", "http://10.0.0.1:1", nil, ""},
		{"syntax", "a=ftp://h:9", "http://10.0.0.1:1", nil, "error setting up initial cluster: URL scheme must be http or https: ftp://h:9"},
		{"own name missing", "b=http://10.0.0.1:1", "http://10.0.0.1:1", nil, `couldn't find local name "a" in the initial cluster configuration`},
		{"empty", "", "http://10.0.0.1:1", nil, `couldn't find local name "a" in the initial cluster configuration`},
		{"other URL", "a=http://127.0.0.1:1", "http://127.0.0.1:2", nil,
			`--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:2 (resolved urls: "http://127.0.0.1:2" != "http://127.0.0.1:1")`},
		{"one listed too many", "a=http://127.0.0.1:1,a=http://127.0.0.1:3", "http://127.0.0.1:1", nil,
			`--initial-cluster has a=http://127.0.0.1:3 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (len(["http://127.0.0.1:1"]) != len(["http://127.0.0.1:1" "http://127.0.0.1:3"]))`},
		{"one advertised too many", "a=http://127.0.0.1:1", "http://127.0.0.1:1,http://127.0.0.1:3", nil,
			`--initial-advertise-peer-urls has http://127.0.0.1:3 but missing from --initial-cluster=a=http://127.0.0.1:1`},
		{"localhost is not resolved", "a=http://localhost:1", "http://127.0.0.1:1", nil,
			`--initial-cluster has a=http://localhost:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (resolved urls: "http://127.0.0.1:1" != "http://localhost:1")`},
		{"unknown host", "a=http://nosuch:1", "http://127.0.0.1:1", nil,
			`--initial-cluster has a=http://nosuch:1 but missing from --initial-advertise-peer-urls=http://127.0.0.1:1 (lookup nosuch: no such host)`},
		{"duplicate URL", "a=http://127.0.0.1:1,b=http://127.0.0.1:1", "http://127.0.0.1:1", nil,
			"initial cluster a=http://127.0.0.1:1,b=http://127.0.0.1:1 has duplicate url"},
		{"own URL twice", "a=http://127.0.0.1:1,a=http://127.0.0.1:1", "http://127.0.0.1:1", nil,
			"initial cluster a=http://127.0.0.1:1,a=http://127.0.0.1:1 has duplicate url"},
		{"joining: URLs are not compared", "a=http://127.0.0.1:1", "http://127.0.0.1:2", func(c *Config) { c.InitialClusterState = StateExisting }, ""},
		{"joining: own name missing", "b=http://127.0.0.1:1", "http://127.0.0.1:2", func(c *Config) { c.InitialClusterState = StateExisting },
			`couldn't find local name "a" in the initial cluster configuration`},
		{"joining: duplicate URL", "a=http://127.0.0.1:1,b=http://127.0.0.1:1", "http://127.0.0.1:2", func(c *Config) { c.InitialClusterState = StateExisting },
			"initial cluster a=http://127.0.0.1:1,b=http://127.0.0.1:1 has duplicate url"},
		{"joining: discovery", "a=http://127.0.0.1:1", "http://127.0.0.1:2", func(c *Config) { c.InitialClusterState, c.Discovery = StateExisting, "http://d/t" },
			"discovery URL should not be set when joining existing initial cluster"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			c.Name, c.InitialCluster = "a", tt.cluster
			var err error
			if c.InitialAdvertisePeerURLs, err = ParseURLs(tt.advertised); err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				tt.change(&c)
			}
			cluster, err := c.CheckBootstrap(t.Context(), names)
			if tt.err == "" {
				if err != nil || !slices.Contains(cluster.Names(), "a") {
					t.Fatalf("CheckBootstrap = %v, %v", cluster, err)
				}
				return
			}
			if err == nil || err.Error() != tt.err {
				t.Errorf("CheckBootstrap = %v\nwant %s", err, tt.err)
			}
		})
	}
}

func TestBootstrapErrorKeepsItsCause(t *testing.T) {
	c := Default()
	c.InitialCluster = "default=http://nosuch:1"
	_, err := c.CheckBootstrap(t.Context(), hosts{})
	var dns *net.DNSError
	if !errors.As(err, &dns) || !strings.Contains(err.Error(), "--initial-cluster has") {
		t.Errorf("CheckBootstrap = %v, want one that wraps a *net.DNSError", err)
	}
}
