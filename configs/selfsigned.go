package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"time"

	"github.com/quorate/quorate/internal/durable"
)

// selfSignedLife is how long a pair of --auto-tls is valid; a new one is made after that.
const selfSignedLife = 365 * 24 * time.Hour

// SelfSignedFiles returns the names of the self-signed pair in dir.
func SelfSignedFiles(dir string) (certFile, keyFile string) {
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

// selfSigned returns the pair in dir, cert.pem and key.pem, and makes it when there is none that is
// still valid: organisation etcd, valid for the addresses of the listen URLs.
func selfSigned(dir string, listen URLs) (tls.Certificate, error) {
	certFile, keyFile := SelfSignedFiles(dir)
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	switch {
	case err == nil && time.Now().Before(cert.Leaf.NotAfter):
		return cert, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return cert, err
	}
	certPEM, keyPEM, err := newPair(listen)
	if err != nil {
		return cert, fmt.Errorf("make a self-signed certificate: %w", err)
	}
	if err := durable.Mkdir(dir, 0o700); err != nil {
		return cert, err
	}
	// The key goes first: a certificate without a key would be an error at the next start.
	if err := durable.WriteFile(keyFile, keyPEM, 0o600); err != nil {
		return cert, err
	}
	if err := durable.WriteFile(certFile, certPEM, 0o600); err != nil {
		return cert, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}

// newPair makes a key and a certificate that it signs itself.
func newPair(listen URLs) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"etcd"}},
		NotBefore:             time.Now().Add(-time.Minute), // clocks differ
		NotAfter:              time.Now().Add(selfSignedLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, u := range listen {
		_, host := hostOf(u)
		if ip := parseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}
