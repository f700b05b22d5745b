// Package configs turns a command line, the environment and a configuration file into one [Config].
//
// Every option may come from any of the three; command line > environment > file > default, decided
// per option. The option names, their defaults and the error texts are those of etcd, so that an
// existing unit file, container environment or etcd.conf.yml starts quorate unchanged. Where an
// option of etcd has no meaning here it is accepted, and a [Notice] says so.
//
// The package reads nothing but the configuration file and, when asked by [TLS], certificates. It
// opens no socket, except for the name look-ups of [Config.CheckBootstrap], and writes no log.
package configs

import (
	"path/filepath"
	"time"
)

// What the enumerated options may be.
const (
	StateNew      = "new"
	StateExisting = "existing"

	LogStoreBoltDB = "boltdb"
	LogStoreWAL    = "wal"

	ProxyOff      = "off"
	ProxyReadonly = "readonly"
	ProxyOn       = "on"

	FallbackExit  = "exit"
	FallbackProxy = "proxy"

	LogText = "text"
	LogJSON = "json"

	GuestReadWrite = "readwrite"
	GuestRead      = "read"
	GuestNone      = "none"
)

// Limits that [Config.Validate] enforces.
const (
	// MaxElectionTimeout is etcd's: a cluster that needs more has another problem.
	MaxElectionTimeout = 50 * time.Second
	// DefaultSnapshotCount replaces a snapshot count of 0.
	DefaultSnapshotCount = 100_000
)

