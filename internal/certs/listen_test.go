package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/quorate/quorate/internal/certs/certstest"
)

// serve answers each connection's lines with the name in the certificate of the other side.
func (f *fixture) serve() (address string) {
	f.t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	l := f.Listen(inner)
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					f.t.Errorf("Accept: %v", err)
				}
				return
			}
			work.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	f.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			f.t.Errorf("Close: %v", err)
		}
		work.Wait()
	})
	return inner.Addr().String()
}

// echo sends a byte and waits for it to come back.
func echo(c net.Conn) error {
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// connect dials, says something and returns the connection.
func connect(t *testing.T, address string, config *tls.Config) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	c, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(deadline))
	return c, echo(c) // in TLS 1.3 only an answer shows that the server was content
}

func TestHandshakes(t *testing.T) {
	f := newFixture(t, nil)
	address := f.serve()
	foreign := certstest.NewAuthority(t, "foreign authority")
	client := func(change func(*tls.Config)) func(*testing.T) error {
		return func(t *testing.T) error {
			config := &tls.Config{RootCAs: f.ca.Pool(), Certificates: []tls.Certificate{f.ca.Certificate(t, "good", time.Hour)}}
			change(config)
			_, err := connect(t, address, config)
			return err
		}
	}
	raw := func(say, answer string) func(*testing.T) error {
		return func(t *testing.T) error {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(deadline))
			if _, err := io.WriteString(c, say); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
			if answer != "" && string(got) != answer {
				t.Errorf("the answer to %q is %q, want %q", say, got, answer)
			}
			return errors.New("refused")
		}
	}
	tests := []struct {
		name string
		do   func(*testing.T) error
		log  []string // parts of a line; nil for success
	}{
		{"good", client(func(*tls.Config) {}), nil},
		{"good, TLS 1.2", client(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), nil},
		{"TLS 1.1", client(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }),
			[]string{"client offered only unsupported versions"}},
		{"no certificate", client(func(c *tls.Config) { c.Certificates = nil }), []string{"tls: client didn't provide a certificate"}},
		{"foreign certificate", client(func(c *tls.Config) {
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair := foreign.Certificate(t, "stranger", time.Hour)
				return &pair, nil
			}
		}), []string{"certificate signed by unknown authority", "subject=CN=stranger", `issuer="CN=foreign authority"`}},
		{"ended certificate", client(func(c *tls.Config) {
			c.Certificates = []tls.Certificate{f.ca.Certificate(t, "late", -time.Hour)}
		}), []string{"certificate has expired or is not yet valid", "subject=CN=late", "ends="}},
		{"the other side refuses ours", client(func(c *tls.Config) { c.RootCAs = foreign.Pool() }), []string{"remote error: tls: bad certificate"}},
		{"plain HTTP", raw("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
			[]string{"it speaks plain HTTP, and this is an https URL"}},
		{"plain HTTP, PUT", raw("PUT /v2/keys/x HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"),
			[]string{"it speaks plain HTTP"}},
		{"nonsense", raw("\x00\x01\x02\x03\x04\x05", ""), []string{"first record does not look like a TLS handshake"}},
	}
	failed := 0
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.failures.mu.Lock()
			f.failures.last = nil // all come from one address
			f.failures.mu.Unlock()
			err := tt.do(t)
			if (err != nil) != (tt.log != nil) {
				t.Errorf("the client's error is %v", err)
			}
			if tt.log != nil {
				failed++
				f.log.expect(t, append(tt.log, "[WARN]", "TLS handshake failed", "role=peer", "address=127.0.0.1:")...)
			}
		})
	}
	if got := f.counters.handshakes.Load(); got != uint64(failed) {
		t.Errorf("%d failed handshakes were counted, want %d", got, failed)
	}
	if n := testutil.CollectAndCount(f, metricHandshakes); n != 1 {
		t.Errorf("there are %d metrics of handshakes", n)
	}
	f.log.silent(t)
}

// Somebody who only looks whether the port is open is neither counted nor reported.
func TestPortIsLookedAt(t *testing.T) {
	f := newFixture(t, nil)
	address := f.serve()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := connect(t, address, f.Dial()); err != nil {
		t.Fatal(err)
	}
	if n := f.counters.handshakes.Load(); n != 0 {
		t.Errorf("%d handshakes are said to have failed", n)
	}
	f.log.silent(t)
}

func TestFailuresAreReportedRarely(t *testing.T) {
	var f handshakeFailures
	now := time.Now()
	tests := []struct {
		host  string
		after time.Duration
		more  int
		quiet bool
	}{
		{"a", 0, 0, false},
		{"a", time.Second, 0, true},
		{"b", time.Second, 0, false},
		{"a", time.Second, 0, true},
		{"a", quietTime, 2, false},
		{"a", 2 * quietTime, 0, false},
	}
	for i, tt := range tests {
		now = now.Add(tt.after)
		if more, quiet := f.note(tt.host, now); more != tt.more || quiet != tt.quiet {
			t.Errorf("%d: note(%s) = %d, %v, want %d, %v", i, tt.host, more, quiet, tt.more, tt.quiet)
		}
	}
	for i := range 10 * maxQuiet {
		f.note(fmt.Sprint("attacker", i), now)
	}
	if len(f.last) > maxQuiet {
		t.Errorf("%d addresses are remembered", len(f.last))
	}
	now = now.Add(quietTime)
	if _, quiet := f.note("c", now); quiet {
		t.Error("old addresses are not forgotten")
	}
}

