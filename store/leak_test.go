package store

import (
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain checks that no goroutine outlives the tests. On a busy machine the last ones take their time.
func TestMain(m *testing.M) {
	code := m.Run()
	for deadline := time.Now().Add(patience); code == 0; {
		// What waits for a future that raft forgot when it was shut down stays (runningRaft.wait).
		err := goleak.Find(goleak.IgnoreAnyFunction("github.com/quorate/quorate/store.(*runningRaft).wait.func1"))
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
