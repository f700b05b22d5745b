package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// oneKey returns the only argument, the key.
func oneKey(args []string) (string, error) {
	switch len(args) {
	case 0:
		return "", usagef("key required")
	case 1:
		return args[0], nil
	}
	return "", usagef("one key expected, got %d arguments: %q", len(args), args)
}

// keyAndValue returns key and value; without a second argument the value is what standard input
// holds, to its end and with its newlines.
func keyAndValue(args []string, in io.Reader) (key, value string, err error) {
	switch len(args) {
	case 0:
		return "", "", usagef("key required")
	case 1:
		b, err := io.ReadAll(in)
		if err != nil {
			return "", "", usagef("read the value: %v", err)
		}
		if len(b) == 0 {
			return "", "", usagef("value required")
		}
		return args[0], string(b), nil
	case 2:
		return args[0], args[1], nil
	}
	return "", "", usagef("key and value expected, got %d arguments: %q; quote a value with spaces", len(args), args)
}

// askPassword asks on standard error and reads one line of standard input, without echo if that is
// a terminal.
func askPassword(cmd *cobra.Command, prompt string) (string, error) {
	in, out := cmd.InOrStdin(), cmd.ErrOrStderr()
	fmt.Fprint(out, prompt)
	if f, ok := in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return "", usagef("read the password: %v", err)
		}
		return string(b), nil
	}
	line, err := readLine(in)
	fmt.Fprintln(out)
	if err != nil {
		return "", usagef("read the password: %v", err)
	}
	return line, nil
}

// readLine reads one line and nothing beyond it, so that another prompt can follow.
func readLine(in io.Reader) (string, error) {
	var b strings.Builder
	var c [1]byte
	for {
		n, err := in.Read(c[:])
		switch {
		case n == 1 && c[0] != '\n':
			b.WriteByte(c[0])
		case n == 1, errors.Is(err, io.EOF) && b.Len() > 0:
			return strings.TrimSuffix(b.String(), "\r"), nil
		case err != nil:
			return "", err
		}
	}
}
