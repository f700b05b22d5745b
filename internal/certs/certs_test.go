package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/quorate/quorate/internal/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// deadline is how long a test waits for what must happen; it only ends tests that have failed.
const deadline = 60 * time.Second

// logLines takes a log, line by line.
type logLines chan string

func (l logLines) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		l <- line
	}
	return len(b), nil
}

// expect waits for a line that has all parts.
func (l logLines) expect(t *testing.T, parts ...string) {
	t.Helper()
	var seen []string
	timeout := time.After(deadline)
next:
	for {
		select {
		case line := <-l:
			seen = append(seen, line)
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue next
				}
			}
			return
		case <-timeout:
			t.Fatalf("the log has no line with %q, only\n%s", parts, strings.Join(seen, ""))
		}
	}
}

// silent fails the test if there is any line now.
func (l logLines) silent(t *testing.T) {
	t.Helper()
	select {
	case line := <-l:
		t.Errorf("unexpected in the log: %s", line)
	default:
	}
}

// fixture is a source on files in a directory.
type fixture struct {
	*Source
	t     *testing.T
	ca    *certstest.Authority
	files certstest.Files
	log   logLines
}

// newFixture makes a source that demands certificates of clients, with a pair called first.
func newFixture(t *testing.T, change func(*fixture, *Options)) *fixture {
	t.Helper()
	f := &fixture{t: t, ca: certstest.NewAuthority(t, "authority"), log: make(logLines, 1000), files: certstest.In(t.TempDir())}
	f.files.WriteCA(t, f.ca)
	f.writePair(f.ca.Pair(t, "first", certstest.Year))
	o := Options{
		Role: "peer", Files: Files{Cert: f.files.Cert, Key: f.files.Key, CA: f.files.CA}, Load: f.load,
		Logger: hclog.New(&hclog.LoggerOptions{Output: f.log, DisableTime: true}),
	}
	if change != nil {
		change(f, &o)
	}
	var err error
	if f.Source, err = New(o); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) load() (Configs, error) {
	pair, err := tls.LoadX509KeyPair(f.files.Cert, f.files.Key)
	if err != nil {
		return Configs{}, err
	}
	ca, err := os.ReadFile(f.files.CA)
	if err != nil {
		return Configs{}, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return Configs{}, errors.New("no authority")
	}
	return Configs{
		Server: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool},
		Dial:   &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool},
	}, nil
}

func (f *fixture) writePair(certPEM, keyPEM []byte) {
	f.t.Helper()
	f.files.WritePair(f.t, certPEM, keyPEM)
}

// name is the name in the certificate in use.
func (f *fixture) name() string {
	f.t.Helper()
	server, dial := f.Server().Certificates[0].Leaf.Subject.CommonName, f.Dial().Certificates[0].Leaf.Subject.CommonName
	if server != dial {
		f.t.Errorf("it listens as %q and dials as %q", server, dial)
	}
	return server
}

func TestReload(t *testing.T) {
	f := newFixture(t, nil)
	is := func(want string) {
		t.Helper()
		if got := f.name(); got != want {
			t.Fatalf("%q is in use, want %q", got, want)
		}
	}
	poll := func(n int) {
		for range n {
			f.Poll()
		}
	}
	cert2, key2 := f.ca.Pair(t, "second", certstest.Year)

	poll(3)
	is("first")
	f.log.silent(t)

	// A pair is written file by file. Until it is complete, and for one look more, nothing happens.
	certstest.Write(t, f.files.Cert, cert2)
	poll(1)
	certstest.Write(t, f.files.Key, key2)
	poll(1)
	is("first")
	f.log.silent(t)
	poll(1)
	is("second")
	f.log.expect(t, "certificates loaded, new connections use them", "role=peer", f.files.Cert)
	poll(3)
	f.log.silent(t)

	// Half a pair stays half a pair.
	certstest.Write(t, f.files.Cert, []byte("-----BEGIN CERTIFICATE-----\nnonsense\n"))
	poll(2)
	f.log.expect(t, "certificates were not loaded, those before stay in use", "tls: failed to find any PEM data")
	poll(3)
	f.log.silent(t) // said once
	is("second")
	if err := os.Remove(f.files.Cert); err != nil {
		t.Fatal(err)
	}
	poll(2)
	f.log.expect(t, "those before stay in use", "no such file or directory")
	is("second")

	// The old content is no change.
	certstest.Write(t, f.files.Cert, cert2)
	poll(3)
	f.log.silent(t)
	is("second")

	f.writePair(f.ca.Pair(t, "third", certstest.Year))
	f.Reload() // at once
	is("third")
	f.log.expect(t, "certificates loaded")

	// A key of something else.
	_, key := f.ca.Pair(t, "other", time.Hour)
	certstest.Write(t, f.files.Key, key)
	f.Reload()
	f.log.expect(t, "those before stay in use", "private key does not match public key")
	is("third")

	want := `
# HELP quorate_certificate_reloads_total How often changed certificates were loaded. Those that failed left the ones before in use; the log says why.
# TYPE quorate_certificate_reloads_total counter
quorate_certificate_reloads_total{result="failed",role="peer"} 3
quorate_certificate_reloads_total{result="ok",role="peer"} 2
`
	if err := testutil.CollectAndCompare(f, strings.NewReader(want), metricReloads); err != nil {
		t.Error(err)
	}
}

