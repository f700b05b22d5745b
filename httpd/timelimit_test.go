package httpd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// Each operation has the whole time-out, and not much more.
func TestTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 7 * time.Second
		l := timeLimit{timeout: timeout}
		contexts := map[context.Context]bool{}
		for range 1000 {
			begin := time.Now()
			ctx := l.begin(begin)
			contexts[ctx] = true
			deadline, ok := ctx.Deadline()
			if d := deadline.Sub(begin); !ok || d < timeout || d > timeout+timeout/64 {
				t.Fatalf("an operation may take %v, want %v or a little more", d, timeout)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := len(contexts); n > 100 {
			t.Errorf("%d contexts for 1000 operations within 10s", n)
		}
		last := l.begin(time.Now())
		begun := time.Now()
		<-last.Done()
		if d := time.Since(begun); d < timeout || d > timeout+timeout/64 {
			t.Errorf("ended after %v, want %v", d, timeout)
		}
		if err := last.Err(); err != context.DeadlineExceeded {
			t.Errorf("ended with %v", err)
		}
	})
}
