package configs

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// InitialCluster lists the members that a cluster starts with: for every name its peer URLs, sorted
// as text. A name is a label and may be empty; `member add` prints that of a member that has not
// started yet so.
type InitialCluster map[string][]string

// ParseInitialCluster reads name=url[,name=url]…; a name that comes several times is one member
// with several peer URLs. Empty pieces and spaces around URLs are skipped (spec bootstrap 2). It
// does not look at duplicate URLs; see [InitialCluster.CheckDistinct].
func ParseInitialCluster(s string) (InitialCluster, error) {
	cluster := InitialCluster{}
	for piece := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(piece) == "" {
			continue
		}
		name, text, _ := strings.Cut(piece, "=")
		u, err := parseURL(text)
		if err != nil {
			return nil, err
		}
		name = strings.TrimSpace(name)
		cluster[name] = append(cluster[name], u)
	}
	for _, urls := range cluster {
		slices.Sort(urls)
	}
	return cluster, nil
}

// String is the canonical form: all name=url pairs sorted as text, joined with commas.
func (c InitialCluster) String() string {
	var pairs []string
	for name, urls := range c {
		for _, u := range urls {
			pairs = append(pairs, name+"="+u)
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// Names returns the member names, sorted.
func (c InitialCluster) Names() []string { return slices.Sorted(maps.Keys(c)) }

// PeerURLs returns all peer URLs, sorted.
func (c InitialCluster) PeerURLs() []string {
	var all []string
	for _, urls := range c {
		all = append(all, urls...)
	}
	slices.Sort(all)
	return all
}

// CheckDistinct refuses a URL that occurs twice: two members cannot listen on it.
func (c InitialCluster) CheckDistinct() error {
	all := c.PeerURLs()
	for i, u := range all[min(1, len(all)):] {
		if u == all[i] {
			return fmt.Errorf("initial cluster %s has duplicate url", c)
		}
	}
	return nil
}
