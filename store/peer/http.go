package peer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// A list of members is far smaller than this.
const maxMembersBody = 4 << 20

// member is a member as peers see it: the ID is a decimal number, and what an unstarted member does
// not have is left out (spec members 2).
type member struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

func (p *Peers) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/members", getOnly(p.serveMembers))
	mux.HandleFunc("/version", getOnly(p.serveVersion))
	mux.HandleFunc("/health", getOnly(p.serveHealth))
	mux.HandleFunc("/raft/probing", p.serveProbing)
	mux.HandleFunc(upgradePath, p.serveUpgrade)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The multiplexer would redirect an unclean path; here it is only a wrong one.
		switch r.URL.Path {
		case "/members", "/version", "/health", "/raft/probing", upgradePath:
			mux.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// getOnly refuses every method but GET, also HEAD, as etcd does.
func getOnly(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

func (p *Peers) serveMembers(w http.ResponseWriter, r *http.Request) {
	members := []member{} // never null
	for _, m := range p.cfg.Directory.Members() {
		id, err := api.ParseID(m.ID)
		if err != nil {
			p.log.Error("member has an ID that is not hex", "id", m.ID)
			continue
		}
		members = append(members, member{ID: id, PeerURLs: m.PeerURLs, Name: m.Name, ClientURLs: m.ClientURLs})
	}
	w.Header().Set(api.HeaderClusterID, api.FormatID(p.cfg.Cluster))
	w.Header().Set(headerEpoch, strconv.FormatUint(p.cfg.Epoch, 16))
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(members)
}

func (p *Peers) serveVersion(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(api.Version{Server: p.cfg.Version, Cluster: p.cfg.Directory.ClusterVersion()})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
}

// serveHealth answers as etcd's client URL does (spec stats-and-misc 2).
func (p *Peers) serveHealth(w http.ResponseWriter, r *http.Request) {
	healthy := p.ready.Load()
	if healthy && p.cfg.Health != nil {
		healthy = p.cfg.Health(r.Context())
	}
	if !healthy {
		http.Error(w, `{"health":"false"}`, http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, `{"health":"true"}`)
}

// serveProbing tells that somebody is here, and the time.
func (p *Peers) serveProbing(w http.ResponseWriter, r *http.Request) {
	json.NewEncoder(w).Encode(struct {
		OK  bool
		Now time.Time
	}{true, time.Now()})
}

// Roster is the answer to GET /members: who belongs to which cluster.
type Roster struct {
	Cluster uint64
	Epoch   uint64 // what a member that joins has to say in its handshakes; 0 from an etcd server
	Members []api.Member
}

// FetchMembers asks a peer URL for the cluster and its members, which any member answers, also
// without a leader. An etcd server answers it as well.
func FetchMembers(ctx context.Context, client *http.Client, peerURL string) (Roster, error) {
	var roster Roster
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(peerURL, "/")+"/members", nil)
	if err != nil {
		return roster, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return roster, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return roster, fmt.Errorf("get %s: %s", req.URL, resp.Status)
	}
	if roster.Cluster, err = api.ParseID(resp.Header.Get(api.HeaderClusterID)); err != nil {
		return roster, fmt.Errorf("get %s: header %s: %w", req.URL, api.HeaderClusterID, err)
	}
	if epoch := resp.Header.Get(headerEpoch); epoch != "" {
		if roster.Epoch, err = api.ParseID(epoch); err != nil {
			return roster, fmt.Errorf("get %s: header %s: %w", req.URL, headerEpoch, err)
		}
	}
	var list []member
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxMembersBody)).Decode(&list); err != nil {
		return roster, fmt.Errorf("get %s: %w", req.URL, err)
	}
	for _, m := range list {
		roster.Members = append(roster.Members, api.Member{
			ID: api.FormatID(m.ID), Name: m.Name,
			PeerURLs: orEmpty(m.PeerURLs), ClientURLs: orEmpty(m.ClientURLs),
		})
	}
	return roster, nil
}

func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
