//go:build linux && soak

package e2e

import "time"

// soakDefault is how long the soak lasts by itself.
const soakDefault = 10 * time.Minute
