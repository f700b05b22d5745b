package store

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/store/disk"
	"github.com/quorate/quorate/store/peer"
)

// found makes the identity of a member of a new cluster, from the list of all of them. Every member
// computes the same IDs (spec bootstrap 3, 4).
func (s *Store) found(ctx context.Context) (disk.Identity, error) {
	identity, err := initialIdentity(s.options.Name, s.options.Token, s.options.Initial)
	if err != nil {
		return identity, err
	}
	return identity, s.checkUnknown(ctx, identity, time.Second)
}

// checkUnknown refuses the first start of a member that the others have seen before. It has lost its
// data, and so forgotten what it voted for and what it acknowledged. Others that do not answer within
// the time-out, each, are passed over.
func (s *Store) checkUnknown(ctx context.Context, identity disk.Identity, timeout time.Duration) error {
	for _, u := range s.othersURLs(identity.Member, identity.Initial) {
		roster, err := s.fetchMembers(ctx, u, timeout)
		if err != nil {
			continue
		}
		for _, m := range roster.Members {
			if m.ID == formatID(identity.Member) && len(m.ClientURLs) > 0 {
				return fmt.Errorf("member %s has already been bootstrapped: its data is lost; remove it (quorate member remove %s), add it again (quorate member add %s %s), and start it with --initial-cluster-state existing and an empty data directory",
					m.ID, m.ID, s.options.Name, strings.Join(s.options.AdvertisePeerURLs, ","))
			}
		}
		break
	}
	return nil
}

// initialIdentity makes the identity of the member with a name in the list of all members of a new
// cluster.
func initialIdentity(name, token string, initial []Initial) (disk.Identity, error) {
	identity := disk.Identity{Token: token, Name: name}
	var ids []uint64
	for _, i := range initial {
		urls := slices.Sorted(slices.Values(i.PeerURLs))
		id := api.MemberID(urls, token)
		if slices.Contains(ids, id) {
			return identity, fmt.Errorf("member exists with identical ID %s (%s)", formatID(id), i.Name)
		}
		ids = append(ids, id)
		identity.Initial = append(identity.Initial, disk.InitialMember{ID: id, Name: i.Name, PeerURLs: urls})
		if i.Name == name {
			identity.Member = id
		}
	}
	if identity.Member == 0 {
		return identity, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", name)
	}
	identity.Cluster = api.ClusterID(ids)
	sortInitial(identity.Initial)
	return identity, nil
}

// join makes the identity of a member that was added to a running cluster, by asking the members
// that are there (spec bootstrap 5).
func (s *Store) join(ctx context.Context) (disk.Identity, error) {
	identity := disk.Identity{Name: s.options.Name, Joined: true}
	var own []string
	var others []string
	for _, i := range s.options.Initial {
		if i.Name == s.options.Name {
			own = slices.Sorted(slices.Values(i.PeerURLs))
		} else {
			others = append(others, i.PeerURLs...)
		}
	}
	if own == nil {
		return identity, fmt.Errorf("couldn't find local name %q in the initial cluster configuration", s.options.Name)
	}
	slices.Sort(others)
	var roster peer.Roster
	found := false
	for _, u := range others {
		var err error
		if roster, err = s.fetchMembers(ctx, u, 10*time.Second); err == nil {
			found = true
			break
		}
		s.log.Warn(fmt.Sprintf("could not get cluster response from %s: %v", u, err))
	}
	if !found {
		return identity, errors.New("cannot fetch cluster info from peer urls: could not retrieve cluster information from the given urls")
	}
	identity.Cluster, identity.Epoch = roster.Cluster, roster.Epoch
	cluster, members := roster.Cluster, roster.Members
	if len(members) != len(s.options.Initial) {
		return identity, fmt.Errorf("error validating peerURLs {ClusterID:%s Members:[%s]}: member count is unequal: --initial-cluster names %d members, the cluster has %d",
			formatID(cluster), listMembers(members), len(s.options.Initial), len(members))
	}
	for _, m := range members {
		id, err := api.ParseID(m.ID)
		if err != nil {
			return identity, fmt.Errorf("error validating peerURLs: member ID %q: %w", m.ID, err)
		}
		urls := slices.Sorted(slices.Values(m.PeerURLs))
		if !slices.ContainsFunc(s.options.Initial, func(i Initial) bool {
			return slices.Equal(slices.Sorted(slices.Values(i.PeerURLs)), urls)
		}) {
			return identity, fmt.Errorf("error validating peerURLs {ClusterID:%s Members:[%s]}: unmatched member while checking PeerURLs: no match found for existing member (%s, [%s])",
				formatID(cluster), listMembers(members), m.ID, strings.Join(m.PeerURLs, " "))
		}
		identity.Initial = append(identity.Initial, disk.InitialMember{ID: id, Name: m.Name, PeerURLs: urls})
		if slices.Equal(urls, own) {
			identity.Member = id
			if len(m.ClientURLs) > 0 {
				return identity, fmt.Errorf("member %s has taken part in the cluster before, but its data directory is empty: remove it (quorate member remove %s), add it again (quorate member add %s %s), and start it with an empty data directory",
					m.ID, m.ID, s.options.Name, strings.Join(own, ","))
			}
		}
	}
	if identity.Member == 0 {
		return identity, fmt.Errorf("error validating peerURLs {ClusterID:%s Members:[%s]}: unmatched member while checking PeerURLs: none has the URLs of %s ([%s])",
			formatID(cluster), listMembers(members), s.options.Name, strings.Join(own, " "))
	}
	sortInitial(identity.Initial)
	return identity, nil
}

func listMembers(members []api.Member) string {
	var out []string
	for _, m := range members {
		out = append(out, fmt.Sprintf("%s=%s", m.ID, strings.Join(m.PeerURLs, ",")))
	}
	return strings.Join(out, " ")
}

func sortInitial(members []disk.InitialMember) {
	slices.SortFunc(members, func(a, b disk.InitialMember) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
}

func (s *Store) othersURLs(self uint64, members []disk.InitialMember) []string {
	var out []string
	for _, m := range members {
		if m.ID != self {
			out = append(out, m.PeerURLs...)
		}
	}
	slices.Sort(out)
	return out
}

func (s *Store) fetchMembers(ctx context.Context, peerURL string, timeout time.Duration) (peer.Roster, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	if s.options.TLS != nil {
		transport.TLSClientConfig = s.options.TLS()
	}
	client := &http.Client{Transport: transport}
	return peer.FetchMembers(ctx, client, peerURL)
}

// listens says whether one of the URLs is served by one of the listen URLs: same port, and the same
// host or all of them.
func listens(listen, urls []string) bool {
	return slices.ContainsFunc(urls, func(raw string) bool {
		u, err := url.Parse(raw)
		if err != nil {
			return false
		}
		return slices.ContainsFunc(listen, func(raw string) bool {
			l, err := url.Parse(raw)
			if err != nil || l.Port() != u.Port() {
				return false
			}
			ip := net.ParseIP(l.Hostname())
			return l.Hostname() == u.Hostname() || ip != nil && ip.IsUnspecified()
		})
	})
}
