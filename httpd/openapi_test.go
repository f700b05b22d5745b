package httpd

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"
	"go.yaml.in/yaml/v3"

	"github.com/quorate/quorate/discovery"
)

// documented are the paths in the file, and the methods of each.
func documented(t *testing.T) map[string][]string {
	t.Helper()
	var file struct {
		Paths map[string]map[string]yaml.Node
	}
	if err := yaml.Unmarshal(openAPIFile, &file); err != nil {
		t.Fatal(err)
	}
	paths := map[string][]string{}
	for path, item := range file.Paths {
		for method := range item {
			if method != "parameters" {
				paths[path] = append(paths[path], strings.ToUpper(method))
			}
		}
		slices.Sort(paths[path])
	}
	return paths
}

// TestEveryRouteIsDocumented compares the routes of a server that has everything switched on with the
// file, in both directions.
func TestEveryRouteIsDocumented(t *testing.T) {
	s := NewServer(Options{Pprof: true, Routes: func(rt *mux.Router) {
		service := discovery.NewService(discovery.ServiceOptions{Keys: http.NotFoundHandler()})
		rt.MatcherFunc(func(r *http.Request, _ *mux.RouteMatch) bool { return service.Matches(r.URL.Path) }).Handler(service)
	}}, nil)
	const token = "0123456789abcdef0123456789abcdef"
	// The routes that are no templates, and those that are the same as others.
	routes := map[string]string{
		"/v2/keys":               "/v2/keys",
		"/v2/keys/":              "/v2/keys/{key}",
		"/v2/members/":           "/v2/members/{id}",
		"/v2/auth/users/":        "/v2/auth/users",
		"/v2/auth/users/{name}/": "/v2/auth/users/{name}",
		"/v2/auth/roles/":        "/v2/auth/roles",
		"/v2/auth/roles/{name}/": "/v2/auth/roles/{name}",
		"/debug/pprof/":          "/debug/pprof/{profile}",
		"/debug/pprof/{name}":    "/debug/pprof/{profile}",
		"/debug/pprof/cmdline":   "/debug/pprof/{profile}",
		"/debug/pprof/profile":   "/debug/pprof/{profile}",
		"/debug/pprof/symbol":    "/debug/pprof/{profile}",
		"/debug/pprof/trace":     "/debug/pprof/{profile}",
	}
	paths := documented(t)
	found := map[string]bool{"/v2/keys": true, "/v2/keys/{key}": true, "/v2/members/leader": true} // served by hand
	err := s.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil { // the discovery service matches by itself
			for path, template := range map[string]string{"/new": "/new", "/" + token: "/{token}", "/" + token + "/abc": "/{token}/{entry}"} {
				if route.Match(httptest.NewRequest("GET", path, nil), &mux.RouteMatch{}) {
					found[template] = true
				}
			}
			return nil
		}
		if same, ok := routes[template]; ok {
			template = same
		}
		if _, ok := paths[template]; !ok {
			t.Errorf("the route %s is not in openapi.yaml", template)
		}
		found[template] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path := range paths {
		if !found[path] {
			t.Errorf("%s is in openapi.yaml, and no route of the server", path)
		}
	}
}

// TestMethodsAreDocumented asks each path for a method that nobody has: the answer names those it has.
func TestMethodsAreDocumented(t *testing.T) {
	s := NewServer(Options{}, nil)
	for path, methods := range documented(t) {
		if strings.HasPrefix(path, "/debug/pprof/") || strings.HasPrefix(path, "/{token}") || path == "/new" || path == "/metrics" {
			continue // whose handlers are not ours, or take all methods
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("PATCH", strings.NewReplacer("{", "", "}", "").Replace(path), nil))
		allowed := strings.Split(w.Header().Get("Allow"), ",")
		slices.Sort(allowed)
		if path == "/v2/members" {
			methods = []string{"DELETE", "GET", "POST", "PUT"} // as etcd says, though it refuses two of them
		}
		if path == "/v2/members/leader" {
			continue // below /v2/members/{id}
		}
		if w.Code != http.StatusMethodNotAllowed || !slices.Equal(allowed, methods) {
			t.Errorf("%s: status %d, Allow %q, in openapi.yaml are %q", path, w.Code, allowed, methods)
		}
	}
}
