package peer

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
)

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

// ask sends a request as it is and returns the answer with its body.
func ask(t testing.TB, url, request string) (*http.Response, string) {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(newReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

const goodHandshake = "GET /quorate/peer HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: quorate-peer/1\r\n" +
	"Quorate-Cluster: 63bcf61ee1e1aa41\r\nQuorate-From: a\r\nQuorate-To: b\r\nQuorate-Epoch: 0\r\nQuorate-Kind: rpc\r\n\r\n"

func TestHandshake(t *testing.T) {
	b := open(t, Config{Self: 0xb})
	b.dir.remove(0xdead)
	starting := open(t, Config{Self: 0xb})
	starting.Ready(false)
	tests := []struct {
		name         string
		old, new     string // replaced in goodHandshake
		status       int
		body         string
		notReadyBody string // when it differs; status is 503 then
	}{
		{"good", "", "", 101, "", "not ready"},
		{"connection is a list", "Connection: Upgrade", "Connection: keep-alive, upgrade", 101, "", "not ready"},
		{"unknown sender", "From: a", "From: abcdef", 101, "", "not ready"},
		{"other cluster", "63bcf61ee1e1aa41", "c84b0c73007f53c2", 412, "cluster ID mismatch", ""},
		{"other epoch", "Epoch: 0", "Epoch: 1", 412, "recovery epoch mismatch", ""},
		{"removed sender", "From: a", "From: dead", 410, "the member has been permanently removed from the cluster", "not ready"},
		{"wrong receiver", "To: b", "To: c", 409, "this is member b, not c", ""},
		{"our own ID", "From: a", "From: b", 409, "the sender has the ID of the receiver", ""},
		{"other version", "quorate-peer/1", "quorate-peer/2", 426, "this is quorate-peer/1", ""},
		{"no upgrade", "Upgrade: quorate-peer/1\r\n", "", 426, "this is quorate-peer/1", ""},
		{"no connection header", "Connection: Upgrade\r\n", "", 426, "this is quorate-peer/1", ""},
		{"HTTP/1.0", "HTTP/1.1", "HTTP/1.0", 426, "this is quorate-peer/1", ""},
		{"other method", "GET", "POST", 405, "Method Not Allowed", ""},
		{"kind", "Kind: rpc", "Kind: xyz", 400, "header Quorate-Kind is neither raft nor append nor rpc", ""},
		{"raft without raft", "Kind: rpc", "Kind: raft", 503, "not ready", ""},
		{"no sender", "Quorate-From: a\r\n", "", 400, "header Quorate-From is not a number in hex", ""},
		{"sender too long", "From: a", "From: 12345678901234567", 400, "header Quorate-From is not a number in hex", ""},
		{"with a body", "Kind: rpc\r\n\r\n", "Kind: rpc\r\nContent-Length: 1\r\n\r\nz", 400, "the request has a body", ""},
		{"headers too long", "Host: x", "Host: x\r\nX: " + strings.Repeat("x", 2*maxHeader), 431, "431 Request Header Fields Too Large", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			request := strings.Replace(goodHandshake, tt.old, tt.new, 1)
			resp, body := ask(t, b.url, request)
			if got := strings.TrimSpace(body); resp.StatusCode != tt.status || got != tt.body {
				t.Errorf("answer = %d %q, want %d %q", resp.StatusCode, got, tt.status, tt.body)
			}
			if resp.StatusCode == 101 || resp.StatusCode == 426 {
				if got := resp.Header.Get("Upgrade"); got != protocol {
					t.Errorf("Upgrade = %q, want %q", got, protocol)
				}
			}
			status, want := tt.status, tt.body
			if tt.notReadyBody != "" {
				status, want = 503, tt.notReadyBody
			}
			resp, body = ask(t, starting.url, request)
			if got := strings.TrimSpace(body); resp.StatusCode != status || got != want {
				t.Errorf("not ready: answer = %d %q, want %d %q", resp.StatusCode, got, status, want)
			}
		})
	}
}

// The two sides of our own handshake agree about every refusal.
func TestRefusedDial(t *testing.T) {
	b := open(t, Config{Self: 0xb})
	b.dir.remove(0xdead)
	starting := open(t, Config{Self: 0xb})
	starting.Ready(false)
	tests := []struct {
		name   string
		cfg    Config
		url    string
		status int
	}{
		{"other cluster", Config{Self: 0xa, Cluster: 1}, b.url, 412},
		{"other epoch", Config{Self: 0xa, Epoch: 1}, b.url, 412},
		{"removed", Config{Self: 0xdead}, b.url, 410},
		{"not ready", Config{Self: 0xa}, starting.url, 503},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			told := make(chan *RefusedError, 1)
			tt.cfg.OnRefused = func(by uint64, e *RefusedError) {
				select {
				case told <- e:
				default:
				}
			}
			a := open(t, tt.cfg)
			a.dir.set(0xb, tt.url)
			a.Connect(0xb)
			select {
			case e := <-told:
				if e.Status != tt.status {
					t.Errorf("refused with %v, want status %d", e, tt.status)
				}
			case <-time.After(patience):
				t.Fatal("not refused")
			}
		})
	}
}

