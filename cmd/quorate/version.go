package main

import (
	"runtime"
	"runtime/debug"
)

const (
	goOS   = runtime.GOOS
	goArch = runtime.GOARCH
)

var goVersion = runtime.Version()

// release is set when a release is built: -ldflags "-X main.release=v1.2.3".
var release string

// version returns the release, or the commit that the program was built from.
func version() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "commit " + s.Value[:12]
		}
	}
	return "development"
}
