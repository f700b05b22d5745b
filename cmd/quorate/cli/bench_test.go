//go:build linux

package cli_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

func TestBench(t *testing.T) {
	for _, tt := range []struct {
		name string
		on   func(*testing.T) (url string, keys *client.Keys)
	}{
		{"quorate", func(t *testing.T) (string, *client.Keys) { s := newStore(t, "bench"); return s.url, s.Keys }},
		{"etcd", func(t *testing.T) (string, *client.Keys) { return etcd(t), keys(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, keys := tt.on(t)
			if _, err := keys.Set(t.Context(), "/bench-test/mine", "1", client.SetOptions{}); err != nil {
				t.Fatal(err)
			}
			r := quorate(t, "", "-o", "json", "-C", url, "--no-sync", "bench",
				"--connections", "3", "--requests", "300", "--keys", "20", "--value-size", "10", "--quorum", "--prefix", "bench-test")
			if r.code != 0 || !strings.HasPrefix(r.err, "writing 20 keys of 10 bytes below /bench-test/") {
				t.Fatal(r)
			}
			var report struct {
				Connections, Keys, ValueSize int
				Results                      []struct {
					Kind             string
					Requests, Errors int
					P50Ms, MaxMs     float64
				}
			}
			if err := json.Unmarshal([]byte(r.out), &report); err != nil {
				t.Fatalf("%v: %s", err, r.out)
			}
			if report.Connections != 3 || report.Keys != 20 || report.ValueSize != 10 || len(report.Results) != 3 {
				t.Fatalf("the report is %+v", report)
			}
			reads, writes, all := report.Results[0], report.Results[1], report.Results[2]
			if all.Requests != 300 || reads.Requests+writes.Requests != 300 || reads.Requests == 0 || writes.Requests == 0 {
				t.Errorf("%d reads and %d writes, all are %d; want 300", reads.Requests, writes.Requests, all.Requests)
			}
			if all.Errors != 0 || all.P50Ms <= 0 || all.MaxMs < all.P50Ms {
				t.Errorf("all requests: %+v", all)
			}
			// What the run wrote is gone, and what it did not write is there.
			left, err := keys.Get(t.Context(), "/bench-test", client.GetOptions{})
			if err != nil || len(left.Node.Nodes) != 1 || left.Node.Nodes[0].Key != "/bench-test/mine" {
				t.Errorf("left behind: %+v, %v", left, err)
			}
		})
	}
}

func TestBenchOutput(t *testing.T) {
	s := newStore(t, "bench")
	r := quorate(t, "", "-o", "extended", "-C", s.url, "--no-sync", "bench", "--requests", "50", "--keys", "5", "--reads", "0")
	if r.code != 0 || !strings.Contains(r.out, "p99.9") || !strings.Contains(r.out, "writes        50       0") ||
		strings.Contains(r.out, "reads") || !strings.Contains(r.out, "#") {
		t.Error(r)
	}
	if _, err := s.Get(t.Context(), "/quorate-bench", client.GetOptions{}); !errors.Is(err, api.KeyNotFound) {
		t.Errorf("the prefix is left behind: %v", err)
	}
}

func TestBenchRefusals(t *testing.T) {
	s := newStore(t, "bench")
	for _, tt := range []struct{ name, args, want string }{
		{"argument", "/a", "no arguments expected"},
		{"no connections", "--connections 0", "--connections and --keys must be positive"},
		{"share", "--reads 101", "--reads is a share of a hundred"},
		{"both ends", "--requests 1 --duration 1s", "exclude each other"},
		{"no time", "--duration -1s", "--duration must be positive"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := quorate(t, "", append([]string{"-C", s.url, "bench"}, strings.Fields(tt.args)...)...)
			if r.code != 1 || !strings.Contains(r.err, tt.want) {
				t.Errorf("%v\nwant exit code 1 and %q", r, tt.want)
			}
		})
	}
	if r := quorate(t, "", "-C", refused(t), "--no-sync", "bench"); r.code != 4 || !strings.Contains(r.err, "connection refused") {
		t.Errorf("%v\nwant exit code 4 and the reason", r)
	}
}
