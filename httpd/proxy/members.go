package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/durable"
)

const (
	// askTimeout is how long one peer URL may take to list the members.
	askTimeout = 5 * time.Second
	// emptyInterval replaces a long refresh interval while there is no endpoint.
	emptyInterval = time.Second
	// longInterval is what counts as long.
	longInterval = 30 * time.Second
	// maxMembers bounds the answer to GET /members, in bytes.
	maxMembers = 1 << 20
)

// members is what a proxy knows of the cluster.
type members struct {
	mu        sync.Mutex
	peerURLs  []string             // guarded by mu; sorted
	endpoints []string             // guarded by mu; client URLs in the order of use
	until     map[string]time.Time // guarded by mu; failed endpoints, and when they may be used again
	saved     []string             // guarded by mu; the peer URLs in the state file
}

// usable returns the endpoints that have not failed lately, in order.
func (m *members) usable(now time.Time) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var urls []string
	for _, e := range m.endpoints {
		if !now.Before(m.until[e]) {
			urls = append(urls, e)
		}
	}
	return urls
}

func (m *members) failed(endpoint string, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.until == nil {
		m.until = map[string]time.Time{}
	}
	m.until[endpoint] = until
}

// replace takes over a new member list. It reports whether the peer URLs have to be saved.
func (m *members) replace(peerURLs, endpoints []string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.endpoints = endpoints
	for e := range m.until {
		if !slices.Contains(endpoints, e) {
			delete(m.until, e)
		}
	}
	m.peerURLs = peerURLs
	return !slices.Equal(peerURLs, m.saved)
}

func (m *members) wereSaved(peerURLs []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saved = peerURLs
}

func (m *members) peers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peerURLs
}

func (m *members) empty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.endpoints) == 0
}

// Run keeps the endpoints up to date until ctx ends.
func (p *Proxy) Run(ctx context.Context) {
	for {
		if err := p.Refresh(ctx); err != nil && ctx.Err() == nil {
			p.log.Warn("could not refresh the endpoints", "error", err)
		}
		wait := p.opts.RefreshInterval
		if wait >= longInterval && p.members.empty() {
			wait = emptyInterval
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// Refresh asks the peer URLs in turn for the member list and takes over the first answer. Without
// an answer everything stays as it is.
func (p *Proxy) Refresh(ctx context.Context) error {
	var errs []error
	for _, peer := range p.members.peers() {
		list, err := p.ask(ctx, peer)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", peer, err))
			continue
		}
		var peerURLs, endpoints []string
		for _, m := range list {
			peerURLs = append(peerURLs, m.PeerURLs...)
			for _, u := range m.ClientURLs {
				if endpoint, ok := normalEndpoint(u); ok {
					endpoints = append(endpoints, endpoint)
				}
			}
		}
		slices.Sort(peerURLs)
		slices.Sort(endpoints)
		peerURLs, endpoints = slices.Compact(peerURLs), slices.Compact(endpoints)
		p.opts.shuffle(endpoints)
		if !p.members.replace(peerURLs, endpoints) {
			return nil
		}
		p.log.Info(fmt.Sprintf("updated peer urls in cluster file: %v", peerURLs))
		return p.save(peerURLs)
	}
	return fmt.Errorf("could not retrieve cluster information from the given URLs: %w", errors.Join(errs...))
}

// ask reads the member list from one peer URL.
func (p *Proxy) ask(ctx context.Context, peer string) ([]api.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, peer+"/members", nil)
	if err != nil {
		return nil, err
	}
	resp, err := p.opts.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMembers))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	return decodeMembers(body)
}

// decodeMembers reads the answer of GET /members. Only the URLs matter; the ID is a number or a
// text, depending on who answers.
func decodeMembers(body []byte) ([]api.Member, error) {
	var list []struct {
		PeerURLs   []string `json:"peerURLs"`
		ClientURLs []string `json:"clientURLs"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New("an empty member list")
	}
	var found []api.Member
	peers := 0
	for _, m := range list {
		found = append(found, api.Member{PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs})
		peers += len(m.PeerURLs)
	}
	if peers == 0 {
		return nil, errors.New("a member list without peer URLs")
	}
	return found, nil
}

// normalEndpoint reduces a client URL to scheme and host.
func normalEndpoint(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", false
	}
	return u.Scheme + "://" + u.Host, true
}

// state is the content of the state file.
type state struct {
	PeerURLs []string
}

func (p *Proxy) save(peerURLs []string) error {
	if p.opts.StateFile != "" {
		if err := Save(p.opts.StateFile, peerURLs); err != nil {
			return err
		}
	}
	p.members.wereSaved(peerURLs)
	return nil
}

// Save writes the peer URLs for the next start, in one durable step.
func Save(file string, peerURLs []string) error {
	data, err := json.Marshal(state{peerURLs})
	if err != nil {
		return err
	}
	if err := durable.Mkdir(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("save the peer URLs: %w", err)
	}
	if err := durable.WriteFile(file, data, 0o600); err != nil {
		return fmt.Errorf("save the peer URLs: %w", err)
	}
	return nil
}

// Load reads the peer URLs that an earlier start has saved. ok is false when there was none.
func Load(file string) (peerURLs []string, ok bool, err error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, false, fmt.Errorf("%s is damaged; remove it to start from the flags again: %w", file, err)
	}
	for _, u := range s.PeerURLs {
		if !strings.HasPrefix(u, "http://") && !strings.HasPrefix(u, "https://") {
			return nil, false, fmt.Errorf("%s is damaged; remove it to start from the flags again: %q is not a URL", file, u)
		}
	}
	return s.PeerURLs, len(s.PeerURLs) > 0, nil
}
