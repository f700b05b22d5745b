package httpd_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/httpdtest"
)

// discard is a ResponseWriter that costs nothing, so that only the server's own work is measured.
type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(int)             {}
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// body is a request body that can be read again.
type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

func BenchmarkHandler(b *testing.B) {
	form := "value=" + strings.Repeat("x", 128)
	for _, bm := range []struct{ name, method, target, form string }{
		{"GET/value=128B", "GET", "/v2/keys/bench/key", ""},
		{"GET/quorum=true", "GET", "/v2/keys/bench/key?quorum=true", ""},
		{"GET/missing", "GET", "/v2/keys/bench/none", ""},
		{"PUT/value=128B", "PUT", "/v2/keys/bench/key", form},
		{"version", "GET", "/version", ""},
	} {
		b.Run(bm.name, func(b *testing.B) {
			m := httpdtest.New(1000)
			defer m.Close()
			h := httpd.NewServer(httpd.Options{}, m).Handler()
			put := httptest.NewRequest("PUT", "/v2/keys/bench/key", strings.NewReader(form))
			put.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			h.ServeHTTP(httptest.NewRecorder(), put)

			r := httptest.NewRequest(bm.method, bm.target, nil)
			data := &body{}
			if bm.form != "" {
				r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				r.Body, r.ContentLength = data, int64(len(bm.form))
			}
			w := &discard{h: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				data.Reset([]byte(bm.form))
				clear(w.h)
				h.ServeHTTP(w, r)
			}
		})
	}
}
