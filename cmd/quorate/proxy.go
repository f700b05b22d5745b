package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/discovery"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/limit"
	"github.com/quorate/quorate/httpd/proxy"
)

// proxyStateFile keeps a proxy's peer URLs, below the data directory.
const proxyStateFile = "cluster"

// proxyShutdownTime is how long requests under way may take when a proxy stops.
const proxyShutdownTime = time.Second

// startProxy runs a proxy from the beginning.
func startProxy(ctx context.Context, cfg *configs.Config, log hclog.Logger, certificates *certificates, limits *limit.Limits) error {
	ls, err := openListeners(cfg, log, certificates, limits, false)
	if err != nil {
		return err
	}
	defer ls.close()
	return runProxy(ctx, cfg, log, certificates, limits, ls)
}

// fallBack runs a proxy where the start as a member ended. The server that answered 503 meanwhile
// has to let go of the client listeners first; the peer listeners are not needed any more.
func fallBack(ctx context.Context, cfg *configs.Config, log hclog.Logger, certificates *certificates, limits *limit.Limits, ls *listeners, server *httpd.Server) error {
	shutdown, cancel := context.WithTimeout(ctx, shutdownTime)
	defer cancel()
	if err := server.Shutdown(shutdown); err != nil {
		log.Warn("some requests were cut off", "error", err)
	}
	ls.close()
	return startProxy(ctx, cfg, log, certificates, limits)
}

// runProxy runs a proxy until ctx ends.
func runProxy(ctx context.Context, cfg *configs.Config, log hclog.Logger, certificates *certificates, limits *limit.Limits, ls *listeners) error {
	peerURLs, err := proxyPeers(ctx, cfg, log)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	certificates.register(registry)
	if err := limits.Register(registry); err != nil {
		return err
	}
	p := proxy.New(proxy.Options{
		PeerURLs:        peerURLs,
		StateFile:       filepath.Join(cfg.ProxyDir(), proxyStateFile),
		Readonly:        cfg.Proxy == configs.ProxyReadonly,
		FailureWait:     cfg.ProxyFailureWait,
		RefreshInterval: cfg.ProxyRefreshInterval,
		CORS:            cfg.CORS,
		Transport: proxy.NewTransport(proxy.TransportOptions{
			DialTimeout:  cfg.ProxyDialTimeout,
			WriteTimeout: cfg.ProxyWriteTimeout,
			ReadTimeout:  cfg.ProxyReadTimeout,
			TLS:          certificates.dial,
		}),
		Registry: registry,
		Logger:   log.Named("proxy"),
	})
	server := &http.Server{
		Handler:           limit.Handler(p),
		ConnContext:       limit.ConnContext,
		MaxHeaderBytes:    int(cfg.MaxHeaderBytes),
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       5 * time.Minute,
		ErrorLog:          log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	ls.serve(log, server.Serve, p)
	runCtx, stop := context.WithCancel(ctx)
	running := make(chan struct{})
	go func() {
		defer close(running)
		p.Run(runCtx)
	}()
	if err := notifyReady(); err != nil {
		log.Warn("the service manager was not told that this server is ready", "error", err)
	}
	select {
	case <-ctx.Done():
	case err = <-ls.failed:
	}
	stop()
	<-running
	// Watches are cut off, once everything else has had its time.
	shutdown, cancel := context.WithTimeout(context.Background(), proxyShutdownTime)
	defer cancel()
	if e := server.Shutdown(shutdown); e != nil {
		e = server.Close()
		err = errors.Join(err, e)
	}
	return err
}

// proxyPeers finds the peer URLs of the cluster that a proxy is to stand in front of: those of its
// last run, or else what the configuration says. A full cluster is what discovery is to find.
func proxyPeers(ctx context.Context, cfg *configs.Config, log hclog.Logger) ([]string, error) {
	stateFile := filepath.Join(cfg.ProxyDir(), proxyStateFile)
	saved, known, err := proxy.Load(stateFile)
	if err != nil {
		return nil, err
	}
	if known {
		if cfg.Discovery != "" {
			log.Warn(fmt.Sprintf("discovery token ignored since the proxy has already been initialized. Valid cluster file found at %q", stateFile))
		}
		if cfg.DiscoverySRV != "" {
			log.Warn(fmt.Sprintf("discovery-srv ignored since the proxy has already been initialized. Valid cluster file found at %q", stateFile))
		}
		return saved, nil
	}
	text := cfg.InitialCluster
	switch {
	case cfg.Discovery != "":
		text, err = discovery.Lookup(ctx, discoveryOptions(cfg, log))
	case cfg.DiscoverySRV != "":
		text, err = discovery.SRV(ctx, discovery.SRVOptions{
			Domain:   cfg.DiscoverySRV,
			Suffix:   cfg.DiscoverySRVName,
			Name:     cfg.Name,
			PeerURLs: cfg.InitialAdvertisePeerURLs,
			Proxy:    true,
			Logger:   log.Named("discovery"),
		})
	}
	if err != nil {
		return nil, err
	}
	cluster, err := configs.ParseInitialCluster(text)
	if err != nil {
		return nil, fmt.Errorf("error setting up initial cluster: %w", err)
	}
	// From now on this directory is a proxy's, whatever the flags of the next start say.
	return cluster.PeerURLs(), proxy.Save(stateFile, cluster.PeerURLs())
}
