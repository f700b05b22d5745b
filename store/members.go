package store

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/store/peer"
)

// errReconfiguration is all that a client is told when a change of members is refused or does not
// come to an end; the log says why (spec members 2).
var errReconfiguration = &api.StatusError{Status: http.StatusInternalServerError, Message: "Internal Server Error"}

// healthyFor is how long another member must have been connected to count as alive.
const healthyFor = 5 * time.Second

// Members returns the members sorted by ID, as this member knows them.
func (s *Store) Members() []api.Member {
	return s.membership().APIMembers()
}

// Leader returns the member that leads, if one is known and a member.
func (s *Store) Leader() (api.Member, bool) {
	id := s.leaderID()
	if id == 0 {
		return api.Member{}, false
	}
	m, ok := s.fsm.Membership().Find(id)
	return m.API(), ok
}

// AddMember adds a member that will listen on the peer URLs. It gets the log as soon as it runs,
// and a vote when it has caught up. The error is an *api.StatusError.
func (s *Store) AddMember(ctx context.Context, peerURLs []string) (api.Member, error) {
	if err := s.checkAdd(); err != nil {
		s.log.Error("re-configuration failed", "change", "add", "peerURLs", strings.Join(peerURLs, ","), "reason", err)
		return api.Member{}, errReconfiguration
	}
	slices.Sort(peerURLs)
	peerURLs = slices.Compact(peerURLs)
	id := api.AddedMemberID(peerURLs, time.Now())
	if err := s.changeMembers(ctx, fsm.KindAddMember, fsm.Change{ID: id, PeerURLs: peerURLs}); err != nil {
		return api.Member{}, err
	}
	err := s.awaitConfiguration(ctx, func(servers []raft.Server) bool { return hasServer(servers, id) })
	return fsm.Member{ID: id, PeerURLs: peerURLs}.API(), err
}

// UpdateMember changes where a member is to be found. The error is an *api.StatusError.
func (s *Store) UpdateMember(ctx context.Context, id uint64, peerURLs []string) error {
	slices.Sort(peerURLs)
	return s.changeMembers(ctx, fsm.KindUpdateMember, fsm.Change{ID: id, PeerURLs: slices.Compact(peerURLs)})
}

// RemoveMember removes a member for ever. The error is an *api.StatusError.
func (s *Store) RemoveMember(ctx context.Context, id uint64) error {
	if err := s.checkRemove(id); err != nil {
		s.log.Error("re-configuration failed", "change", "remove", "member", formatID(id), "reason", err)
		return errReconfiguration
	}
	if err := s.changeMembers(ctx, fsm.KindRemoveMember, fsm.Change{ID: id}); err != nil {
		return err
	}
	if id == s.self {
		return nil // this member may not live to see raft's own change
	}
	return s.awaitConfiguration(ctx, func(servers []raft.Server) bool { return !hasServer(servers, id) })
}

func (s *Store) changeMembers(ctx context.Context, kind fsm.Kind, change fsm.Change) error {
	result, err := s.pipeline.propose(ctx, &fsm.Command{Kind: kind, Change: change})
	if err != nil {
		s.log.Error("re-configuration failed", "member", formatID(change.ID), "reason", err)
		return errReconfiguration
	}
	return result.Err
}

// awaitConfiguration returns when raft's configuration, as this member has it, fulfils ok.
func (s *Store) awaitConfiguration(ctx context.Context, ok func([]raft.Server) bool) error {
	for !ok(s.raft.Load().GetConfiguration().Configuration().Servers) {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-s.stopping:
			return errReconfiguration
		case <-ctx.Done():
			s.log.Error("re-configuration is decided, but raft has not followed yet; the leader goes on trying")
			return errReconfiguration
		}
	}
	return nil
}

func hasServer(servers []raft.Server, id uint64) bool {
	return slices.ContainsFunc(servers, func(server raft.Server) bool { return server.ID == serverID(id) })
}

// checkAdd is the strict check before a member is added (spec members 4).
func (s *Store) checkAdd() error {
	if !s.options.StrictReconfig {
		return nil
	}
	m := s.fsm.Membership()
	n := len(m.Members) + 1
	started, unstarted := startedMembers(m, 0)
	if needed := n/2 + 1; started < needed && !(started == 1 && n == 2) {
		return fmt.Errorf("%d started members would be fewer than the quorum of %d of %d members; not started: %s",
			started, needed, n, strings.Join(unstarted, ", "))
	}
	if missing := s.missing(m, healthyFor); len(missing) > 0 {
		return fmt.Errorf("unhealthy cluster: not connected for %v to %s", healthyFor, strings.Join(missing, ", "))
	}
	return nil
}

