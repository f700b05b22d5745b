//go:build linux

package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
	"github.com/quorate/quorate/internal/nameserver"
	"github.com/quorate/quorate/internal/sandbox"
)

// TestDiscoveryBySRV forms a cluster of members that know nothing but a domain, whose SRV records a DNS server
// of the test's has, and finds it from the command line in the same way. The system's resolver must ask that
// server, so all of it has a network and an /etc/resolv.conf of its own.
func TestDiscoveryBySRV(t *testing.T) {
	quorateOnly(t, "the test looks into answers that it does not have")
	if !sandbox.Inside() {
		if err := sandbox.Available(); err != nil {
			t.Skip(err)
		}
		path, err := cluster.QuorateBinary()
		if err != nil {
			t.Fatal(err)
		}
		sandbox.Box{Name: "srv", Env: []string{"QUORATE_BINARY=" + path}}.Test(t)
		return
	}
	sandbox.Box{}.Test(t)

	c := cluster.New(t, cluster.Options{Size: 3, Names: []string{"a", "b", "c"}})
	var records []string
	for _, m := range c.Members {
		host := m.Name + ".example.org."
		peer, client := netip.MustParseAddrPort(strings.TrimPrefix(m.PeerURL, "http://")), netip.MustParseAddrPort(strings.TrimPrefix(m.ClientURL, "http://"))
		records = append(records,
			fmt.Sprintf("%s A %s", host, peer.Addr()),
			fmt.Sprintf("_etcd-server._tcp.example.org. SRV 0 0 %d %s", peer.Port(), host),
			fmt.Sprintf("_etcd-client._tcp.example.org. SRV 0 0 %d %s", client.Port(), host))
		m.Boot = []string{
			"--discovery-srv", "example.org",
			"--initial-advertise-peer-urls", "http://" + m.Name + ".example.org:" + strconv.Itoa(int(peer.Port())),
		}
	}
	serveDNS(t, records)
	c.StartAll()
	c.WaitReady()
	for _, m := range c.Members {
		mustPut(t, m, "/through/"+m.Name, "v")
	}
	c.WaitEqual()
	list, err := c.Members[0].MemberList(limit(t))
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, m := range list {
		urls = append(urls, m.PeerURLs...)
	}
	slices.Sort(urls)
	for i, m := range c.Members {
		if want := "http://" + m.Name + ".example.org:"; len(urls) != len(c.Members) || !strings.HasPrefix(urls[i], want) {
			t.Errorf("the members' peer URLs are %v, want one of each name in the records", urls)
		}
	}
	if out := mustOffline(t, "--discovery-srv", "example.org", "--insecure-discovery", "get", "/through/a"); strings.TrimSpace(out) != "v" {
		t.Errorf("get by SRV records prints %q, want v", out)
	}
}

// serveDNS makes the system's resolver know these records, in the form of zone files, and no others. Only for a
// sandbox.
func serveDNS(t *testing.T, records []string) {
	t.Helper()
	if _, err := os.Stat("/etc/resolv.conf"); err != nil {
		t.Skip(err) // nothing to mount another one over
	}
	nameserver.Serve(t, "127.0.0.1:53", records)
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount(file, "/etc/resolv.conf", "", syscall.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount("/etc/resolv.conf", 0); err != nil {
			t.Error(err)
		}
	})
}
