package imports

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestPackagesDependDownward(t *testing.T) {
	root := filepath.Join("..", "..")
	seen := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			// test/compat is a module of its own.
			if rel != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || rel == "test/compat") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") || strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(rel))
		may, ok := allowed[pkg]
		if !ok {
			t.Errorf("package %s is not in the list of this test: say there what it may import", pkg)
			return nil
		}
		seen[pkg] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name := strings.Trim(spec.Path.Value, `"`)
			if own, ok := strings.CutPrefix(name, module+"/"); ok && !slices.Contains(may, own) {
				t.Errorf("%s imports %s, which lies above it or beside it", rel, own)
			}
			if strings.HasPrefix(name, "github.com/hashicorp/raft") && !slices.Contains(raftUsers, pkg) {
				t.Errorf("%s imports %s: raft is known to %s only", rel, name, strings.Join(raftUsers, ", "))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range allowed {
		if !seen[pkg] && !slices.Contains([]string{"test/docker"}, pkg) {
			t.Errorf("package %s is in the list and not in the tree", pkg)
		}
	}
}