// checkRemove is the strict check before a member is removed (spec members 4, 5).
func (s *Store) checkRemove(id uint64) error {
	m := s.fsm.Membership()
	if _, ok := m.Find(id); !ok {
		return nil // the state machine says why
	}
	if len(m.Members) == 1 {
		return fmt.Errorf("%s is the last member", formatID(id))
	}
	if !s.options.StrictReconfig {
		return nil
	}
	n := len(m.Members) - 1
	needed := n/2 + 1
	member, _ := m.Find(id)
	started, unstarted := startedMembers(m, id)
	if started < needed && member.Started() {
		return fmt.Errorf("%d started members would be fewer than the quorum of %d of %d members; not started: %s",
			started, needed, n, strings.Join(unstarted, ", "))
	}
	missing := s.missing(m, 0)
	if slices.ContainsFunc(missing, func(text string) bool { return strings.HasPrefix(text, formatID(id)) }) {
		return nil // a dead member may always go
	}
	if alive := n - len(missing); member.Started() && alive < needed {
		return fmt.Errorf("%d live members would be fewer than the quorum of %d of %d members; not connected: %s",
			alive, needed, n, strings.Join(missing, ", "))
	}
	return nil
}

// startedMembers counts the started members other than except, and names the others.
func startedMembers(m *fsm.Membership, except uint64) (started int, unstarted []string) {
	for _, member := range m.Members {
		switch {
		case member.ID == except:
		case member.Started():
			started++
		default:
			unstarted = append(unstarted, describe(member))
		}
	}
	return started, unstarted
}

// missing names the members that this one has not been connected to for that long.
func (s *Store) missing(m *fsm.Membership, atLeast time.Duration) []string {
	var out []string
	for _, member := range m.Members {
		if member.ID == s.self {
			continue
		}
		if since, ok := s.peers.Active(member.ID); !ok || time.Since(since) < atLeast {
			out = append(out, describe(member))
		}
	}
	return out
}

func describe(m fsm.Member) string {
	name := m.Name
	if name == "" {
		name = "unstarted"
	}
	return fmt.Sprintf("%s (%s, %s)", formatID(m.ID), name, strings.Join(m.PeerURLs, " "))
}

// onMembersChanged is called by the state machine.
func (s *Store) onMembersChanged(before, now *fsm.Membership) {
	if err := writeRoster(s.options.DataDir, now); err != nil {
		s.log.Error("the list of members was not saved", "error", err)
	}
	if len(before.Members) == 0 {
		before = s.lastKnown
	}
	for _, member := range now.Members {
		if member.ID == s.self {
			continue
		}
		old, ok := before.Find(member.ID)
		if ok && slices.Equal(old.PeerURLs, member.PeerURLs) {
			continue
		}
		go func() {
			if ok {
				s.log.Info("member has new peer URLs", "member", formatID(member.ID), "peerURLs", strings.Join(member.PeerURLs, ","))
				s.peers.Drop(member.ID) // connections to the old address
			}
			s.peers.Connect(member.ID)
		}()
	}
	if now.IsRemoved(s.self) && !before.IsRemoved(s.self) {
		go s.leave()
	}
	for _, removed := range now.Removed {
		if removed.ID != s.self && !before.IsRemoved(removed.ID) {
			go s.forget(removed.ID)
		}
	}
	select {
	case s.membersChanged <- struct{}{}:
	default:
	}
}

// forget closes the connections to a removed member once raft does without it, so that it learns
// that it was removed when it connects again.
func (s *Store) forget(id uint64) {
	for !(directory{s}).Removed(id) {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.stopping:
			return
		}
	}
	s.peers.Drop(id)
}

// leave stops this member some time after it has learned from its own log that it was removed.
// The others must first have changed raft's configuration: until then its vote counts.
func (s *Store) leave() {
	deadline := time.After(10 * time.Second)
	// The answer to whoever asked for the removal goes out first.
	pause := time.Second
	for {
		select {
		case <-s.stopping:
			return
		case <-deadline:
			s.removed()
			return
		case <-time.After(pause):
		}
		if r := s.raft.Load(); r != nil && !hasServer(r.GetConfiguration().Configuration().Servers, s.self) {
			s.removed()
			return
		}
		pause = 100 * time.Millisecond
	}
}

