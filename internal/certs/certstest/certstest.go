// Package certstest makes certificates for tests.
package certstest

import (
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
	"testing"
	"time"
)

// Year is longer than any warning about the end of a certificate.
const Year = 365 * 24 * time.Hour

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  []byte
	key  *ecdsa.PrivateKey
}

// NewAuthority makes an authority that lives for ten years.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{}
	certPEM, keyPEM := a.sign(t, &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * Year),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	a.Cert, a.key, a.PEM = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey), certPEM
	return a
}

// Pool returns the authority as what to trust.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return pool
}

// Pair makes a key, and a certificate that may be shown by both sides. It ends after life, which may
// be negative. With no hosts it is for 127.0.0.1.
func (a *Authority) Pair(t testing.TB, name string, life time.Duration, hosts ...string) (certPEM, keyPEM []byte) {
	t.Helper()
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour + min(life, 0)), NotAfter: time.Now().Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if len(hosts) == 0 {
		hosts = []string{"127.0.0.1"}
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return a.sign(t, template)
}

// Certificate is Pair, to be used at once.
func (a *Authority) Certificate(t testing.TB, name string, life time.Duration, hosts ...string) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(a.Pair(t, name, life, hosts...))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// sign makes a key and signs its certificate: the first with the key itself.
func (a *Authority) sign(t testing.TB, template *x509.Certificate) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		t.Fatal(err)
	}
	parent, signer := a.Cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// Files are the names of cert.pem, key.pem and ca.pem in a directory.
type Files struct{ Cert, Key, CA string }

// In returns the names of files in dir.
func In(dir string) Files {
	return Files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")}
}

// WritePair writes what Pair returns.
func (f Files) WritePair(t testing.TB, certPEM, keyPEM []byte) {
	t.Helper()
	Write(t, f.Cert, certPEM)
	Write(t, f.Key, keyPEM)
}

// Sign writes a pair that a signs.
func (f Files) Sign(t testing.TB, a *Authority, name string, life time.Duration, hosts ...string) {
	t.Helper()
	certPEM, keyPEM := a.Pair(t, name, life, hosts...)
	f.WritePair(t, certPEM, keyPEM)
}

// WriteCA writes the authorities to trust.
func (f Files) WriteCA(t testing.TB, authorities ...*Authority) {
	t.Helper()
	var all []byte
	for _, a := range authorities {
		all = append(all, a.PEM...)
	}
	Write(t, f.CA, all)
}

// Write writes one file.
func Write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
