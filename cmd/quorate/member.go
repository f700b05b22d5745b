package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"
	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/discovery"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/auth"
	"github.com/quorate/quorate/httpd/limit"
	"github.com/quorate/quorate/store"
	"github.com/quorate/quorate/store/disk"
)

// shutdownTime is how long requests that are under way may take when the server stops.
const shutdownTime = 5 * time.Second

// server is what answers clients.
type server struct {
	*httpd.Server
	guard *auth.Guard
}

// setMember says who answers, once the member is up. backups may be nil.
func (s *server) setMember(m *store.Store, backups *backup.Schedule) {
	s.guard.SetBackend(m)
	if backups == nil {
		s.SetBackend(m)
		return
	}
	s.SetBackend(&backedUpMember{m, backups})
}

// backedUpMember is a member that also tells when its backups fail. It is ready all the same.
type backedUpMember struct {
	*store.Store
	backups *backup.Schedule
}

func (m *backedUpMember) Status() httpd.Status {
	status := m.Store.Status()
	if problem := m.backups.Problem(); problem != "" {
		status.Reasons = append(status.Reasons, problem)
	}
	return status
}

// scheduleBackups returns the schedule of a member's backups, nil for none.
func scheduleBackups(cfg *configs.Config, m *store.Store, log hclog.Logger) *backup.Schedule {
	if cfg.BackupDir == "" {
		return nil
	}
	return backup.NewSchedule(backup.ScheduleOptions{
		Dir:      cfg.BackupDir,
		Interval: cfg.BackupInterval,
		Keep:     int(cfg.BackupKeep),
		MinFree:  disk.Reserve{Bytes: cfg.MinFreeDisk.Bytes, Percent: cfg.MinFreeDisk.Percent}.Of,
		Member:   m.MemberID(),
		Take:     m.Backup,
		Logger:   log.Named("backup"),
	})
}

// newServer returns the HTTP server of the client URLs. Until the member is up it answers 503.
func newServer(cfg *configs.Config, log hclog.Logger, limits *limit.Limits) *server {
	s := &server{guard: auth.New(auth.Options{Guest: cfg.AuthGuest, Logger: log.Named("auth")})}
	options := httpd.Options{
		ElectionTimeout: cfg.ElectionTimeout,
		MaxRequestBytes: int64(cfg.MaxRequestBytes),
		MaxHeaderBytes:  int(cfg.MaxHeaderBytes),
		Limits:          limits,
		CORS:            cfg.CORS,
		Pprof:           cfg.EnablePprof,
		Authorizer:      s.guard,
		Auth:            s.guard,
		Logger:          log.Named("http"),
	}
	if cfg.DiscoveryService {
		options.Routes = func(router *mux.Router) {
			var service *discovery.Service
			router.MatcherFunc(func(r *http.Request, _ *mux.RouteMatch) bool {
				return service.Matches(r.URL.Path)
			}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { service.ServeHTTP(w, r) }))
			service = discovery.NewService(discovery.ServiceOptions{
				// Strangers may use tokens whatever guests may do with keys: the service lets them do
				// nothing else.
				Keys:      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.TrustedKeys().ServeHTTP(w, r) }),
				PublicURL: cfg.DiscoveryServiceURL,
				Logger:    log.Named("discovery"),
			})
		}
	}
	s.Server = httpd.NewServer(options, nil)
	return s
}

// runBackups lets backups be written until the returned function is called. That does not wait for
// ever: the disk may be one that does not answer.
func runBackups(ctx context.Context, backups *backup.Schedule) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		backups.Run(ctx)
	}()
	return func() {
		cancel()
		select {
		case <-done:
		case <-time.After(shutdownTime):
		}
	}
}

