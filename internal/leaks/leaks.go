// Package leaks is for tests: it finds goroutines that outlive them.
package leaks

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Main runs the tests of a package and ends the process. If they pass, but goroutines are left that do not end
// within patience either, they have failed: on a busy machine the last ones take their time.
func Main(m *testing.M, patience time.Duration, options ...goleak.Option) {
	code := m.Run()
	for deadline := time.Now().Add(patience); code == 0; {
		err := goleak.Find(options...)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}
