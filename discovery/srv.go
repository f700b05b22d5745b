package discovery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"
)

// Resolver is the part of [net.Resolver] that [SRV] needs.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ErrSRVQueries means that neither of the two SRV names could be resolved.
var ErrSRVQueries = errors.New("SRV discovery failed: too many errors querying DNS SRV records")

// ErrNotInSRV means that no record leads to this node.
var ErrNotInSRV = errors.New("cannot find local etcd member in SRV records")

// SRVOptions says where the records are, and who is asking.
type SRVOptions struct {
	// Domain holds the records _etcd-server-ssl._tcp and _etcd-server._tcp.
	Domain string
	// Suffix is appended to both service names, after a dash, so that one domain can serve several
	// clusters; empty for none (etcd 3.4, --discovery-srv-name).
	Suffix string
	// Name is the name of this node, and PeerURLs are those it advertises.
	Name     string
	PeerURLs []string
	// Proxy says that this node need not be among the records.
	Proxy bool

	Resolver Resolver     // nil means net.DefaultResolver
	Logger   hclog.Logger // nil for none
}

// SRV returns the initial cluster that the SRV records of a domain describe (spec bootstrap 8), as
// name=URL pairs joined by commas. The URLs keep the host names of the records: they are what member
// IDs are made of, so all nodes must see the same records. Nodes other than this one are named by
// numbers, until they publish their own names. An error is a *[Failure], or that of the context.
//
// It suffices that one of the two names exists. Of two records for this node that differ in nothing
// but the scheme, the one with the scheme it advertises is used.
func SRV(ctx context.Context, o SRVOptions) (string, error) {
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	own, err := o.own(ctx)
	if err != nil {
		return "", err
	}
	s := &srvSearch{SRVOptions: o, own: own}
	var queries []string
	for _, service := range []struct{ name, scheme string }{{"etcd-server-ssl", "https"}, {"etcd-server", "http"}} {
		name := service.name
		if o.Suffix != "" {
			name += "-" + o.Suffix
		}
		_, records, err := o.Resolver.LookupSRV(ctx, name, "tcp", o.Domain)
		if err := ctx.Err(); err != nil {
			return "", err
		}
		// The resolver may report some bad records next to the good ones.
		if err != nil && len(records) == 0 {
			queries = append(queries, fmt.Sprintf("error querying DNS SRV records for _%s %v", name, err))
			continue
		}
		s.take(ctx, name, service.scheme, records)
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if len(queries) == 2 {
		return "", &Failure{Reason: ErrSRVQueries, Lines: []LogLine{
			{LevelWarning, queries[0]}, {LevelWarning, queries[1]}, {LevelError, ErrSRVQueries.Error()},
		}}
	}
	for _, q := range queries {
		o.Logger.Info(q)
	}
	if !s.found && !o.Proxy {
		return "", &Failure{Reason: ErrNotInSRV, Lines: []LogLine{{LevelCritical,
			fmt.Sprintf("error setting up initial cluster: cannot find local etcd member %q in SRV records", o.Name)}}}
	}
	return strings.Join(s.pairs, ","), nil
}

// own resolves the URLs that this node advertises; the values are their schemes.
func (o *SRVOptions) own(ctx context.Context) (map[netip.AddrPort][]string, error) {
	own := map[netip.AddrPort][]string{}
	for _, peer := range o.PeerURLs {
		u, err := url.Parse(peer)
		if err != nil {
			return nil, &Failure{Reason: err, Lines: []LogLine{{LevelError, err.Error()}}}
		}
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		var addrs []netip.AddrPort
		if err == nil {
			addrs, err = o.resolve(ctx, u.Hostname(), uint16(port))
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			line := fmt.Sprintf("couldn't resolve host %s during SRV discovery", u.Host)
			return nil, &Failure{Reason: fmt.Errorf("%s: %w", line, err), Lines: []LogLine{{LevelError, line}}}
		}
		for _, a := range addrs {
			own[a] = append(own[a], u.Scheme)
		}
	}
	return own, nil
}

// resolve returns every address of a host, which may be one already.
func (o *SRVOptions) resolve(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	ips := make([]netip.Addr, 1)
	var err error
	if ips[0], err = netip.ParseAddr(host); err != nil {
		if ips, err = o.Resolver.LookupNetIP(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = netip.AddrPortFrom(ip.Unmap(), port)
	}
	return addrs, nil
}

// srvSearch collects what the records say.
type srvSearch struct {
	SRVOptions
	own     map[netip.AddrPort][]string
	found   bool // this node is among the records
	numbers int  // names given away so far
	pairs   []string
}

// take adds the records of one service. Priority and weight mean nothing here, and resolvers shuffle
// by weight; sorting makes equal records give equal names.
func (s *srvSearch) take(ctx context.Context, service, scheme string, records []*net.SRV) {
	records = slices.Clone(records)
	slices.SortFunc(records, func(a, b *net.SRV) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Port, b.Port))
	})
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		peer := scheme + "://" + net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
		// With its dot, if it has one: then no search list is tried.
		addrs, err := s.resolve(ctx, r.Target, r.Port)
		if err != nil {
			s.Logger.Warn(fmt.Sprintf("couldn't resolve host %s during SRV discovery", net.JoinHostPort(host, strconv.Itoa(int(r.Port)))))
			continue
		}
		name := ""
		if schemes := s.schemes(addrs); len(schemes) > 0 {
			if !slices.Contains(schemes, scheme) {
				s.Logger.Warn(fmt.Sprintf("ignoring %s from DNS for %s: this member advertises %s there", peer, service, schemes[0]))
				continue
			}
			s.found = true
			name = s.Name
		} else {
			name = s.number()
		}
		s.pairs = append(s.pairs, Pair{Name: name, URL: peer}.String())
		s.Logger.Info(fmt.Sprintf("got bootstrap from DNS for %s at %s", service, peer))
	}
}

// schemes returns with which schemes this node is at one of the addresses; none if it is not.
func (s *srvSearch) schemes(addrs []netip.AddrPort) []string {
	var schemes []string
	for _, a := range addrs {
		schemes = append(schemes, s.own[a]...)
	}
	return schemes
}

// number makes a temporary name that is not the one of this node.
func (s *srvSearch) number() string {
	for {
		n := strconv.Itoa(s.numbers)
		s.numbers++
		if n != s.Name {
			return n
		}
	}
}
