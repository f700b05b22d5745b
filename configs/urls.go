package configs

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// URLs is a set of base URLs, sorted as text: http or https, a host with a port, nothing else.
type URLs []string

// ParseURLs reads URLs separated by commas. The errors are etcd's (spec bootstrap 2).
func ParseURLs(s string) (URLs, error) {
	var urls URLs
	for text := range strings.SplitSeq(s, ",") {
		u, err := parseURL(text)
		if err != nil {
			return nil, err
		}
		urls = append(urls, u)
	}
	slices.Sort(urls)
	return urls, nil
}

// String joins the URLs with commas.
func (u URLs) String() string { return strings.Join(u, ",") }

// parseURL checks one URL and returns its normal form.
func parseURL(text string) (string, error) {
	text = strings.TrimSpace(text)
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("URL scheme must be http or https: %s", text)
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return "", fmt.Errorf(`URL address does not have the form "host:port": %s`, text)
	}
	if u.Path != "" {
		return "", fmt.Errorf("URL must not contain a path: %s", text)
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#") {
		return "", fmt.Errorf("URL must not contain a user, a query or a fragment: %s", text)
	}
	// A list of URLs, and of name=URL, is split at commas and equal signs.
	if strings.ContainsAny(u.String(), ",= ") {
		return "", fmt.Errorf("URL host must not contain a comma, an equal sign or a space: %s", text)
	}
	// An address with a zone can be read in forms that are not read again.
	if again, err := url.Parse(u.String()); err != nil || again.String() != u.String() {
		return "", fmt.Errorf("URL host has no normal form: %s", text)
	}
	return u.String(), nil
}

// hostOf returns scheme and host of a URL that parseURL accepted, the host without its port.
func hostOf(text string) (scheme, host string) {
	u, err := url.Parse(text)
	if err != nil {
		return "", ""
	}
	return u.Scheme, u.Hostname()
}

// checkBindable refuses a host name: which address it means could change between two starts.
func checkBindable(urls URLs) error {
	for _, u := range urls {
		if _, host := hostOf(u); host != "localhost" && parseIP(host) == nil {
			return fmt.Errorf("expected IP in URL for binding (%s)", u)
		}
	}
	return nil
}

// checkReachable refuses a URL without a host, which nobody else could dial.
func checkReachable(urls URLs) error {
	for _, u := range urls {
		if _, host := hostOf(u); host == "" {
			return fmt.Errorf("unexpected empty host (%s)", u)
		}
	}
	return nil
}

// parseIP is net.ParseIP for hosts that may carry an IPv6 zone.
func parseIP(host string) net.IP {
	host, _, _ = strings.Cut(host, "%")
	return net.ParseIP(host)
}

// parseOrigins reads the value of --cors: "*", or origins with or without a port.
func parseOrigins(s string) ([]string, error) {
	if strings.TrimSpace(s) == "" {
		return []string{"*"}, nil // as etcd 3.4: "empty or * means allow all"
	}
	var origins []string
	for text := range strings.SplitSeq(s, ",") {
		text = strings.TrimSpace(text)
		if text == "*" {
			return []string{"*"}, nil
		}
		u, err := url.Parse(text)
		switch {
		case err != nil:
		case u.Scheme == "" || u.Host == "":
			err = errors.New("an origin is a scheme and a host: " + text)
		case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
			err = errors.New("an origin has nothing behind its host: " + text)
		}
		if err != nil {
			return nil, fmt.Errorf("Invalid CORS origin: %w", err) //nolint:staticcheck // etcd's text
		}
		origins = append(origins, text)
	}
	return origins, nil
}

// parseAddr reads ip:port, the form of etcd 0.4's address flags.
func parseAddr(s string) (string, error) {
	host, port, err := net.SplitHostPort(strings.TrimSpace(s))
	if err != nil {
		return "", err
	}
	if net.ParseIP(host) == nil {
		return "", errors.New("bad IP in address specification")
	}
	if _, err := parsePort(port); err != nil {
		return "", errors.New("bad port in address specification")
	}
	return net.JoinHostPort(host, port), nil
}
