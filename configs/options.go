package configs

import "time"

// The sections of the file that hold TLS options.
const (
	clientSection = "client-transport-security"
	peerSection   = "peer-transport-security"
)

// groups lists every option, in the order of the help text.
var groups = []group{
	{"Member", []option{
		text("name", func(s *settings) *string { return &s.Name },
			"Human-readable name of this member."),
		text("data-dir", func(s *settings) *string { return &s.DataDir },
			"Path to the data directory. Empty means ${name}.etcd in the working directory."),
		text("wal-dir", func(s *settings) *string { return &s.WALDir },
			"Path to a directory of its own for the log."),
		enum("log-store", func(s *settings) *string { return &s.LogStore },
			"What holds the log: 'boltdb', or 'wal' for hashicorp/raft-wal. A data directory that has\nthe other kind is refused; 'quorate convert-log' changes it.", LogStoreBoltDB, LogStoreWAL),
		number("snapshot-count", func(s *settings) *uint64 { return &s.SnapshotCount },
			"Number of applied entries after which a snapshot is made. 0 means the default."),
		millis("heartbeat-interval", func(s *settings) *time.Duration { return &s.HeartbeatInterval },
			"Time (in milliseconds) between two heartbeats of a leader."),
		millis("election-timeout", func(s *settings) *time.Duration { return &s.ElectionTimeout },
			"Time (in milliseconds) without a leader before an election. At least 5 heartbeats,\nat most 50000; the same on all members."),
		urls("listen-peer-urls", func(s *settings) *URLs { return &s.ListenPeerURLs },
			"URLs to listen on for other members: an IP address or localhost, and a port."),
		urls("listen-client-urls", func(s *settings) *URLs { return &s.ListenClientURLs },
			"URLs to listen on for clients: an IP address or localhost, and a port."),
		number("max-snapshots", func(s *settings) *uint { return &s.MaxSnapshots },
			"Number of snapshot files to keep (0 is unlimited)."),
		number("max-wals", func(s *settings) *uint { return &s.MaxWALs },
			"Accepted for etcd's command lines; the log is a single file here."),
		number("event-history", func(s *settings) *uint { return &s.EventHistory },
			"Number of past events that a watch can go back to. 1000 is what etcd keeps."),
		duration("disk-stall-limit", func(s *settings) *time.Duration { return &s.DiskStallLimit },
			"How long one write to the disk may hang before the process ends, so that the others\ncan go on without it (0 waits for ever)."),
		boolean("fast-failover", func(s *settings) *bool { return &s.FastFailover },
			"Elect a new leader as soon as the old one's process has ended, instead of after\nthe election time-out."),
		words("cors", func(s *settings) *[]string { return &s.CORS }, parseOrigins,
			"Comma-separated origins that browsers may call from, or * for all."),
	}},
	{"Limits", []option{
		number("max-request-bytes", func(s *settings) *uint64 { return &s.MaxRequestBytes },
			"Largest body of a client's request, in bytes."),
		number("max-header-bytes", func(s *settings) *uint64 { return &s.MaxHeaderBytes },
			"Largest head of a client's request, in bytes."),
		number("max-connections", func(s *settings) *uint64 { return &s.MaxConnections },
			"Clients' connections at a time (0 is as many as the limit of open files leaves).\nMore are answered with 503."),
		number("max-connections-per-address", func(s *settings) *uint64 { return &s.MaxConnectionsPerAddress },
			"The same of one IP address, or IPv6 /64 (0 is three quarters of all). More are answered\nwith 429."),
		number("max-watchers", func(s *settings) *uint64 { return &s.MaxWatchers },
			"Watches at a time (0 is unlimited). More are answered with 503."),
		number("max-watchers-per-address", func(s *settings) *uint64 { return &s.MaxWatchersPerAddress },
			"The same of one IP address, or IPv6 /64 (0 is three quarters of all). More are answered\nwith 429."),
		space("min-free-disk", func(s *settings) *Space { return &s.MinFreeDisk },
			"Free space, as bytes, with a unit (64MiB) or in percent of the file system (5%), below\nwhich writes other than DELETE are refused with 507 (0 never refuses)."),
	}},
	{"Backups", []option{
		text("backup-dir", func(s *settings) *string { return &s.BackupDir },
			"Directory in which this member writes backups by itself. Empty means none.\nMembers may share one. Best on another machine's disk."),
		duration("backup-interval", func(s *settings) *time.Duration { return &s.BackupInterval },
			"Time between two backups of this member. Members take turns."),
		number("backup-keep", func(s *settings) *uint { return &s.BackupKeep },
			"Number of this member's backups that stay in the directory."),
	}},
	{"Clustering", []option{
		urls("initial-advertise-peer-urls", func(s *settings) *URLs { return &s.InitialAdvertisePeerURLs },
			"URLs at which the other members reach this one. First start only."),
		text("initial-cluster", func(s *settings) *string { return &s.InitialCluster },
			"All members of a new cluster, as name=url[,name=url]... First start only.\nDefault: this member alone."),
		enum("initial-cluster-state", func(s *settings) *string { return &s.InitialClusterState },
			"Found a cluster ('new') or join one that has been told of this member ('existing').\nFirst start only.", StateNew, StateExisting),
		text("initial-cluster-token", func(s *settings) *string { return &s.InitialClusterToken },
			"Sets clusters apart that would otherwise get equal IDs. First start only."),
		urls("advertise-client-urls", func(s *settings) *URLs { return &s.AdvertiseClientURLs },
			"URLs at which clients reach this member. Required with --listen-client-urls."),
		text("discovery", func(s *settings) *string { return &s.Discovery },
			"URL of a discovery token, in place of --initial-cluster."),
		enum("discovery-fallback", func(s *settings) *string { return &s.DiscoveryFallback },
			"What to do when the discovered cluster is full: become a 'proxy', or 'exit'.", FallbackExit, FallbackProxy),
		text("discovery-proxy", func(s *settings) *string { return &s.DiscoveryProxy },
			"HTTP proxy for discovery traffic."),
		text("discovery-ca", func(s *settings) *string { return &s.DiscoveryCA },
			"PEM file of the authorities that vouch for the discovery service. Default: the system's."),
		text("discovery-srv", func(s *settings) *string { return &s.DiscoverySRV },
			"DNS domain whose SRV records list the members, in place of --initial-cluster."),
		text("discovery-srv-name", func(s *settings) *string { return &s.DiscoverySRVName },
			"Suffix of the SRV service name that is asked for."),
		boolean("discovery-service", func(s *settings) *bool { return &s.DiscoveryService },
			"Serve discovery tokens to other clusters, at /new on the client URLs."),
		text("discovery-service-url", func(s *settings) *string { return &s.DiscoveryServiceURL },
			"Base of the token URLs that /new hands out. Default: the address of the request."),
		boolean("strict-reconfig-check", func(s *settings) *bool { return &s.StrictReconfigCheck },
			"Refuse member changes that would lose the quorum."),
	}},
	{"Proxy", []option{
		enum("proxy", func(s *settings) *string { return &s.Proxy },
			"Forward requests to a cluster instead of being a member: 'off', 'readonly' or 'on'.", ProxyOff, ProxyReadonly, ProxyOn),
		millis("proxy-failure-wait", func(s *settings) *time.Duration { return &s.ProxyFailureWait },
			"Time (in milliseconds) that an endpoint is left alone after a failure."),
		millis("proxy-refresh-interval", func(s *settings) *time.Duration { return &s.ProxyRefreshInterval },
			"Time (in milliseconds) between two looks at the member list."),
		millis("proxy-dial-timeout", func(s *settings) *time.Duration { return &s.ProxyDialTimeout },
			"Time (in milliseconds) for a connection to be made (0 is unlimited)."),
		millis("proxy-write-timeout", func(s *settings) *time.Duration { return &s.ProxyWriteTimeout },
			"Time (in milliseconds) for a write to a member (0 is unlimited)."),
		millis("proxy-read-timeout", func(s *settings) *time.Duration { return &s.ProxyReadTimeout },
			"Time (in milliseconds) for a read from a member (0 is unlimited). Breaks watches."),
	}},
	{"Security", []option{
		enum("auth-guest", func(s *settings) *string { return &s.AuthGuest },
			"What requests without credentials may do when users are first switched on: 'readwrite'\n(as in etcd), 'read' or 'none'. Later the role guest says it.", GuestReadWrite, GuestRead, GuestNone),
		text("cert-file", func(s *settings) *string { return &s.ClientTLS.CertFile },
			"Path to the certificate shown to clients.").in(clientSection, "cert-file"),
		text("key-file", func(s *settings) *string { return &s.ClientTLS.KeyFile },
			"Path to its key.").in(clientSection, "key-file"),
		boolean("client-cert-auth", func(s *settings) *bool { return &s.ClientTLS.ClientCertAuth },
			"Demand a certificate from clients, signed by --trusted-ca-file.").in(clientSection, "client-cert-auth"),
		text("trusted-ca-file", func(s *settings) *string { return &s.ClientTLS.TrustedCAFile },
			"Path to the certificates of the authorities of clients.").in(clientSection, "trusted-ca-file"),
		text("client-crl-file", func(s *settings) *string { return &s.ClientTLS.CRLFile },
			"Path to a list of revoked client certificates."),
		text("client-cert-allowed-hostname", func(s *settings) *string { return &s.ClientTLS.AllowedHostname },
			"Host name that client certificates must be valid for."),
		boolean("auto-tls", func(s *settings) *bool { return &s.ClientTLS.AutoTLS },
			"Make a self-signed certificate for clients: encryption, no authentication.").in(clientSection, "auto-tls"),
		text("peer-cert-file", func(s *settings) *string { return &s.PeerTLS.CertFile },
			"Path to the certificate shown to other members, listening and dialling.").in(peerSection, "cert-file"),
		text("peer-key-file", func(s *settings) *string { return &s.PeerTLS.KeyFile },
			"Path to its key.").in(peerSection, "key-file"),
		boolean("peer-client-cert-auth", func(s *settings) *bool { return &s.PeerTLS.ClientCertAuth },
			"Demand a certificate from other members, signed by --peer-trusted-ca-file.").in(peerSection, "client-cert-auth"),
		text("peer-trusted-ca-file", func(s *settings) *string { return &s.PeerTLS.TrustedCAFile },
			"Path to the certificates of the authorities of members.").in(peerSection, "trusted-ca-file"),
		text("peer-crl-file", func(s *settings) *string { return &s.PeerTLS.CRLFile },
			"Path to a list of revoked peer certificates."),
		text("peer-cert-allowed-cn", func(s *settings) *string { return &s.PeerTLS.AllowedCN },
			"Common name that the certificates of other members must have."),
		text("peer-cert-allowed-hostname", func(s *settings) *string { return &s.PeerTLS.AllowedHostname },
			"Host name that the certificates of other members must be valid for."),
		boolean("peer-auto-tls", func(s *settings) *bool { return &s.PeerTLS.AutoTLS },
			"Make a self-signed certificate for other members.").in(peerSection, "auto-tls"),
		words("cipher-suites", func(s *settings) *[]string { return &s.ClientTLS.CipherSuites }, nil,
			"Comma-separated names of the TLS 1.2 cipher suites to offer. Default: Go's choice."),
	}},
	{"Logging and monitoring", []option{
		enum("log-level", func(s *settings) *string { return &s.LogLevel },
			"trace, debug, info, warn or error.", "trace", "debug", "info", "warn", "error", "panic", "fatal"),
		enum("log-format", func(s *settings) *string { return &s.LogFormat },
			"'text' or 'json'; to standard error either way.", LogText, LogJSON),
		boolean("debug", func(s *settings) *bool { return &s.debug },
			"The same as --log-level debug."),
		boolean("enable-pprof", func(s *settings) *bool { return &s.EnablePprof },
			"Serve profiles at /debug/pprof/ on the client URLs."),
		urls("listen-metrics-urls", func(s *settings) *URLs { return &s.ListenMetricsURLs },
			"Further URLs to listen on, for /metrics and /health only."),
	}},
	{"Recovery (unsafe)", []option{
		boolean("force-new-cluster", func(s *settings) *bool { return &s.ForceNewCluster },
			"Make a one-member cluster out of this member's data; see 'quorate recover' first.\nNever taken from the configuration file."),
	}},
	{"Other", []option{
		text("config-file", func(s *settings) *string { return &s.configFile },
			"Path to a YAML file with any of these options; the command line and the\nenvironment win over it.").notInFile(),
		boolean("version", func(s *settings) *bool { return &s.version },
			"Print the version and exit.").onlyFlag(),
	}},
	{"", accepted},
}

