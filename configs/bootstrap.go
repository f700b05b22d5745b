package configs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
)

// Resolver looks host names up; *net.Resolver is one.
type Resolver interface {
	LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error)
}

// CheckBootstrap parses the initial cluster and makes the checks of a first start that need no
// other member, in etcd's order (spec bootstrap 3, 1 to 3; spec bootstrap 5, 1 to 3 when the state
// is "existing"). A nil resolver means the system's.
func (c *Config) CheckBootstrap(ctx context.Context, resolver Resolver) (InitialCluster, error) {
	cluster, err := ParseInitialCluster(c.InitialCluster)
	if err != nil {
		return nil, fmt.Errorf("error setting up initial cluster: %w", err)
	}
	urls, ok := cluster[c.Name]
	if !ok {
		return nil, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", c.Name)
	}
	// A member that joins is told its peer URLs by the cluster; the flag is not looked at.
	if c.InitialClusterState == StateNew {
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		if err := c.checkAdvertised(ctx, resolver, urls); err != nil {
			return nil, err
		}
	}
	if err := cluster.CheckDistinct(); err != nil {
		return nil, err
	}
	if c.InitialClusterState == StateExisting && c.Discovery != "" {
		return nil, errors.New("discovery URL should not be set when joining existing initial cluster")
	}
	return cluster, nil
}

// checkAdvertised compares the URLs that the initial cluster lists for this member with those that
// it advertises, as sets, after resolving host names.
func (c *Config) checkAdvertised(ctx context.Context, resolver Resolver, listed []string) error {
	// A URL that is listed twice is told apart later, by CheckDistinct.
	listed = slices.Compact(slices.Clone(listed))
	advertised := slices.Compact(slices.Clone(c.InitialAdvertisePeerURLs))
	mismatch := sameURLs(ctx, resolver, advertised, listed)
	if mismatch == nil {
		return nil
	}
	named := func(urls []string) string {
		pairs := make([]string, len(urls))
		for i, u := range urls {
			pairs[i] = c.Name + "=" + u
		}
		return strings.Join(pairs, ",")
	}
	if extra := without(listed, advertised); len(extra) > 0 {
		return fmt.Errorf("--initial-cluster has %s but missing from --initial-advertise-peer-urls=%s (%w)",
			named(extra), advertised, mismatch)
	}
	return fmt.Errorf("--initial-advertise-peer-urls has %s but missing from --initial-cluster=%s",
		strings.Join(without(advertised, listed), ","), named(listed))
}

// sameURLs explains how two sorted lists of URLs differ, or returns nil when they name the same
// addresses. Equal lists are not resolved: a first start must not depend on DNS without need.
func sameURLs(ctx context.Context, resolver Resolver, a, b []string) error {
	if slices.Equal(a, b) {
		return nil
	}
	if len(a) != len(b) {
		return fmt.Errorf("len(%q) != len(%q)", a, b)
	}
	resolve := func(urls []string) ([]string, error) {
		var resolved []string
		for _, u := range urls {
			r, err := resolveURL(ctx, resolver, u)
			if err != nil {
				return nil, err
			}
			resolved = append(resolved, r)
		}
		slices.Sort(resolved)
		return resolved, nil
	}
	ra, err := resolve(a)
	if err != nil {
		return err
	}
	rb, err := resolve(b)
	if err != nil {
		return err
	}
	for i := range ra {
		if ra[i] != rb[i] {
			return fmt.Errorf("resolved urls: %q != %q", ra[i], rb[i])
		}
	}
	return nil
}

// resolveURL replaces a host name by its first address, in order of text, so that every answer of
// the resolver with the same addresses means the same. Literal addresses and localhost stay.
func resolveURL(ctx context.Context, resolver Resolver, text string) (string, error) {
	scheme, host := hostOf(text)
	if host == "localhost" || parseIP(host) != nil {
		return text, nil
	}
	addrs, err := resolver.LookupIPAddr(ctx, host)
	if err != nil {
		return "", err
	}
	if len(addrs) == 0 {
		return "", fmt.Errorf("no address for %s", host)
	}
	ips := make([]string, len(addrs))
	for i, a := range addrs {
		ips[i] = a.String()
	}
	port := text[strings.LastIndex(text, ":")+1:]
	return scheme + "://" + net.JoinHostPort(slices.Min(ips), port), nil
}

// without returns the strings of a that are not in b.
func without(a, b []string) []string {
	var rest []string
	for _, s := range a {
		if !slices.Contains(b, s) {
			rest = append(rest, s)
		}
	}
	return rest
}
