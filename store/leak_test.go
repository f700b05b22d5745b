package store

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/quorate/quorate/internal/leaks"
)

// What waits for a future that raft forgot when it was shut down stays (runningRaft.wait).
func TestMain(m *testing.M) {
	leaks.Main(m, patience, goleak.IgnoreAnyFunction("github.com/quorate/quorate/store.(*runningRaft).wait.func1"))
}
