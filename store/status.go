package store

import (
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// Version returns what /version says.
func (s *Store) Version() api.Version {
	cluster := s.fsm.Membership().Version
	if cluster == "" {
		cluster = "not_decided"
	}
	return api.Version{Server: ServerVersion, Cluster: cluster}
}

// SelfStats returns what /v2/stats/self says.
func (s *Store) SelfStats() api.SelfStats {
	stats := api.SelfStats{Name: s.options.Name, ID: formatID(s.self), State: "StateFollower", StartTime: s.started}
	s.stats.Fill(&stats)
	leader := s.leaderID()
	if leader == s.self {
		stats.State = "StateLeader"
	}
	s.leaderMu.Lock()
	defer s.leaderMu.Unlock()
	if leader != 0 && leader == s.leader {
		stats.LeaderInfo = api.LeaderInfo{
			Leader:    formatID(leader),
			Uptime:    time.Since(s.leaderSince).String(),
			StartTime: s.leaderSince,
		}
	}
	return stats
}

// LeaderStats returns what /v2/stats/leader says, false on a member that does not lead.
func (s *Store) LeaderStats() (api.LeaderStats, bool) {
	if s.leaderID() != s.self {
		return api.LeaderStats{}, false
	}
	var others []uint64
	for _, m := range s.fsm.Membership().Members {
		if m.ID != s.self {
			others = append(others, m.ID)
		}
	}
	return api.LeaderStats{Leader: formatID(s.self), Followers: s.stats.Followers(others)}, true
}

// Status says whether this member should get traffic.
func (s *Store) Status() api.Readiness {
	status := api.Readiness{Ready: true}
	not := func(reason string) {
		status.Ready = false
		status.Reasons = append(status.Reasons, reason)
	}
	select {
	case <-s.stopping:
		not("this member is stopping")
	default:
	}
	if s.leaderID() == 0 {
		not("no leader is known: fewer than a quorum of the members are up, or an election is going on")
	}
	select {
	case <-s.published:
	default:
		not("this member has not yet told the cluster its name and client URLs")
	}
	if !slices.Contains(s.Voters(), s.self) {
		not("this member has no vote yet: the leader gives it one when it has caught up")
	}
	if short := s.space.own.Load(); short != nil {
		status.Reasons = append(status.Reasons, "the disk is nearly full: "+short.String())
	}
	if short := s.space.refused.Load(); short != nil {
		status.Reasons = append(status.Reasons, "writes are refused: "+short.String())
	}
	if missing := s.missing(s.membership(), 0); len(missing) > 0 {
		status.Reasons = append(status.Reasons, "not connected to "+strings.Join(missing, ", "))
	}
	return status
}
