package httpd

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

func (s *Server) version(w http.ResponseWriter, _ *http.Request, m *member) error {
	return writeJSON(w, http.StatusOK, m.Version(), false)
}

// machines lists the client URLs of all members. Members that have not published theirs yet
// contribute nothing.
func (s *Server) machines(w http.ResponseWriter, _ *http.Request, m *member) error {
	var urls []string
	for _, one := range m.Members() {
		urls = append(urls, one.ClientURLs...)
	}
	slices.Sort(urls)
	// Like etcd, this and health leave it to net/http to find out that it is text.
	io.WriteString(w, strings.Join(urls, ", "))
	return nil
}

func (s *Server) selfStats(w http.ResponseWriter, _ *http.Request, m *member) error {
	return writeJSON(w, http.StatusOK, m.SelfStats(), false)
}

func (s *Server) leaderStats(w http.ResponseWriter, _ *http.Request, m *member) error {
	stats, ok := m.LeaderStats()
	if !ok {
		return &api.StatusError{Status: http.StatusForbidden, Message: "not current leader"}
	}
	if stats.Followers == nil {
		stats.Followers = map[string]api.FollowerStats{}
	}
	return writeJSON(w, http.StatusOK, stats, false)
}

func (s *Server) storeStats(w http.ResponseWriter, _ *http.Request, m *member) error {
	return writeJSON(w, http.StatusOK, m.Tree().Stats(), false)
}

// healthTimeout is how long a quorum read may take for a member to count as healthy, as in etcd.
const healthTimeout = time.Second

// health answers whether this member knows a leader and can read through it (spec stats 2).
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	if !s.healthy(r.Context()) {
		s.metrics.healthFailures.Inc()
		http.Error(w, `{"health":"false"}`, http.StatusServiceUnavailable)
		return
	}
	s.metrics.healthSuccess.Inc()
	io.WriteString(w, `{"health":"true"}`)
}

func (s *Server) healthy(ctx context.Context) bool {
	m := s.member.Load()
	if m == nil {
		return false
	}
	if _, ok := m.Leader(); !ok {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return m.Linearizable(ctx) == nil
}

// livez answers whether the process runs at all. It never depends on others, so that nobody
// restarts a member because a quorum is missing.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, "ok\n")
}

// readyz answers whether the member should get traffic, and with the parameter verbose why not.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	status := Status{Reasons: []string{*s.waiting.Load()}}
	if m := s.member.Load(); m != nil {
		status = m.Status()
	}
	code, text := http.StatusOK, "ok\n"
	if !status.Ready {
		code, text = http.StatusServiceUnavailable, "not ready\n"
	}
	if r.URL.Query().Has("verbose") {
		for _, reason := range status.Reasons {
			text += "- " + reason + "\n"
		}
	}
	writeText(w, code, text)
}

// memberStatus answers how this member sees itself and its cluster. With checksum=true that includes
// a checksum of all keys, which reads them all, and is for those who may read them all.
func (s *Server) memberStatus(w http.ResponseWriter, r *http.Request, m *member) error {
	ready := m.Status()
	status := api.MemberStatus{
		MemberID:  api.FormatID(m.MemberID()),
		Name:      m.SelfStats().Name,
		ClusterID: api.FormatID(m.ClusterID()),
		Version:   m.Version(),
		Ready:     ready.Ready,
		Reasons:   append([]string{}, ready.Reasons...),
		Index:     m.Tree().Index(),
		Voters:    []string{},
	}
	for _, id := range m.Voters() {
		status.Voters = append(status.Voters, api.FormatID(id))
	}
	if leader, ok := m.Leader(); ok {
		status.Leader = leader.ID
	}
	status.RaftIndex, status.Term = m.RaftState()
	checksum, err := boolParameter(r, "checksum")
	switch {
	case err != nil:
		return err
	case checksum && !m.may(r, Access{Kind: Admin}):
		return errAdminCredentials
	case checksum:
		var sum uint64
		sum, status.Index = m.Tree().Checksum()
		status.Checksum = fmt.Sprintf("%016x", sum)
	}
	return writeJSON(w, http.StatusOK, status, true)
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text)
}
