package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	walsegment "github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"

	"github.com/quorate/quorate/internal/durable"
)

// segmentReader checks the segments of a log, and trusts nothing in them.
//
// The format is that of raft-wal 0.4: a header of 32 bytes, then frames, each a header of 8 bytes
// (kind, three zeros, length), what it holds, and zeros up to a multiple of 8. One call of
// StoreLogs is a batch: a frame for each entry, and one that commits them, with a checksum of the
// whole batch in place of a length. The last batch of a segment also holds an index. What follows
// the batches is zero, as the file was made.
//
// A batch is written after the one before is on disk. So only the very last can be incomplete, of
// the segment that is written to, and then it was never acknowledged and is cut off. It counts as
// incomplete when a sector of it is zero, or when it does not end with a frame that commits it.
// This rests on sectors being written whole, as boltFile.readMeta does. Anything else that does not
// check is damage.
type segmentReader struct {
	path  string // of raft.db
	dir   string
	table segmentTable
	head  head
	into  *contents
	visit func(*raft.Log) error // may be nil

	serial uint64 // that the last entry was written with
}

const (
	segmentHeaderSize = 32
	segmentMagic      = 0x58eb6b0d
	frameHeaderSize   = 8

	frameEntry  = 1
	frameIndex  = 2
	frameCommit = 3
)

// segmentRepair is what has to be done before raft-wal may see the segments.
type segmentRepair struct {
	path     string // of the segment that is written to
	from, to int64  // what an incomplete batch has left there
	remove   bool   // it was never written to
	sealed   *types.SegmentInfo
}

// run removes what an incomplete batch has left. If it is interrupted, it is still incomplete.
func (r *segmentRepair) run() error {
	switch {
	case r.remove:
		if err := removeIfThere(r.path); err != nil {
			return err
		}
		return durable.SyncDir(filepath.Dir(r.path))
	case r.from < r.to:
		f, err := os.OpenFile(r.path, os.O_WRONLY, fileMode)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, r.to-r.from), r.from)
		return errors.Join(err, f.Sync(), f.Close())
	}
	return nil
}

// readSegments reads the log whose settings c has, and calls visit with every entry.
func (c *contents) readSegments(path string, visit func(*raft.Log) error) error {
	table, err := decodeSegmentTable(c.settings[segmentsKey])
	if err != nil {
		return damaged(path, "setting %q: %v", segmentsKey, err)
	}
	if !c.head.empty() || c.garbage > 0 {
		return damaged(path, "it holds entries, and so does %s", filepath.Join(filepath.Dir(path), segmentsDir))
	}
	c.table = table
	r := &segmentReader{path: path, dir: filepath.Join(filepath.Dir(path), segmentsDir), table: table, head: c.head, into: c, visit: visit}
	if err := r.names(); err != nil {
		return err
	}
	for i, info := range table.Segments {
		tail := i == len(table.Segments)-1
		if info.SealTime.IsZero() != tail || info.BaseIndex == 0 || info.MinIndex < info.BaseIndex ||
			(i > 0 && (info.BaseIndex != table.Segments[i-1].MaxIndex+1 || info.MinIndex != info.BaseIndex)) {
			return damaged(path, "setting %q: segment %d does not follow the one before", segmentsKey, info.ID)
		}
		if err := r.segment(info, tail); err != nil {
			return err
		}
	}
	if c.last < table.Known {
		return damaged(r.dir, "it ends with entry %d, but %s knows of entry %d", c.last, path, table.Known)
	}
	return nil
}

// names checks that there is no segment raft.db cannot know.
func (r *segmentReader) names() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		var info types.SegmentInfo
		_, err := fmt.Sscanf(e.Name(), "%020d-%016x.wal", &info.BaseIndex, &info.ID)
		if known := err == nil && walsegment.FileName(info) == e.Name(); !known && strings.HasSuffix(e.Name(), ".wal") {
			return damaged(filepath.Join(r.dir, e.Name()), "its name is not that of a segment")
		} else if known && info.ID >= r.table.NextID {
			return damaged(r.path, "it is older than the log beside it: it knows nothing of %s", filepath.Join(r.dir, e.Name()))
		}
	}
	return nil
}

