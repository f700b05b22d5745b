package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/nameserver"
)

// zone starts a DNS server with these records, in the text form of zone files, and returns a resolver
// that asks nobody else. Other names do not exist; those in failing are answered SERVFAIL.
func zone(t *testing.T, records []string, failing ...string) *net.Resolver {
	t.Helper()
	address := nameserver.Serve(t, "127.0.0.1:0", records, failing...).String()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", address)
	}}
}

func TestSRV(t *testing.T) {
	hosts := []string{
		"n1.example.test. A 127.0.0.1",
		"n2.example.test. A 127.0.0.2",
		"n3.example.test. A 127.0.0.3",
		"n3.example.test. A 127.0.0.33",
	}
	plain := append([]string{
		"_etcd-server._tcp.example.test. SRV 9 1 23803 n3.example.test.",
		"_etcd-server._tcp.example.test. SRV 0 100 23800 n1.example.test.",
		"_etcd-server._tcp.example.test. SRV 0 1 23802 n2.example.test.",
	}, hosts...)
	ssl := append([]string{
		"_etcd-server-ssl._tcp.example.test. SRV 0 0 2380 n1.example.test.",
		"_etcd-server-ssl._tcp.example.test. SRV 0 0 2380 n2.example.test.",
	}, hosts...)
	const plainName, sslName = "_etcd-server._tcp.example.test.", "_etcd-server-ssl._tcp.example.test."

	tests := []struct {
		name    string
		records []string
		failing []string
		change  func(*SRVOptions)
		own     string
		want    string
		reason  error
		lines   []string
		logs    []string // parts that the log must have
	}{
		{name: "plain only", records: plain, own: "http://n1.example.test:23800",
			want: "me=http://n1.example.test:23800,0=http://n2.example.test:23802,1=http://n3.example.test:23803",
			logs: []string{
				"[INFO]  got bootstrap from DNS for etcd-server at http://n1.example.test:23800\n",
				"[INFO]  got bootstrap from DNS for etcd-server at http://n3.example.test:23803\n",
				"error querying DNS SRV records for _etcd-server-ssl ",
			}},
		{name: "ssl only", records: ssl, own: "https://n2.example.test:2380",
			want: "0=https://n1.example.test:2380,me=https://n2.example.test:2380",
			logs: []string{"[INFO]  got bootstrap from DNS for etcd-server-ssl at https://n1.example.test:2380\n"}},
		{name: "both, ssl first", records: append(ssl, plain[0]), own: "https://n2.example.test:2380",
			want: "0=https://n1.example.test:2380,me=https://n2.example.test:2380,1=http://n3.example.test:23803"},
		{name: "advertised by address", records: plain, own: "http://127.0.0.2:23802",
			want: "0=http://n1.example.test:23800,me=http://n2.example.test:23802,1=http://n3.example.test:23803"},
		{name: "any of several addresses", records: plain, own: "http://127.0.0.33:23803",
			want: "0=http://n1.example.test:23800,1=http://n2.example.test:23802,me=http://n3.example.test:23803"},
		{name: "address is ours but not the port", records: plain, own: "http://127.0.0.2:9", reason: ErrNotInSRV,
			lines: []string{`C | error setting up initial cluster: cannot find local etcd member "me" in SRV records`}},
		{name: "named like a number", records: plain, own: "http://n3.example.test:23803", change: func(o *SRVOptions) { o.Name = "0" },
			want: "1=http://n1.example.test:23800,2=http://n2.example.test:23802,0=http://n3.example.test:23803"},
		{name: "a proxy need not be listed", records: plain, own: "http://127.0.0.9:9", change: func(o *SRVOptions) { o.Proxy = true },
			want: "0=http://n1.example.test:23800,1=http://n2.example.test:23802,2=http://n3.example.test:23803"},
		{name: "target unknown", records: append(plain, "_etcd-server._tcp.example.test. SRV 0 1 1 gone.example.test."), own: "http://n1.example.test:23800",
			want: "me=http://n1.example.test:23800,0=http://n2.example.test:23802,1=http://n3.example.test:23803",
			logs: []string{"[WARN]  couldn't resolve host gone.example.test:1 during SRV discovery\n"}},
		{name: "one name fails", records: plain, failing: []string{sslName}, own: "http://n1.example.test:23800",
			want: "me=http://n1.example.test:23800,0=http://n2.example.test:23802,1=http://n3.example.test:23803"},
		{name: "listed with both schemes", own: "http://n1.example.test:23800",
			records: append(plain, "_etcd-server-ssl._tcp.example.test. SRV 0 0 23800 n1.example.test."),
			want:    "me=http://n1.example.test:23800,0=http://n2.example.test:23802,1=http://n3.example.test:23803",
			logs:    []string{"[WARN]  ignoring https://n1.example.test:23800 from DNS for etcd-server-ssl: this member advertises http there\n"}},
		{name: "with a suffix", own: "http://n1.example.test:1", change: func(o *SRVOptions) { o.Suffix = "blue" },
			records: append(plain, "_etcd-server-blue._tcp.example.test. SRV 0 0 1 n1.example.test."),
			want:    "me=http://n1.example.test:1",
			logs:    []string{"got bootstrap from DNS for etcd-server-blue at http://n1.example.test:1\n"}},
		{name: "no records", records: hosts, own: "http://n1.example.test:23800", reason: ErrSRVQueries, lines: []string{
			"W | error querying DNS SRV records for _etcd-server-ssl ...",
			"W | error querying DNS SRV records for _etcd-server ...",
			"E | SRV discovery failed: too many errors querying DNS SRV records",
		}},
		{name: "own name unknown", records: plain, own: "http://gone.example.test:1",
			lines: []string{"E | couldn't resolve host gone.example.test:1 during SRV discovery"}},
		{name: "own URL without port", records: plain, own: "http://n1.example.test",
			lines: []string{"E | couldn't resolve host n1.example.test during SRV discovery"}},
		{name: "own URL not parseable", records: plain, own: ":%", lines: []string{`E | parse ":%": missing protocol scheme`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			log := newJournal()
			o := SRVOptions{Domain: "example.test", Name: "me", PeerURLs: []string{tt.own}, Logger: log, Resolver: zone(t, tt.records, tt.failing...)}
			if tt.change != nil {
				tt.change(&o)
			}
			got, err := SRV(context.Background(), o)
			if got != tt.want {
				t.Errorf("SRV = %q, want %q", got, tt.want)
			}
			if tt.reason != nil && !errors.Is(err, tt.reason) {
				t.Errorf("SRV: %v, want %v", err, tt.reason)
			}
			var f *Failure
			if errors.As(err, &f) != (tt.lines != nil) {
				t.Fatalf("SRV: %v", err)
			}
			if f != nil {
				lines := printed(f)
				for i, l := range lines {
					// What the resolver says is its own affair.
					if head, _, ok := strings.Cut(l, " lookup "); ok {
						lines[i] = head + " ..."
					}
				}
				equalLines(t, "lines", lines, tt.lines)
			}
			all := strings.Join(log.lines(), "\n") + "\n"
			for _, part := range tt.logs {
				if !strings.Contains(all, part) {
					t.Errorf("log:\n%s\nlacks: %s", all, part)
				}
			}
		})
	}
}

func TestCancelledSRV(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := SRV(ctx, SRVOptions{Domain: "example.test", PeerURLs: []string{"http://127.0.0.1:1"}, Resolver: zone(t, nil)})
	if err != context.Canceled {
		t.Errorf("SRV: %v, want %v", err, context.Canceled)
	}
}

// TestSRVOrder: resolvers shuffle; the names must not depend on it.
func TestSRVOrder(t *testing.T) {
	var records []string
	for i := range 9 {
		records = append(records,
			fmt.Sprintf("_etcd-server._tcp.example.test. SRV 0 1 %d h.example.test.", 10+i))
	}
	resolver := zone(t, append(records, "h.example.test. A 127.0.0.1"))
	first := ""
	for range 10 {
		got, err := SRV(context.Background(), SRVOptions{Domain: "example.test", Name: "me", PeerURLs: []string{"http://127.0.0.1:14"}, Resolver: resolver})
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("SRV = %q, and before %q", got, first)
		}
	}
}
