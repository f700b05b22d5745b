package plain

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

var testConfig = Config{Prefix: "/v2/keys", MaxBody: 1000}

func parse(text string) (*Request, int, verdict) {
	r := &Request{}
	n, v := r.parse([]byte(text), &testConfig)
	return r, n, v
}

func TestPlainHeads(t *testing.T) {
	tests := []struct {
		name, head string
		want       Request // the slices as text
	}{
		{"least", "GET /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n", Request{Method: "GET", Target: []byte("/v2/keys")}},
		{"slash", "DELETE /v2/keys/ HTTP/1.1\r\nHost: a\r\n\r\n", Request{Method: "DELETE", Target: []byte("/v2/keys/")}},
		{"query", "GET /v2/keys?recursive=true HTTP/1.1\r\nHost: a\r\n\r\n", Request{Method: "GET", Target: []byte("/v2/keys?recursive=true")}},
		{"escapes", "GET /v2/keys/%41%2f?a=%zz HTTP/1.1\r\nHost: a\r\n\r\n", Request{Method: "GET", Target: []byte("/v2/keys/%41%2f?a=%zz")}},
		{"Go's client", "GET /v2/keys/k?quorum=false HTTP/1.1\r\nHost: 127.0.0.1:2379\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n",
			Request{Method: "GET", Target: []byte("/v2/keys/k?quorum=false")}},
		{"python-etcd", "PUT /v2/keys/k HTTP/1.1\r\nHost: [::1]:4001\r\nAccept-Encoding: identity\r\nContent-Length: 7\r\nconnection: Keep-Alive\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\nvalue=1",
			Request{Method: "PUT", Target: []byte("/v2/keys/k"), ContentType: []byte("application/x-www-form-urlencoded"), length: 7}},
		{"curl", "POST /v2/keys/q HTTP/1.1\r\nHost: localhost:2379\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\nContent-Length: 0\r\n\r\n",
			Request{Method: "POST", Target: []byte("/v2/keys/q")}},
		{"browser", "GET /v2/keys/k HTTP/1.1\r\nHOST:a\r\nORIGIN:\thttp://b \r\nAuthorization: Basic eA==\r\nX-Empty:\r\n\r\n",
			Request{Method: "GET", Target: []byte("/v2/keys/k"), Origin: []byte("http://b"), Authorization: []byte("Basic eA==")}},
		{"a proxy", "GET /v2/keys/k HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: b\r\nx-quorate-Proxy: 0123\r\n\r\n", Request{Method: "GET", Target: []byte("/v2/keys/k"), Proxied: true}},
		{"last request", "GET /v2/keys/k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Request{Method: "GET", Target: []byte("/v2/keys/k"), closing: true}},
		{"leading zeros", "PUT /v2/keys/k HTTP/1.1\r\nHost: a\r\nContent-Length: 0010\r\n\r\n", Request{Method: "PUT", Target: []byte("/v2/keys/k"), length: 10}},
		{"as long as may be", "GET /v2/keys/" + strings.Repeat("x", maxHead-len("GET /v2/keys/ HTTP/1.1\r\nHost: a\r\n\r\n")) + " HTTP/1.1\r\nHost: a\r\n\r\n",
			Request{Method: "GET", Target: []byte("/v2/keys/" + strings.Repeat("x", maxHead-len("GET /v2/keys/ HTTP/1.1\r\nHost: a\r\n\r\n")))}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			head := strings.Index(tt.head, "\r\n\r\n") + 4
			r, n, v := parse(tt.head + "GET")
			if v != complete || n != head {
				t.Fatalf("verdict %d at %d, want %d at %d", v, n, complete, head)
			}
			if r.Method != tt.want.Method || string(r.Target) != string(tt.want.Target) || string(r.ContentType) != string(tt.want.ContentType) ||
				string(r.Origin) != string(tt.want.Origin) || string(r.Authorization) != string(tt.want.Authorization) ||
				r.length != tt.want.length || r.closing != tt.want.closing {
				t.Errorf("got %+v, want %+v", r, tt.want)
			}
			for i := range head {
				if _, _, v := parse(tt.head[:i]); v != more {
					t.Fatalf("verdict %d on the first %d bytes, want %d", v, i, more)
				}
			}
		})
	}
}