// TestRotation replaces certificates and authority step by step, as an operator would, and keeps an
// old connection open all the time.
func TestRotation(t *testing.T) {
	f := newFixture(t, nil)
	address := f.serve()
	old, err := connect(t, address, f.Dial())
	if err != nil {
		t.Fatal(err)
	}
	next := certstest.NewAuthority(t, "next authority")
	newClient := &tls.Config{RootCAs: next.Pool(), Certificates: []tls.Certificate{next.Certificate(t, "new client", time.Hour)}}
	newClient.RootCAs.AddCert(f.ca.Cert)
	oldClient := f.Dial()

	try := func(step string, config *tls.Config, ok bool) {
		t.Helper()
		if _, err := connect(t, address, config); (err == nil) != ok {
			t.Errorf("%s: a connection ended with %v, want success: %v", step, err, ok)
		}
	}
	try("before", oldClient, true)
	try("before", newClient, false)
	f.files.WriteCA(t, f.ca, next)
	f.Reload()
	try("both authorities", oldClient, true)
	try("both authorities", newClient, true)
	f.writePair(next.Pair(t, "new pair", certstest.Year))
	f.Reload()
	try("new pair", oldClient, false)
	try("new pair", newClient, true)
	try("new pair, dialed by itself", f.Dial(), true)
	f.files.WriteCA(t, next)
	f.Reload()
	try("new authority alone", newClient, true)
	onlyTrustsNew := &tls.Config{RootCAs: newClient.RootCAs, Certificates: oldClient.Certificates}
	try("new authority alone, old certificate", onlyTrustsNew, false)
	if err := echo(old); err != nil {
		t.Errorf("the old connection: %v", err)
	}
}

// TestReloadUnderLoad reloads while connections come and go: none may fail.
func TestReloadUnderLoad(t *testing.T) {
	f := newFixture(t, nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})}
	var work sync.WaitGroup
	work.Go(func() { _ = server.Serve(f.Listen(inner)) })
	defer work.Wait()
	defer server.Close()

	pairs := [2][2][]byte{}
	for i := range pairs {
		pairs[i][0], pairs[i][1] = f.ca.Pair(t, fmt.Sprint("pair", i), certstest.Year)
	}
	const workers, each = 4, 25
	var clients sync.WaitGroup
	for range workers {
		clients.Go(func() {
			for range each {
				transport := &http.Transport{TLSClientConfig: f.Dial()}
				resp, err := (&http.Client{Transport: transport, Timeout: deadline}).Get("https://" + inner.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				transport.CloseIdleConnections()
			}
		})
	}
	done := make(chan struct{})
	go func() { clients.Wait(); close(done) }()
	for i := 0; ; i++ {
		select {
		case <-done:
			if f.counters.handshakes.Load() != 0 {
				t.Error("handshakes failed")
			}
			return
		default:
		}
		// Never a half-written pair: that is TestReload's.
		f.mu.Lock()
		f.writePair(pairs[i%2][0], pairs[i%2][1])
		f.mu.Unlock()
		f.Reload()
		for len(f.log) > 0 {
			<-f.log
		}
	}
}

// Close ends handshakes that are under way, and connections that nobody has taken.
func TestCloseListener(t *testing.T) {
	f := newFixture(t, nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := f.Listen(inner)
	silent, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	untaken, err := tls.Dial("tcp", inner.Addr().String(), f.Dial())
	if err != nil {
		t.Fatal(err)
	}
	defer untaken.Close()
	for range 2 {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v", err)
	}
	for _, c := range []net.Conn{silent, untaken} {
		c.SetDeadline(time.Now().Add(deadline))
		if n, err := c.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection is still open after Close: %d, %v", n, err)
		}
	}
}

// flaky is a listener whose first Accept fails.
type flaky struct {
	net.Listener
	once sync.Once
}

var errFlaky = errors.New("too many open files")

func (f *flaky) Accept() (net.Conn, error) {
	var err error
	f.once.Do(func() { err = errFlaky })
	if err != nil {
		return nil, err
	}
	return f.Listener.Accept()
}

// An error of Accept reaches whoever accepts, who may go on.
func TestAcceptError(t *testing.T) {
	f := newFixture(t, nil)
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := f.Listen(&flaky{Listener: inner})
	defer l.Close()
	if _, err := l.Accept(); !errors.Is(err, errFlaky) {
		t.Errorf("Accept = %v, want %v", err, errFlaky)
	}
	go func() {
		if c, err := tls.Dial("tcp", inner.Addr().String(), f.Dial()); err == nil {
			c.Close()
		}
	}()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestWatch(t *testing.T) {
	f := newFixture(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	tick, hup := make(chan time.Time), make(chan os.Signal)
	var work sync.WaitGroup
	work.Go(func() { Watch(ctx, tick, hup, f.Source) })
	f.writePair(f.ca.Pair(t, "second", certstest.Year))
	for range 3 {
		tick <- time.Time{} // the third is taken when the second was done
	}
	if got := f.name(); got != "second" {
		t.Errorf("%q is in use, want second", got)
	}
	f.writePair(f.ca.Pair(t, "third", certstest.Year))
	hup <- syscall.SIGHUP
	tick <- time.Time{}
	if got := f.name(); got != "third" {
		t.Errorf("%q is in use, want third", got)
	}
	cancel()
	work.Wait()
}
