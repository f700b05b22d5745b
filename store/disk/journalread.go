package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// At the start the journal is read from the record that raft.db names, which must be there and be
// the one that was moved. What follows it is moved into raft.db, and the journal deleted.
//
// The end of the journal is where a sector is all zero, as it was made, and so is everything
// behind it. A record of which at least one sector is zero was never reported as stored: it is cut
// off, if it is the last thing in the last segment. Everything else is damage: a record that is
// all there and does not check, one that is incomplete with something behind it, a record raft.db
// knows of that is missing, sectors with an unknown mark, segments that are missing or do not
// follow each other.
//
// This rests on sectors being written whole, as boltFile.readMeta does.

// journalContents is what a journal holds behind the mark in raft.db.
type journalContents struct {
	records []*record
	next    uint64   // number of the next segment to be made
	garbage []string // files to be deleted once the records are in raft.db
	cut     int64    // bytes of a record that was not completed
}

// readJournal reads and checks the journal next to the log at path, whose head is h.
func readJournal(path string, h head) (*journalContents, error) {
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var c journalContents
	var live []uint64
	for _, e := range names {
		base, unfinished := strings.CutSuffix(e.Name(), newJournalSuffix)
		number, ok := parseSegmentName(base)
		if !ok {
			continue
		}
		c.garbage = append(c.garbage, filepath.Join(filepath.Dir(path), e.Name()))
		if number >= h.journal.segment && !unfinished {
			live = append(live, number)
		}
	}
	slices.Sort(live)
	r := &journalReader{path: path, head: h, mark: h.journal, into: &c}
	if _, err := shielded(path, func() error { return r.read(live) }); err != nil {
		return nil, err
	}
	c.next = h.journal.segment
	if len(live) > 0 {
		c.next = live[len(live)-1] + 1
	}
	return &c, nil
}

type journalReader struct {
	path string // of raft.db
	head head   // of raft.db
	mark journalMark
	into *journalContents

	last   uint64 // index of the last entry so far; 0 while there is none
	seal   uint32 // and its seal
	number uint64 // of the last record so far
	before uint32 // and its seal
	serial uint64 // that it was written with
}

func (r *journalReader) read(live []uint64) error {
	if !r.mark.open() {
		return r.unused(live)
	}
	for i := range max(len(live), 1) {
		if want := r.mark.segment + uint64(i); i == len(live) || live[i] != want {
			return damaged(segmentPath(r.path, want), "it is missing, with the entries from %d on", r.head.last+1)
		}
	}
	r.last, r.seal = r.head.last, r.head.seal
	r.number, r.before = r.mark.record, r.mark.seal
	for i, number := range live {
		if err := r.segment(number, i == 0, i == len(live)-1); err != nil {
			return err
		}
	}
	if r.number < r.mark.known {
		return damaged(segmentPath(r.path, live[len(live)-1]), "it ends with record %d, but %s knows of record %d: the entries from %d on are missing",
			r.number, r.path, r.mark.known, r.last+1)
	}
	return nil
}

// unused checks that nothing but empty segments are there, which were made before raft.db could
// name them: one, and perhaps one more whose deletion at the next start did not reach the disk.
func (r *journalReader) unused(live []uint64) error {
	for _, number := range live {
		s, err := readSegment(segmentPath(r.path, number), number)
		if err != nil {
			return err
		}
		if !isZero(s.data[sectorSize:]) {
			return s.damaged("%s does not know of it: one of the two is of another member, or an old copy", r.path)
		}
	}
	return nil
}

// segment reads the records of one segment. They continue those read before.
func (r *journalReader) segment(number uint64, first, last bool) error {
	s, err := readSegment(segmentPath(r.path, number), number)
	if err != nil {
		return err
	}
	at := uint64(sectorSize)
	if s.header.id != r.mark.id {
		return s.damaged("it is not of the journal that %s names", r.path)
	}
	if moved := r.mark.offset; first && moved != 0 {
		// The record that was moved last has to be there.
		if at, err = r.moved(s); err != nil {
			return err
		}
	} else if s.header.record != r.number || s.header.seal != r.before {
		return s.damaged("it begins after record %d, but the one before it is %d", s.header.record, r.number)
	}
	for at < uint64(len(s.data)) {
		payload, size, err := s.payload(at, last, r.last+1)
		if err != nil {
			return err
		}
		if payload == nil {
			r.into.cut = int64(size)
			break
		}
		rec, err := decodeRecord(payload)
		if err == nil {
			err = r.follow(rec)
		}
		if errors.Is(err, ErrDamaged) {
			return err // of raft.db
		}
		if err != nil {
			return s.damaged("record at byte %d, entry %d: %v", at, r.last+1, err)
		}
		rec.segment, rec.offset = number, at
		r.into.records = append(r.into.records, rec)
		at += size
	}
	return nil
}

