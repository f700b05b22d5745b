//go:build linux && !e2e

package e2e

// long says whether the long rounds were asked for.
const long = false