// accepted are the options of other versions of etcd: some still mean something, most are ignored
// with a warning. None is in the help text.
var accepted = []option{
	// etcd 2.3
	text("ca-file", func(s *settings) *string { return &s.caFile }, ""),
	text("peer-ca-file", func(s *settings) *string { return &s.peerCAFile }, ""),
	nothing("log-package-levels", kindString, "all packages log at --log-level"),

	// etcd 0.4
	address("addr", func(s *settings) *string { return &s.addr }),
	address("bind-addr", func(s *settings) *string { return &s.bindAddr }),
	address("peer-addr", func(s *settings) *string { return &s.peerAddr }),
	address("peer-bind-addr", func(s *settings) *string { return &s.peerBindAddr }),
	retired("cluster-active-size"), retired("cluster-remove-delay"), retired("cluster-sync-interval"),
	retired("config"), retired("force"), retired("max-result-buffer"), retired("max-retry-attempts"),
	retired("peer-heartbeat-interval"), retired("peer-election-timeout"), retired("retry-interval"),
	retired("snapshot"), retired("v"), retired("vv"),
	gone("peers"), gone("peers-file"),

	// etcd 3.4
	nothing("enable-v2", kindBool, "the v2 API is always on"),
	nothing("experimental-enable-v2v3", kindString, noV3),
	nothing("initial-election-tick-advance", kindBool, "the first election is always early"),
	nothing("pre-vote", kindBool, "it is always on"),
	nothing("quota-backend-bytes", kindString, noV3),
	nothing("backend-batch-interval", kindString, noV3),
	nothing("backend-batch-limit", kindString, noV3),
	nothing("max-txn-ops", kindString, noV3),
	nothing("max-concurrent-streams", kindString, noV3),
	nothing("grpc-keepalive-min-time", kindString, noV3),
	nothing("grpc-keepalive-interval", kindString, noV3),
	nothing("grpc-keepalive-timeout", kindString, noV3),
	nothing("auto-compaction-retention", kindString, noV3),
	nothing("auto-compaction-mode", kindString, noV3),
	nothing("auth-token", kindString, noV3),
	nothing("auth-token-ttl", kindString, noV3),
	nothing("bcrypt-cost", kindString, noV3),
	nothing("host-whitelist", kindString, "requests are accepted whatever host they name"),
	nothing("metrics", kindString, "all metrics are always exported"),
	nothing("logger", kindString, "see --log-format"),
	nothing("log-output", kindString, "logs go to standard error"),
	nothing("log-outputs", kindString, "logs go to standard error"),
	nothing("experimental-initial-corrupt-check", kindBool, "data is always verified at start"),
	nothing("experimental-corrupt-check-time", kindString, noV3),
	nothing("experimental-backend-bbolt-freelist-type", kindString, noV3),
	nothing("experimental-enable-lease-checkpoint", kindBool, noV3),
	nothing("experimental-compaction-batch-limit", kindString, noV3),
	nothing("experimental-peer-skip-client-san-verification", kindBool, "only the authority is verified"),
	nothing("experimental-watch-progress-notify-interval", kindString, noV3),
	nothing("experimental-warning-apply-duration", kindString, noV3),
}

const noV3 = "there is no v3 API here"

// retired is a flag of etcd 0.4 that etcd itself ignores.
func retired(name string) option {
	o := nothing(name, kindString, "no longer supported")
	o.loose, o.noFile = true, true
	switch name {
	case "force", "snapshot", "v", "vv":
		o.kind = kindBool
	}
	return o
}

// gone is a flag of etcd 0.4 that etcd refuses: ignoring it would start the wrong cluster.
func gone(name string) option {
	return option{name: name, kind: kindString, noEnv: true, noFile: true, loose: true,
		set: func(*settings, string) error {
			return usagef("flag %q is no longer supported.", "-"+name)
		},
	}
}

// options is every option by name.
var options = func() map[string]*option {
	all := map[string]*option{}
	for _, g := range groups {
		for i := range g.options {
			g.options[i].foreign = g.title == ""
			all[g.options[i].name] = &g.options[i]
		}
	}
	return all
}()
