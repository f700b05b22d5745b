package configs

import (
	"net/url"
	"strings"
	"time"
)

// Validate checks what can be checked without looking at the machine: no file is read, no name
// resolved. The order and the texts are those of etcd 3.4; the error is an [*Error].
func (c *Config) Validate() error {
	for _, listen := range []URLs{c.ListenPeerURLs, c.ListenClientURLs, c.ListenMetricsURLs} {
		if err := checkBindable(listen); err != nil {
			return refusef("%v", err)
		}
	}
	if len(c.ListenPeerURLs) == 0 || len(c.ListenClientURLs) == 0 || len(c.InitialAdvertisePeerURLs) == 0 {
		return refusef("--listen-peer-urls, --listen-client-urls and --initial-advertise-peer-urls must not be empty")
	}
	if err := checkReachable(c.InitialAdvertisePeerURLs); err != nil {
		return refusef(`--initial-advertise-peer-urls %q must be "host:port" (%v)`, c.InitialAdvertisePeerURLs, err)
	}
	if err := checkReachable(c.AdvertiseClientURLs); err != nil {
		return refusef(`--advertise-client-urls %q must be "host:port" (%v)`, c.AdvertiseClientURLs, err)
	}
	if c.InitialClusterState != StateNew && c.InitialClusterState != StateExisting {
		return refusef("unexpected clusterState %q", c.InitialClusterState)
	}
	chosen := 0
	for _, v := range []string{c.InitialCluster, c.Discovery, c.DiscoverySRV} {
		if v != "" {
			chosen++
		}
	}
	if chosen > 1 {
		return refusef(`multiple discovery or bootstrap flags are set. Choose one of "initial-cluster", "discovery" or "discovery-srv"`)
	}
	if err := c.validateTimes(); err != nil {
		return err
	}
	if c.EventHistory == 0 {
		return refusef("--event-history must be >0 (set to 0)")
	}
	if c.MaxRequestBytes == 0 || c.MaxRequestBytes > 1<<30 {
		return refusef("--max-request-bytes[%d] should be at least 1 and at most %d", c.MaxRequestBytes, 1<<30)
	}
	if c.MaxHeaderBytes < minHeaderBytes || c.MaxHeaderBytes > 1<<30 {
		return refusef("--max-header-bytes[%d] should be at least %d and at most %d", c.MaxHeaderBytes, minHeaderBytes, 1<<30)
	}
	for _, limit := range []struct {
		name            string
		all, perAddress uint64
	}{{"connections", c.MaxConnections, c.MaxConnectionsPerAddress}, {"watchers", c.MaxWatchers, c.MaxWatchersPerAddress}} {
		if limit.all > maxCount || limit.perAddress > maxCount {
			return refusef("--max-%s[%d] and --max-%s-per-address[%d] should be at most %d", limit.name, limit.all, limit.name, limit.perAddress, maxCount)
		}
	}
	if c.BackupDir != "" && (c.BackupInterval < time.Second || c.BackupKeep == 0) {
		return refusef("--backup-interval[%v] should be at least 1s and --backup-keep[%d] at least 1", c.BackupInterval, c.BackupKeep)
	}
	if err := validateServiceURL(c.DiscoveryServiceURL); err != nil {
		return err
	}
	if err := c.validateTLS(); err != nil {
		return err
	}
	if len(c.AdvertiseClientURLs) == 0 && !c.MayBeProxy() {
		return &Error{
			Exit:   ExitRefused,
			Reason: "--advertise-client-urls is required when --listen-client-urls is set explicitly",
			Hint:   "When listening on specific address(es), this quorate process must advertise accessible url(s) to each connected client.",
		}
	}
	return nil
}

const (
	// minHeaderBytes lets through what the fast loop in front of net/http takes.
	minHeaderBytes = 4 << 10
	// maxCount is far above what one process can have of anything.
	maxCount = 1 << 24
)

func (c *Config) validateTimes() error {
	if c.HeartbeatInterval <= 0 {
		return refusef("--heartbeat-interval must be >0 (set to %sms)", milliseconds(c.HeartbeatInterval))
	}
	if c.ElectionTimeout <= 0 {
		return refusef("--election-timeout must be >0 (set to %sms)", milliseconds(c.ElectionTimeout))
	}
	if c.ElectionTimeout/5 < c.HeartbeatInterval {
		return refusef("--election-timeout[%sms] should be at least as 5 times as --heartbeat-interval[%sms]",
			milliseconds(c.ElectionTimeout), milliseconds(c.HeartbeatInterval))
	}
	if c.ElectionTimeout > MaxElectionTimeout {
		return refusef("--election-timeout[%sms] is too long, and should be set less than %sms",
			milliseconds(c.ElectionTimeout), milliseconds(MaxElectionTimeout))
	}
	if c.ProxyRefreshInterval <= 0 {
		return refusef("--proxy-refresh-interval must be >0 (set to %sms)", milliseconds(c.ProxyRefreshInterval))
	}
	return nil
}

