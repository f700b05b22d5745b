package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// The journal stands in front of raft.db. A bolt transaction costs two fsyncs and several pages;
// an append to a file that has its blocks already costs one. So StoreLogs appends to the journal,
// and what is in it is moved into raft.db later, many entries in one transaction (move.go).
//
// It is a row of segments, files of zeros that are written from the front:
//
//	segment  header (one sector), records
//	header   mark, magic, format, journal, number, size, the record before it and its seal, CRC
//	record   length, seal; number, seal of the record before, raft.db's serial, seals of the entry
//	         before the first and of the last, first index, count, entries; zeros up to the end of
//	         its last sector
//
// Records begin at sectors and every sector begins with a mark that is not zero, so a sector that
// was written can be told from one that was not, whatever is in the entries. A record is written
// after the one before is on disk: only the very last can be incomplete. See journalread.go for
// what that means at the start.
//
// The seal of a record covers all of it, so that records are a chain like entries. The head in raft.db
// names the last record that was moved, and records name the head (serial) they were written
// after, so that neither file can be exchanged for an older one without the other.

const (
	sectorSize    = 512
	sectorPayload = sectorSize - 1

	// Two different bits or more would have to change for one mark to become another, or zero.
	markHeader = 0x96 // first byte of the first sector of a segment
	markRecord = 0xa5 // of the first sector of a record
	markMore   = 0x5a // of the other sectors of a record

	journalMagic  = "QJOURNAL"
	journalFormat = 1

	recordFixed = 2*4 + 8 + 4 + 8 + 2*4 + 8 + 4
	maxRecord   = 1 << 30 // bytes of payload

	journalPrefix    = "journal-"
	newJournalSuffix = ".new" // a segment that is being filled with zeros
)

// journalMark is what raft.db knows of the journal: up to where it was moved.
type journalMark struct {
	id      uint64 // of the journal, random; 0 when there is none
	segment uint64 // holds the record; without a journal the next segment to be made. Those below are garbage
	offset  uint64 // where the record begins; 0 when none of this segment was moved
	record  uint64 // number of the record
	seal    uint32 // and its seal
	known   uint64 // number of the last record on disk when this was written
}

const journalMarkSize = 5*8 + 4

func (m *journalMark) open() bool { return m.id != 0 }

func (m *journalMark) appendTo(b []byte) []byte {
	for _, v := range []uint64{m.id, m.segment, m.offset, m.record, m.known} {
		b = order.AppendUint64(b, v)
	}
	return order.AppendUint32(b, m.seal)
}

func decodeJournalMark(b []byte) journalMark {
	return journalMark{
		id: order.Uint64(b), segment: order.Uint64(b[8:]), offset: order.Uint64(b[16:]),
		record: order.Uint64(b[24:]), known: order.Uint64(b[32:]), seal: order.Uint32(b[40:]),
	}
}

func segmentName(number uint64) string { return journalPrefix + strconv.FormatUint(number, 10) }

// parseSegmentName is the inverse of segmentName, and strict.
func parseSegmentName(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, journalPrefix)
	if !ok {
		return 0, false
	}
	number, err := strconv.ParseUint(digits, 10, 64)
	return number, err == nil && segmentName(number) == name
}

// segmentHeader is the first sector of a segment.
type segmentHeader struct {
	id, number uint64
	size       uint64 // of the file
	record     uint64 // number of the last record before the segment
	seal       uint32 // and its seal; before the first record, firstSeal
}

// firstSeal begins the chain of the records of a journal.
func firstSeal(id uint64) uint32 { return crc32.Checksum(encodeUint64(id), crcTable) }

func (h *segmentHeader) encode() []byte {
	b := make([]byte, 0, sectorSize)
	b = append(b, markHeader)
	b = append(b, journalMagic...)
	b = append(b, journalFormat)
	for _, v := range []uint64{h.id, h.number, h.size, h.record} {
		b = order.AppendUint64(b, v)
	}
	b = order.AppendUint32(b, h.seal)
	b = b[:sectorSize-4]
	return order.AppendUint32(b, crc32.Checksum(b, crcTable))
}

func decodeSegmentHeader(b []byte) (segmentHeader, error) {
	var h segmentHeader
	if len(b) < sectorSize {
		return h, errors.New("the header is cut off")
	}
	b = b[:sectorSize]
	if crc32.Checksum(b[:sectorSize-4], crcTable) != order.Uint32(b[sectorSize-4:]) {
		return h, errors.New("header: checksum does not match")
	}
	if b[0] != markHeader || string(b[1:9]) != journalMagic {
		return h, errors.New("header: it is not a journal")
	}
	if b[9] != journalFormat {
		return h, fmt.Errorf("header: unknown format %d", b[9])
	}
	p := b[10:]
	h.id, h.number, h.size, h.record = order.Uint64(p), order.Uint64(p[8:]), order.Uint64(p[16:]), order.Uint64(p[24:])
	h.seal = order.Uint32(p[32:])
	return h, nil
}

// record is one call of StoreLogs in the journal.
type record struct {
	number     uint64
	before     uint32 // seal of the record before
	serial     uint64 // of raft.db's head when it was written
	prev, last uint32 // seals of the entry before the first, and of the last
	logs       []*raft.Log
	stored     []stored // of each entry
	bytes      int64    // of memory

	// Where it is.
	segment, offset uint64
	seal            uint32
}

