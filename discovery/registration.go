package discovery

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Pair is one name=URL of a registration.
type Pair struct {
	Name string
	URL  string
}

func (p Pair) String() string { return p.Name + "=" + p.URL }

// ParseRegistration reads the value of a registered node: name=URL, once per peer URL, joined by
// commas. It is the grammar of --initial-cluster (spec bootstrap 2): empty pieces are skipped, the
// first "=" of a piece separates, spaces around a URL are dropped. A URL is http or https with host
// and port and nothing behind them. A value without any pair is refused, as is a pair without a name.
func ParseRegistration(value string) ([]Pair, error) {
	var pairs []Pair
	for piece := range strings.SplitSeq(value, ",") {
		if piece == "" {
			continue
		}
		name, peer, _ := strings.Cut(piece, "=")
		peer = strings.TrimSpace(peer)
		if name == "" {
			return nil, fmt.Errorf("%q has no name", piece)
		}
		if err := checkPeerURL(peer); err != nil {
			return nil, err
		}
		pairs = append(pairs, Pair{Name: name, URL: peer})
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%q names no member", value)
	}
	return pairs, nil
}

// checkPeerURL says what is wrong with a peer URL, in etcd's words.
func checkPeerURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("URL scheme must be http or https: %s", s)
	}
	if host, port, err := net.SplitHostPort(u.Host); err != nil || host == "" || port == "" {
		return fmt.Errorf("URL address does not have the form \"host:port\": %s", s)
	}
	if u.Path != "" {
		return fmt.Errorf("URL must not contain a path: %s", s)
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") {
		return fmt.Errorf("URL must be only scheme, host and port: %s", s)
	}
	return nil
}

// formatRegistration writes the value of one node in its canonical form: all pairs, sorted.
func formatRegistration(name string, peerURLs []string) string {
	pairs := make([]string, len(peerURLs))
	for i, u := range peerURLs {
		pairs[i] = Pair{Name: name, URL: u}.String()
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// joinRegistrations makes the initial cluster out of the values of all its nodes, in their order.
func joinRegistrations(values []string) (string, error) {
	cluster := strings.Join(values, ",")
	names := map[string]bool{}
	urls := map[string]bool{}
	duplicateURL := false
	for _, value := range values {
		pairs, err := ParseRegistration(value)
		if err != nil {
			return "", ErrInvalidURL
		}
		for _, p := range pairs {
			duplicateURL = duplicateURL || urls[p.URL]
			urls[p.URL] = true
			names[p.Name] = true
		}
	}
	if len(names) != len(values) {
		return "", ErrDuplicateName
	}
	if duplicateURL {
		return "", &duplicateURLError{cluster}
	}
	return cluster, nil
}
