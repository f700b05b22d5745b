package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// An export can be a tree: every key a file that holds its value and nothing else, every directory
// a directory. What files cannot say is in treeFile: where the keys came from, times to live, and
// whether the prefix itself is to be there.
const (
	treeFormat = "quorate-tree/1"
	treeFile   = ".quorate.yaml"
	// maxFileName is how many bytes the name of a file may have on the usual file systems.
	maxFileName = 255
)

// escapeName turns the last part of a key into the name of a file. A leading dot, percent signs,
// backslashes and control characters become %XX, so no name is "..", or one of a tool's own files.
func escapeName(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c < ' ' || c == 0x7f || c == '%' || c == '\\' || c == '.' && i == 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// unescapeName is the reverse of escapeName, and accepts nothing that it does not return.
func unescapeName(file string) (string, error) {
	name, err := url.PathUnescape(file)
	if err != nil || escapeName(name) != file || !utf8.ValidString(name) {
		return "", errors.New("no name that an export has: %, \\ and control characters are written as %25, %5C and so on, all in UTF-8")
	}
	return name, nil
}

// checkTreeTarget refuses what a tree cannot be written to: anything but an empty directory or nothing.
func checkTreeTarget(dir string) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is there and no directory", dir)
	}
	found, err := os.ReadDir(dir)
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%s is not empty: name a new directory", dir)
	}
	return err
}

// writeTree writes e as a tree to dir, which must be empty or not there. It is written beside dir and
// renamed, so that dir is complete once it has anything in it.
func (e export) writeTree(ctx context.Context, dir string) (err error) {
	dir = filepath.Clean(dir)
	if err := checkTreeTarget(dir); err != nil {
		return err
	}
	// The keys are a server's word: none may be outside of the prefix, or be a key and a directory.
	if _, _, err := e.entries(""); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".quorate-export-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	aside := e
	aside.Format, aside.Nodes = treeFormat, []exportNode{}
	for _, n := range e.Nodes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeTreeNode(root, e.Prefix, n); err != nil {
			return fmt.Errorf("key %q: %w", n.Key, err)
		}
		if n.Expiration != nil || n.Key == e.Prefix {
			aside.Nodes = append(aside.Nodes, exportNode{Key: n.Key, Dir: n.Dir, Expiration: n.Expiration})
		}
	}
	var b bytes.Buffer
	if err := aside.encode(&b, "yaml"); err != nil {
		return err
	}
	if err := root.WriteFile(treeFile, b.Bytes(), 0o600); err != nil {
		return err
	}
	if err := root.Close(); err != nil { // some systems rename nothing that is open
		return err
	}
	// Only an empty directory can be removed, whatever has come into it since it was looked at.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, dir)
}

func writeTreeNode(root *os.Root, prefix string, n exportNode) error {
	if n.Key == prefix {
		if n.Dir {
			return nil
		}
		return errors.New("a key alone is no tree; export its directory, or use --format json")
	}
	var names []string
	below := strings.TrimPrefix(n.Key, strings.TrimSuffix(prefix, "/")+"/")
	for name := range strings.SplitSeq(below, "/") {
		name = escapeName(name)
		if len(name) > maxFileName {
			return fmt.Errorf("a file's name has at most %d bytes, this would have %d; use --format json", maxFileName, len(name))
		}
		names = append(names, name)
	}
	dir := names
	if !n.Dir {
		dir = names[:len(names)-1]
	}
	if len(dir) > 0 {
		if err := root.MkdirAll(path.Join(dir...), 0o700); err != nil {
			return err
		}
	}
	if n.Dir {
		return nil
	}
	// Exclusively: where large and small letters are the same, two keys may be one file.
	f, err := root.OpenFile(path.Join(names...), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(*n.Value)
	return errors.Join(err, f.Close())
}

// readTree reads a tree. One without treeFile, which somebody has made by hand, is only good if the
// keys are to be put below a prefix that was given.
func readTree(dir, prefix string) (export, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return export{}, err
	}
	defer root.Close()
	e := export{Format: exportFormat, Prefix: "/"}
	t := tree{root: root, aside: map[string]exportNode{}}
	switch info, err := root.Lstat(treeFile); {
	case errors.Is(err, fs.ErrNotExist) && prefix != "":
	case errors.Is(err, fs.ErrNotExist):
		return e, fmt.Errorf("there is no %s: say with --prefix where the keys belong", treeFile)
	case err != nil:
		return e, err
	case !info.Mode().IsRegular():
		return e, fmt.Errorf("%s is no regular file", treeFile)
	default:
		b, err := root.ReadFile(treeFile)
		if err == nil {
			e, err = decodeExport(b)
		}
		if err == nil && e.Format != treeFormat {
			err = fmt.Errorf("format %q, want %q", e.Format, treeFormat)
		}
		if err != nil {
			return e, fmt.Errorf("%s: %w", treeFile, err)
		}
		e.Format, e.Prefix = exportFormat, path.Join("/", e.Prefix)
		for _, n := range e.Nodes {
			t.aside[n.Key] = n
		}
	}
	if self, listed := t.aside[e.Prefix]; listed && self.Dir {
		t.nodes = append(t.nodes, self)
	}
	_, err = t.read(".", strings.TrimSuffix(e.Prefix, "/"))
	e.Nodes = t.nodes
	return e, err
}

// tree is what readTree has at hand while it goes through the files.
type tree struct {
	root  *os.Root
	aside map[string]exportNode // of treeFile, by key
	nodes []exportNode
}

// read adds what is in dir, whose key is key, and tells whether that is nothing. Names with a leading
// dot are not looked at: they are treeFile and what tools like git keep there.
func (t *tree) read(dir, key string) (empty bool, err error) {
	found, err := fs.ReadDir(t.root.FS(), dir)
	if err != nil {
		return false, err
	}
	empty = true
	for _, f := range found {
		if strings.HasPrefix(f.Name(), ".") {
			continue
		}
		empty = false
		file := path.Join(dir, f.Name())
		name, err := unescapeName(f.Name())
		if err != nil {
			return false, fmt.Errorf("%q: %w", file, err)
		}
		n := exportNode{Key: key + "/" + name, Dir: f.IsDir()}
		if aside := t.aside[n.Key]; aside.Dir == n.Dir {
			n.Expiration = aside.Expiration
		}
		switch {
		case f.IsDir():
			nothing, err := t.read(file, n.Key)
			if err != nil {
				return false, err
			}
			if !nothing && n.Expiration == nil {
				continue // it comes by itself with what is in it
			}
		case !f.Type().IsRegular():
			return false, fmt.Errorf("%q is neither a regular file nor a directory; links are not followed", file)
		default:
			b, err := t.root.ReadFile(file)
			if err != nil {
				return false, err
			}
			if !utf8.Valid(b) {
				return false, fmt.Errorf("%q is not UTF-8, and the API has no other values", file)
			}
			value := string(b)
			n.Value = &value
		}
		t.nodes = append(t.nodes, n)
	}
	return empty, nil
}
