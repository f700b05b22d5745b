package discovery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTLS(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "1")
	store.put("/t/a", "a=http://h:1")
	server := httptest.NewUnstartedServer(store)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of the handshake that is to fail
	server.StartTLS()
	defer server.Close()
	address := server.URL + "/v2/keys/t"

	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	for name, o := range map[string]Options{
		"CA file":                 {URL: address, CAFile: ca},
		"TLS configuration":       {URL: address, TLS: &tls.Config{RootCAs: pool}},
		"CA file wins over TLS's": {URL: address, CAFile: ca, TLS: &tls.Config{RootCAs: x509.NewCertPool()}},
	} {
		if got, err := Lookup(context.Background(), o); err != nil || got != "a=http://h:1" {
			t.Errorf("Lookup with %s = %q, %v", name, got, err)
		}
	}

	// Without either, the system's authorities do not know the certificate.
	journal := newJournal()
	_, err := Lookup(context.Background(), Options{URL: address, Logger: journal,
		sleep: func(context.Context, time.Duration) error { return errStop }})
	if !errors.Is(err, errStop) || !strings.Contains(journal.lines()[0], "tls: failed to verify certificate") {
		t.Errorf("Lookup: %v, log %q", err, journal.lines()[0])
	}

	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Lookup(context.Background(), Options{URL: address, CAFile: empty}); err == nil || err.Error() != empty+": no certificate found" {
		t.Errorf("Lookup with an empty CA file: %v", err)
	}
}

// A service that is to be reached with TLS does not send us on without.
func TestNoRedirectFromTLSToPlain(t *testing.T) {
	store := newKeys()
	store.put("/t/_config/size", "1")
	plain := &recorder{next: store}
	target := serve(t, plain)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, target+r.URL.String(), http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	_, err := Join(context.Background(), Options{
		URL: server.URL + "/v2/keys/t", Name: "a", MemberID: 1, PeerURLs: []string{"http://h:1"}, TLS: &tls.Config{RootCAs: pool},
	})
	if err == nil || !strings.Contains(err.Error(), "from https to http") || len(plain.sequence()) > 0 {
		t.Errorf("Join: %v after the requests %q", err, plain.sequence())
	}
}
