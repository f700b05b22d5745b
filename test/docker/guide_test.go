//go:build linux && docker

package docker

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/quorate/quorate/internal/sandbox"
)

// TestGuide types what docs/docker.md says, from its first command to its last, into a shell. Its blocks marked sh
// are the commands. The names in it are everyday ones, so that is only done in an engine of our own.
func TestGuide(t *testing.T) {
	b := newBench(t, "guide")
	if !sandbox.Inside() {
		t.Skip("the engine is not ours")
	}
	for _, tool := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	b.docker("tag", b.image, "quorate:local")
	script := "set -eux\n" + commands(t, "docs/docker.md")
	ctx, cancel := context.WithTimeout(t.Context(), 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, tail(string(out), 60))
	}
	for _, kind := range []string{"container", "volume", "network"} {
		for _, name := range []string{"discovery", "n1", "n2", "n3", "n3b", "quorate"} {
			if out, err := b.try(kind, "inspect", name); err == nil {
				t.Errorf("the guide leaves a %s behind:\n%s", kind, out)
			}
		}
	}
}

// commands are the blocks of a document that are marked sh. Where a comment says what a command prints, or that
// it fails, that is checked.
func commands(t *testing.T, path string) string {
	t.Helper()
	var out strings.Builder
	in := false
	for line := range strings.Lines(readFile(t, path)) {
		switch {
		case strings.HasPrefix(line, "```"):
			in = strings.TrimSpace(line) == "```sh"
		case in:
			out.WriteString(checked(strings.TrimRight(line, "\n")) + "\n")
		}
	}
	return out.String()
}

// checked is a line of shell that ends the script when it does not do what its comment says.
func checked(line string) string {
	command, comment, _ := strings.Cut(line, " # ")
	command = strings.TrimSpace(command)
	if printed, ok := strings.CutPrefix(comment, "prints "); ok {
		return `test "$(` + command + `)" = "` + printed + `"`
	}
	if failing, ok := strings.CutPrefix(command, "! "); ok {
		return "if " + failing + "; then exit 1; fi"
	}
	return line
}
