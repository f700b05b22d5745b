package configs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority signs certificates into a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	})
	return a
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// sign writes name.crt and name.key; the authority's own certificate is the first it signs.
func (a *authority) sign(name string, template *x509.Certificate) (*x509.Certificate, crypto.Signer) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, crypto.Signer(key)
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// leaf signs a certificate for 127.0.0.1 that can serve and dial.
func (a *authority) leaf(name string, serial int64) {
	a.sign(name, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{name + ".example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
}

func (a *authority) pair(name string) TLS {
	return TLS{CertFile: a.path(name + ".crt"), KeyFile: a.path(name + ".key"), TrustedCAFile: a.path("ca.crt")}
}

// handshake connects the two sides and returns what each found.
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer raw.Close()
		raw.SetDeadline(time.Now().Add(30 * time.Second))
		conn := tls.Server(raw, server)
		err = conn.Handshake()
		if err == nil {
			_, err = conn.Write([]byte("x"))
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(30 * time.Second))
	client = client.Clone()
	client.ServerName = "127.0.0.1"
	conn := tls.Client(raw, client)
	// With TLS 1.3 a client learns of a refusal only when it reads.
	_, clientErr = conn.Read(make([]byte, 1))
	raw.Close()
	return <-done, clientErr
}

func TestTLSHandshakes(t *testing.T) {
	ca, other := newAuthority(t, "ca"), newAuthority(t, "ca")
	ca.leaf("server", 10)
	ca.leaf("good", 11)
	ca.leaf("revoked", 12)
	other.leaf("foreign", 13)
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(12), RevocationTime: time.Now()}},
	}, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	ca.write("crl.pem", "X509 CRL", crl)

	server := ca.pair("server")
	demand := func(change func(*TLS)) TLS {
		s := server
		s.ClientCertAuth = true
		if change != nil {
			change(&s)
		}
		return s
	}
	foreign := other.pair("foreign")
	foreign.TrustedCAFile = ca.path("ca.crt")
	none := TLS{TrustedCAFile: ca.path("ca.crt")}

	tests := []struct {
		name   string
		server TLS
		client TLS
		ok     bool
	}{
		{"no certificate demanded", server, none, true},
		{"a foreign certificate is not looked at when none is demanded", server, foreign, true},
		{"the client does not trust the server", server, TLS{TrustedCAFile: other.path("ca.crt")}, false},
		{"demanded and shown", demand(nil), ca.pair("good"), true},
		{"demanded and missing", demand(nil), none, false},
		{"demanded and foreign", demand(nil), foreign, false},
		{"not revoked", demand(func(s *TLS) { s.CRLFile = ca.path("crl.pem") }), ca.pair("good"), true},
		{"revoked", demand(func(s *TLS) { s.CRLFile = ca.path("crl.pem") }), ca.pair("revoked"), false},
		{"common name allowed", demand(func(s *TLS) { s.AllowedCN = "good" }), ca.pair("good"), true},
		{"common name not allowed", demand(func(s *TLS) { s.AllowedCN = "good" }), ca.pair("revoked"), false},
		{"host name allowed", demand(func(s *TLS) { s.AllowedHostname = "good.example" }), ca.pair("good"), true},
		{"host name not allowed", demand(func(s *TLS) { s.AllowedHostname = "good.example" }), ca.pair("revoked"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sc, err := tt.server.ServerConfig("", nil, ClientProtocols)
			if err != nil {
				t.Fatal(err)
			}
			cc, err := tt.client.DialConfig("", nil)
			if err != nil {
				t.Fatal(err)
			}
			serverErr, clientErr := handshake(t, sc, cc)
			if ok := serverErr == nil && clientErr == nil; ok != tt.ok {
				t.Errorf("server: %v, client: %v, want success %v", serverErr, clientErr, tt.ok)
			}
		})
	}
}

func TestAutoTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fixtures", "peer")
	listen := URLs{"https://127.0.0.1:1", "https://localhost:2"}
	auto := TLS{AutoTLS: true}
	first, err := auto.ServerConfig(dir, listen, PeerProtocols)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(first.Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.String() != "O=etcd" || cert.VerifyHostname("127.0.0.1") != nil || cert.VerifyHostname("localhost") != nil {
		t.Errorf("subject %s, addresses %v, names %v", cert.Subject, cert.IPAddresses, cert.DNSNames)
	}
	second, err := auto.ServerConfig(dir, listen, PeerProtocols)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.Certificates[0].Certificate[0]) != string(second.Certificates[0].Certificate[0]) {
		t.Error("the second start made another certificate")
	}
	dial, err := auto.DialConfig(dir, listen)
	if err != nil {
		t.Fatal(err)
	}
	if serverErr, clientErr := handshake(t, first, dial); serverErr != nil || clientErr != nil {
		t.Errorf("server: %v, client: %v", serverErr, clientErr)
	}
	if info, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || info.Mode() != 0o600 {
		t.Errorf("key: %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auto.ServerConfig(dir, listen, PeerProtocols); err == nil {
		t.Error("a damaged pair was replaced without a word")
	}
}

func TestTLSFiles(t *testing.T) {
	ca := newAuthority(t, "ca")
	ca.leaf("a", 2)
	ca.leaf("b", 3)
	junk := ca.path("junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	mixed := ca.pair("a")
	mixed.KeyFile = ca.path("b.key")
	with := func(change func(*TLS)) TLS {
		s := ca.pair("a")
		change(&s)
		return s
	}
	tests := []struct {
		name string
		tls  TLS
		want string
	}{
		{"missing", TLS{CertFile: "nope.crt", KeyFile: "nope.key"}, "open nope.crt: no such file or directory"},
		{"wrong pair", mixed, "tls: private key does not match public key"},
		{"authority missing", with(func(s *TLS) { s.ClientCertAuth, s.TrustedCAFile = true, "nope.ca" }), "open nope.ca: no such file or directory"},
		{"authority unreadable", with(func(s *TLS) { s.ClientCertAuth, s.TrustedCAFile = true, junk }), "no certificate in PEM form"},
		{"revocations unreadable", with(func(s *TLS) { s.CRLFile = junk }), "x509: malformed crl"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.tls.ServerConfig("", nil, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ServerConfig = %v, want %s", err, tt.want)
			}
		})
	}
	if c, err := (TLS{TrustedCAFile: "nope"}).ServerConfig("", nil, nil); c != nil || err != nil {
		t.Errorf("without a certificate: %v, %v, want nothing", c, err)
	}
}
