package httpd_test

import (
	"bufio"
	"bytes"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/quorate/quorate/httpd"
)

// exchange sends a request and reads the answer to its end, without allocating.
func exchange(conn net.Conn, br *bufio.Reader, request []byte) error {
	if _, err := conn.Write(request); err != nil {
		return err
	}
	length := 0
	for {
		line, err := br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			_, err := br.Discard(length)
			return err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, c := range bytes.TrimSpace(value) {
				length = 10*length + int(c-'0')
			}
		}
	}
}

// benchmarkConn measures one request after the other on one connection, both ends included.
func benchmarkConn(b *testing.B, request string) {
	for _, only := range []bool{false, true} {
		name := "conn=plain"
		if only {
			name = "conn=net-http"
		}
		b.Run(name, func(b *testing.B) {
			r := start(b, httpd.Options{OnlyNetHTTP: only})
			r.set("/bench/key", strings.Repeat("x", 128))
			conn, err := net.Dial("tcp", r.addr)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			br := bufio.NewReader(conn)
			bytes := []byte(request)
			b.ReportAllocs()
			for b.Loop() {
				if err := exchange(conn, br, bytes); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	benchmarkConn(b, "GET /v2/keys/bench/key HTTP/1.1\r\nHost: bench\r\n\r\n")
}

// A plain GET allocates the path that is looked up, and nothing else.
func TestPlainGetAllocatesNearlyNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := start(t, httpd.Options{})
	r.set("/bench/key", strings.Repeat("x", 128))
	conn, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	br := bufio.NewReader(conn)
	request := []byte("GET /v2/keys/bench/key HTTP/1.1\r\nHost: bench\r\n\r\n")
	// The whole process is looked at; a thousand requests make what else goes on in it disappear.
	per := testing.AllocsPerRun(1000, func() {
		if err := exchange(conn, br, request); err != nil {
			t.Fatal(err)
		}
	})
	if per > 2 {
		t.Errorf("a GET makes %v allocations, want 1", per)
	}
}

func BenchmarkPut(b *testing.B) {
	form := "value=" + strings.Repeat("x", 128)
	benchmarkConn(b, "PUT /v2/keys/bench/key HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\n"+
		"Content-Length: "+strconv.Itoa(len(form))+"\r\n\r\n"+form)
}
