package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// bar shows on a terminal how much of a number of changes is done. Elsewhere it shows nothing.
type bar struct {
	out          io.Writer // nil: it is no terminal
	total        int
	start, shown time.Time
}

func newBar(out io.Writer, total int) *bar {
	b := &bar{total: total, start: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.out = out
	}
	return b
}

// show draws the bar anew, five times a second at most.
func (b *bar) show(done int) {
	if b.out == nil || b.total == 0 || time.Since(b.shown) < 200*time.Millisecond {
		return
	}
	b.shown = time.Now()
	const width = 30
	full := min(width*done/b.total, width)
	fmt.Fprintf(b.out, "\r[%s%s] %3d %%  %d of %d, %.0f/s \033[K", strings.Repeat("#", full), strings.Repeat(" ", width-full),
		100*done/b.total, done, b.total, float64(done)/time.Since(b.start).Seconds())
}

// end clears the line.
func (b *bar) end() {
	if b.out != nil && !b.shown.IsZero() {
		fmt.Fprint(b.out, "\r\033[K")
	}
}
