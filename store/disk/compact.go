package disk

import (
	"errors"
	"time"

	"go.etcd.io/bbolt"

	"github.com/quorate/quorate/internal/durable"
)

const compactSuffix = ".compact"

// compact replaces the file at path, which nobody has open, by a copy without its free pages.
// bolt never makes a file smaller. The head h is that of the file: its transaction number has to
// be replaced too.
func compact(path string, h head, noSync bool) error {
	tmp := path + compactSuffix
	err := copyBolt(tmp, path, noSync)
	if err == nil {
		err = replaceHead(tmp, h)
	}
	if err == nil {
		err = durable.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(tmp))
	}
	return nil
}

func copyBolt(to, from string, noSync bool) error {
	_, err := shielded(from, func() error {
		src, err := bbolt.Open(from, fileMode, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
		if err != nil {
			return err
		}
		dst, err := bbolt.Open(to, fileMode, boltOptions(noSync))
		if err == nil {
			err = bbolt.Compact(dst, src, 16<<20)
			err = errors.Join(err, dst.Close())
		}
		return errors.Join(err, src.Close())
	})
	return err
}

func replaceHead(path string, h head) error {
	bolt, err := openBolt(path, false)
	if err != nil {
		return err
	}
	h.trim = 0
	return errors.Join(writeFirstHead(bolt, path, h), bolt.Close())
}
