package plain

import (
	"bytes"
	"crypto/tls"
	"net"
)

// Request is a plain request. Its slices are valid until the handler returns.
type Request struct {
	// Method is GET, PUT, POST or DELETE.
	Method string
	// Target is the path, which begins with Config.Prefix, and the query, as sent: printable ASCII.
	Target []byte
	// ContentType, Origin and Authorization are headers, nil when absent. Each came at most once.
	ContentType, Origin, Authorization []byte
	// Proxied says that a proxy of ours has sent it, with a header X-Quorate-Proxy.
	Proxied bool
	// Body has the whole body, whatever the method.
	Body []byte

	host, connection bool // these headers came
	length           int  // of the body; -1 when there was no Content-Length
	closing          bool // the client sends nothing after this request
	conn             *conn
}

// RemoteAddr returns the address of the client.
func (r *Request) RemoteAddr() net.Addr { return r.conn.RemoteAddr() }

// TLS returns the state of the connection, nil without TLS. It must not be changed.
func (r *Request) TLS() *tls.ConnectionState { return r.conn.tls }

// maxHead bounds the head of a plain request, in bytes.
const maxHead = 4 << 10

// verdict is what parse thinks of some bytes.
type verdict uint8

const (
	more     verdict = iota // so far plain, but incomplete
	complete                // a plain head
	doubtful                // not plain, or perhaps not
)

// parse reads the head of a request at the beginning of b, and returns its length when it is complete.
// It accepts:
//
//	head   = method " " target " HTTP/1.1" CRLF *(name ":" value CRLF) CRLF, at most 4 KiB
//	method = "GET" / "PUT" / "POST" / "DELETE"
//	target = Prefix ["/" *VISIBLE] ["?" *VISIBLE]
//	name   = 1*(letter / digit / "-"), value = *(VISIBLE / space / tab)
//
// Host is there once; Content-Length, Content-Type, Origin, Authorization and Connection once at most,
// the last one with the single value keep-alive or close; headers that change how a request is to be
// read or answered are not there. All other headers mean nothing to anybody and are skipped.
func (r *Request) parse(b []byte, cfg *Config) (int, verdict) {
	*r = Request{conn: r.conn, length: -1}
	for at := 0; ; {
		line, v := nextLine(b[at:])
		if v != complete {
			if v == more && len(b) > maxHead {
				v = doubtful
			}
			return 0, v
		}
		first := at == 0
		if at += len(line) + len("\r\n"); at > maxHead {
			return 0, doubtful
		}
		switch {
		case first:
			if !r.parseLine(line, cfg.Prefix) {
				return 0, doubtful
			}
		case len(line) > 0:
			if !r.parseHeader(line, cfg.MaxBody) {
				return 0, doubtful
			}
		case !r.host:
			return 0, doubtful
		default:
			r.length = max(r.length, 0)
			return at, complete
		}
	}
}

// nextLine returns the first line of b without its CRLF. A line that ends with a bare LF is doubtful.
func nextLine(b []byte) ([]byte, verdict) {
	i := bytes.IndexByte(b, '\n')
	switch {
	case i < 0:
		return nil, more
	case i == 0 || b[i-1] != '\r':
		return nil, doubtful
	}
	return b[:i-1], complete
}

// parseLine reads the request line.
func (r *Request) parseLine(line []byte, prefix string) bool {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	if !ok {
		return false
	}
	switch string(method) {
	case "GET":
		r.Method = "GET"
	case "PUT":
		r.Method = "PUT"
	case "POST":
		r.Method = "POST"
	case "DELETE":
		r.Method = "DELETE"
	default:
		return false
	}
	const version = " HTTP/1.1"
	n := len(rest) - len(version)
	if n < len(prefix) || string(rest[n:]) != version || string(rest[:len(prefix)]) != prefix {
		return false
	}
	r.Target = rest[:n:n]
	if n > len(prefix) && r.Target[len(prefix)] != '/' && r.Target[len(prefix)] != '?' {
		return false
	}
	for _, c := range r.Target[len(prefix):] {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// kinds of bytes in a header.
const (
	inName = 1 << iota
	inValue
	inHost
)

// header says what bytes may be part of.
var header = func() (kinds [256]uint8) {
	for c := range kinds {
		letterOrDigit := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
		if letterOrDigit || c == '-' {
			kinds[c] |= inName
		}
		if c >= ' ' && c <= '~' || c == '\t' {
			kinds[c] |= inValue
		}
		if letterOrDigit || c == '-' || c == '.' || c == ':' || c == '_' || c == '[' || c == ']' {
			kinds[c] |= inHost
		}
	}
	return kinds
}()

// all says whether all bytes of b are of a kind.
func all(b []byte, kind uint8) bool {
	for _, c := range b {
		if header[c]&kind == 0 {
			return false
		}
	}
	return true
}

// parseHeader reads one line with a header.
func (r *Request) parseHeader(line []byte, maxBody int) bool {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !all(line[:colon], inName) || !all(line[colon+1:], inValue) {
		return false
	}
	name, value := line[:colon], trim(line[colon+1:])
	switch len(name) {
	case len("te"):
		return !is(name, "te")
	case len("host"):
		if is(name, "host") {
			again := r.host
			r.host = true
			return !again && len(value) > 0 && all(value, inHost)
		}
	case len("origin"): // and expect
		if is(name, "origin") {
			return once(&r.Origin, value)
		}
		return !is(name, "expect")
	case len("upgrade"): // and trailer
		return !is(name, "upgrade") && !is(name, "trailer")
	case len("connection"):
		if is(name, "connection") {
			again := r.connection
			r.connection = true
			r.closing = is(value, "close")
			return !again && (r.closing || is(value, "keep-alive"))
		}
	case len("content-type"):
		if is(name, "content-type") {
			return once(&r.ContentType, value)
		}
	case len("authorization"):
		if is(name, "authorization") {
			return once(&r.Authorization, value)
		}
	case len("content-length"): // and http2-settings
		if is(name, "content-length") {
			return r.parseLength(value, maxBody)
		}
		return !is(name, "http2-settings")
	case len("x-quorate-proxy"):
		r.Proxied = r.Proxied || is(name, "x-quorate-proxy")
	case len("transfer-encoding"):
		return !is(name, "transfer-encoding")
	}
	return true
}

// trim removes space around the value of a header. It never returns nil.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b[:len(b):len(b)]
}

// once stores the value of a header that may come only once.
func once(header *[]byte, value []byte) bool {
	again := *header != nil
	*header = value
	return !again
}

func (r *Request) parseLength(value []byte, maxBody int) bool {
	const digits = 9 // far below what could overflow
	if r.length >= 0 || len(value) == 0 || len(value) > digits {
		return false
	}
	n := 0
	for _, c := range value {
		if c < '0' || c > '9' {
			return false
		}
		n = 10*n + int(c-'0')
	}
	r.length = n
	return n <= maxBody
}

// is compares text with a word of lower-case letters, digits and hyphens, whatever the case of the
// letters in it. Both have the same length, or the answer is no.
func is(text []byte, word string) bool {
	if len(text) != len(word) {
		return false
	}
	for i, c := range text {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != word[i] {
			return false
		}
	}
	return true
}
