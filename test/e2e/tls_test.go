//go:build linux

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/quorate/quorate/internal/certs/certstest"
	"github.com/quorate/quorate/internal/cluster"
	"github.com/quorate/quorate/test/conformance"
)

// secureCluster is a cluster whose members speak TLS to each other, with certificates of one authority on both
// sides. Clients have an https URL that demands certificates, and the plain one that the harness uses.
type secureCluster struct {
	*cluster.Cluster
	peers, clients *certstest.Authority
	peerFiles      map[*cluster.Member]certstest.Files
	clientFiles    map[*cluster.Member]certstest.Files
	url            map[*cluster.Member]string // the https URL
}

// newSecureCluster makes a cluster and starts nothing.
func newSecureCluster(t *testing.T, size int, flags ...string) *secureCluster {
	t.Helper()
	c := &secureCluster{
		Cluster:     cluster.New(t, cluster.Options{Kind: kind(), Size: size, Flags: flags}),
		peers:       certstest.NewAuthority(t, "peers"),
		clients:     certstest.NewAuthority(t, "clients"),
		peerFiles:   map[*cluster.Member]certstest.Files{},
		clientFiles: map[*cluster.Member]certstest.Files{},
		url:         map[*cluster.Member]string{},
	}
	for _, m := range c.Members {
		m.PeerURL = strings.Replace(m.PeerURL, "http://", "https://", 1)
	}
	for _, m := range c.Members {
		m.Boot = []string{"--initial-cluster", c.InitialCluster(), "--initial-cluster-state", "new"}
		c.secure(t, m)
	}
	return c
}

// secure gives a member certificates and an https URL.
func (c *secureCluster) secure(t *testing.T, m *cluster.Member) {
	t.Helper()
	host := hostOf(t, m)
	peer, client := certstest.In(filepath.Join(c.Dir(), m.Name+".peer")), certstest.In(filepath.Join(c.Dir(), m.Name+".client"))
	peer.WriteCA(t, c.peers)
	peer.Sign(t, c.peers, m.Name, certstest.Year, host)
	client.WriteCA(t, c.clients)
	client.Sign(t, c.clients, m.Name, certstest.Year, host)
	c.peerFiles[m], c.clientFiles[m] = peer, client
	// The address is the member's alone, so the kernel gives this port to nobody else.
	l, err := net.Listen("tcp", host+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c.url[m] = "https://" + l.Addr().String()
	m.Flags = []string{
		"--peer-cert-file", peer.Cert, "--peer-key-file", peer.Key, "--peer-trusted-ca-file", peer.CA, "--peer-client-cert-auth",
		"--cert-file", client.Cert, "--key-file", client.Key, "--trusted-ca-file", client.CA, "--client-cert-auth",
		"--listen-client-urls", m.ClientURL + "," + c.url[m], "--advertise-client-urls", m.ClientURL + "," + c.url[m],
	}
}

func hostOf(t *testing.T, m *cluster.Member) string {
	t.Helper()
	u, err := url.Parse(m.PeerURL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Hostname()
}

// clientTLS is what a client with a certificate uses.
func (c *secureCluster) clientTLS(t *testing.T) *tls.Config {
	t.Helper()
	return &tls.Config{RootCAs: c.clients.Pool(), Certificates: []tls.Certificate{c.clients.Certificate(t, "client", certstest.Year)}}
}

// get asks one URL over TLS.
func get(t *testing.T, config *tls.Config, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(limit(t), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// rotate changes files of all members, tells them so, and waits until they have understood.
func (c *secureCluster) rotate(t *testing.T, change func(*cluster.Member)) {
	t.Helper()
	for _, m := range c.Members {
		loaded := strings.Count(m.Log(), "certificates loaded")
		change(m)
		m.Signal(syscall.SIGHUP)
		cluster.Eventually(t, m.Name+" to load its certificates", func(context.Context) error {
			if strings.Count(m.Log(), "certificates loaded") < loaded+2 { // those for clients, and for peers
				return fmt.Errorf("its log does not say so yet")
			}
			return nil
		})
	}
}

// TestTLSCluster runs three members with TLS, loses one, and replaces all certificates and their authority while
// clients write.
func TestTLSCluster(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "certificates are read once")
	c := newSecureCluster(t, 3)
	c.StartAll()
	c.WaitReady()
	config := c.clientTLS(t)
	l := startLoad(t, c.Cluster, "/load")
	l.progress(20)
	for _, m := range c.Members {
		if body, err := get(t, config, c.url[m]+"/health"); err != nil || body != `{"health":"true"}` {
			t.Errorf("GET %s/health: %s, %v", c.url[m], body, err)
		}
		if body, err := get(t, &tls.Config{RootCAs: c.clients.Pool()}, c.url[m]+"/health"); err == nil {
			t.Errorf("%s answers a client without a certificate: %s", m.Name, body)
		}
		if body, err := get(t, config, m.PeerURL+"/members"); err == nil {
			t.Errorf("%s answers a client of clients where members speak: %s", m.Name, body)
		}
		m.WaitLog("TLS handshake failed")
	}

	next := certstest.NewAuthority(t, "next")
	c.rotate(t, func(m *cluster.Member) { c.peerFiles[m].WriteCA(t, c.peers, next) })
	c.rotate(t, func(m *cluster.Member) { c.peerFiles[m].Sign(t, next, m.Name, certstest.Year, hostOf(t, m)) })
	c.rotate(t, func(m *cluster.Member) { c.peerFiles[m].WriteCA(t, next) })
	l.progress(20)
	// Whoever comes back has to make new connections, with the new certificates, to members that run on.
	for _, m := range c.Members {
		m.Restart()
		l.progress(20)
	}
	l.verify(c.Cluster)
}

// TestForeignPeer starts a member with a certificate that the others do not accept, and gives it a good one later.
func TestForeignPeer(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "certificates are read once")
	tests := []struct {
		name string
		bad  func(c *secureCluster, m *cluster.Member)
		log  string
	}{
		{"foreign", func(c *secureCluster, m *cluster.Member) {
			stranger := certstest.NewAuthority(t, "stranger")
			c.peerFiles[m].Sign(t, stranger, m.Name, certstest.Year, hostOf(t, m))
		}, "unknown authority"},
		{"ended", func(c *secureCluster, m *cluster.Member) {
			c.peerFiles[m].Sign(t, c.peers, m.Name, -certstest.Year/365, hostOf(t, m))
		}, "certificate has expired"},
	}
	if !long {
		tests = tests[:1]
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newSecureCluster(t, 3)
			bad := c.Members[2]
			tt.bad(c, bad)
			c.StartAll()
			c.WaitReady(c.Members[:2]...)
			mustPut(t, c.Members[0], "/x", "1")
			for _, m := range c.Members[:2] {
				m.WaitLog(tt.log)
			}
			if n := strings.Count(c.Members[0].Log(), "TLS handshake failed"); n > 20 {
				t.Errorf("%s says so %d times", c.Members[0].Name, n)
			}
			c.peerFiles[bad].Sign(t, c.peers, bad.Name, certstest.Year, hostOf(t, bad)) // noticed without a signal
			c.WaitReady()
			wantValue(t, bad, "/x", "1")
		})
	}
}

