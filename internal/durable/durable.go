// Package durable writes files and directories that are still there after a crash.
//
// A file is on disk when its bytes are and when the directory that names it is. Both need an
// fsync of their own, and every function here does both.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// TempSuffix ends the name of a file that is being written. Whoever finds one after a crash may
// delete it: nobody was told that it exists.
const TempSuffix = ".tmp"

// WriteFile puts data at path, in one step: after a crash the file has its old content or the new
// one, and once WriteFile has returned nil it has the new one. The directory must exist.
func WriteFile(path string, data []byte, perm fs.FileMode) error {
	tmp := path + TempSuffix
	err := writeSynced(tmp, data, perm)
	if err == nil {
		err = Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}

func writeSynced(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Rename moves a file whose content is already on disk to another name in the same directory and
// makes the new name durable.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// Mkdir makes the directory path and those above it that are missing, durably.
func Mkdir(path string, perm fs.FileMode) error {
	err := os.Mkdir(path, perm)
	switch {
	case err == nil:
		return SyncDir(filepath.Dir(path))
	case errors.Is(err, fs.ErrExist):
		info, err := os.Stat(path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("mkdir %s: a file is in the way", path)
		}
		return err
	case errors.Is(err, fs.ErrNotExist) && filepath.Dir(path) != path:
		if err := Mkdir(filepath.Dir(path), perm); err != nil {
			return err
		}
		return Mkdir(path, perm)
	}
	return err
}

// SyncDir makes the names in a directory durable.
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
