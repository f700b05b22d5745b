// Package nameserver is a DNS server for tests. It asks nobody else.
package nameserver

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Serve answers at a UDP address, until the test ends, with these records, in the text form of zone files. Other
// names do not exist; those in failing are answered SERVFAIL. It returns the address with its port.
func Serve(t *testing.T, address string, records []string, failing ...string) net.Addr {
	t.Helper()
	byName := map[string][]dns.RR{}
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		byName[rr.Header().Name] = append(byName[rr.Header().Name], rr)
	}
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	started, stopped := make(chan struct{}), make(chan error, 1)
	server := &dns.Server{
		PacketConn:        conn,
		NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			answer := new(dns.Msg)
			answer.SetReply(q)
			answer.Authoritative = true
			name := strings.ToLower(q.Question[0].Name)
			rrs, exists := byName[name]
			switch {
			case slices.Contains(failing, name):
				answer.Rcode = dns.RcodeServerFailure
			case !exists:
				answer.Rcode = dns.RcodeNameError
			}
			for _, rr := range rrs {
				if rr.Header().Rrtype == q.Question[0].Qtype {
					answer.Answer = append(answer.Answer, rr)
				}
			}
			_ = w.WriteMsg(answer) // a question without an answer is asked again
		}),
	}
	go func() { stopped <- server.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-stopped:
		t.Fatalf("serve DNS at %s: %v", address, err)
	}
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-stopped
	})
	return conn.LocalAddr()
}
