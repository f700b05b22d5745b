package plain

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Of a TLS listener, HTTP/1.1 is served here, and HTTP/2 and what is no TLS at all by net/http.
func TestTLS(t *testing.T) {
	issuer := httptest.NewTLSServer(nil)
	defer issuer.Close()
	roots := x509.NewCertPool()
	roots.AddCert(issuer.Certificate())

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := New(Config{
		Prefix: "/v2/keys", Handler: tlsOnly{}, MaxBody: 1000,
		HeaderTimeout: time.Minute, ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: time.Minute,
	})
	behind := &http.Server{
		ReadHeaderTimeout: time.Minute,
		ErrorLog:          log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "net/http: "+r.Proto)
			if r.TLS == nil {
				t.Error("net/http does not know of TLS")
			}
		}),
	}
	served := make(chan error, 1)
	go func() {
		served <- behind.Serve(server.Listener(tls.NewListener(tcp, &tls.Config{
			Certificates: issuer.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"},
		})))
	}()
	defer func() {
		server.Close()
		behind.Close()
		<-served
	}()

	for _, tt := range []struct {
		name, path string
		h2         bool
		want       string
	}{
		{"HTTP/1.1", "/v2/keys/k", false, "plain: TLS"},
		{"HTTP/1.1, handed over", "/version", false, "net/http: HTTP/1.1"},
		{"HTTP/2", "/v2/keys/k", true, "net/http: HTTP/2.0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: tt.h2}
			defer transport.CloseIdleConnections()
			client := http.Client{Transport: transport, Timeout: time.Minute}
			for range 2 {
				resp, err := client.Get("https://" + tcp.Addr().String() + tt.path)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != tt.want || err != nil {
					t.Errorf("got %q and %v, want %q", body, err, tt.want)
				}
			}
		})
	}
	t.Run("no TLS", func(t *testing.T) {
		conn, err := net.Dial("tcp", tcp.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, get)
		line, err := bufio.NewReader(conn).ReadString('\n')
		if want := "HTTP/1.0 400 Bad Request\r\n"; line != want || err != nil {
			t.Errorf("got %q and %v, want %q", line, err, want)
		}
	})
}

// tlsOnly says whether it knows of TLS.
type tlsOnly struct{}

func (tlsOnly) ServePlain(w *Response, r *Request) bool {
	w.Status(http.StatusOK)
	w.Body(func(b []byte) []byte {
		if state := r.TLS(); state != nil && state.HandshakeComplete {
			return append(b, "plain: TLS"...)
		}
		return append(b, "plain: no TLS"...)
	})
	return true
}
