//go:build faults

package wallclock

import (
	"os"
	"strings"
	"time"
)

// File is the environment variable with the name of a file that says by how much the clock is wrong, as
// a duration such as -1h. While there is no such file it is right.
const File = "FAULTS_CLOCK_FILE"

func offset() time.Duration {
	b, err := os.ReadFile(os.Getenv(File))
	if err != nil {
		return 0
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	return d
}
