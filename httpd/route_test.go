package httpd

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"
)

// What everybody may use while users and roles are in force (spec auth 3), by the first letters, with the
// method or for all of them. What is below /v2/auth decides for itself.
var open = []string{
	"GET /v2/members", "/v2/machines", "GET /v2/stats/", "/v2/auth/", "GET /quorate/v1/status", "GET /quorate/v1/openapi.yaml",
	"/version", "/health", "/livez", "/readyz", "/metrics", "/debug/vars",
}

// stranger is an Authorizer that lets nobody do anything.
type stranger struct{}

func (stranger) Authorize(*http.Request, Access) error { return errAdminCredentials }

// nothing is a Backend that must not be asked for anything but its name.
type nothing struct{ Backend }

func (nothing) ClusterID() uint64 { return 1 }

// Every endpoint is either in the list of those that are for everybody or refuses strangers: whoever adds
// one has to decide.
func TestEveryRouteIsGuarded(t *testing.T) {
	s := NewServer(Options{Authorizer: stranger{}, Auth: http.NotFoundHandler(), Pprof: true}, nothing{})
	n := 0
	err := s.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		path = strings.NewReplacer("{name}", "x").Replace(path)
		for _, method := range []string{"GET", "HEAD", "PUT", "POST", "DELETE"} {
			n++
			line := method + " " + path
			if slices.ContainsFunc(open, func(o string) bool { return strings.HasPrefix(line, o) || strings.HasPrefix(path, o) }) {
				continue
			}
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusUnauthorized && w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s: %d %s, want 401 or 405", line, w.Code, w.Body)
			}
		}
		return nil
	})
	if err != nil || n < 100 {
		t.Errorf("%d requests: %v", n, err)
	}
}
