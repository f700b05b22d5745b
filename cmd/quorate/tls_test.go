package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/certs/certstest"
)

// Wrong certificates end the start before the member has joined, or made, anything (spec config 6).
func TestTLSRefusals(t *testing.T) {
	ca := certstest.NewAuthority(t, "authority")
	good, other := certstest.In(filepath.Join(t.TempDir(), "good")), certstest.In(filepath.Join(t.TempDir(), "other"))
	for _, f := range []certstest.Files{good, other} {
		f.WriteCA(t, ca)
		f.Sign(t, ca, "x", certstest.Year)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	certstest.Write(t, empty, nil)
	const clientURL, peerURL = "https://127.0.0.1:0", "https://127.0.0.1:0"
	pair := []string{"--cert-file", good.Cert, "--key-file", good.Key}
	peerPair := []string{"--peer-cert-file", good.Cert, "--peer-key-file", good.Key}
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"https without files", []string{"--listen-client-urls", clientURL}, "TLS key/cert (--cert-file, --key-file) must be provided for client url " + clientURL + " with HTTPS scheme"},
		{"https for members without files", []string{"--listen-peer-urls", peerURL}, "TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer url " + peerURL + " with HTTPS scheme"},
		{"certificate alone", []string{"--cert-file", good.Cert}, "KeyFile and CertFile must both be present[key: , cert: " + good.Cert + "]"},
		{"key alone", []string{"--peer-key-file", good.Key}, "KeyFile and CertFile must both be present[key: " + good.Key + ", cert: ]"},
		{"missing", []string{"--cert-file", "nope.crt", "--key-file", "nope.key", "--listen-client-urls", clientURL}, "open nope.crt: no such file or directory"},
		{"not a pair", []string{"--peer-cert-file", good.Cert, "--peer-key-file", other.Key, "--listen-peer-urls", peerURL}, "tls: private key does not match public key"},
		{"no certificate in it", []string{"--cert-file", empty, "--key-file", good.Key}, "tls: failed to find any PEM data in certificate input"},
		{"authority missing", append([]string{"--client-cert-auth", "--trusted-ca-file", "nope.crt"}, pair...), "open nope.crt: no such file or directory"},
		{"authority empty", append([]string{"--peer-client-cert-auth", "--peer-trusted-ca-file", empty}, peerPair...), empty + ": no certificate in PEM form"},
		{"no authority", append([]string{"--client-cert-auth"}, pair...), "--client-cert-auth needs --trusted-ca-file"},
		{"no authority for members", append([]string{"--peer-client-cert-auth"}, peerPair...), "--peer-client-cert-auth needs --peer-trusted-ca-file"},
		{"unknown suite", append([]string{"--cipher-suites", "TLS_NONSENSE"}, pair...), `unexpected TLS cipher suite`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "m")
			var stderr bytes.Buffer
			args := append(serveArgs(dir, "--log-format", "text"), tt.args...)
			if code := run(t.Context(), args, nil, io.Discard, &stderr); code != 1 || !strings.Contains(stderr.String(), tt.want) {
				t.Errorf("exit status %d, want 1\n%swant %q", code, &stderr, tt.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "member")); err == nil {
				t.Error("the member has made its directory before")
			}
		})
	}
}

// tlsClient makes a client that speaks HTTP/2 where it can.
func tlsClient(t *testing.T, config *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: deadline}
}

// ask asks until the answer has the status.
func ask(t *testing.T, client *http.Client, method, url, form string, status int) (*http.Response, string) {
	t.Helper()
	for end := time.Now().Add(deadline); ; {
		req, err := http.NewRequest(method, url, strings.NewReader(form))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		var body []byte
		if err == nil {
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if err == nil && resp.StatusCode == status {
				return resp, string(body)
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s %s = %s, %v, want %d", method, url, body, err, status)
		}
		time.Sleep(20 * time.Millisecond) // between two questions; the answer decides
	}
}

// tlsArgs is a command line for a member whose URLs are https.
func tlsArgs(dir string, more ...string) []string {
	return append([]string{
		"serve", "--data-dir", dir, "--log-format", "json",
		"--listen-client-urls", "https://127.0.0.1:0", "--advertise-client-urls", "https://127.0.0.1:1",
		"--listen-peer-urls", "https://127.0.0.1:0", "--initial-advertise-peer-urls", "https://localhost:2380",
	}, more...)
}

// TestAutoTLS starts a member that makes its own certificates, twice.
func TestAutoTLS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	args := tlsArgs(dir, "--auto-tls", "--peer-auto-tls")
	client := tlsClient(t, &tls.Config{InsecureSkipVerify: true})
	var shown []byte
	for _, start1st := range []bool{true, false} {
		m := start(t, args...)
		status := http.StatusOK
		if start1st {
			status = http.StatusCreated
		}
		resp, _ := ask(t, client, "PUT", "https://"+m.address+"/v2/keys/x", "value=1", status)
		cert := resp.TLS.PeerCertificates[0]
		if len(cert.IPAddresses) != 1 || cert.IPAddresses[0].String() != "127.0.0.1" || len(cert.Subject.Organization) != 1 || cert.Subject.Organization[0] != "etcd" {
			t.Errorf("the certificate is for %v %v", cert.Subject, cert.IPAddresses)
		}
		if !start1st && !bytes.Equal(cert.Raw, shown) {
			t.Error("the certificate is not that of the first start")
		}
		shown = cert.Raw
		client.CloseIdleConnections()
		m.stop()
		<-m.code
	}
	for _, role := range []string{"client", "peer"} {
		for _, name := range []string{"cert.pem", "key.pem"} {
			content, err := os.ReadFile(filepath.Join(dir, "fixtures", role, name))
			if block, _ := pem.Decode(content); err != nil || block == nil {
				t.Errorf("fixtures/%s/%s: %v", role, name, err)
			}
		}
	}
}