// The first URL where the member itself answers is used.
func TestSeveralURLs(t *testing.T) {
	closed, err := Listen("http://127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := "http://" + closed.Addr().String()
	closed.Close()
	a, b, c := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb}), open(t, Config{Self: 0xc})
	a.dir.set(0xb, "ftp://127.0.0.1:1", dead, c.url, b.url)
	wantCall(t, a, 0xb, "a to b: 7 hi")
}

func TestEndpoint(t *testing.T) {
	dir := newDirectory()
	dir.members = []api.Member{
		{ID: "2943212f5e2cf73", Name: "i1", PeerURLs: []string{"http://127.0.0.1:23802"}, ClientURLs: []string{"http://127.0.0.1:23812"}},
		{ID: "fedcba9876543210", PeerURLs: []string{"http://127.0.0.1:23803"}, ClientURLs: []string{}},
	}
	a := open(t, Config{Self: 0xa, Directory: dir})
	starting := open(t, Config{Self: 0xb})
	starting.Ready(false)
	const members = `[{"id":185828541645115251,"peerURLs":["http://127.0.0.1:23802"],"name":"i1","clientURLs":["http://127.0.0.1:23812"]},` +
		`{"id":18364758544493064720,"peerURLs":["http://127.0.0.1:23803"]}]` + "\n"
	const text, json = "text/plain; charset=utf-8", "application/json"
	tests := []struct {
		name         string
		url, request string
		status       int
		contentType  string
		body         string // "*" for anything
	}{
		{"members", a.url, "GET /members", 200, json, members},
		{"members with a query", a.url, "GET /members?x=y", 200, json, members},
		{"members of nobody", starting.url, "GET /members", 200, json, "[]\n"},
		{"members POST", a.url, "POST /members", 405, text, "Method Not Allowed\n"},
		{"longer path", a.url, "GET /members/", 404, text, "404 page not found\n"},
		{"one member", a.url, "GET /members/2943212f5e2cf73", 404, text, "404 page not found\n"},
		{"version", a.url, "GET /version", 200, json, `{"etcdserver":"3.4.23","etcdcluster":"3.4.0"}`},
		{"version PUT", a.url, "PUT /version", 405, text, "Method Not Allowed\n"},
		{"healthy", a.url, "GET /health", 200, text, `{"health":"true"}`},
		{"not healthy", starting.url, "GET /health", 503, text, `{"health":"false"}` + "\n"},
		{"probing", a.url, "GET /raft/probing", 200, text, "*"},
		{"client request", a.url, "GET /v2/keys/x", 404, text, "404 page not found\n"},
		{"root", a.url, "GET /", 404, text, "404 page not found\n"},
		{"unclean path", a.url, "GET //members", 404, text, "404 page not found\n"},
		{"no upgrade", a.url, "GET /quorate/peer", 426, text, "this is quorate-peer/1\n"},
		{"longer upgrade path", a.url, "GET /quorate/peer/", 404, text, "404 page not found\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := ask(t, tt.url, tt.request+" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
			if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != tt.contentType || body != tt.body && tt.body != "*" {
				t.Errorf("answer = %d %s %q, want %d %s %q", resp.StatusCode, resp.Header.Get("Content-Type"), body, tt.status, tt.contentType, tt.body)
			}
			if tt.body == members {
				if got := resp.Header.Get("X-Etcd-Cluster-ID"); got != "63bcf61ee1e1aa41" {
					t.Errorf("X-Etcd-Cluster-ID = %q", got)
				}
			}
		})
	}

	client := &http.Client{}
	defer client.CloseIdleConnections()
	roster, err := FetchMembers(testContext(t), client, a.url)
	got := roster.Members
	if err != nil || roster.Cluster != testCluster || roster.Epoch != 0 || len(got) != 2 || got[0].ID != "2943212f5e2cf73" || got[1].ID != "fedcba9876543210" || got[1].ClientURLs == nil {
		t.Errorf("FetchMembers = %+v, %v", roster, err)
	}
	recovered := open(t, Config{Self: 0xc, Epoch: 0xfeed})
	if roster, err := FetchMembers(testContext(t), client, recovered.url); err != nil || roster.Epoch != 0xfeed {
		t.Errorf("FetchMembers of a recovered cluster = %+v, %v", roster, err)
	}
	if _, err := FetchMembers(testContext(t), client, a.url+"/quorate"); err == nil {
		t.Error("FetchMembers at a wrong URL has no error")
	}
}