func TestFirstLoadFails(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files Files
		load  func() (Configs, error)
		want  string
	}{
		{"load", Files{}, func() (Configs, error) { return Configs{}, errors.New("no way") }, "no way"},
		{"authority without a certificate", Files{CA: os.DevNull}, func() (Configs, error) { return Configs{}, nil }, "no certificate in PEM form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := New(Options{Files: tt.files, Load: tt.load}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("New = %v, want %q", err, tt.want)
			}
		})
	}
}

// Without any files there is nothing to look at, and nothing to listen with.
func TestNoFiles(t *testing.T) {
	s, err := New(Options{Role: "client", Load: func() (Configs, error) { return Configs{Dial: &tls.Config{}}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	s.Poll()
	s.Poll()
	s.Reload()
	if s.Server() != nil || s.Dial() == nil {
		t.Errorf("configurations are %v, %v", s.Server(), s.Dial())
	}
}

func TestEnds(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	f := newFixture(t, func(_ *fixture, o *Options) { o.now = func() time.Time { return now } })
	f.log.silent(t)
	f.writePair(f.ca.Pair(t, "short", 20*day+time.Hour))
	f.Reload()
	f.log.expect(t, "certificate ends soon", "file="+f.files.Cert, "days=20")
	for range 5 {
		f.Poll()
	}
	f.log.silent(t) // once a day
	now = now.Add(day)
	f.Poll()
	f.log.expect(t, "certificate ends soon", "days=19")
	now = now.Add(30 * day)
	f.Poll()
	f.log.expect(t, "[ERROR]", "certificate has ended, others refuse it", "file="+f.files.Cert)
	f.Poll()
	f.log.silent(t)
	f.writePair(f.ca.Pair(t, "long", certstest.Year))
	f.Reload()
	f.log.expect(t, "certificates loaded")
	f.log.silent(t)

	// Of several authorities the last counts; of a chain, the first that ends.
	oldPEM, _ := f.ca.Pair(t, "old", day)
	certstest.Write(t, f.files.CA, append(oldPEM[:len(oldPEM):len(oldPEM)], f.ca.PEM...))
	certPEM, keyPEM := f.ca.Pair(t, "chain", certstest.Year)
	f.writePair(append(certPEM, oldPEM...), keyPEM)
	f.Reload()
	f.log.expect(t, "certificate has ended", "file="+f.files.Cert)
	f.log.silent(t)

	registry := prometheus.NewRegistry()
	other := newFixture(t, func(_ *fixture, o *Options) { o.Role = "client" })
	if err := errors.Join(registry.Register(f), registry.Register(other)); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		if family.GetName() != metricExpires {
			continue
		}
		for _, m := range family.GetMetric() {
			found[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
		}
	}
	if got, want := found[f.files.CA], float64(f.ca.Cert.NotAfter.Unix()); got != want {
		t.Errorf("%s of the authorities is %f, want %f", metricExpires, got, want)
	}
	if len(found) != 4 {
		t.Errorf("%s is there for %v, want 4 files", metricExpires, found)
	}
}

// A self-signed pair that has ended is made anew while the server runs.
func TestRenews(t *testing.T) {
	now := time.Now()
	f := newFixture(t, func(f *fixture, o *Options) {
		o.Renews = true
		o.now = func() time.Time { return now }
		o.Load = func() (Configs, error) {
			configs, err := f.load()
			if err == nil && !now.Before(configs.Server.Certificates[0].Leaf.NotAfter) {
				f.writePair(f.ca.Pair(t, "renewed", 2*certstest.Year))
				return f.load()
			}
			return configs, err
		}
	})
	f.Poll()
	if got := f.name(); got != "first" {
		t.Errorf("%q is in use", got)
	}
	now = now.Add(366 * 24 * time.Hour)
	f.Poll()
	if got := f.name(); got != "renewed" {
		t.Errorf("%q is in use, want renewed", got)
	}
	f.log.expect(t, "certificates loaded")
	f.Poll()
	f.Poll()
	f.log.silent(t)
}
