package store

import (
	"os"
	"path/filepath"
	"testing"
)

// A member that is started alone after all were killed shows what was committed, though nobody can
// tell it so.
func TestRestartAlone(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		harm func(note []byte) []byte // to the note of what was applied
		want string
	}{
		{"note as it was", func(note []byte) []byte { return note }, "2"},
		{"note damaged", func(note []byte) []byte { note[3] ^= 1; return note }, "100: Key not found (/a) [0]"},
		{"note missing", func(note []byte) []byte { return nil }, "100: Key not found (/a) [0]"},
		{"note of another log", func([]byte) []byte { return sealedNote(1<<40, 2) }, "100: Key not found (/a) [0]"},
		{"note of another term", func([]byte) []byte { return sealedNote(3, 77) }, "100: Key not found (/a) [0]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newTestCluster(t, 3)
			n := c.follower()
			n.set("/a", "1")
			n.set("/a", "2")
			for _, other := range c.nodes {
				other.crash()
			}
			path := filepath.Join(n.options.DataDir, "member", appliedFile)
			note, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.harm(note), 0o600); err != nil {
				t.Fatal(err)
			}
			n.restart()
			if got := n.get("/a"); got != tt.want {
				t.Errorf("/a = %q, want %q", got, tt.want)
			}
			for _, other := range c.nodes {
				if other != n {
					other.restart()
				}
			}
			n.set("/b", "3")
			if got := n.get("/a"); got != "2" {
				t.Errorf("/a with all members = %q, want 2", got)
			}
			c.awaitEqual()
		})
	}
}

func sealedNote(index, term uint64) []byte {
	f, err := os.CreateTemp("", "note")
	if err != nil {
		panic(err)
	}
	defer os.Remove(f.Name())
	n := &appliedNote{file: f}
	if err := n.write(index, term); err != nil {
		panic(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		panic(err)
	}
	return b
}
