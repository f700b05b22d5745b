//go:build linux

package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// pollEvery is the pause between two looks at a condition.
const pollEvery = 20 * time.Millisecond

// patient is a TB that waits for another time than Deadline.
type patient interface{ Patience() time.Duration }

// Eventually looks at a condition until it holds. The condition returns nil, or what is missing, which is
// what the failure shows when Deadline has passed.
func Eventually(tb TB, what string, condition func(ctx context.Context) error) {
	tb.Helper()
	limit := Deadline
	if p, ok := tb.(patient); ok {
		limit = p.Patience()
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		// Each look has a deadline of its own, since a server may take a request and never answer.
		look, done := context.WithTimeout(ctx, 10*time.Second)
		err := condition(look)
		done()
		if err == nil {
			return
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			tb.Fatalf("waited %v for %s: %v", limit, what, err)
			return
		}
	}
}

// WaitReady waits until these members (all running ones when none is named) say that they are healthy,
// which needs a leader and a quorum.
func (c *Cluster) WaitReady(members ...*Member) {
	c.tb.Helper()
	if len(members) == 0 {
		members = c.Running()
	}
	for _, m := range members {
		c.whileRunning(m, m.Name+" to be healthy", func(ctx context.Context) error {
			resp, err := m.Do(ctx, http.MethodGet, "/health", "", "")
			if err == nil && !resp.OK() {
				err = fmt.Errorf("/health: %v", resp)
			}
			return err
		})
	}
}

// whileRunning is Eventually, which also fails as soon as the member's process has ended.
func (c *Cluster) whileRunning(m *Member, what string, condition func(ctx context.Context) error) {
	c.tb.Helper()
	Eventually(c.tb, what, func(ctx context.Context) error {
		if !m.Running() {
			c.tb.Fatalf("waited for %s, but it ended: %v\n%s", what, m.Wait(), lastLines(m.Log(), 20))
		}
		return condition(ctx)
	})
}

// waitPublished waits until every member lists the client URLs of all.
func (c *Cluster) waitPublished() {
	c.tb.Helper()
	for _, m := range c.Members {
		c.whileRunning(m, m.Name+" to know the client URLs of all", func(ctx context.Context) error {
			list, err := m.MemberList(ctx)
			if err != nil {
				return err
			}
			for _, l := range list {
				if len(l.ClientURLs) == 0 {
					return fmt.Errorf("those of %s are missing", l.Name)
				}
			}
			return nil
		})
	}
}

// WaitLog waits until the member's log since its last start contains text.
func (m *Member) WaitLog(text string) {
	m.cluster.tb.Helper()
	Eventually(m.cluster.tb, fmt.Sprintf("%q in the log of %s", text, m.Name), func(context.Context) error {
		if !strings.Contains(m.Log(), text) {
			return fmt.Errorf("the log ends with:\n%s", lastLines(m.Log(), 5))
		}
		return nil
	})
}

// WaitLeader waits until all running members name the same running member as leader, and returns it.
func (c *Cluster) WaitLeader() *Member {
	c.tb.Helper()
	var leader *Member
	Eventually(c.tb, "a leader that all members agree on", func(ctx context.Context) error {
		leader = nil
		for _, m := range c.Running() {
			l, err := m.leader(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			if leader != nil && l != leader {
				return fmt.Errorf("%s and %s are both called leader", leader.Name, l.Name)
			}
			leader = l
		}
		if leader == nil {
			return errors.New("no member runs")
		}
		return nil
	})
	return leader
}

// leader asks the member who leads and finds that member in the cluster.
func (m *Member) leader(ctx context.Context) (*Member, error) {
	l, err := m.LeaderOf(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(m.cluster.Members, func(o *Member) bool { return slices.Contains(l.PeerURLs, o.PeerURL) })
	if i < 0 {
		return nil, fmt.Errorf("unknown leader %+v", l)
	}
	if !m.cluster.Members[i].Running() {
		return nil, fmt.Errorf("%s is called leader, but it is down", m.cluster.Members[i].Name)
	}
	return m.cluster.Members[i], nil
}

// Followers waits for a leader and returns the other running members.
func (c *Cluster) Followers() []*Member {
	c.tb.Helper()
	leader := c.WaitLeader()
	return slices.DeleteFunc(c.Running(), func(m *Member) bool { return m == leader })
}

// ID asks the cluster for the ID of a member, found by its peer URL.
func (c *Cluster) ID(of *Member) string {
	c.tb.Helper()
	var id string
	Eventually(c.tb, "the ID of "+of.Name, func(ctx context.Context) error {
		for _, m := range c.Running() {
			list, err := m.MemberList(ctx)
			if err != nil {
				continue
			}
			i := slices.IndexFunc(list, func(l api.Member) bool { return slices.Contains(l.PeerURLs, of.PeerURL) })
			if i >= 0 {
				id = list[i].ID
				return nil
			}
		}
		return fmt.Errorf("no running member lists %s", of.PeerURL)
	})
	return id
}

// Status is what a Quorate member says of itself at /quorate/v1/status.
type Status struct {
	MemberID  string `json:"memberID"`
	Leader    string `json:"leader"`
	Term      uint64 `json:"term"`
	RaftIndex uint64 `json:"raftIndex"`
	Index     uint64 `json:"index"`
	Checksum  string `json:"checksum"`
}

// Status asks a Quorate member for its state, with the checksum of its tree.
func (m *Member) Status(ctx context.Context) (Status, error) {
	resp, err := m.Do(ctx, http.MethodGet, "/quorate/v1/status?checksum=true", "", "")
	if err != nil {
		return Status{}, err
	}
	var s Status
	if err := json.Unmarshal([]byte(resp.Body), &s); err != nil || !resp.OK() {
		return Status{}, fmt.Errorf("status: %v (%v)", resp, err)
	}
	return s, nil
}

// contents is an index and a checksum of everything at that index. Quorate computes it; for etcd it is
// made of the visible keys.
func (m *Member) contents(ctx context.Context) (index uint64, sum string, err error) {
	if m.cluster.Kind() == Quorate {
		s, err := m.Status(ctx)
		if err == nil && s.Checksum == "" {
			err = errors.New("the status has no checksum")
		}
		return s.Index, s.Checksum, err
	}
	resp, err := m.Get(ctx, "/?recursive=true&sorted=true")
	if err == nil && !resp.OK() {
		err = fmt.Errorf("%v", resp)
	}
	return resp.Index(), fmt.Sprintf("%x", sha256.Sum256([]byte(resp.Body))), err
}

// WaitEqual waits until all running members are at one index, and fails at once when two of them hold
// different contents at the same index. It returns the index. Writes must have ended before.
func (c *Cluster) WaitEqual() uint64 {
	c.tb.Helper()
	var index uint64
	Eventually(c.tb, "all members to be equal", func(ctx context.Context) error {
		sums := map[uint64]string{}
		for _, m := range c.Running() {
			i, sum, err := m.contents(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			if have, ok := sums[i]; ok && have != sum {
				c.tb.Fatalf("members differ at index %d: %s has checksum %s, one before has %s", i, m.Name, sum, have)
			}
			sums[i] = sum
			index = i
		}
		if len(sums) != 1 {
			return fmt.Errorf("they are at indices %v", slices.Sorted(maps.Keys(sums)))
		}
		return nil
	})
	return index
}
