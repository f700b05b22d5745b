package cli

import (
	"io"
	"os"

	"github.com/fatih/color"
	"golang.org/x/term"
)

const (
	good = color.FgGreen
	bad  = color.FgRed
	warn = color.FgYellow
)

// paint returns a text in a colour if it goes to a terminal, and as it is otherwise: into files and pipes, to
// a terminal that knows no colours, and for people who want none (NO_COLOR, https://no-color.org).
func paint(out io.Writer, c color.Attribute, text string) string {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	style := color.New(c)
	style.EnableColor()
	return style.Sprint(text)
}

// health is the colour of what is healthy or not.
func health(healthy bool) color.Attribute {
	if healthy {
		return good
	}
	return bad
}