// encode appends the payload of r and sets r.seal.
func (r *record) encode(b []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, 8)...) // length and seal
	b = order.AppendUint64(b, r.number)
	b = order.AppendUint32(b, r.before)
	b = order.AppendUint64(b, r.serial)
	b = order.AppendUint32(b, r.prev)
	b = order.AppendUint32(b, r.last)
	b = order.AppendUint64(b, r.logs[0].Index)
	b = order.AppendUint32(b, uint32(len(r.logs)))
	for _, e := range r.logs {
		b = binary.AppendUvarint(b, e.Term)
		b = append(b, byte(e.Type))
		b = binary.AppendVarint(b, e.AppendedAt.Unix())
		b = binary.AppendUvarint(b, uint64(e.AppendedAt.Nanosecond()))
		b = appendBytes(b, e.Data)
		b = appendBytes(b, e.Extensions)
	}
	order.PutUint32(b[start:], uint32(len(b)-start))
	r.seal = recordSeal(b[start:])
	order.PutUint32(b[start+4:], r.seal)
	return b
}

// recordSize is at least the size of the payload of a record with these entries.
func recordSize(logs []*raft.Log) int {
	n := recordFixed
	for _, e := range logs {
		n += 1 + 5*binary.MaxVarintLen64 + len(e.Data) + len(e.Extensions)
	}
	return n
}

func recordSeal(payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(payload[:4], crcTable), crcTable, payload[8:])
}

// appendBytes writes v so that nil and empty stay apart.
func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(v))+1)
	return append(b, v...)
}

// decodeRecord reads a payload whose length is right. The entries do not refer to it. Besides the
// seals it checks that the contents are what encode makes.
func decodeRecord(b []byte) (*record, error) {
	if len(b) < recordFixed {
		return nil, errors.New("it is too short")
	}
	r := &record{seal: order.Uint32(b[4:])}
	if recordSeal(b) != r.seal {
		return nil, errors.New("checksum does not match")
	}
	b = bytes.Clone(b)
	r.number, r.before, r.serial = order.Uint64(b[8:]), order.Uint32(b[16:]), order.Uint64(b[20:])
	r.prev, r.last = order.Uint32(b[28:]), order.Uint32(b[32:])
	first, count := order.Uint64(b[36:]), uint64(order.Uint32(b[44:]))
	f := fields{b: b[recordFixed:]}
	const smallest = 6 // bytes of an entry
	if count == 0 || count > uint64(len(f.b)/smallest) || first == 0 || first > headIndex-count {
		return nil, fmt.Errorf("it has %d entries from %d", count, first)
	}
	logs := make([]raft.Log, count)
	r.logs, r.stored = make([]*raft.Log, count), make([]stored, count)
	prev := r.prev
	for i := range logs {
		e := &logs[i]
		e.Index, e.Term = first+uint64(i), f.uvarint()
		e.Type = raft.LogType(f.byte())
		seconds, nanos := f.varint(), f.uvarint()
		e.Data, e.Extensions = f.bytes(), f.bytes()
		if f.bad || nanos >= 1e9 {
			return nil, fmt.Errorf("entry %d is not in the form of an entry", e.Index)
		}
		e.AppendedAt = time.Unix(seconds, int64(nanos)).UTC()
		prev = sealOf(e, prev)
		r.logs[i], r.stored[i] = e, stored{seal: prev, size: storedSize(e)}
		r.bytes += cost(e)
	}
	if len(f.b) != 0 {
		return nil, errors.New("there is something behind its entries")
	}
	if prev != r.last {
		return nil, fmt.Errorf("entry %d: checksum does not match", logs[count-1].Index)
	}
	return r, nil
}

func (r *record) first() uint64   { return r.logs[0].Index }
func (r *record) lastLog() uint64 { return r.logs[len(r.logs)-1].Index }

// fields reads the parts of an entry. After a failure bad is true, and all results are zero.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) take(n uint64) []byte {
	if f.bad || n > uint64(len(f.b)) {
		f.bad, f.b = true, nil
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) byte() byte {
	if b := f.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 {
		f.take(math.MaxUint64)
		return 0
	}
	f.take(uint64(n))
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	if n <= 0 {
		f.take(math.MaxUint64)
		return 0
	}
	f.take(uint64(n))
	return v
}

func (f *fields) bytes() []byte {
	n := f.uvarint()
	if n == 0 {
		return nil
	}
	return f.take(n - 1)
}

// sectors returns how many sectors a payload of n bytes takes.
func sectors(n int) int { return (n + sectorPayload - 1) / sectorPayload }

// frame appends a payload cut into sectors, each with its mark, the last filled up with zeros.
func frame(b, payload []byte) []byte {
	b = slices.Grow(b, sectors(len(payload))*sectorSize)
	for mark := byte(markRecord); len(payload) > 0; mark = markMore {
		n := min(len(payload), sectorPayload)
		b = append(b, mark)
		b = append(b, payload[:n]...)
		payload = payload[n:]
	}
	if over := len(b) % sectorSize; over != 0 {
		b = append(b, make([]byte, sectorSize-over)...)
	}
	return b
}

// unframe returns the payload in a row of sectors, padding included.
func unframe(b []byte) []byte {
	payload := make([]byte, 0, len(b)/sectorSize*sectorPayload)
	for ; len(b) >= sectorSize; b = b[sectorSize:] {
		payload = append(payload, b[1:sectorSize]...)
	}
	return payload
}

var zeroSector [sectorSize]byte

func isZero(b []byte) bool {
	for len(b) > sectorSize {
		if !bytes.Equal(b[:sectorSize], zeroSector[:]) {
			return false
		}
		b = b[sectorSize:]
	}
	return bytes.Equal(b, zeroSector[:len(b)])
}

// segmentPath returns the file of a segment of the journal of the log at path.
func segmentPath(path string, number uint64) string {
	return filepath.Join(filepath.Dir(path), segmentName(number))
}
