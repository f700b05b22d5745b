package configs

import (
	"crypto/tls"
	"fmt"
)

// TLS is the material of one side, clients or peers (spec config 6). Files are PEM; keys are not
// encrypted. They are read once, at start.
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