func validateServiceURL(text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return refusef("--discovery-service-url: %v", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return refusef("--discovery-service-url must be an http or https URL without a query: %s", text)
	}
	return nil
}

// validateTLS finds what would otherwise fail only after the member has joined (spec config 6).
func (c *Config) validateTLS() error {
	sides := []struct {
		tls        TLS
		who        string
		cert, key  string
		ca, demand string
		listen     []URLs
	}{
		{c.ClientTLS, "client", "--cert-file", "--key-file", "--trusted-ca-file", "--client-cert-auth",
			[]URLs{c.ListenClientURLs, c.ListenMetricsURLs}},
		{c.PeerTLS, "peer", "--peer-cert-file", "--peer-key-file", "--peer-trusted-ca-file", "--peer-client-cert-auth",
			[]URLs{c.ListenPeerURLs}},
	}
	for _, s := range sides {
		if (s.tls.CertFile == "") != (s.tls.KeyFile == "") {
			return refusef("KeyFile and CertFile must both be present[key: %s, cert: %s]", s.tls.KeyFile, s.tls.CertFile)
		}
		for _, listen := range s.listen {
			for _, u := range listen {
				if strings.HasPrefix(u, "https://") && s.tls.CertFile == "" && !s.tls.AutoTLS {
					return refusef("TLS key/cert (%s, %s) must be provided for %s url %s with HTTPS scheme", s.cert, s.key, s.who, u)
				}
			}
		}
		if s.tls.ClientCertAuth && s.tls.TrustedCAFile == "" {
			return refusef("%s needs %s: without it any certificate that the system trusts would do", s.demand, s.ca)
		}
		if !s.tls.ClientCertAuth && (s.tls.CRLFile != "" || s.tls.AllowedCN != "" || s.tls.AllowedHostname != "") {
			return refusef("a revocation list or an allowed name for %s certificates needs %s", s.who, s.demand)
		}
		if _, err := s.tls.suites(); err != nil {
			return refusef("%v", err)
		}
	}
	return nil
}

// Warnings lists what is allowed and probably not meant.
func (c *Config) Warnings() []Notice {
	var notices []Notice
	warn := func(format string, args ...any) { notices = append(notices, warnf(format, args...)) }

	for _, s := range []struct {
		who    string
		tls    TLS
		listen URLs
		demand string
	}{
		{"client", c.ClientTLS, c.ListenClientURLs, "client-cert-auth"},
		{"peer", c.PeerTLS, c.ListenPeerURLs, "peer-client-cert-auth"},
	} {
		for _, u := range s.listen {
			if strings.HasPrefix(u, "http://") && !s.tls.Empty() {
				warn("The scheme of %s url %s is http while %s key/cert files are presented. Ignored %s key/cert files.", s.who, u, s.who, s.who)
			}
		}
		if s.tls.TrustedCAFile != "" && !s.tls.ClientCertAuth {
			warn("a trusted CA file is given without --%s: %ss need no certificate", s.demand, s.who)
		}
	}
	for _, s := range []struct {
		flag string
		urls URLs
	}{
		{"initial-advertise-peer-urls", c.InitialAdvertisePeerURLs},
		{"advertise-client-urls", c.AdvertiseClientURLs},
	} {
		for _, u := range s.urls {
			if _, host := hostOf(u); parseIP(host) != nil && parseIP(host).IsUnspecified() {
				warn("--%s has %s, which nobody can reach from another machine", s.flag, u)
			}
		}
	}
	if c.InitialCluster != "" && c.InitialClusterToken == "" {
		warn("--initial-cluster-token is empty: clusters with equal peer URLs get equal IDs")
	}
	if c.HeartbeatInterval < c.ElectionTimeout/100 {
		warn("--heartbeat-interval[%sms] is far below a tenth of --election-timeout[%sms]: a leader sends heartbeats at a tenth of the latter",
			milliseconds(c.HeartbeatInterval), milliseconds(c.ElectionTimeout))
	}
	if c.Proxy != ProxyOff && c.BackupDir != "" {
		warn("--backup-dir has no effect on a proxy: members write backups")
	}
	if c.Proxy != ProxyOff && c.ProxyReadTimeout > 0 {
		warn("--proxy-read-timeout %v ends watches that are idle for longer", c.ProxyReadTimeout.Round(time.Millisecond))
	}
	return notices
}
