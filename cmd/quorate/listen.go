package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/configs"
	"github.com/quorate/quorate/internal/certs"
)

// reservedFiles are the open files that the server itself may need. The rest of the limit is for
// connections of clients (spec config 3).
const reservedFiles = 150

// listeners are the open sockets of a server.
type listeners struct {
	client, peer, metrics []net.Listener
	// failed has the error of a listener that broke.
	failed chan error
	// aside serves the metrics listeners; nil without any.
	aside *http.Server
}

// openListeners opens what the configuration names; the peer URLs only for a member. On an error
// nothing stays open.
func openListeners(cfg *configs.Config, certificates *certificates, member bool) (*listeners, error) {
	ls := &listeners{}
	if err := ls.open(cfg, certificates, member); err != nil {
		ls.close()
		return nil, err
	}
	return ls, nil
}

func (ls *listeners) open(cfg *configs.Config, certificates *certificates, member bool) error {
	slots, err := connectionSlots()
	if err != nil {
		return err
	}
	limit := func(l net.Listener) net.Listener { return newLimitedListener(l, slots) }
	if ls.client, err = listen(cfg.ListenClientURLs, certificates.client, limit); err != nil {
		return err
	}
	if ls.metrics, err = listen(cfg.ListenMetricsURLs, certificates.client, limit); err != nil {
		return err
	}
	if member {
		if ls.peer, err = listen(cfg.ListenPeerURLs, certificates.peer, nil); err != nil {
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
		if wrap != nil {
			l = wrap(l)
		}
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
	ls.aside = &http.Server{Handler: mux, ReadHeaderTimeout: 30 * time.Second}
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

// connectionSlots raises the limit of open files to what is allowed, and returns a place for each
// connection that this leaves to clients.
func connectionSlots() (chan struct{}, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
			limit = raised
		}
	}
	if limit.Cur <= reservedFiles {
		return nil, fmt.Errorf("file descriptor limit[%d] of this process is too low, and should be set higher than %d", limit.Cur, reservedFiles)
	}
	return make(chan struct{}, min(limit.Cur-reservedFiles, 1<<24)), nil
}

// limitedListener accepts connections as long as there is a place for one more; others wait.
type limitedListener struct {
	net.Listener
	slots  chan struct{} // shared with other listeners
	closed chan struct{}
	once   sync.Once
}

func newLimitedListener(l net.Listener, slots chan struct{}) *limitedListener {
	return &limitedListener{Listener: l, slots: slots, closed: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: conn, slots: l.slots}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// limitedConn gives its place back when it is closed.
type limitedConn struct {
	net.Conn
	slots chan struct{}
	once  sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.slots })
	return err
}