// removed stops this member because it is no longer one.
func (s *Store) removed() { s.stop(ErrRemoved) }

// onRefused hears that another member has refused to speak to this one.
func (s *Store) onRefused(from uint64, refusal *peer.RefusedError) {
	if refusal.Status != http.StatusGone {
		return
	}
	go func() {
		// Whoever answers the request that removed this member gets the time to do so.
		select {
		case <-s.stopping:
		case <-time.After(time.Second):
			s.removed()
		}
	}()
}

// directory tells package peer who is where.
type directory struct{ s *Store }

func (d directory) PeerURLs(id uint64) []string {
	members := d.s.membership()
	if m, ok := members.Find(id); ok {
		return m.PeerURLs
	}
	if m, ok := members.FindRemoved(id); ok {
		return m.PeerURLs
	}
	return nil
}

// Removed says whether a member was removed and raft does without it. Until both are true the
// member may still have to take part, for one to hand over leadership.
func (d directory) Removed(id uint64) bool {
	if !d.s.membership().IsRemoved(id) {
		return false
	}
	r := d.s.raft.Load()
	return r == nil || !hasServer(r.GetConfiguration().Configuration().Servers, id)
}

func (d directory) Members() []api.Member { return d.s.Members() }

func (d directory) ClusterVersion() string { return d.s.Version().Cluster }

// publish tells the cluster this member's name and client URLs, at every start, until it is done.
func (s *Store) publish() {
	c := fsm.Change{ID: s.self, Name: s.options.Name, ClientURLs: s.options.ClientURLs}
	announced := false
	for {
		if !announced {
			announced = s.announce()
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.requestTimeout())
		result, err := s.pipeline.propose(ctx, &fsm.Command{Kind: fsm.KindPublish, Change: c})
		cancel()
		if err == nil && result.Err == nil {
			s.log.Info("published", "name", c.Name, "clientURLs", strings.Join(c.ClientURLs, ","), "cluster", formatID(s.identity.Cluster))
			close(s.published)
			return
		}
		select {
		case <-s.stopping:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// announce tells the cluster that this member has moved, if it listens where it says it is to be
// found, and not where the cluster believes it to be. It says whether there is nothing more to do.
func (s *Store) announce() bool {
	recorded := directory{s}.PeerURLs(s.self)
	advertised := slices.Sorted(slices.Values(s.options.AdvertisePeerURLs))
	if len(recorded) == 0 || listens(s.options.ListenPeerURLs, recorded) {
		return true
	}
	if slices.Equal(recorded, advertised) || !listens(s.options.ListenPeerURLs, advertised) {
		s.log.Warn("this member listens for peers at other URLs than the cluster has recorded; if it has moved, update it with: quorate member update",
			"member", formatID(s.self), "recorded", strings.Join(recorded, ","), "listen", strings.Join(s.options.ListenPeerURLs, ","))
		return true
	}
	// No leader reaches this member at its old address, so it does not know of one: it asks the
	// members that it can reach.
	payload, err := json.Marshal(fsm.Change{ID: s.self, PeerURLs: advertised})
	if err != nil {
		s.log.Error("this member's new peer URLs cannot be told", "error", err)
		return true
	}
	for _, m := range s.membership().Members {
		if m.ID == s.self {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), s.requestTimeout())
		_, err = s.peers.Call(ctx, m.ID, kindMoved, payload)
		cancel()
		if err == nil {
			break
		}
		s.log.Debug("this member's new peer URLs were not taken", "by", formatID(m.ID), "error", err)
	}
	if err != nil {
		return false
	}
	s.log.Info("this member has moved, and told the cluster", "from", strings.Join(recorded, ","), "to", strings.Join(advertised, ","))
	return true
}

// moved records new peer URLs of the member that asks for it.
func (s *Store) moved(ctx context.Context, from uint64, payload []byte) error {
	var change fsm.Change
	if err := json.Unmarshal(payload, &change); err != nil {
		return err
	}
	if change.ID != from {
		return errBadFrame // a member speaks for itself only
	}
	ctx, cancel := context.WithTimeout(ctx, s.requestTimeout())
	defer cancel()
	result, err := s.pipeline.propose(ctx, &fsm.Command{Kind: fsm.KindUpdateMember, Change: fsm.Change{ID: change.ID, PeerURLs: change.PeerURLs}})
	if err != nil {
		return err
	}
	return result.Err
}
