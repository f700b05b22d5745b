//go:build linux

package cli_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// odd has names and values that a file system could spoil.
var odd = []put{
	{"/app/.dot", "1", 0},
	{"/app/..two", "2", 0},
	{"/app/...", "3", 0},
	{"/app/.quorate.yaml", "not the file aside", 0},
	{"/app/100%", "4", 0},
	{"/app/%2E", "5", 0},
	{"/app/back\\slash", "6", 0},
	{"/app/line\nbreak\x7f", "7", 0},
	{"/app/ spaces é: #?* ", "8", 0},
	{"/app/" + strings.Repeat("n", 255), "9", 0},
	{"/app/.d%r/x", "10", time.Hour},
	{"/app/.d%r/empty/", "", 0},
	{"/app/bytes", "\x00\x01\r\n\ufeff\U0010ffff\n\n", 0},
	{"/app/" + strings.Repeat("deep/", 100) + "end", "11", 0},
}

func TestTreeExportImport(t *testing.T) {
	for _, prefix := range []string{"/", "/app"} {
		t.Run(strings.Trim(prefix, "/"), func(t *testing.T) {
			a, b := newStore(t, "a"), newStore(t, "b")
			a.fill(sample...)
			a.fill(odd...)
			if prefix != "/" {
				if got := a.run("", "rm", "/other"); got.code != 0 {
					t.Fatal(got)
				}
			}
			parent := t.TempDir()
			dir := filepath.Join(parent, "tree")
			if got := a.run("", "export", "--format", "tree", "--to", dir, prefix); got != (result{}) {
				t.Fatalf("export: %v", got)
			}
			if found, err := os.ReadDir(parent); err != nil || len(found) != 1 {
				t.Errorf("beside the tree: %v, %v", found, err)
			}
			file := filepath.Join(dir, strings.TrimPrefix("/app/text", prefix))
			if got, err := os.ReadFile(file); err != nil || string(got) != sample[1].value {
				t.Errorf("%s: %q, %v", file, got, err)
			}
			if got := a.run("", "diff", dir); got != (result{}) {
				t.Errorf("diff with what was exported: %v", got)
			}
			if got := b.run("", "import", dir); got.code != 0 {
				t.Errorf("import: %v", got)
			}
			if got, want := b.dump(), a.dump(); got != want {
				t.Errorf("after the import:\n%s\nwant:\n%s", got, want)
			}
			if got := b.run("", "import", "--prefix", "/copy", dir); got.code != 0 {
				t.Errorf("import below another prefix: %v", got)
			}
			if got := b.run("", "diff", "--prefix", "/copy", dir); got != (result{}) {
				t.Errorf("diff below another prefix: %v", got)
			}
		})
	}
}

// The prefix itself is there after an import only if it was there before.
func TestTreeExportOfNothing(t *testing.T) {
	a, b := newStore(t, "a"), newStore(t, "b")
	a.fill(put{"/empty/", "", 0}, put{"/short/", "", 3 * time.Hour}, put{"/short/key", "1", 0})
	for _, prefix := range []string{"/empty", "/short", "/nowhere"} {
		dir := t.TempDir() // an empty directory will do
		if got := a.run("", "export", "--format", "tree", "--to", dir, prefix); got != (result{}) {
			t.Fatalf("export of %s: %v", prefix, got)
		}
		if got := b.run("", "import", dir); got.code != 0 {
			t.Errorf("import of %s: %v", prefix, got)
		}
	}
	if got, want := b.dump(), a.dump(); got != want {
		t.Errorf("after the imports:\n%s\nwant:\n%s", got, want)
	}
}

func TestTreeExportRefuses(t *testing.T) {
	s := newStore(t, "a")
	s.fill(put{"/key", "1", 0}, put{"/long/" + strings.Repeat("n", 256), "1", 0}, put{"/long/a", "1", 0})
	parent := t.TempDir()
	full, file, free := filepath.Join(parent, "full"), filepath.Join(parent, "full", "x"), filepath.Join(parent, "free")
	if err := os.Mkdir(full, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"no directory", []string{"--format", "tree"}, "needs --to DIR"},
		{"a directory for a file", []string{"--to", free}, "--to is for --format tree"},
		{"another format", []string{"--format", "xml"}, "json, yaml or tree"},
		{"a directory in use", []string{"--format", "tree", "--to", full}, "is not empty"},
		{"a file in its place", []string{"--format", "tree", "--to", file}, "is there and no directory"},
		{"a key", []string{"--format", "tree", "--to", free, "/key"}, "a key alone is no tree"},
		{"a long name", []string{"--format", "tree", "--to", free, "/long"}, "at most 255 bytes, this would have 256"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := s.run("", append([]string{"export"}, test.args...)...); got.code != 1 || !strings.Contains(got.err, test.want) {
				t.Errorf("%v, want %q", got, test.want)
			}
			if found, err := os.ReadDir(parent); err != nil || len(found) != 1 {
				t.Errorf("left behind: %v, %v", found, err)
			}
		})
	}
}