// Config is everything that can be chosen about one server. Take [Default] or [Parse] as the start.
// Field comments name the option; ms means that the option is a whole number of milliseconds.
type Config struct {
	// Name is --name: a label, and this member's key in the initial cluster.
	Name string
	// DataDir is --data-dir. Empty means NAME.etcd in the working directory; Parse fills it in.
	DataDir string
	// WALDir is --wal-dir: a directory of its own for the log. Empty means DataDir/member/wal.
	WALDir string
	// LogStore is --log-store: what holds the log, LogStoreBoltDB or LogStoreWAL. It has to be what
	// the data directory was made with, or converted to.
	LogStore string
	// SnapshotCount is --snapshot-count: a snapshot is made after more than this many entries.
	SnapshotCount uint64
	// HeartbeatInterval is --heartbeat-interval, ms.
	HeartbeatInterval time.Duration
	// ElectionTimeout is --election-timeout, ms: how long a member goes without hearing from a
	// leader before it stands for election. At least 5 × HeartbeatInterval, at most 50 s.
	ElectionTimeout time.Duration
	// ListenPeerURLs is --listen-peer-urls. Hosts are IP addresses or localhost.
	ListenPeerURLs URLs
	// ListenClientURLs is --listen-client-urls. Hosts are IP addresses or localhost.
	ListenClientURLs URLs
	// ListenMetricsURLs is --listen-metrics-urls: more places that serve /metrics and /health only.
	ListenMetricsURLs URLs
	// MaxSnapshots is --max-snapshots: how many snapshot files are kept. 0 keeps all.
	MaxSnapshots uint
	// MaxWALs is --max-wals. The log is one file here, so it has no effect.
	MaxWALs uint
	// CORS is --cors: the origins that browsers may call from. "*" alone means any.
	CORS []string
	// EventHistory is --event-history: how many past events a watch can go back to.
	EventHistory uint
	// DiskStallLimit is --disk-stall-limit: how long one write may hang before the process gives
	// up. 0 waits for ever.
	DiskStallLimit time.Duration
	// FastFailover is --fast-failover: do not wait for the election time-out when the process of the
	// leader has ended.
	FastFailover bool

	// MaxRequestBytes is --max-request-bytes: the largest body accepted, in bytes.
	MaxRequestBytes uint64
	// MaxHeaderBytes is --max-header-bytes: the largest head of a request, in bytes.
	MaxHeaderBytes uint64
	// MaxConnections is --max-connections: how many clients may be connected. 0 leaves it to the limit
	// of open files, which bounds it in any case.
	MaxConnections uint64
	// MaxConnectionsPerAddress is --max-connections-per-address. 0 means three quarters of all.
	MaxConnectionsPerAddress uint64
	// MaxWatchers is --max-watchers: how many watches there may be. 0 means any number.
	MaxWatchers uint64
	// MaxWatchersPerAddress is --max-watchers-per-address. 0 means three quarters of all.
	MaxWatchersPerAddress uint64
	// MinFreeDisk is --min-free-disk: with less free space writes are refused.
	MinFreeDisk Space

	// BackupDir is --backup-dir: where this member writes backups by itself. Empty means nowhere.
	BackupDir string
	// BackupInterval is --backup-interval: how often. At least 1 s.
	BackupInterval time.Duration
	// BackupKeep is --backup-keep: how many of this member's backups stay there. At least 1.
	BackupKeep uint

	// InitialAdvertisePeerURLs is --initial-advertise-peer-urls; used on the first start only.
	InitialAdvertisePeerURLs URLs
	// InitialCluster is --initial-cluster, not yet parsed. When it was not given it is made of Name
	// and InitialAdvertisePeerURLs; with discovery it is empty.
	InitialCluster string
	// InitialClusterState is --initial-cluster-state: StateNew or StateExisting.
	InitialClusterState string
	// InitialClusterToken is --initial-cluster-token: salt of the member IDs.
	InitialClusterToken string
	// AdvertiseClientURLs is --advertise-client-urls; published at every start.
	AdvertiseClientURLs URLs
	// Discovery is --discovery: the URL of a token directory. Empty means none.
	Discovery string
	// DiscoveryFallback is --discovery-fallback: FallbackProxy or FallbackExit, when the cluster is
	// full already.
	DiscoveryFallback string
	// DiscoveryProxy is --discovery-proxy: an HTTP proxy for discovery traffic.
	DiscoveryProxy string
	// DiscoverySRV is --discovery-srv: a DNS domain. Empty means none.
	DiscoverySRV string
	// DiscoverySRVName is --discovery-srv-name: a suffix of the service name that is asked for.
	DiscoverySRVName string
	// DiscoveryCA is --discovery-ca: a PEM file of authorities for the discovery service. Empty
	// means those of the system.
	DiscoveryCA string
	// DiscoveryService is --discovery-service: serve /new and tokens to other clusters.
	DiscoveryService bool
	// DiscoveryServiceURL is --discovery-service-url: the base of the URLs that /new hands out.
	// Empty means the address that the request came in on.
	DiscoveryServiceURL string
	// StrictReconfigCheck is --strict-reconfig-check: refuse member changes that would lose quorum.
	StrictReconfigCheck bool

	// Proxy is --proxy: ProxyOff, ProxyReadonly or ProxyOn.
	Proxy string
	// ProxyFailureWait is --proxy-failure-wait, ms: how long a failed endpoint is left alone.
	ProxyFailureWait time.Duration
	// ProxyRefreshInterval is --proxy-refresh-interval, ms.
	ProxyRefreshInterval time.Duration
	// ProxyDialTimeout is --proxy-dial-timeout, ms. 0 means none; so for the next two.
	ProxyDialTimeout time.Duration
	// ProxyWriteTimeout is --proxy-write-timeout, ms.
	ProxyWriteTimeout time.Duration
	// ProxyReadTimeout is --proxy-read-timeout, ms. Must be 0 where watches are used.
	ProxyReadTimeout time.Duration

	// AuthGuest is --auth-guest: GuestReadWrite, GuestRead or GuestNone, the rights of the role guest
	// that is made when users and roles are first switched on through this member.
	AuthGuest string
	// ClientTLS is what the client listeners use: --cert-file and its companions.
	ClientTLS TLS
	// PeerTLS is what members use between themselves: --peer-cert-file and its companions.
	PeerTLS TLS

	// LogLevel is --log-level: trace, debug, info, warn or error.
	LogLevel string
	// LogFormat is --log-format: LogText or LogJSON.
	LogFormat string
	// EnablePprof is --enable-pprof: serve /debug/pprof/ on the client URLs.
	EnablePprof bool
	// ForceNewCluster is --force-new-cluster. Never taken from a file.
	ForceNewCluster bool
}

