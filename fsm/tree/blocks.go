package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A block is a length and a CRC-32C, 4 bytes each in little endian, and that many bytes. The
// checksum runs over the bytes of all blocks so far, so that a block lost, repeated or moved shows
// as surely as a bit turned over. An empty block ends the stream.
const (
	blockSize   = 1 << 20 // a block ends with the record that takes it beyond this
	blockHeader = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Errors of Restore, to be found with errors.Is.
var (
	ErrSnapshotDamaged = errors.New("tree snapshot is damaged")
	ErrSnapshotVersion = errors.New("tree snapshot has an unknown version")

	errReleased = errors.New("tree snapshot was released")
)

// blockWriter collects values in a block and writes it when full. Errors stick.
type blockWriter struct {
	w   io.Writer
	buf []byte // begins with room for the header
	sum uint32
	n   int64 // bytes written
	err error
}

func newBlockWriter(w io.Writer) *blockWriter {
	return &blockWriter{w: w, buf: make([]byte, blockHeader, blockSize+blockSize/8)}
}

func (b *blockWriter) byte(v byte)      { b.buf = append(b.buf, v) }
func (b *blockWriter) uvarint(v uint64) { b.buf = binary.AppendUvarint(b.buf, v) }
func (b *blockWriter) varint(v int64)   { b.buf = binary.AppendVarint(b.buf, v) }
func (b *blockWriter) string(s string) {
	b.uvarint(uint64(len(s)))
	b.buf = append(b.buf, s...)
}

// endRecord says that a block may end here.
func (b *blockWriter) endRecord() {
	if len(b.buf) >= blockSize {
		b.flush()
	}
}

func (b *blockWriter) flush() {
	payload := b.buf[blockHeader:]
	b.sum = crc32.Update(b.sum, castagnoli, payload)
	binary.LittleEndian.PutUint32(b.buf, uint32(len(payload)))
	binary.LittleEndian.PutUint32(b.buf[4:], b.sum)
	if b.err == nil {
		var n int
		n, b.err = b.w.Write(b.buf)
		b.n += int64(n)
	}
	b.buf = b.buf[:blockHeader]
}

// close ends the stream and returns its length.
func (b *blockWriter) close() (int64, error) {
	if len(b.buf) > blockHeader {
		b.flush()
	}
	b.flush()
	return b.n, b.err
}

// blockReader reads what a blockWriter wrote, and not a byte more. The first error sticks; all
// values after it are zero.
type blockReader struct {
	r    io.Reader
	buf  []byte
	rest []byte // of the block, not yet read
	sum  uint32
	err  error
}

// fail notes that the bytes make no sense.
func (b *blockReader) fail(what string) {
	if b.err == nil {
		b.err = fmt.Errorf("%w: %s", ErrSnapshotDamaged, what)
	}
	b.rest = nil
}

// beginRecord reads the next block if this one is used up.
func (b *blockReader) beginRecord() {
	if len(b.rest) == 0 && b.err == nil {
		b.next()
		if len(b.rest) == 0 {
			b.fail("it ends too early")
		}
	}
}

// end reads the empty block at the end.
func (b *blockReader) end() error {
	if b.err == nil && len(b.rest) == 0 {
		b.next()
	}
	if len(b.rest) > 0 {
		b.fail("bytes are left over")
	}
	return b.err
}

func (b *blockReader) next() {
	var header [blockHeader]byte
	if _, err := io.ReadFull(b.r, header[:]); err != nil {
		b.readFailed(err)
		return
	}
	length := int(binary.LittleEndian.Uint32(header[:]))
	// A damaged length must not take more memory than there are bytes: go by what arrives.
	b.buf = b.buf[:0]
	for len(b.buf) < length {
		have := len(b.buf)
		step := min(length-have, max(have, blockSize))
		if cap(b.buf) < have+step {
			b.buf = append(make([]byte, 0, have+step+step/8), b.buf...)
		}
		b.buf = b.buf[:have+step]
		if _, err := io.ReadFull(b.r, b.buf[have:]); err != nil {
			b.readFailed(err)
			return
		}
	}
	b.sum = crc32.Update(b.sum, castagnoli, b.buf)
	if b.sum != binary.LittleEndian.Uint32(header[4:]) {
		b.fail("checksum mismatch")
		return
	}
	b.rest = b.buf
}

func (b *blockReader) readFailed(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		b.fail("it is cut off")
	} else if b.err == nil {
		b.err = fmt.Errorf("read tree snapshot: %w", err)
	}
	b.rest = nil
}

func (b *blockReader) byte() byte {
	if len(b.rest) == 0 {
		b.fail("a record is too short")
		return 0
	}
	v := b.rest[0]
	b.rest = b.rest[1:]
	return v
}

func (b *blockReader) uvarint() uint64 {
	v, n := binary.Uvarint(b.rest)
	if n <= 0 {
		b.fail("a number is malformed")
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

func (b *blockReader) varint() int64 {
	v, n := binary.Varint(b.rest)
	if n <= 0 {
		b.fail("a number is malformed")
		return 0
	}
	b.rest = b.rest[n:]
	return v
}

// bytes returns a string's bytes, valid until the next record.
func (b *blockReader) bytes() []byte {
	n := b.uvarint()
	if n > uint64(len(b.rest)) {
		b.fail("a string is too long")
		return nil
	}
	v := b.rest[:n]
	b.rest = b.rest[n:]
	return v
}
