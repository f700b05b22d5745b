//go:build linux

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// conn is one keep-alive HTTP/1.1 connection that sends requests as ready-made bytes.
type conn struct {
	net.Conn
	br    *bufio.Reader
	large []byte // for long bodies, made when needed
}

func dial(addr string) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(lineLimit)); err != nil {
		return nil, err
	}
	return &conn{Conn: c, br: bufio.NewReaderSize(c, 4096)}, nil
}

// lineLimit bounds what is done on one connection: a server that hangs must not hang the run.
const lineLimit = 4 * time.Minute

// discard reads n bytes of a body. A long one is read in large pieces, past the buffer.
func (c *conn) discard(n int) error {
	buffered := min(n, c.br.Buffered())
	if _, err := c.br.Discard(buffered); err != nil {
		return err
	}
	if n -= buffered; n < c.br.Size() {
		_, err := c.br.Discard(n)
		return err
	}
	if c.large == nil {
		c.large = make([]byte, 256<<10)
	}
	for n > 0 {
		m, err := c.Conn.Read(c.large[:min(n, len(c.large))])
		if n -= m; err != nil {
			return err
		}
	}
	return nil
}

// roundTrip sends a request and reads the whole answer. Any status but 2xx is an error.
func (c *conn) roundTrip(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	length, err := c.readHead()
	if err != nil {
		return err
	}
	if length >= 0 {
		return c.discard(length)
	}
	for {
		n, err := c.readChunk()
		if err != nil || n == 0 {
			return err
		}
	}
}

// readHead reads status and headers and returns the length of the body, or -1 when it comes in chunks.
func (c *conn) readHead() (length int, err error) {
	status, err := c.br.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(status) < 12 || status[9] != '2' {
		rest, _ := c.br.Peek(c.br.Buffered())
		return 0, fmt.Errorf("unwelcome answer %q …%q", bytes.TrimSpace(status), rest)
	}
	length = -1
	for {
		h, err := c.br.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(h) <= 2 {
			return length, nil
		}
		const name = "content-length:"
		if len(h) > len(name) && bytes.EqualFold(h[:len(name)], []byte(name)) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(h[len(name):]))); err != nil {
				return 0, err
			}
		}
	}
}

// readChunk reads one chunk of a body and returns its size, 0 for the last one.
func (c *conn) readChunk() (int, error) {
	size, err := c.br.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 32)
	if err != nil {
		return 0, err
	}
	return int(n), c.discard(int(n) + len("\r\n"))
}

// request makes the bytes of a request; a body is a form.
func request(method, path, body string) []byte {
	if body == "" {
		return requestWith(method, path, body)
	}
	return requestWith(method, path, body, "Content-Type: application/x-www-form-urlencoded")
}

// requestWith makes the bytes of a request with these headers.
func requestWith(method, path, body string, headers ...string) []byte {
	b := make([]byte, 0, 256+len(body))
	b = append(b, method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: bench\r\n"...)
	for _, h := range headers {
		b = append(b, h...)
		b = append(b, "\r\n"...)
	}
	if body != "" || method == "PUT" {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, body...)
}

// load is a number of connections, spread over the addresses, that each send one request after the other.
type load struct {
	addrs []string
	conns int
	// next returns the request that connection i sends as its n-th; nil ends that connection's work.
	next func(i, n int) []byte
}

// runFor sends for a while, after a warm-up of a fifth of it, and returns the requests per second.
func (l load) runFor(d time.Duration) (perSecond float64, err error) {
	began := time.Now().Add(d / 5)
	ends := began.Add(d)
	counts := make([]int, l.conns)
	err = l.each(func(i int, c *conn) error {
		for n := 0; ; n++ {
			if err := c.roundTrip(l.next(i, n)); err != nil {
				return err
			}
			switch now := time.Now(); {
			case now.After(ends):
				return nil
			case now.After(began):
				counts[i]++
			}
		}
	})
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / d.Seconds(), err
}

// latencies sends for a while, after a warm-up of a fifth of it, and returns how long each request took,
// in order.
func (l load) latencies(d time.Duration) ([]time.Duration, error) {
	began := time.Now().Add(d / 5)
	ends := began.Add(d)
	each := make([][]time.Duration, l.conns)
	err := l.each(func(i int, c *conn) error {
		for n := 0; ; n++ {
			start := time.Now()
			if err := c.roundTrip(l.next(i, n)); err != nil {
				return err
			}
			switch now := time.Now(); {
			case now.After(ends):
				return nil
			case now.After(began):
				each[i] = append(each[i], now.Sub(start))
			}
		}
	})
	all := slices.Concat(each...)
	slices.Sort(all)
	return all, err
}

// quantile returns in milliseconds the value below which a share q of the sorted durations lies; 0 if there
// are none.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return milliseconds(sorted[int(q*float64(len(sorted)-1))])
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// runAll sends until next is exhausted.
func (l load) runAll() error {
	return l.each(func(i int, c *conn) error {
		for n := 0; ; n++ {
			r := l.next(i, n)
			if r == nil {
				return nil
			}
			if err := c.roundTrip(r); err != nil {
				return err
			}
		}
	})
}

// each dials all connections and then runs f for each, side by side.
func (l load) each(f func(i int, c *conn) error) error {
	conns := make([]*conn, l.conns)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	for i := range conns {
		c, err := dial(l.addrs[i%len(l.addrs)])
		if err != nil {
			return err
		}
		conns[i] = c
	}
	errs := make([]error, l.conns)
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			if err := f(i, c); err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				errs[i] = fmt.Errorf("connection %d: %w", i, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