// Default returns the defaults: those of etcd 3.4 where it knows the option. The initial cluster
// and the data directory are left empty; they depend on other options.
func Default() Config {
	return Config{
		Name:              "default",
		LogStore:          LogStoreBoltDB,
		SnapshotCount:     DefaultSnapshotCount,
		HeartbeatInterval: 100 * time.Millisecond,
		ElectionTimeout:   time.Second,
		ListenPeerURLs:    URLs{"http://localhost:2380"},
		ListenClientURLs:  URLs{"http://localhost:2379"},
		MaxSnapshots:      5,
		MaxWALs:           5,
		CORS:              []string{"*"},
		EventHistory:      100_000,
		DiskStallLimit:    30 * time.Second,
		FastFailover:      true,

		// These two are etcd's on /v2/keys.
		MaxRequestBytes: 10 << 20,
		MaxHeaderBytes:  1 << 20,
		// A connection takes about 7 KiB, one with a watch 26 KiB: together at most some 1.3 GiB.
		MaxConnections: 50_000,
		MaxWatchers:    50_000,
		// What the log may need until snapshots have shortened it.
		MinFreeDisk: Space{Bytes: 64 << 20},

		BackupInterval: time.Hour,
		BackupKeep:     24,

		InitialAdvertisePeerURLs: URLs{"http://localhost:2380"},
		InitialClusterState:      StateNew,
		InitialClusterToken:      "etcd-cluster",
		AdvertiseClientURLs:      URLs{"http://localhost:2379"},
		DiscoveryFallback:        FallbackProxy,
		DiscoveryService:         true,
		StrictReconfigCheck:      true,

		Proxy:                ProxyOff,
		ProxyFailureWait:     5 * time.Second,
		ProxyRefreshInterval: 30 * time.Second,
		ProxyDialTimeout:     time.Second,
		ProxyWriteTimeout:    5 * time.Second,

		AuthGuest: GuestReadWrite,

		LogLevel:  "info",
		LogFormat: LogText,
	}
}

// MayBeProxy reports whether this start can end as a proxy: when it was asked for, or when
// discovery falls back to it.
func (c *Config) MayBeProxy() bool {
	return c.Proxy != ProxyOff || c.Discovery != "" && c.DiscoveryFallback == FallbackProxy
}

// MemberDir returns the directory that holds a member's state.
func (c *Config) MemberDir() string { return filepath.Join(c.DataDir, "member") }

// ProxyDir returns the directory that holds a proxy's state.
func (c *Config) ProxyDir() string { return filepath.Join(c.DataDir, "proxy") }

// EffectiveValues returns the lines that a start writes to the log, one option each. firstStart
// adds those that count only while a member has no state yet.
func (c *Config) EffectiveValues(firstStart bool) []string {
	lines := []string{
		"name = " + c.Name,
		"data dir = " + c.DataDir,
		"member dir = " + c.MemberDir(),
	}
	if c.WALDir != "" {
		lines = append(lines, "dedicated WAL dir = "+c.WALDir)
	}
	lines = append(lines,
		"heartbeat = "+milliseconds(c.HeartbeatInterval)+"ms",
		"election = "+milliseconds(c.ElectionTimeout)+"ms",
		"snapshot count = "+unsigned(c.SnapshotCount),
	)
	if c.Discovery != "" {
		lines = append(lines, "discovery URL= "+c.Discovery)
	}
	lines = append(lines, "advertise client URLs = "+c.AdvertiseClientURLs.String())
	if firstStart {
		lines = append(lines,
			"initial advertise peer URLs = "+c.InitialAdvertisePeerURLs.String(),
			"initial cluster = "+c.InitialCluster,
		)
	}
	return lines
}
