//go:build linux && e2e && !soak

package e2e

import "time"

// soakDefault is how long the soak lasts as one of many tests.
const soakDefault = 10 * time.Second
