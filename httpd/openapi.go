package httpd

import (
	_ "embed"
	"net/http"
)

// openAPIFile describes all that a member answers, those parts included that others add to the server.
//
//go:embed openapi.yaml
var openAPIFile []byte

// openAPI serves GET /quorate/v1/openapi.yaml.
func openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(openAPIFile)
}
