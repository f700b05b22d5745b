package configs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
)

// TLS is the material of one side, clients or peers (spec config 6). Files are PEM; keys are not
// encrypted. Each call of ServerConfig and DialConfig reads them anew. Any holder of a certificate from the trusted authority
// is accepted; the names in it are not checked, unless AllowedCN or AllowedHostname is set.
type TLS struct {
	CertFile, KeyFile string
	// TrustedCAFile may hold several certificates, so that an authority can be replaced.
	TrustedCAFile string
	// ClientCertAuth demands a certificate signed by TrustedCAFile.
	ClientCertAuth bool
	// AutoTLS makes a self-signed pair where no CertFile is given.
	AutoTLS bool
	// CRLFile lists revoked certificates.
	CRLFile string
	// AllowedCN and AllowedHostname narrow which certificates of the authority are accepted.
	AllowedCN, AllowedHostname string
	// CipherSuites are Go's names of TLS 1.2 suites. Empty means Go's choice.
	CipherSuites []string
}

// Empty reports whether there is no certificate to listen with.
func (t TLS) Empty() bool { return t.CertFile == "" && t.KeyFile == "" && !t.AutoTLS }

// Protocols that a listener may offer. HTTP/2 is for clients only: members upgrade connections.
var (
	ClientProtocols = []string{"h2", "http/1.1"}
	PeerProtocols   = []string{"http/1.1"}
)

// ServerConfig reads the files and returns what listeners need; nil when there is no certificate.
// With AutoTLS the self-signed pair is kept in dir, and is valid for the hosts that are listened on.
func (t TLS) ServerConfig(dir string, listen URLs, protocols []string) (*tls.Config, error) {
	if t.Empty() {
		return nil, nil
	}
	cert, err := t.certificate(dir, listen)
	if err != nil {
		return nil, err
	}
	suites, err := t.suites()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: suites,
		NextProtos:   protocols,
	}
	if t.ClientCertAuth {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = authorities(t.TrustedCAFile); err != nil {
			return nil, err
		}
	}
	config.VerifyConnection, err = t.verifier()
	return config, err
}

// DialConfig returns what a member or proxy needs to reach https peers: it trusts TrustedCAFile, or
// the system's authorities, and shows its own certificate. With AutoTLS and no authority nothing is
// verified, as nothing could be.
func (t TLS) DialConfig(dir string, listen URLs) (*tls.Config, error) {
	suites, err := t.suites()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, CipherSuites: suites}
	if !t.Empty() {
		cert, err := t.certificate(dir, listen)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	}
	switch {
	case t.TrustedCAFile != "":
		if config.RootCAs, err = authorities(t.TrustedCAFile); err != nil {
			return nil, err
		}
	case t.AutoTLS && t.CertFile == "":
		config.InsecureSkipVerify = true
	}
	return config, nil
}

// certificate loads the pair, or the self-signed one.
func (t TLS) certificate(dir string, listen URLs) (tls.Certificate, error) {
	if t.CertFile == "" {
		return selfSigned(dir, listen)
	}
	return tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
}

// verifier returns the checks of a client's certificate beyond its signature, nil if there are none.
func (t TLS) verifier() (func(tls.ConnectionState) error, error) {
	var revoked []*big.Int
	if t.CRLFile != "" {
		list, err := revocations(t.CRLFile)
		if err != nil {
			return nil, err
		}
		revoked = list
	}
	if t.CRLFile == "" && t.AllowedCN == "" && t.AllowedHostname == "" {
		return nil, nil
	}
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			if t.ClientCertAuth {
				return errors.New("tls: client has no certificate")
			}
			return nil
		}
		cert := state.PeerCertificates[0]
		for _, serial := range revoked {
			if cert.SerialNumber.Cmp(serial) == 0 {
				return fmt.Errorf("tls: client certificate %v is revoked", serial)
			}
		}
		if t.AllowedCN != "" && cert.Subject.CommonName != t.AllowedCN {
			return fmt.Errorf("tls: client certificate has common name %q, not the one allowed", cert.Subject.CommonName)
		}
		if t.AllowedHostname != "" {
			return cert.VerifyHostname(t.AllowedHostname)
		}
		return nil
	}, nil
}

// authorities reads the certificates of a CA file.
func authorities(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s: no certificate in PEM form", file)
	}
	return pool, nil
}

// revocations reads the serial numbers of a revocation list, PEM or DER.
func revocations(file string) ([]*big.Int, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(data); block != nil {
		data = block.Bytes
	}
	list, err := x509.ParseRevocationList(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var serials []*big.Int
	for _, entry := range list.RevokedCertificateEntries {
		serials = append(serials, entry.SerialNumber)
	}
	return serials, nil
}

// suites translates the names of cipher suites.
func (t TLS) suites() ([]uint16, error) {
	var ids []uint16
	for _, name := range t.CipherSuites {
		id := uint16(0)
		for _, s := range tls.CipherSuites() {
			if s.Name == name {
				id = s.ID
			}
		}
		if id == 0 {
			return nil, fmt.Errorf("unexpected TLS cipher suite %q", name)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