// Whatever arrives, the handshake is refused with one of its statuses or says what was sent.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte(goodHandshake))
	f.Add([]byte("GET /quorate/peer HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte(strings.Replace(goodHandshake, "From: a", "From: -1", 1)))
	f.Add([]byte(strings.Replace(goodHandshake, "Host: x", "Host: x\r\nTransfer-Encoding: chunked", 1)))
	p := New(Config{Self: 0xb, Cluster: testCluster, Directory: newDirectory()})
	p.Ready(true)
	f.Cleanup(func() { p.Close() })
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(newReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		h, no := parseHello(r)
		if no != nil {
			switch no.status {
			case 400, 405, 426:
			default:
				t.Fatalf("refused with %d %s", no.status, no.text)
			}
			return
		}
		if h.kind != kindRaft && h.kind != kindAppend && h.kind != kindRPC {
			t.Fatalf("kind = %q", h.kind)
		}
		for name, v := range map[string]uint64{headerCluster: h.cluster, headerFrom: h.from, headerTo: h.to, headerEpoch: h.epoch} {
			if sent := strings.TrimLeft(strings.ToLower(r.Header.Get(name)), "0"); sent != "" && sent != api.FormatID(v) {
				t.Fatalf("%s: %q was read as %x", name, sent, v)
			}
		}
		if no := p.admit(h); no == nil && (h.cluster != testCluster || h.to != 0xb || h.epoch != 0 || h.from == 0xb) {
			t.Fatalf("%+v was let in", h)
		}
	})
}

// Whatever arrives, a frame is read as it was written, or refused without much memory.
func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{typ: frameCall, kind: 1, id: 2}, []byte("payload")))
	f.Add(appendFrame(nil, frame{typ: frameFailure, code: 3, id: 2}, nil))
	f.Add(binary.LittleEndian.AppendUint32(nil, MaxPayload+1))
	f.Add(append([]byte{0, 0, 0, 4}, make([]byte, 1000)...)) // 64 MiB are promised
	f.Fuzz(func(t *testing.T, data []byte) {
		rest := data
		r := newReader(bytes.NewReader(data))
		for {
			got, err := readFrame(r)
			if cap(got.payload) > 2*len(data)+frameChunk {
				t.Fatalf("%d bytes allocated for %d received", cap(got.payload), len(data))
			}
			if err != nil {
				return
			}
			again := appendFrame(nil, got, got.payload)
			if !bytes.HasPrefix(rest, again) {
				t.Fatalf("%x was read as %+v", rest, got)
			}
			rest = rest[len(again):]
		}
	})
}

func TestFrameTooLarge(t *testing.T) {
	header := append(binary.LittleEndian.AppendUint32(nil, MaxPayload+1), make([]byte, frameHeader)...)
	if _, err := readFrame(newReader(bytes.NewReader(header))); err == nil || err.Error() != "frame is larger than allowed: 67108865 bytes" {
		t.Errorf("readFrame = %v", err)
	}
}

// testCertificates returns an authority and a certificate of it for 127.0.0.1, for both sides.
func testCertificates(t *testing.T) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "peer test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
