// Package backup is the file that a backup of a cluster is: what it says of itself, the state, and a
// checksum over all of it. A file that is cut off or altered in any byte is refused. Here are also the
// saving of such files and the schedule by which a member writes them.
//
// What is in the state is package fsm's business.
package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// A backup is
//
//	magic   8 bytes
//	n       4 bytes, length of the header
//	header  n bytes, JSON of [Info]
//	state   as package fsm writes it
//	size    8 bytes, of the state
//	sum     32 bytes, SHA-256 of all before
//
// with numbers in little endian. Header and state come first, so that it can be written to a
// connection; the sum comes last, so that what was cut off is never taken for whole.
const (
	magic   = "quobkup1"
	version = 1
	// maxHeader bounds what a damaged length can reserve.
	maxHeader   = 64 << 10
	sizeBytes   = 8
	trailerSize = sizeBytes + sha256.Size
)

// ContentType is what a backup is called over HTTP.
const ContentType = "application/vnd.quorate.backup"

// ErrDamaged is wrapped by the errors for what is not a whole backup.
var ErrDamaged = errors.New("this is not a whole backup of quorate")

// Info is what a backup says of itself. IDs are in hex, as everywhere.
type Info struct {
	Version int    `json:"version"` // of the format; set when it is written
	Cluster string `json:"cluster"`
	// Member and Name are those of the member that made it.
	Member string `json:"member"`
	Name   string `json:"name"`
	// Index is X-Etcd-Index, RaftIndex the last log entry in the state, and Term raft's.
	Index     uint64 `json:"index"`
	RaftIndex uint64 `json:"raftIndex"`
	Term      uint64 `json:"term"`
	Keys      int    `json:"keys"`
	Dirs      int    `json:"directories"`
	// Time is when the state was taken, by the clock of the member.
	Time time.Time `json:"time"`
}

// State is a state at one moment that has yet to be written.
type State struct {
	Info  Info
	State io.WriterTo
	// Release lets go of the memory that the state holds. It is called once, after the last use.
	Release func()
}

// WriteTo writes the backup.
func (s *State) WriteTo(w io.Writer) (int64, error) { return s.writeAs(version, w) }

// writeAs writes the backup with the number of a format.
func (s *State) writeAs(format int, w io.Writer) (int64, error) {
	info := s.Info
	info.Version = format
	header, err := json.Marshal(info)
	if err != nil {
		return 0, fmt.Errorf("encode header of backup: %w", err)
	}
	if len(header) > maxHeader {
		return 0, fmt.Errorf("encode header of backup: %d bytes are too many", len(header))
	}
	sum := sha256.New()
	begin := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(header)))
	begin = append(begin, header...)
	sum.Write(begin)
	if n, err := w.Write(begin); err != nil {
		return int64(n), err
	}
	size, err := s.State.WriteTo(io.MultiWriter(w, sum))
	written := int64(len(begin)) + size
	if err != nil {
		return written, err
	}
	end := binary.LittleEndian.AppendUint64(nil, uint64(size))
	sum.Write(end)
	n, err := w.Write(sum.Sum(end))
	return written + int64(n), err
}

// Content is a backup that was read and found whole.
type Content struct {
	Info Info
	// Sum is the SHA-256 over all of the file but the sum itself, in hex.
	Sum string
	// Bytes is how long the whole file is.
	Bytes int64

	state io.SectionReader
}

// State returns a reader of the state.
func (c *Content) State() io.Reader { return io.NewSectionReader(&c.state, 0, c.state.Size()) }

// Read reads all of a backup of the given size and checks it. The state is read from r again, later.
func Read(r io.ReaderAt, size int64) (*Content, error) {
	begin := make([]byte, len(magic)+4)
	if err := readAt(r, begin, 0); err != nil {
		return nil, err
	}
	if string(begin[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it does not begin like one", ErrDamaged)
	}
	n := int64(binary.LittleEndian.Uint32(begin[len(magic):]))
	stateSize := size - int64(len(begin)) - n - trailerSize
	if n > maxHeader || stateSize < 0 {
		return nil, fmt.Errorf("%w: it is cut off or altered", ErrDamaged)
	}
	trailer := make([]byte, trailerSize)
	if err := readAt(r, trailer, size-trailerSize); err != nil {
		return nil, err
	}
	if binary.LittleEndian.Uint64(trailer) != uint64(stateSize) {
		return nil, fmt.Errorf("%w: it is cut off or altered: the size at its end is not that of the state", ErrDamaged)
	}
	sum := sha256.New()
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(r, 0, size-sha256.Size), make([]byte, 1<<20)); err != nil {
		return nil, err
	}
	if !bytes.Equal(sum.Sum(nil), trailer[sizeBytes:]) {
		return nil, fmt.Errorf("%w: its checksum does not match, so it was altered or damaged", ErrDamaged)
	}
	header := make([]byte, n)
	if err := readAt(r, header, int64(len(begin))); err != nil {
		return nil, err
	}
	c := &Content{
		Sum:   hex.EncodeToString(trailer[sizeBytes:]),
		Bytes: size,
		state: *io.NewSectionReader(r, int64(len(begin))+n, stateSize),
	}
	if err := json.Unmarshal(header, &c.Info); err != nil {
		return nil, fmt.Errorf("%w: header: %v", ErrDamaged, err)
	}
	if c.Info.Version != version {
		return nil, fmt.Errorf("format %d of the backup is not known to this version of quorate: use a newer one", c.Info.Version)
	}
	return c, nil
}

func readAt(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it is cut off", ErrDamaged)
	}
	return err
}

// Begins says whether b begins as a backup does.
func Begins(b []byte) bool { return bytes.HasPrefix(b, []byte(magic)) }

// File is a backup on disk that was found whole. It is to be closed.
type File struct {
	*Content
	io.Closer
}

// Open opens a file and checks all of it.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	c, err := readFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return &File{c, f}, nil
}

func readFile(f *os.File) (*Content, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("this is no regular file")
	}
	return Read(f, info.Size())
}
