// Package certs keeps TLS configurations in step with the files they are made of.
//
// A certificate has to be replaced before it ends, and a server must not have to stop for that. A
// [Source] looks at its files every few seconds, and at once when told to: what has changed counts
// for new connections, and old ones are not touched. Files that do not load (half a pair, a typo, a
// key of something else) change nothing but the log: the configuration before them stays in use.
//
// A source also listens: its [Source.Listen] does the handshakes, so that a refused one is in the
// log with its reason, and counts them. How files become a configuration is for the caller to say.
package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// PollInterval is how often files are looked at. What has changed is loaded when it is still the
	// same at the next look, so that a pair is not read while it is being written.
	PollInterval = 2 * time.Second
	// expiryNotice is how long before its end a certificate is warned about, once in expiryRepeat.
	expiryNotice = 30 * 24 * time.Hour
	expiryRepeat = 24 * time.Hour
	// renewRetry is the least time between two attempts to renew a self-signed pair.
	renewRetry = time.Hour
)

// Files are the PEM files that a configuration is made of. Empty names are not looked at.
type Files struct {
	// Cert is a certificate, which those of intermediate authorities may follow, and Key its key.
	Cert, Key string
	CA        string // trusted authorities
	CRL       string // revoked certificates
}

// Configs are what Load returns. Nil is for what the side does not need.
type Configs struct {
	Server *tls.Config // to listen with
	Dial   *tls.Config // to dial with
}

// Options say what a source is made of.
type Options struct {
	// Role is what the connections are for, client or peer: in the log, and a label of metrics.
	Role  string
	Files Files
	// Load makes the configurations from the files, anew each time.
	Load func() (Configs, error)
	// Renews says that Load makes a new pair in place of one that has ended.
	Renews bool
	Logger hclog.Logger // may be nil

	now func() time.Time // a clock for tests
}

// Source is the TLS configuration of one side, as its files have it now. Its methods may be called
// from any goroutine.
type Source struct {
	opts     Options
	log      hclog.Logger
	current  atomic.Pointer[loaded]
	failures handshakeFailures
	counters counters

	mu sync.Mutex // one look at a time; guards what follows
	// used are the files that current was made of; pending those that were different at the last
	// look; refused those that did not load.
	used, pending, refused fingerprint
	warned, renewed        time.Time
}

// loaded is a configuration with the ends of its certificates.
type loaded struct {
	Configs
	ends []end
}

// end says until when a file is of use.
type end struct {
	file string
	at   time.Time
	own  bool // the certificate that is shown, not an authority that is trusted
}

// New loads the files for the first time.
func New(o Options) (*Source, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.now == nil {
		o.now = time.Now
	}
	s := &Source{opts: o, log: o.Logger}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(o.Files.fingerprint()); err != nil {
		return nil, err
	}
	s.noticeEnds()
	return s, nil
}

// Server returns the configuration for the next connection that is accepted, nil when there is no
// certificate to listen with. It must not be changed.
func (s *Source) Server() *tls.Config { return s.current.Load().Server }

// Dial returns the configuration for the next connection that is dialed. It must not be changed.
func (s *Source) Dial() *tls.Config { return s.current.Load().Dial }

// Poll looks at the files, and loads them if they are different from those in use and the same as
// at the last look.
func (s *Source) Poll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.opts.Files.fingerprint()
	switch found {
	case s.used:
		s.pending, s.refused = fingerprint{}, fingerprint{}
	case s.refused: // that was said already
	case s.pending:
		s.reload(found)
	default:
		s.pending = found
	}
	s.noticeEnds()
}

// Reload loads the files, changed or not.
func (s *Source) Reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reload(s.opts.Files.fingerprint())
	s.noticeEnds()
}

// reload is load, with the outcome in the log. Called with mu held.
func (s *Source) reload(found fingerprint) {
	if err := s.load(found); err != nil {
		s.refused = found
		s.counters.refused.Add(1)
		s.log.Error("certificates were not loaded, those before stay in use", "role", s.opts.Role, "error", err)
		return
	}
	s.warned = time.Time{}
	ends := s.current.Load().ends
	if len(ends) == 0 {
		return // there is nothing to load
	}
	s.counters.reloaded.Add(1)
	args := []any{"role", s.opts.Role}
	for _, e := range ends {
		args = append(args, e.file, e.at)
	}
	s.log.Info("certificates loaded, new connections use them", args...)
}

// load makes a configuration of the files, which are as found, and uses it from now on. Files that
// change meanwhile are different at the next look. Called with mu held.
func (s *Source) load(found fingerprint) error {
	configs, err := s.opts.Load()
	if err != nil {
		return err
	}
	ends, err := s.opts.Files.ends()
	if err != nil {
		return err
	}
	if s.opts.Renews {
		found = s.opts.Files.fingerprint() // Load may have made them
	}
	s.current.Store(&loaded{configs, ends})
	s.used, s.pending, s.refused = found, fingerprint{}, fingerprint{}
	return nil
}

// noticeEnds says once in a while that a certificate is about to end, and has a self-signed one
// renewed that has ended. Called with mu held.
func (s *Source) noticeEnds() {
	now := s.opts.now()
	ends := s.current.Load().ends
	ended := func(e end) bool { return !now.Before(e.at) }
	if s.opts.Renews && now.Sub(s.renewed) >= renewRetry && slices.ContainsFunc(ends, func(e end) bool { return e.own && ended(e) }) {
		s.renewed = now
		s.reload(s.opts.Files.fingerprint())
		ends = s.current.Load().ends
	}
	if now.Sub(s.warned) < expiryRepeat {
		return
	}
	for _, e := range ends {
		left := e.at.Sub(now)
		switch {
		case ended(e):
			s.log.Error("certificate has ended, others refuse it", "role", s.opts.Role, "file", e.file, "ended", e.at)
		case left < expiryNotice:
			s.log.Warn("certificate ends soon", "role", s.opts.Role, "file", e.file, "ends", e.at, "days", int(left.Hours()/24))
		default:
			continue
		}
		s.warned = now
	}
}

// fingerprint is the content of all files, or why it cannot be read.
type fingerprint [sha256.Size]byte

func (f Files) fingerprint() fingerprint {
	h := sha256.New()
	for _, name := range []string{f.Cert, f.Key, f.CA, f.CRL} {
		if name == "" {
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			content = []byte(err.Error())
		}
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(content))))
		h.Write(content)
	}
	return fingerprint(h.Sum(nil))
}

// ends finds out until when the files are of use: a chain of certificates until the first of them
// ends, a file of authorities until the last does. Old ones may be left in it.
func (f Files) ends() ([]end, error) {
	var ends []end
	for _, file := range []struct {
		name string
		own  bool
	}{{f.Cert, true}, {f.CA, false}} {
		if file.name == "" {
			continue
		}
		certs, err := readCertificates(file.name)
		if err != nil {
			return nil, err
		}
		at := certs[0].NotAfter
		for _, c := range certs[1:] {
			if c.NotAfter.Before(at) == file.own {
				at = c.NotAfter
			}
		}
		ends = append(ends, end{file.name, at, file.own})
	}
	return ends, nil
}

func readCertificates(name string) ([]*x509.Certificate, error) {
	rest, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("no certificate in PEM form")}
	}
	return certs, nil
}