func (r *segmentReader) segment(info types.SegmentInfo, tail bool) error {
	path := filepath.Join(r.dir, walsegment.FileName(info))
	next := max(info.MinIndex, r.into.last+1)
	bad := func(format string, args ...any) error { return damaged(path, format, args...) }
	fresh := tail && r.table.Known < info.BaseIndex // it may have never been written to
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && fresh:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return bad("it is missing, with the entries from %d on", next)
	case err != nil:
		return err
	}
	b := readBatches(data)
	rest, isDamage := b.rest(data)
	switch {
	case isDamage || (!tail && (b.end == 0 || b.index != info.IndexStart)):
		return bad("byte %d: the checksum of what follows entry %d does not match", b.end, info.BaseIndex+uint64(len(b.entries))-1)
	case b.end == 0 && fresh:
		r.into.repair = segmentRepair{path: path, remove: true}
		r.into.cut = int64(rest)
		return nil
	case b.end == 0:
		return bad("it is empty; the entries from %d on are missing", next)
	case len(data) < int(info.SizeLimit):
		return bad("it is cut off: it was made with %d bytes and has %d", info.SizeLimit, len(data))
	}
	if err := checkSegmentHeader(data, info); err != nil {
		return bad("%v", err)
	}
	last := info.BaseIndex + uint64(len(b.entries)) - 1
	if !tail && last < info.MaxIndex {
		return bad("it ends with entry %d, but %s knows of entry %d", last, r.path, info.MaxIndex)
	}
	if tail {
		r.into.repair = segmentRepair{path: path, from: int64(b.end), to: int64(b.end + rest)}
		r.into.cut = int64(rest)
		if b.index != 0 {
			// It was sealed, and raft.db not told any more.
			info.SealTime, info.MaxIndex, info.IndexStart = time.Now(), last, b.index
			r.into.repair.sealed = &info
		}
	} else {
		last = info.MaxIndex // what was behind it has been deleted
	}
	for index := next; index <= last; index++ {
		e, err := r.entry(index, b.entries[index-info.BaseIndex])
		if errors.Is(err, ErrDamaged) {
			return err // of raft.db
		}
		if err != nil {
			return bad("entry %d: %v", index, err)
		}
		if r.visit != nil {
			if err := r.visit(&e); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkSegmentHeader(data []byte, info types.SegmentInfo) error {
	switch {
	case order.Uint32(data) != segmentMagic || order.Uint32(data[4:]) != 0:
		return errors.New("header: it is not a segment, or one of another format")
	case order.Uint64(data[8:]) != info.BaseIndex || order.Uint64(data[16:]) != info.ID || order.Uint64(data[24:]) != info.Codec:
		return errors.New("header: it is another segment")
	}
	return nil
}

// entry checks the entry with an index, which has to follow the one before.
func (r *segmentReader) entry(index uint64, payload []byte) (raft.Log, error) {
	c := r.into
	e, err := parseSegmentEntry(payload)
	if err != nil {
		return e, err
	}
	serial, err := takeSerial(&e)
	if err != nil {
		return e, err
	}
	prev, seal, err := unseal(&e)
	switch {
	case err != nil:
		return e, err
	case e.Index != index:
		return e, fmt.Errorf("it has the index %d", e.Index)
	case sealOf(&e, prev) != seal:
		return e, errors.New("checksum does not match")
	case c.last != 0 && prev != c.seal:
		return e, fmt.Errorf("it does not follow entry %d", index-1)
	case e.Term < c.lastTerm:
		return e, fmt.Errorf("it is of term %d, the one before of term %d", e.Term, c.lastTerm)
	case serial > r.head.serial:
		return e, damaged(r.path, "it is older than the log beside it: a state it once had, number %d, is lost, and it has number %d", serial, r.head.serial)
	case serial < r.serial:
		return e, errors.New("it was written before the one before it")
	}
	if c.last == 0 {
		c.first = index
	}
	c.last, c.seal, c.lastTerm, r.serial = index, seal, e.Term, serial
	c.bytes += int64(len(payload))
	c.entries = append(c.entries, stored{seal, storedSize(&e)})
	return e, nil
}

// parseSegmentEntry reads an entry as raft-wal encodes it. The result does not refer to b.
func parseSegmentEntry(b []byte) (raft.Log, error) {
	f := fields{b: b}
	var e raft.Log
	e.Index, e.Term = f.uvarint(), f.uvarint()
	kind := f.uvarint()
	e.Type = raft.LogType(kind)
	e.Data, e.Extensions = bytes.Clone(f.take(f.uvarint())), bytes.Clone(f.take(f.uvarint()))
	err := e.AppendedAt.UnmarshalBinary(f.b)
	if f.bad || err != nil || kind > 255 {
		return raft.Log{}, errors.New("it is not in the form of an entry")
	}
	if len(e.Data) == 0 {
		e.Data = nil
	}
	return e, nil
}

// batches is what a segment holds, up to the last batch that is complete.
type batches struct {
	entries [][]byte
	end     int    // behind the last complete batch; 0 when there is none
	index   uint64 // where the index begins, 0 when the segment is not sealed
}

func readBatches(data []byte) batches {
	var b batches
	if len(data) < segmentHeaderSize {
		return b
	}
	at := segmentHeaderSize // the first batch includes the header
	for {
		entries, index, end, ok := readBatch(data, b.end, at)
		if !ok {
			return b
		}
		b.entries, b.end = append(b.entries, entries...), end
		if b.index = index; index != 0 {
			return b
		}
		at = end
	}
}

// readBatch reads the batch that begins at byte start, with its first frame at byte at. It is not
// ok if it is not complete.
func readBatch(data []byte, start, at int) (entries [][]byte, index uint64, end int, ok bool) {
	for at <= len(data)-frameHeaderSize {
		kind, length := binary.LittleEndian.Uint32(data[at:]), int(order.Uint32(data[at+4:]))
		body := at + frameHeaderSize
		switch kind {
		case frameCommit:
			ok := crc32.Checksum(data[start:at], crcTable) == uint32(length)
			return entries, index, body, ok
		case frameEntry, frameIndex:
			if length > len(data)-body {
				return nil, 0, 0, false
			}
			if kind == frameEntry {
				entries = append(entries, data[body:body+length])
			} else {
				index = uint64(body)
			}
			at = body + (length+7)&^7
		default:
			return nil, 0, 0, false
		}
	}
	return nil, 0, 0, false
}

// rest returns how many bytes behind the last complete batch are not zero, up to the last of them,
// and whether they are damage. If not, they are of a batch that was never acknowledged.
func (b *batches) rest(data []byte) (n int, isDamage bool) {
	rest := bytes.TrimRight(data[b.end:], "\x00")
	if len(rest) == 0 {
		return 0, false
	}
	if b.index != 0 {
		return len(rest), true // nothing is written behind an index
	}
	// When a batch is complete, everything before it was acknowledged.
	for at := b.end &^ 7; at < b.end+len(rest); at += frameHeaderSize {
		if at+frameHeaderSize <= len(data) && order.Uint32(data[at:]) == frameCommit && at >= b.end {
			if _, _, _, ok := readBatch(data, at+frameHeaderSize, at+frameHeaderSize); ok {
				return len(rest), true
			}
		}
	}
	// Its last frame must be the one that commits it, of which one bit may have changed.
	commit := (b.end + len(rest) - 1) &^ 7
	end := min(commit+frameHeaderSize, len(data))
	if commit < b.end || end < commit+frameHeaderSize || bits.OnesCount32(order.Uint32(data[commit:])^frameCommit) > 1 {
		return len(rest), false
	}
	for at := b.end; at < end; {
		sector := min(at&^(sectorSize-1)+sectorSize, end)
		if isZero(data[at:sector]) {
			return len(rest), false
		}
		at = sector
	}
	return len(rest), true
}
