package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/discovery"
	"github.com/quorate/quorate/httpd/proxy"
)

// proxyStateFile keeps a proxy's peer URLs, below the data directory.
const proxyStateFile = "cluster"

// runProxy runs a proxy until ctx ends. ls holds the client listeners if they are open already.
func runProxy(ctx context.Context, cfg *configs.Config, log hclog.Logger, ls *listeners) error {
	stateFile := filepath.Join(cfg.ProxyDir(), proxyStateFile)
	peerURLs, known, err := proxy.Load(stateFile)
	if err != nil {
		return err
	}
	if known && cfg.Discovery != "" {
		log.Warn(fmt.Sprintf("discovery token ignored since the proxy has already been initialized. Valid cluster file found at %q", stateFile))
	}
	if !known {
		if peerURLs, err = proxyPeers(ctx, cfg, log); err != nil {
			return err
		}
		if err := proxy.Save(stateFile, peerURLs); err != nil {
			return err
		}
	}
	log.Info(fmt.Sprintf("proxy: using peer urls %v", peerURLs))
	p := proxy.New(proxy.Options{
		PeerURLs:        peerURLs,
		StateFile:       stateFile,
		Readonly:        cfg.Proxy == configs.ProxyReadonly,
		FailureWait:     cfg.ProxyFailureWait,
		RefreshInterval: cfg.ProxyRefreshInterval,
		CORS:            cfg.CORS,
		Transport: proxy.NewTransport(proxy.TransportOptions{
			DialTimeout:  cfg.ProxyDialTimeout,
			WriteTimeout: cfg.ProxyWriteTimeout,
			ReadTimeout:  cfg.ProxyReadTimeout,
		}),
		Logger: log.Named("proxy"),
	})
	if ls == nil {
		ls = &listeners{}
		if ls.client, err = openListeners(cfg.ListenClientURLs); err != nil {
			return err
		}
	} else if ls.client, err = reopen(ls, cfg); err != nil {
		return err
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: 30 * time.Second, MaxHeaderBytes: 1 << 20}
	served := make(chan error, len(ls.client))
	for _, l := range ls.client {
		go func() { served <- server.Serve(l) }()
		log.Info("serving clients as a proxy", "address", l.Addr().String())
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
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
	case err = <-served:
	}
	stop()
	<-running
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, server.Close())
}

// reopen opens the client listeners again after the server that answered 503 has let go of them.
func reopen(ls *listeners, cfg *configs.Config) ([]net.Listener, error) {
	for _, l := range append(ls.client, ls.peer...) {
		l.Close()
	}
	return openListeners(cfg.ListenClientURLs)
}

// proxyPeers finds the peer URLs of the cluster that a proxy is to stand in front of.
func proxyPeers(ctx context.Context, cfg *configs.Config, log hclog.Logger) ([]string, error) {
	text := cfg.InitialCluster
	var err error
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
	return cluster.PeerURLs(), nil
}
