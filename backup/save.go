package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quorate/quorate/internal/durable"
)

// syncEvery is how much is written before it is put on disk: the log of a member on the same disk need
// not wait for all of a large file then.
const syncEvery = 16 << 20

// ErrExists says that a file is there already.
var ErrExists = errors.New("the file exists already")

// Save makes the file path of what write writes, in one step: it gets its name once it is on disk and
// was read again and found whole. Before that, and after an error, there is nothing at path but what
// was there. An existing file is replaced only if force is set.
func Save(path string, force bool, write func(io.Writer) error) (*Content, error) {
	if err := mayCreate(path, force); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+durable.TempSuffix)
	if err != nil {
		return nil, err
	}
	content, err := fill(f, write)
	if err = errors.Join(err, f.Close()); err == nil {
		err = mayCreate(path, force)
	}
	if err == nil {
		err = durable.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return nil, err
	}
	return content, nil
}

func mayCreate(path string, force bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%s is a directory", path)
	case !force:
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	return nil
}

// fill writes and reads a new file, which has mode 0600.
func fill(f *os.File, write func(io.Writer) error) (*Content, error) {
	if err := write(&syncedWriter{file: f}); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	return readFile(f)
}

// syncedWriter puts a file on disk piece by piece.
type syncedWriter struct {
	file     *os.File
	unsynced int
}

func (w *syncedWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	if w.unsynced += n; err == nil && w.unsynced >= syncEvery {
		w.unsynced = 0
		err = w.file.Sync()
	}
	return n, err
}
