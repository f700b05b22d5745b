package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

const (
	// handshakeTimeout bounds a handshake.
	handshakeTimeout = 10 * time.Second
	// quietTime is how long a failed handshake keeps others from the same address out of the log.
	quietTime = 10 * time.Second
	// maxQuiet bounds how many addresses are remembered for that.
	maxQuiet = 256
)

// Listen returns a listener of connections, all *tls.Conn, that have done their handshake, with the
// configuration that was current when they came in. It owns inner from now on.
func (s *Source) Listen(inner net.Listener) net.Listener {
	ctx, cancel := context.WithCancel(context.Background())
	l := &listener{Listener: inner, source: s, accepted: make(chan accepted), ctx: ctx, cancel: cancel}
	l.work.Go(l.run)
	return l
}

type listener struct {
	net.Listener
	source   *Source
	accepted chan accepted
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	work     sync.WaitGroup
	closing  sync.Once
	closeErr error
}

// accepted is what Accept returns.
type accepted struct {
	conn net.Conn
	err  error
}

func (l *listener) run() {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			// Whoever accepts decides whether to go on, and when.
			if !l.deliver(accepted{err: err}) {
				return
			}
			continue
		}
		l.work.Go(func() { l.handshake(raw) })
	}
}

// deliver says whether somebody took it.
func (l *listener) deliver(a accepted) bool {
	select {
	case l.accepted <- a:
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (l *listener) handshake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(raw, l.source.Server())
	err := conn.HandshakeContext(ctx)
	if err == nil {
		if !l.deliver(accepted{conn: conn}) {
			raw.Close()
		}
		return
	}
	if l.ctx.Err() == nil {
		l.source.handshakeFailed(raw, err)
	}
	raw.Close()
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.accepted:
		return a.conn, a.err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close also ends handshakes under way, and waits for that.
func (l *listener) Close() error {
	l.closing.Do(func() {
		l.cancel()
		l.closeErr = l.Listener.Close()
		l.work.Wait()
	})
	return l.closeErr
}

// handshakeFailed answers and counts a failed handshake, and says in the log why it failed.
func (s *Source) handshakeFailed(raw net.Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return // somebody has looked whether the port is open
	}
	s.counters.handshakes.Add(1)
	if header, ok := errors.AsType[tls.RecordHeaderError](err); ok && looksLikeHTTP(header.RecordHeader) {
		err = errors.New("it speaks plain HTTP, and this is an https URL")
		// As net/http does.
		_ = raw.SetWriteDeadline(time.Now().Add(handshakeTimeout))
		_, _ = io.WriteString(raw, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no handshake within %v", handshakeTimeout)
	}
	host, _, splitErr := net.SplitHostPort(raw.RemoteAddr().String())
	if splitErr != nil {
		host = raw.RemoteAddr().String()
	}
	more, quiet := s.failures.note(host, s.opts.now())
	if quiet {
		return
	}
	args := []any{"role", s.opts.Role, "address", raw.RemoteAddr().String(), "error", err}
	if refused, ok := errors.AsType[*tls.CertificateVerificationError](err); ok && len(refused.UnverifiedCertificates) > 0 {
		cert := refused.UnverifiedCertificates[0]
		args = append(args, "subject", cert.Subject.String(), "issuer", cert.Issuer.String(), "ends", cert.NotAfter)
	}
	if more > 0 {
		args = append(args, "failuresSinceLastReport", more)
	}
	s.log.Warn("TLS handshake failed", args...)
}

// looksLikeHTTP says whether the first bytes are those of an HTTP request.
func looksLikeHTTP(b [5]byte) bool {
	switch string(b[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}

// handshakeFailures keeps repeated failures out of the log. The zero value is ready.
type handshakeFailures struct {
	mu   sync.Mutex
	last map[string]*failure // by address
}

type failure struct {
	reported time.Time
	since    int // failures that were not reported
}

// note says whether a failure of an address is to be left out of the log, and how many were since
// the last that was not.
func (f *handshakeFailures) note(host string, now time.Time) (more int, quiet bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.last[host]
	if ok && now.Sub(known.reported) < quietTime {
		known.since++
		return 0, true
	}
	if !ok && len(f.last) >= maxQuiet {
		for h, k := range f.last {
			if now.Sub(k.reported) >= quietTime {
				delete(f.last, h)
			}
		}
		if len(f.last) >= maxQuiet {
			return 0, true
		}
	}
	if f.last == nil {
		f.last = make(map[string]*failure)
	}
	if ok {
		more = known.since
	}
	f.last[host] = &failure{reported: now}
	return more, false
}