// doubtfulHeads are not for the loop, whatever net/http makes of them.
var doubtfulHeads = []struct{ name, head string }{
	{"nothing", "\r\n"},
	{"HEAD", "HEAD /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"OPTIONS", "OPTIONS /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"lower-case method", "get /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"no method", " /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"other path", "GET /version HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"longer name", "GET /v2/keysfoo HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"escaped slash", "GET /v2/keys%2Fa HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"fragment", "GET /v2/keys#a HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"absolute form", "GET http://a/v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"authority form", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"asterisk form", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"NUL in the target", "GET /v2/keys/\x00 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"tab in the target", "GET /v2/keys/\t HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"space in the target", "GET /v2/keys/a b HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"DEL in the target", "GET /v2/keys/\x7f HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"UTF-8 in the target", "GET /v2/keys/é HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"two spaces before the target", "GET  /v2/keys HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"two spaces behind the target", "GET /v2/keys  HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"tabs between", "GET\t/v2/keys\tHTTP/1.1\r\nHost: a\r\n\r\n"},
	{"space at the end", "GET /v2/keys HTTP/1.1 \r\nHost: a\r\n\r\n"},
	{"HTTP/1.0", "GET /v2/keys HTTP/1.0\r\nHost: a\r\n\r\n"},
	{"HTTP/1.2", "GET /v2/keys HTTP/1.2\r\nHost: a\r\n\r\n"},
	{"HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	{"HTTP/0.9", "GET /v2/keys\r\n"},
	{"lower-case version", "GET /v2/keys http/1.1\r\nHost: a\r\n\r\n"},
	{"LF in the request line", "GET /v2/keys HTTP/1.1\nHost: a\r\n\r\n"},
	{"LF in a header", "GET /v2/keys HTTP/1.1\r\nHost: a\n\r\n"},
	{"LF at the end", "GET /v2/keys HTTP/1.1\r\nHost: a\r\n\n"},
	{"CR alone", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n"},
	{"CR CR LF", "GET /v2/keys HTTP/1.1\r\nHost: a\r\r\n\r\n"},
	{"no Host", "GET /v2/keys HTTP/1.1\r\n\r\n"},
	{"two Hosts", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
	{"empty Host", "GET /v2/keys HTTP/1.1\r\nHost:\r\n\r\n"},
	{"odd Host", "GET /v2/keys HTTP/1.1\r\nHost: a@b\r\n\r\n"},
	{"folded header", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"},
	{"folded with a tab", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: b\r\n\tTransfer-Encoding: chunked\r\n\r\n"},
	{"folded first header", "GET /v2/keys HTTP/1.1\r\n Host: a\r\n\r\n"},
	{"no colon", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nAbc\r\n\r\n"},
	{"no name", "GET /v2/keys HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
	{"space before the colon", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n"},
	{"tab before the colon", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n"},
	{"odd name", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nContent_Length: 5\r\n\r\n"},
	{"NUL in a value", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: b\x00\r\n\r\n"},
	{"vertical tab in a value", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: \x0b\r\n\r\n"},
	{"Latin-1 in a value", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nA: \xe9\r\n\r\n"},
	{"chunked", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{"length and chunks", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"},
	{"chunks and length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked\r\nContent-Length: 5\r\n\r\n"},
	{"identity", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"},
	{"two lengths", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"},
	{"two equal lengths", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"},
	{"two zero lengths", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n"},
	{"a list of lengths", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n"},
	{"empty length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"},
	{"signed length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"},
	{"negative length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n"},
	{"hexadecimal length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n"},
	{"length with a space inside", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n"},
	{"large length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n"},
	{"huge length", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\n"},
	{"TE", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n"},
	{"Trailer", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nTrailer: A\r\n\r\n"},
	{"Expect", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"},
	{"Upgrade", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"},
	{"Upgrade alone", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n"},
	{"HTTP2-Settings", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"},
	{"two Connections", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n"},
	{"a list of Connections", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\n"},
	{"empty Connection", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nConnection:\r\n\r\n"},
	{"two types", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"},
	{"two types, one empty", "PUT /v2/keys HTTP/1.1\r\nHost: a\r\nContent-Type:\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n"},
	{"two Origins", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nOrigin: \r\nOrigin: b\r\n\r\n"},
	{"two Authorizations", "GET /v2/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Basic a\r\nAuthorization: Basic b\r\n\r\n"},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n"},
	{"too long", "GET /v2/keys/" + strings.Repeat("x", maxHead) + " HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"too long and no end", "GET /v2/keys/" + strings.Repeat("x", maxHead)},
	{"too many headers", "GET /v2/keys HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("A: b\r\n", maxHead/6) + "\r\n"},
}

func TestDoubtfulHeads(t *testing.T) {
	for _, tt := range doubtfulHeads {
		t.Run(tt.name, func(t *testing.T) {
			if r, n, v := parse(tt.head); v != doubtful {
				t.Errorf("verdict %d at %d, want %d: %+v", v, n, doubtful, r)
			}
		})
	}
}

// What the loop accepts, net/http accepts too, and understands it in the same way.
func FuzzParse(f *testing.F) {
	for _, tt := range doubtfulHeads {
		f.Add([]byte(tt.head))
	}
	f.Add([]byte("PUT /v2/keys/a%2fb?x=y?z HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 3\r\nOrigin: o\r\nContent-Type: a/b\r\nAuthorization: x\r\nConnection: CLOSE\r\nA-b: \tc d\t\r\n\r\nabcGET "))
	f.Add([]byte("GET /v2/keys?#? HTTP/1.1\r\nHost: a\r\nReferer: \r\nPragma: no-cache\r\n\r\n"))
	f.Fuzz(func(t *testing.T, input []byte) {
		r := &Request{}
		n, v := r.parse(input, &testConfig)
		if v != complete {
			if v == more && len(input) > maxHead {
				t.Error("no verdict on too long a head")
			}
			return
		}
		br := bufio.NewReader(bytes.NewReader(input))
		want, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("net/http refuses: %v", err)
		}
		get := want.Header.Get
		if r.Method != want.Method || string(r.Target) != want.RequestURI || want.Host == "" ||
			int64(r.length) != want.ContentLength || r.closing != want.Close || want.TransferEncoding != nil ||
			string(r.ContentType) != get("Content-Type") || string(r.Origin) != get("Origin") ||
			string(r.Authorization) != get("Authorization") || r.Proxied != (want.Header["X-Quorate-Proxy"] != nil) || get("Expect")+get("Upgrade") != "" {
			t.Errorf("got %+v of %+v", r, want)
		}
		// Both see the same bytes behind the head.
		rest, _ := io.ReadAll(want.Body)
		if len(rest) < r.length {
			return // there was not so much
		}
		behind, _ := io.ReadAll(br)
		if got := input[n:]; string(got) != string(rest)+string(behind) || len(rest) != r.length {
			t.Errorf("the head ends at %d, before %q; net/http sees %q and %q", n, got, rest, behind)
		}
	})
}