// TestClientCertificates demands certificates of clients, and replaces the server's while it runs.
func TestClientCertificates(t *testing.T) {
	ca := certstest.NewAuthority(t, "authority")
	files := certstest.In(t.TempDir())
	files.WriteCA(t, ca)
	files.Sign(t, ca, "first", certstest.Year)
	m := start(t, tlsArgs(filepath.Join(t.TempDir(), "m"), "--event-history", "1000",
		"--cert-file", files.Cert, "--key-file", files.Key, "--trusted-ca-file", files.CA, "--client-cert-auth",
		"--peer-cert-file", files.Cert, "--peer-key-file", files.Key, "--peer-trusted-ca-file", files.CA, "--peer-client-cert-auth")...)
	url := "https://" + m.address
	stranger := tlsClient(t, &tls.Config{RootCAs: ca.Pool()})
	config := &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Certificate(t, "client", certstest.Year)}}
	client := tlsClient(t, config)

	resp, _ := ask(t, client, "PUT", url+"/v2/keys/x", "value=1", http.StatusCreated)
	if resp.ProtoMajor != 2 {
		t.Errorf("clients are answered with %s, want HTTP/2", resp.Proto)
	}
	for _, u := range []string{url + "/v2/keys/x", "https://" + m.peer + "/members"} {
		if resp, err := stranger.Get(u); err == nil {
			resp.Body.Close()
			t.Errorf("GET %s without a certificate: %s", u, resp.Status)
		}
	}
	if resp, _ := ask(t, client, "GET", "https://"+m.peer+"/members", "", http.StatusOK); resp.ProtoMajor != 1 {
		t.Errorf("members are answered with %s, want HTTP/1.1: it can be upgraded", resp.Proto)
	}
	if resp, body := ask(t, http.DefaultClient, "GET", "http://"+m.address+"/v2/keys/x", "", http.StatusBadRequest); !strings.Contains(body, "Client sent an HTTP request to an HTTPS server.") {
		t.Errorf("plain HTTP is answered %s %q", resp.Status, body)
	}

	// A stream over HTTP/2 lives on while the certificates change.
	req, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v2/keys/x?wait=true&stream=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := (&http.Client{Transport: client.Transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	events := bufio.NewReader(stream.Body)
	ask(t, client, "PUT", url+"/v2/keys/y", "value=1", http.StatusCreated)
	for _, name := range []string{"second", "third"} {
		files.Sign(t, ca, name, certstest.Year)
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(deadline); ; {
			fresh := tlsClient(t, config)
			resp, _ := ask(t, fresh, "PUT", url+"/v2/keys/y", "value="+name, http.StatusOK)
			fresh.CloseIdleConnections()
			if resp.TLS.PeerCertificates[0].Subject.CommonName == name {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("the certificate %s is not used", name)
			}
		}
		ask(t, client, "PUT", url+"/v2/keys/x", "value="+name, http.StatusOK)
		line, err := events.ReadString('\n')
		if err != nil || !strings.Contains(line, `"value":"`+name+`"`) {
			t.Fatalf("the stream has %q, %v, want the value %s", line, err, name)
		}
	}

	_, metrics := ask(t, client, "GET", url+"/metrics", "", http.StatusOK)
	for _, want := range []string{
		`quorate_certificate_expires_seconds{file="` + files.Cert + `",role="client"} `,
		`quorate_certificate_expires_seconds{file="` + files.CA + `",role="peer"} `,
		`quorate_certificate_reloads_total{result="ok",role="peer"} `,
		`quorate_tls_handshake_failures_total{role="peer"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// The list of suites counts for TLS 1.2. HTTP/2, which demands suites that may not be in it, is left out.
func TestCipherSuites(t *testing.T) {
	ca := certstest.NewAuthority(t, "authority")
	files := certstest.In(t.TempDir())
	files.Sign(t, ca, "x", certstest.Year)
	m := start(t, tlsArgs(filepath.Join(t.TempDir(), "m"), "--peer-auto-tls",
		"--cert-file", files.Cert, "--key-file", files.Key, "--cipher-suites", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")...)
	config := &tls.Config{RootCAs: ca.Pool(), MaxVersion: tls.VersionTLS12}
	resp, _ := ask(t, tlsClient(t, config), "PUT", "https://"+m.address+"/v2/keys/x", "value=1", http.StatusCreated)
	if resp.TLS.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 || resp.ProtoMajor != 1 {
		t.Errorf("answered with %s over %s", resp.Proto, tls.CipherSuiteName(resp.TLS.CipherSuite))
	}
	config = config.Clone()
	config.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}
	if resp, err := tlsClient(t, config).Get("https://" + m.address + "/version"); err == nil {
		resp.Body.Close()
		t.Error("another suite is accepted")
	}
}
