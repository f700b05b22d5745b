//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		name   string
		values []float64
		want   float64
	}{
		{"one", []float64{3}, 3},
		{"odd", []float64{9, 1, 5}, 5},
		{"even", []float64{4, 1, 2, 9}, 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := median(tt.values); got != tt.want {
				t.Errorf("median(%v) = %v, want %v", tt.values, got, tt.want)
			}
		})
	}
}

func TestRatioSaysHowMuchBetterTheLastIs(t *testing.T) {
	r := newReport(config{systems: []string{"etcd", "quorate"}})
	r.add(line{name: "put"}, value{unit: "req/s", number: 100}, 0)
	r.add(line{name: "put"}, value{unit: "req/s", number: 300}, 1)
	r.add(line{name: "get"}, value{suffix: "/p99", unit: "ms", number: 10, lowerBetter: true}, 0)
	r.add(line{name: "get"}, value{suffix: "/p99", unit: "ms", number: 5, lowerBetter: true}, 1)
	for i, want := range []float64{3, 2} {
		if got := r.Lines[i].Ratio; got != want {
			t.Errorf("ratio of %s = %v, want %v", r.Lines[i].Name, got, want)
		}
	}
	if table := r.table(); !strings.Contains(table, "get/p99") {
		t.Errorf("the table lacks a line:\n%s", table)
	}
}

func TestReadAnswers(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		wantErr      string // "" for none; the rest of the stream must then be "next"
	}{
		{"length", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX: y\r\n\r\nhellonext", ""},
		{"chunks", "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\nnext", ""},
		{"long", "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + strings.Repeat("v", 10000) + "next", ""},
		{"refusal", "HTTP/1.1 500 Internal Server Error\r\n\r\n", "unwelcome answer"},
		{"cut in the head", "HTTP/1.1 200 OK\r\nContent-Le", "EOF"},
		{"cut in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			defer ours.Close()
			go func() {
				defer theirs.Close()
				_, _ = theirs.Read(make([]byte, 100))
				_, _ = theirs.Write([]byte(tt.answer))
			}()
			c := &conn{Conn: ours, br: bufio.NewReader(ours)}
			err := c.roundTrip(request("GET", "/", ""))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("roundTrip = %v, want an error with %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if rest, err := c.br.Peek(4); err != nil || string(rest) != "next" {
				t.Errorf("after the answer comes %q (%v), want %q", rest, err, "next")
			}
		})
	}
}

func TestLoadAgainstBareServer(t *testing.T) {
	err := withTB(t.Output(), func(tb *progress) {
		target := bareServer(tb)
		get := request("GET", "/v2/keys/one", "")
		n, err := load{target.addrs, 4, func(int, int) []byte { return get }}.runFor(100 * time.Millisecond)
		if err != nil || n <= 0 {
			t.Errorf("runFor = %v, %v", n, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-rounds", "0"}, {"-only", "("}, {"-systems", "zookeeper"}, {"put"}} {
		if err := run(args, t.Output(), t.Output()); err == nil {
			t.Errorf("run(%q) was accepted", args)
		}
	}
}

// TestLines measures nearly everything once, for a moment, so that no line rots between two real runs.
func TestLines(t *testing.T) {
	var out bytes.Buffer
	args := []string{"-systems", "quorate", "-quick", "-json", "-only", "put|get|list|watch|idle|expiry|^restart|keys"}
	if err := run(args, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("read the report: %v\n%s", err, out.String())
	}
	if len(r.Lines) < 27 {
		t.Errorf("the report has %d lines", len(r.Lines))
	}
	for _, l := range r.Lines {
		if len(l.Values["quorate"]) != 1 {
			t.Errorf("%s was measured %d times, want once", l.Name, len(l.Values["quorate"]))
		}
	}
}

func TestDrawing(t *testing.T) {
	c := &curve{name: "keys", title: "Cost & <effect>", x: "keys", y: "ms"}
	for _, x := range []float64{1, 10, 100} {
		c.at("linear", x, 3*x)
		c.at("square", x, x*x)
	}
	dir := t.TempDir()
	var table strings.Builder
	if err := writeCurves(&table, dir, []*curve{c}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1.00", "2.00"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %s:\n%s", want, table.String())
		}
	}
	drawn, err := os.ReadFile(filepath.Join(dir, "keys.svg"))
	if err != nil {
		t.Fatal(err)
	}
	if err := xml.Unmarshal(drawn, new(struct{})); err != nil {
		t.Errorf("%v:\n%s", err, drawn)
	}
	if n := strings.Count(string(drawn), "<circle"); n != 6 {
		t.Errorf("%d points, want 6", n)
	}
}
