package disk

import (
	"fmt"
	"math/bits"

	"golang.org/x/sys/unix"
)

// Reserve is how much space of a file system is to stay free: a number of bytes, or a part of all.
type Reserve struct {
	Bytes   uint64
	Percent uint // of the file system; counts if Bytes is 0
}

// Of returns the reserve of a file system of total bytes.
func (r Reserve) Of(total uint64) uint64 {
	if r.Bytes > 0 || r.Percent == 0 {
		return r.Bytes
	}
	high, low := bits.Mul64(total, uint64(min(r.Percent, 100)))
	part, _ := bits.Div64(high, low, 100)
	return part
}

// Space is how much room there is on the file system of a directory.
type Space struct {
	Dir         string
	Free, Total uint64 // bytes; Free is what a process without privileges gets
	Reserve     uint64 // bytes that are to stay free
}

// Low says that there is less than the reserve.
func (s Space) Low() bool { return s.Free < s.Reserve }

// Space returns the space for the data directory, and for the log if it is elsewhere.
func (d *Dir) Space() ([]Space, error) {
	dirs := []string{d.member()}
	if d.opts.WALDir != d.member("wal") {
		dirs = append(dirs, d.opts.WALDir)
	}
	var all []Space
	for _, dir := range dirs {
		s, err := spaceOf(dir, d.opts.Reserve)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func spaceOf(dir string, reserve Reserve) (Space, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return Space{}, fmt.Errorf("look for free space in %s: %w", dir, err)
	}
	block := uint64(fs.Bsize)
	s := Space{Dir: dir, Free: uint64(fs.Bavail) * block, Total: fs.Blocks * block}
	s.Reserve = reserve.Of(s.Total)
	return s, nil
}

// snapSpaceEvery is after how many bytes of a snapshot its writer looks for free space.
const snapSpaceEvery = 4 << 20

// room says why a snapshot must not grow: it may use half of the reserve, as it lets the log become
// shorter, but the other half is the log's, which cannot do without.
func (s *snapshotStore) room() error {
	space, err := spaceOf(s.dir, s.reserve)
	if err != nil {
		return err
	}
	if space.Free < space.Reserve/2 {
		return fmt.Errorf("%s has %d bytes free, of which the log may need %d: make room there", s.dir, space.Free, space.Reserve/2)
	}
	return nil
}
