package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/httpd/limit"
	"github.com/quorate/quorate/internal/certs"
)

// reservedFiles are the open files that the server itself may need: for its data, other members, the
// metrics URLs, and clients that it has to refuse. The rest of the limit is for connections of clients
// (spec config 3).
const reservedFiles = 150

// metricsConnections is how many connections the metrics URLs have, apart from those of clients.
const metricsConnections = 20

// listeners are the open sockets of a server.
type listeners struct {
	client, peer, metrics []net.Listener
	// failed has the error of a listener that broke.
	failed chan error
	// aside serves the metrics listeners; nil without any.
	aside *http.Server
}

// openListeners opens what the configuration names; the peer URLs only for a member. On an error
// nothing stays open. Only connections of clients are limited: other members and whoever watches over
// this one get through when it has too many clients.
func openListeners(cfg *configs.Config, log hclog.Logger, certificates *certificates, limits *limit.Limits, member bool) (*listeners, error) {
	ls := &listeners{}
	if err := ls.open(cfg, log, certificates, limits, member); err != nil {
		ls.close()
		return nil, err
	}
	return ls, nil
}

func (ls *listeners) open(cfg *configs.Config, log hclog.Logger, certificates *certificates, limits *limit.Limits, member bool) (err error) {
	patient := func(l net.Listener) net.Listener { return limit.Patient(l, log.Warn, nil) }
	if ls.client, err = listen(cfg.ListenClientURLs, certificates.client, limits.Listener); err != nil {
		return err
	}
	aside := limit.New(limit.Options{Connections: metricsConnections, ConnectionsPerAddress: metricsConnections, Logger: log})
	if ls.metrics, err = listen(cfg.ListenMetricsURLs, certificates.client, aside.Listener); err != nil {
		return err
	}
	if member {
		if ls.peer, err = listen(cfg.ListenPeerURLs, certificates.peer, patient); err != nil {
			return err
		}
	}
	ls.failed = make(chan error, len(ls.client)+len(ls.metrics))
	return nil
}

// listen opens one listener for each URL. What it opened is returned with an error too.
func listen(urls configs.URLs, source *certs.Source, wrap func(net.Listener) net.Listener) ([]net.Listener, error) {
	var open []net.Listener
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil {
			return open, err
		}
		l, err := net.Listen("tcp", u.Host)
		if err != nil {
			return open, err
		}
		l = wrap(l)
		if u.Scheme == "https" {
			l = source.Listen(l)
		}
		open = append(open, l)
	}
	return open, nil
}

// serve hands the client listeners to a server, which closes them when it shuts down. The metrics
// listeners get a server of their own, which shows two paths of handler.
func (ls *listeners) serve(log hclog.Logger, serve func(net.Listener) error, handler http.Handler) {
	run := func(l net.Listener, serve func(net.Listener) error) {
		if err := serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			ls.failed <- fmt.Errorf("serve clients on %v: %w", l.Addr(), err)
		}
	}
	for _, l := range ls.client {
		go run(l, serve)
		log.Info("serving clients", "address", l.Addr().String())
	}
	for _, l := range ls.peer {
		log.Info("serving members", "address", l.Addr().String())
	}
	if len(ls.metrics) == 0 {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", handler)
	mux.Handle("/health", handler)
	ls.aside = &http.Server{Handler: limit.Handler(mux), ConnContext: limit.ConnContext, ReadHeaderTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute}
	for _, l := range ls.metrics {
		go run(l, ls.aside.Serve)
		log.Info("serving metrics", "address", l.Addr().String())
	}
}

// close closes what is open; more than once does no harm.
func (ls *listeners) close() {
	for _, group := range [][]net.Listener{ls.client, ls.peer, ls.metrics} {
		for _, l := range group {
			_ = l.Close() // mostly closed by its server already
		}
	}
	if ls.aside != nil {
		_ = ls.aside.Close()
	}
}

// newLimits returns what clients may take of this process: what the configuration says, and no more
// connections than the limit of open files leaves, which is raised to what is allowed.
func newLimits(cfg *configs.Config, log hclog.Logger) (*limit.Limits, error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	if files.Cur < files.Max {
		raised := unix.Rlimit{Cur: files.Max, Max: files.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
			files = raised
		}
	}
	if files.Cur <= reservedFiles {
		return nil, fmt.Errorf("file descriptor limit[%d] of this process is too low, and should be set higher than %d", files.Cur, reservedFiles)
	}
	connections := cfg.MaxConnections
	if most := files.Cur - reservedFiles; connections == 0 || connections > most {
		if connections > 0 {
			log.Info("the limit of open files bounds the connections of clients", "files", files.Cur, "connections", most)
		}
		connections = min(most, 1<<24)
	}
	return limit.New(limit.Options{
		Connections:           int(connections),
		ConnectionsPerAddress: int(cfg.MaxConnectionsPerAddress),
		Watchers:              int(cfg.MaxWatchers),
		WatchersPerAddress:    int(cfg.MaxWatchersPerAddress),
		Logger:                log.Named("http"),
	}), nil
}
