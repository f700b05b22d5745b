package fsm

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/quorate/quorate/api"
)

// Member is what the members agree on about one of them.
type Member struct {
	ID         uint64   `json:"id"`
	Name       string   `json:"name,omitempty"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// Started says whether the member has ever told its name (spec members 1).
func (m Member) Started() bool { return m.Name != "" }

// API returns the member as /v2/members shows it.
func (m Member) API() api.Member {
	out := api.Member{ID: api.FormatID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs}
	if out.PeerURLs == nil {
		out.PeerURLs = []string{}
	}
	if out.ClientURLs == nil {
		out.ClientURLs = []string{}
	}
	return out
}

// Membership is who belongs to the cluster. It is immutable: a change makes a new one.
type Membership struct {
	ClusterID uint64 `json:"clusterID"`
	// Version is the cluster version, such as 3.4.0, and empty before it is decided.
	Version string `json:"version,omitempty"`
	// Epoch differs from zero after a recovery: members of another epoch are strangers.
	Epoch uint64 `json:"epoch,omitempty"`
	// Members is sorted by ID.
	Members []Member `json:"members,omitempty"`
	// Removed holds, sorted by ID, those that may never come back, with their last peer URLs: one
	// that was removed while it led must still be found until it has handed over.
	Removed []Member `json:"removed,omitempty"`
}

// Find returns the member with the given ID.
func (m *Membership) Find(id uint64) (Member, bool) {
	return find(m.Members, id)
}

// FindRemoved returns the removed member that had the given ID, as it was.
func (m *Membership) FindRemoved(id uint64) (Member, bool) {
	return find(m.Removed, id)
}

// IsRemoved says whether the ID belonged to a member that was removed.
func (m *Membership) IsRemoved(id uint64) bool {
	_, ok := find(m.Removed, id)
	return ok
}

func find(members []Member, id uint64) (Member, bool) {
	i, ok := position(members, id)
	if !ok {
		return Member{}, false
	}
	return members[i], true
}

func position(members []Member, id uint64) (int, bool) {
	return slices.BinarySearchFunc(members, id, func(a Member, id uint64) int { return cmp.Compare(a.ID, id) })
}

func (m *Membership) clone() *Membership {
	c := *m
	c.Members = slices.Clone(m.Members)
	c.Removed = slices.Clone(m.Removed)
	return &c
}

func put(members []Member, member Member) []Member {
	i, ok := position(members, member.ID)
	if ok {
		members[i] = member
		return members
	}
	return slices.Insert(members, i, member)
}

func (m *Membership) put(member Member) { m.Members = put(m.Members, member) }

func (m *Membership) remove(id uint64) {
	if i, ok := position(m.Members, id); ok {
		m.Removed = put(m.Removed, m.Members[i])
		m.Members = slices.Delete(m.Members, i, i+1)
	}
}

// taken says whether a member other than id has one of the URLs.
func (m *Membership) taken(id uint64, urls []string) bool {
	return slices.ContainsFunc(m.Members, func(o Member) bool {
		return o.ID != id && slices.ContainsFunc(urls, func(u string) bool { return slices.Contains(o.PeerURLs, u) })
	})
}

// The refusals of membership changes (spec members 2).
var (
	errPeerURLExists = &api.StatusError{Status: http.StatusConflict, Message: "membership: peerURL exists"}
	errIDExists      = &api.StatusError{Status: http.StatusConflict, Message: "membership: ID exists"}
)

// NoSuchMember is the refusal for an ID that no member has.
func NoSuchMember(id string) error {
	return &api.StatusError{Status: http.StatusNotFound, Message: "No such member: " + id}
}

// MemberRemoved is the refusal for an ID that a removed member had.
func MemberRemoved(id uint64) error {
	return &api.StatusError{Status: http.StatusGone, Message: "Member permanently removed: " + api.FormatID(id)}
}

// apply returns the membership after c, how many steps of the index that took, and the refusal if
// there was one. The steps are those of etcd (spec keys 8.2).
func (m *Membership) apply(kind Kind, c Change) (*Membership, int, error) {
	next := m.clone()
	switch kind {
	case KindBootstrap:
		if len(m.Members) > 0 || len(m.Removed) > 0 {
			return m, 0, nil // every leader of a new cluster proposes it
		}
		next.ClusterID = c.ClusterID
		for _, member := range c.Members {
			next.put(member)
		}
		return next, len(c.Members), nil

	case KindPublish:
		if m.IsRemoved(c.ID) {
			return m, 0, MemberRemoved(c.ID)
		}
		member, ok := m.Find(c.ID)
		if !ok {
			return m, 0, NoSuchMember(api.FormatID(c.ID))
		}
		if member.Name == c.Name && slices.Equal(member.ClientURLs, c.ClientURLs) {
			return m, 0, nil
		}
		member.Name, member.ClientURLs = c.Name, c.ClientURLs
		next.put(member)
		return next, 1, nil

	case KindAddMember:
		if m.IsRemoved(c.ID) {
			return m, 0, MemberRemoved(c.ID)
		}
		if _, ok := m.Find(c.ID); ok {
			return m, 0, errIDExists
		}
		if m.taken(c.ID, c.PeerURLs) {
			return m, 0, errPeerURLExists
		}
		next.put(Member{ID: c.ID, PeerURLs: c.PeerURLs})
		return next, 1, nil

	case KindUpdateMember:
		if m.IsRemoved(c.ID) {
			return m, 0, MemberRemoved(c.ID)
		}
		member, ok := m.Find(c.ID)
		if !ok {
			return m, 0, NoSuchMember(api.FormatID(c.ID))
		}
		if m.taken(c.ID, c.PeerURLs) {
			return m, 0, errPeerURLExists
		}
		member.PeerURLs = c.PeerURLs
		next.put(member)
		return next, 1, nil

	case KindRemoveMember:
		if m.IsRemoved(c.ID) {
			return m, 0, MemberRemoved(c.ID)
		}
		if _, ok := m.Find(c.ID); !ok {
			return m, 0, NoSuchMember(api.FormatID(c.ID))
		}
		next.remove(c.ID)
		return next, 2, nil

	case KindClusterVersion:
		if m.Version == c.Version {
			return m, 0, nil
		}
		next.Version = c.Version
		return next, 1, nil

	case KindReset:
		steps := 0
		for _, member := range m.Members {
			if member.ID != c.ID {
				next.remove(member.ID)
				steps += 2
			}
		}
		if _, ok := next.Find(c.ID); !ok {
			next.put(Member{ID: c.ID, Name: c.Name, PeerURLs: c.PeerURLs})
			steps++
		}
		next.Epoch = c.Epoch
		if c.ClusterID != 0 {
			next.ClusterID = c.ClusterID
		}
		return next, steps, nil
	}
	return m, 0, nil
}

// APIMembers returns the members sorted by ID, as /v2/members shows them.
func (m *Membership) APIMembers() []api.Member {
	out := make([]api.Member, 0, len(m.Members))
	for _, member := range m.Members {
		out = append(out, member.API())
	}
	return out
}
