//go:build linux && partition

package partition

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quorate/quorate/internal/cluster"
)

// network is a cluster whose members can be cut off from each other. The test itself sits at the bridge
// between them and reaches all of them at all times.
type network struct {
	*cluster.Cluster
	t      *testing.T
	prefix string // of all names
	hosts  map[*cluster.Member]host
}

// host is where one member lives.
type host struct {
	namespace, address string
}

var networkCount atomic.Int32

// newNetwork starts a cluster of this many members, each in a namespace, and waits until it serves.
func newNetwork(t *testing.T, size int) *network {
	t.Helper()
	if unable != nil {
		t.Skip(unable)
	}
	number := int(networkCount.Add(1))
	n := &network{t: t, prefix: fmt.Sprintf("q%d-%d", os.Getpid(), number), hosts: map[*cluster.Member]host{}}
	bridge := fmt.Sprintf("qbr%d", number)
	n.must(feed(fmt.Sprintf("link add %s type bridge forward_delay 0\naddr add 10.77.%d.1/24 dev %s\nlink set %s up\n",
		bridge, number, bridge, bridge), "ip", "-batch", "-"))
	t.Cleanup(func() { n.must(command("ip", "link", "del", bridge)) })

	hosts := make([]host, size)
	for i := range hosts {
		hosts[i] = host{fmt.Sprintf("%s-m%d", n.prefix, i), fmt.Sprintf("10.77.%d.%d", number, 10+i)}
		ns, cable := hosts[i].namespace, fmt.Sprintf("qv%d-%d", number, i)
		n.must(command("ip", "netns", "add", ns))
		t.Cleanup(func() { n.must(command("ip", "netns", "del", ns)) }) // takes the cable with it
		n.must(feed(fmt.Sprintf("link add %s type veth peer name eth0 netns %s\nlink set %s master %s up\n",
			cable, ns, cable, bridge), "ip", "-batch", "-"))
		n.must(feed(fmt.Sprintf("addr add %s/24 dev eth0\nlink set eth0 up\nlink set lo up\n", hosts[i].address),
			"ip", "-n", ns, "-batch", "-"))
	}

	n.Cluster = cluster.New(t, cluster.Options{Size: size, Token: n.prefix})
	for i, m := range n.Members {
		n.hosts[m] = hosts[i]
		m.ClientURL, m.PeerURL = "http://"+hosts[i].address+":2379", "http://"+hosts[i].address+":2380"
		m.Wrap = []string{"ip", "netns", "exec", hosts[i].namespace}
	}
	for _, m := range n.Members {
		m.Boot = []string{"--initial-cluster", n.InitialCluster(), "--initial-cluster-token", n.prefix}
	}
	n.StartAll()
	n.WaitReady()
	return n
}

func (n *network) must(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// loss is a direction in which packets vanish.
type loss struct{ from, to *cluster.Member }

// between are both directions between every member of one side and every member of the other.
func between(one, other []*cluster.Member) []loss {
	return append(oneWay(one, other), oneWay(other, one)...)
}

// oneWay is the direction from every member of one side to every member of the other.
func oneWay(from, to []*cluster.Member) []loss {
	var losses []loss
	for _, f := range from {
		for _, t := range to {
			losses = append(losses, loss{f, t})
		}
	}
	return losses
}

// cut makes the network lose packets in these directions, from now on, where it lost none. Clients notice
// nothing of it.
func (n *network) cut(losses []loss) {
	n.t.Helper()
	rules := map[*cluster.Member]string{}
	for _, l := range losses {
		rules[l.to] += fmt.Sprintf("-A INPUT -s %s -j DROP\n", n.hosts[l.from].address)
	}
	n.filter(rules)
}

// heal takes all cuts back.
func (n *network) heal() {
	n.t.Helper()
	rules := map[*cluster.Member]string{}
	for _, m := range n.Members {
		rules[m] = ""
	}
	n.filter(rules)
}

// filter replaces the rules of these members, of all at about the same time.
func (n *network) filter(rules map[*cluster.Member]string) {
	n.t.Helper()
	errs := make(chan error, len(rules))
	var wg sync.WaitGroup
	for m, lines := range rules {
		wg.Go(func() {
			table := "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n" + lines + "COMMIT\n"
			errs <- feed(table, "ip", "netns", "exec", n.hosts[m].namespace, "iptables-restore", "-w")
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		n.must(err)
	}
}

// others are the members that are not in the list.
func (n *network) others(but []*cluster.Member) []*cluster.Member {
	return slices.DeleteFunc(slices.Clone(n.Members), func(m *cluster.Member) bool { return slices.Contains(but, m) })
}

func names(members []*cluster.Member) string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return strings.Join(out, "+")
}