// moved checks the record that the mark names and returns where the next one begins.
func (r *journalReader) moved(s *segment) (uint64, error) {
	at := r.mark.offset
	if at%sectorSize != 0 || at < sectorSize || at >= uint64(len(s.data)) {
		return 0, damaged(r.path, "the head record names byte %d of %s", at, s.path)
	}
	payload, size, err := s.payload(at, false, r.last)
	if err != nil {
		return 0, err
	}
	if payload == nil {
		return 0, s.damaged("record at byte %d, entry %d: it is gone, but %s has taken it from there", at, r.last, r.path)
	}
	rec, err := decodeRecord(payload)
	if err != nil {
		return 0, s.damaged("record at byte %d, entry %d: %v", at, r.last, err)
	}
	if rec.number != r.mark.record || rec.seal != r.mark.seal {
		return 0, s.damaged("record at byte %d, entry %d: it is not the one that %s has taken from there", at, r.last, r.path)
	}
	r.serial = rec.serial
	return at + size, nil
}

// follow checks that rec continues what was read before.
func (r *journalReader) follow(rec *record) error {
	switch {
	case rec.number != r.number+1 || rec.before != r.before:
		return fmt.Errorf("record %d does not follow record %d", rec.number, r.number)
	case rec.serial > r.head.serial:
		return damaged(r.path, "it is older than the journal beside it: a state it once had, number %d, is lost, and it has number %d", rec.serial, r.head.serial)
	case rec.serial < r.serial:
		return errors.New("it was written before the one before it")
	case (r.last != 0 && rec.first() != r.last+1) || rec.prev != r.seal:
		return fmt.Errorf("entry %d does not follow entry %d", rec.first(), r.last)
	}
	r.number, r.before, r.serial = rec.number, rec.seal, rec.serial
	r.last, r.seal = rec.lastLog(), rec.last
	return nil
}

// segment is a file of the journal in memory.
type segment struct {
	path   string
	header segmentHeader
	data   []byte // the whole file
}

func readSegment(path string, number uint64) (*segment, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, data: data}
	if s.header, err = decodeSegmentHeader(data); err != nil {
		return nil, s.damaged("%v", err)
	}
	if s.header.number != number {
		return nil, s.damaged("it is segment %d, under a wrong name", s.header.number)
	}
	if s.header.size != uint64(len(data)) || len(data)%sectorSize != 0 {
		return nil, s.damaged("it was made with %d bytes and has %d", s.header.size, len(data))
	}
	return s, nil
}

func (s *segment) damaged(format string, args ...any) error {
	return damaged(s.path, format, args...)
}

// payload returns the payload of the record at byte at, nil when there is none, and how many bytes
// it takes in the file. With last, a record may be incomplete, which is as if it were not there.
// Entry is the index it should begin with.
func (s *segment) payload(at uint64, last bool, entry uint64) (payload []byte, size uint64, err error) {
	rest := s.data[at:]
	bad := func(format string, args ...any) ([]byte, uint64, error) {
		return nil, 0, s.damaged("record at byte %d, entry %d: %s", at, entry, fmt.Sprintf(format, args...))
	}
	var length uint32
	end := len(rest) // of what can belong to the record
	switch {
	case rest[0] == markRecord:
		length = order.Uint32(rest[1:])
		end = sectors(int(length)) * sectorSize
		if length < recordFixed || length > maxRecord || end > len(rest) {
			return bad("it cannot have a length of %d", length)
		}
	case !isZero(rest[:sectorSize]):
		return bad("a sector begins with %#x", rest[0])
	}
	// Of a record whose first sector is zero, others may have been written.
	missing, written := 0, 0
	for i := 0; i < end; i += sectorSize {
		sector := rest[i : i+sectorSize]
		switch {
		case isZero(sector):
			missing++
		case i > 0 && sector[0] == markRecord:
			return bad("it is incomplete, and another one follows it")
		case i > 0 && sector[0] != markMore:
			return bad("sector at byte %d begins with %#x", at+uint64(i), sector[0])
		default:
			written = i + sectorSize
		}
	}
	if missing > 0 {
		if written > 0 && !last {
			return bad("it is incomplete, and it is not the last")
		}
		if !isZero(rest[end:]) {
			return bad("it is incomplete, and something follows it")
		}
		return nil, uint64(written), nil
	}
	payload = unframe(rest[:end])
	if !isZero(payload[length:]) {
		return bad("there is something behind it")
	}
	return payload[:length], uint64(end), nil
}