// runMember runs a member until ctx ends or the member has to stop by itself. server answers on the
// client listeners already.
func runMember(ctx context.Context, cfg *configs.Config, firstStart bool, log hclog.Logger, certificates *certificates, ls *listeners, server *server) error {
	options := store.Options{
		Name:              cfg.Name,
		ClientURLs:        cfg.AdvertiseClientURLs,
		DataDir:           cfg.DataDir,
		WALDir:            cfg.WALDir,
		LogStore:          disk.Kind(cfg.LogStore),
		Existing:          cfg.InitialClusterState == configs.StateExisting,
		AdvertisePeerURLs: cfg.InitialAdvertisePeerURLs,
		ListenPeerURLs:    cfg.ListenPeerURLs,
		Listeners:         ls.peer,
		ElectionTimeout:   cfg.ElectionTimeout,
		SnapshotCount:     cfg.SnapshotCount,
		MaxSnapshots:      int(cfg.MaxSnapshots),
		EventHistory:      int(cfg.EventHistory),
		StrictReconfig:    cfg.StrictReconfigCheck,
		ForceNewCluster:   cfg.ForceNewCluster,
		DiskStallLimit:    cfg.DiskStallLimit,
		MinFreeDisk:       disk.Reserve{Bytes: cfg.MinFreeDisk.Bytes, Percent: cfg.MinFreeDisk.Percent},
		FastFailover:      cfg.FastFailover,
		TLS:               certificates.dial,
		Logger:            log,
	}
	if firstStart {
		server.SetWaiting("this member is finding out who the other members are")
		cluster, token, err := initialCluster(ctx, cfg, log)
		if err != nil {
			return err
		}
		for _, name := range cluster.Names() {
			options.Initial = append(options.Initial, store.Initial{Name: name, PeerURLs: cluster[name]})
		}
		options.Token = token
		if n := len(options.Initial); n > 1 && n%2 == 0 {
			log.Warn("an even number of members tolerates no more failures than one member fewer, and stops when a partition halves it", "members", n)
		}
	}
	server.SetWaiting("this member is reading its data directory")
	member, err := store.Open(ctx, options)
	if err != nil {
		return err
	}
	registry := server.Registry()
	if err := errors.Join(member.RegisterMetrics(registry), server.guard.RegisterMetrics(registry), httpd.InstallRaftMetrics(registry)); err != nil {
		return errors.Join(err, member.Close())
	}
	backups := scheduleBackups(cfg, member, log)
	if backups != nil {
		if err := backups.Register(registry); err != nil {
			return errors.Join(err, member.Close())
		}
		defer runBackups(ctx, backups)()
	}
	server.setMember(member, backups)
	if err := notifyReady(); err != nil {
		log.Warn("the service manager was not told that this server is ready", "error", err)
	}

	select {
	case <-ctx.Done():
	case <-member.Done():
		err = member.Err()
	case err = <-ls.failed:
	}
	if errors.Is(err, store.ErrRemoved) {
		log.Error(err.Error())
		log.Info("the data-dir used by this member must be removed.", "dataDir", cfg.DataDir)
		err = nil
	}
	if ctx.Err() != nil {
		// Another member leads before anything ends here, so that the others' clients do not wait for it.
		member.HandOver()
	}
	shutdown, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	// Writes that are under way still get their answers, so the member goes last. Watches end now.
	if e := server.Shutdown(shutdown); e != nil {
		log.Warn("some requests were cut off", "error", e)
	}
	return errors.Join(err, member.Close())
}

// initialCluster finds out, on a first start, who the members are, by the one way that the
// configuration chooses, and the token that their IDs are made with.
func initialCluster(ctx context.Context, cfg *configs.Config, log hclog.Logger) (configs.InitialCluster, string, error) {
	token := cfg.InitialClusterToken
	switch {
	case cfg.DiscoverySRV != "":
		text, err := discovery.SRV(ctx, discovery.SRVOptions{
			Domain:   cfg.DiscoverySRV,
			Suffix:   cfg.DiscoverySRVName,
			Name:     cfg.Name,
			PeerURLs: cfg.InitialAdvertisePeerURLs,
			Logger:   log.Named("discovery"),
		})
		if err != nil {
			return nil, "", err
		}
		cfg.InitialCluster = text
	case cfg.Discovery != "":
		// The checks of our own URLs come before anybody is told about us.
		alone := *cfg
		alone.InitialCluster = configs.InitialCluster{cfg.Name: cfg.InitialAdvertisePeerURLs}.String()
		if _, err := alone.CheckBootstrap(ctx, nil); err != nil {
			return nil, "", err
		}
		text, err := discovery.Join(ctx, discoveryOptions(cfg, log))
		if err != nil {
			return nil, "", err
		}
		cluster, err := configs.ParseInitialCluster(text)
		if err != nil {
			return nil, "", fmt.Errorf("error setting up initial cluster: %w", err)
		}
		return cluster, cfg.Discovery, nil
	}
	cluster, err := cfg.CheckBootstrap(ctx, nil)
	return cluster, token, err
}

func discoveryOptions(cfg *configs.Config, log hclog.Logger) discovery.Options {
	return discovery.Options{
		URL:      cfg.Discovery,
		Proxy:    cfg.DiscoveryProxy,
		CAFile:   cfg.DiscoveryCA,
		Name:     cfg.Name,
		PeerURLs: cfg.InitialAdvertisePeerURLs,
		DataDir:  cfg.DataDir,
		Logger:   log.Named("discovery"),
	}
}