// TestAutoTLSCluster runs members that make their own certificates, and starts them again.
func TestAutoTLSCluster(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, cluster.Options{Kind: kind(), Size: 3, Flags: []string{"--peer-auto-tls"}})
	for _, m := range c.Members {
		m.PeerURL = strings.Replace(m.PeerURL, "http://", "https://", 1)
	}
	for _, m := range c.Members {
		m.Boot = []string{"--initial-cluster", c.InitialCluster(), "--initial-cluster-state", "new"}
	}
	c.StartAll()
	c.WaitReady()
	mustPut(t, c.Members[0], "/x", "1")
	c.StopAll()
	c.StartAll()
	c.WaitReady()
	wantValue(t, c.Members[1], "/x", "1")
	if log := c.Members[0].Log(); strings.Contains(log, "found invalid file/dir") {
		t.Errorf("a member wonders about its own files:\n%s", log)
	}
}

// TestTLSProxy has a proxy before a cluster that demands certificates, of peers and of clients.
func TestTLSProxy(t *testing.T) {
	t.Parallel()
	quorateOnly(t, "3.4 ends the proxy's own TLS differently")
	c := newSecureCluster(t, 1)
	m := c.Members[0]
	// Only https is advertised, and what clients show is the peer certificate.
	c.clientFiles[m].WriteCA(t, c.clients, c.peers)
	c.clientFiles[m].Sign(t, c.peers, m.Name, certstest.Year, hostOf(t, m))
	m.Start("--advertise-client-urls", c.url[m])
	c.WaitReady()

	p := c.Join("proxy")
	c.Forget(p)
	c.secure(t, p)
	p.StartArgs(append([]string{"--proxy", "on", "--data-dir", p.DataDir, "--initial-cluster", "m0=" + m.PeerURL}, p.Flags...)...)
	config := c.clientTLS(t)
	cluster.Eventually(t, "an answer through the proxy", func(context.Context) error {
		body, err := get(t, config, c.url[p]+"/health")
		if err == nil && body != `{"health":"true"}` {
			err = fmt.Errorf("/health: %s", body)
		}
		return err
	})
	if body, err := get(t, &tls.Config{RootCAs: c.clients.Pool()}, c.url[p]+"/health"); err == nil {
		t.Errorf("the proxy answers a client without a certificate: %s", body)
	}
}

// TestConformanceOverTLS replays what a real etcd answered, over TLS with a client's certificate. A part of the
// corpus is enough for that; the long rounds have all of it.
func TestConformanceOverTLS(t *testing.T) {
	t.Parallel()
	conformance.Dir(t) // skips the test where the corpus is missing
	c := newSecureCluster(t, 1, historyFlags()...)
	c.StartAll()
	c.WaitReady()
	m := c.Members[0]
	args := conformance.SkipBetter
	if !long {
		args = slices.Concat(args, []string{"set-get.json", "post-inorder.json", "watch.json", "large-values.json", "head-options.json"})
	}
	conformance.Replay(t, tunnel(t, strings.TrimPrefix(c.url[m], "https://"), c.clientTLS(t)), args...)
}

// tunnel listens for plain connections and carries each over TLS to an address. It returns its URL.
func tunnel(t *testing.T, to string, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{} // guarded by mu
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		work.Wait()
	})
	carry := func(plain net.Conn) {
		defer plain.Close()
		secure, err := tls.Dial("tcp", to, config)
		if err != nil {
			t.Errorf("tunnel: %v", err)
			return
		}
		defer secure.Close()
		mu.Lock()
		open[plain] = true
		mu.Unlock()
		defer func() {
			mu.Lock()
			delete(open, plain)
			mu.Unlock()
		}()
		var up sync.WaitGroup
		up.Go(func() {
			_, _ = io.Copy(secure, bufio.NewReader(plain))
			_ = secure.CloseWrite()
		})
		_, _ = io.Copy(plain, secure)
		plain.Close()
		up.Wait()
	}
	work.Go(func() {
		for {
			plain, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { carry(plain) })
		}
	})
	return "http://" + l.Addr().String()
}
