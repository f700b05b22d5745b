package main

import (
	"context"
	"crypto/tls"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/internal/certs"
)

// fixtures is the directory below the data directory that holds self-signed certificates.
const fixtures = "fixtures"

// certificates are what a server listens and dials with.
type certificates struct {
	client *certs.Source // for the client listeners
	peer   *certs.Source // for the peer listeners, and for dialing members
}

// loadCertificates reads all files, so that a wrong one ends the start before the member joins.
func loadCertificates(cfg *configs.Config, log hclog.Logger) (*certificates, error) {
	protocols := configs.ClientProtocols
	if len(cfg.ClientTLS.CipherSuites) > 0 {
		protocols = configs.PeerProtocols // HTTP/2 demands suites that the list may lack
	}
	client, err := newSource(cfg, log, "client", cfg.ClientTLS, func(dir string) (c certs.Configs, err error) {
		c.Server, err = cfg.ClientTLS.ServerConfig(dir, append(cfg.ListenClientURLs[:len(cfg.ListenClientURLs):len(cfg.ListenClientURLs)], cfg.ListenMetricsURLs...), protocols)
		return c, err
	})
	if err != nil {
		return nil, err
	}
	peer, err := newSource(cfg, log, "peer", cfg.PeerTLS, func(dir string) (c certs.Configs, err error) {
		if c.Server, err = cfg.PeerTLS.ServerConfig(dir, cfg.ListenPeerURLs, configs.PeerProtocols); err != nil {
			return c, err
		}
		c.Dial, err = cfg.PeerTLS.DialConfig(dir, cfg.ListenPeerURLs)
		return c, err
	})
	if err != nil {
		return nil, err
	}
	return &certificates{client: client, peer: peer}, nil
}

func newSource(cfg *configs.Config, log hclog.Logger, role string, t configs.TLS, load func(dir string) (certs.Configs, error)) (*certs.Source, error) {
	dir := filepath.Join(cfg.DataDir, fixtures, role)
	files := certs.Files{Cert: t.CertFile, Key: t.KeyFile, CA: t.TrustedCAFile, CRL: t.CRLFile}
	selfSigned := t.AutoTLS && t.CertFile == ""
	if selfSigned {
		files.Cert, files.Key = configs.SelfSignedFiles(dir)
	}
	return certs.New(certs.Options{
		Role:   role,
		Files:  files,
		Load:   func() (certs.Configs, error) { return load(dir) },
		Renews: selfSigned,
		Logger: log.Named("tls"),
	})
}

// dial returns what members are dialed with now.
func (c *certificates) dial() *tls.Config { return c.peer.Dial() }

// watch follows changes of the files until stop is called, and looks at them at once at SIGHUP.
func (c *certificates) watch() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ticker := time.NewTicker(certs.PollInterval)
	var work sync.WaitGroup
	work.Go(func() { certs.Watch(ctx, ticker.C, hup, c.client, c.peer) })
	return func() {
		cancel()
		work.Wait()
		ticker.Stop()
		signal.Stop(hup)
	}
}

// register adds the metrics.
func (c *certificates) register(r *prometheus.Registry) {
	r.MustRegister(c.client, c.peer)
}