// Whatever a server says the keys are, nothing is written outside of the directory.
func TestTreeExportFromHostileServer(t *testing.T) {
	for _, nodes := range []string{
		`{"key":"/app/../../evil","value":"x"}`,
		`{"key":"/app/..","value":"x"}`,
		`{"key":"/app/.","dir":true}`,
		`{"key":"/app//evil","value":"x"}`,
		`{"key":"/evil","value":"x"}`,
		`{"key":"app/evil","value":"x"}`,
		`{"key":"/app/a","value":"x"},{"key":"/app/a/b","value":"x"}`,
	} {
		t.Run(nodes, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("X-Etcd-Index", "7")
				io.WriteString(w, `{"action":"get","node":{"key":"/app","dir":true,"nodes":[`+nodes+`]}}`)
			}))
			defer server.Close()
			parent := t.TempDir()
			got := quorate(t, "", "-C", server.URL, "--no-sync", "export", "--format", "tree", "--to", filepath.Join(parent, "tree"), "/app")
			if got.code != 1 || !strings.Contains(got.err, "write ") {
				t.Errorf("export: %v", got)
			}
			if found, err := os.ReadDir(parent); err != nil || len(found) != 0 {
				t.Errorf("written: %v, %v", found, err)
			}
		})
	}
}

func TestTreeImportByHand(t *testing.T) {
	s := newStore(t, "a")
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "app", "empty"), 0o700),
		os.MkdirAll(filepath.Join(dir, ".git"), 0o700),
		os.WriteFile(filepath.Join(dir, ".git", "HEAD"), []byte("ref"), 0o600),
		os.WriteFile(filepath.Join(dir, "app", "key"), []byte("1\n"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := s.run("", "import", dir); got.code != 1 || !strings.Contains(got.err, "say with --prefix where the keys belong") {
		t.Errorf("import without a prefix: %v", got)
	}
	if got := s.run("", "import", "--prefix", "/x", dir); got.code != 0 {
		t.Errorf("import: %v", got)
	}
	if got, want := s.dump(), "/x/\n/x/app/\n/x/app/empty/\n/x/app/key=\"1\\n\"\n"; got != want {
		t.Errorf("after the import:\n%s\nwant:\n%s", got, want)
	}
}

func TestTreeImportRefuses(t *testing.T) {
	s := newStore(t, "a")
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	for _, test := range []struct {
		name string
		make func(dir string) error
		want string
	}{
		{"a link", func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "x")) }, "links are not followed"},
		{"a link to a directory", func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "x")) }, "links are not followed"},
		{"a pipe", func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, "x"), 0o600) }, "neither a regular file"},
		{"a link aside", func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, ".quorate.yaml")) }, "no regular file"},
		{"another file aside", write(".quorate.yaml", "format: quorate-tree/2\n"), `want "quorate-tree/1"`},
		{"no escape", write("100%", ""), "written as %25"},
		{"a needless escape", write("%61", ""), "no name that an export has"},
		{"a slash", write("x%2F..", ""), "no name that an export has"},
		{"the parent", write("%2E.", ""), `"/.." is no key`},
		{"a name that is not UTF-8", write("\xff", ""), "all in UTF-8"},
		{"a value that is not UTF-8", write("x", "\xff"), "is not UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := test.make(dir); err != nil {
				t.Fatal(err)
			}
			if got := s.run("", "import", "--prefix", "/x", dir); got.code != 1 || !strings.Contains(got.err, test.want) {
				t.Errorf("%v, want %q", got, test.want)
			}
		})
	}
	if got := s.dump(); got != "" {
		t.Errorf("something was written:\n%s", got)
	}
}
