package disk

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/hashicorp/raft"
)

// parseEntry reads a log entry as raft-boltdb stores it: the fields of raft.Log by name, in
// msgpack. The byte slices of the result point into b, and those of a large entry are not looked
// at, so that the seals can be had without reading it.
//
// It is stricter than the decoder raft-boltdb uses, which skips names it does not know.
func parseEntry(b []byte) (raft.Log, error) {
	var l raft.Log
	p := packed{b: b}
	fields := p.mapLen()
	for range fields {
		switch name := string(p.bytes()); name {
		case "Index":
			l.Index = p.uint()
		case "Term":
			l.Term = p.uint()
		case "Type":
			kind := p.uint()
			if kind > math.MaxUint8 {
				p.bad = true
			}
			l.Type = raft.LogType(kind)
		case "Data":
			l.Data = p.bytes()
		case "Extensions":
			l.Extensions = p.bytes()
		case "AppendedAt":
			var at time.Time
			if err := at.UnmarshalBinary(p.bytes()); err != nil {
				p.bad = true
			}
			l.AppendedAt = at
		default:
			p.bad = true
		}
		if p.bad {
			break
		}
	}
	if p.bad || fields != 6 || len(p.b) != 0 {
		return raft.Log{}, errors.New("it is not in the form of an entry")
	}
	return l, nil
}

// packed reads the few kinds of msgpack values that occur. After a failure bad is true, and all
// results are zero.
type packed struct {
	b   []byte
	bad bool
}

func (p *packed) take(n uint64) []byte {
	if p.bad || n > uint64(len(p.b)) {
		p.bad, p.b = true, nil
		return nil
	}
	field := p.b[:n:n]
	p.b = p.b[n:]
	return field
}

// number reads a big-endian number of n bytes.
func (p *packed) number(n uint64) uint64 {
	var v uint64
	for _, c := range p.take(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (p *packed) tag() byte {
	if t := p.take(1); t != nil {
		return t[0]
	}
	return 0
}

func (p *packed) mapLen() int {
	t := p.tag()
	if t&0xf0 != 0x80 {
		p.bad = true
	}
	return int(t & 0x0f)
}

func (p *packed) uint() uint64 {
	switch t := p.tag(); {
	case t < 0x80:
		return uint64(t)
	case t >= 0xcc && t <= 0xcf:
		return p.number(1 << (t - 0xcc))
	}
	p.bad = true
	return 0
}

func (p *packed) bytes() []byte {
	switch t := p.tag(); {
	case t&0xe0 == 0xa0:
		return p.take(uint64(t & 0x1f))
	case t == 0xd9 || t == 0xc4:
		return p.take(p.number(1))
	case t == 0xda || t == 0xc5:
		return p.take(p.number(2))
	case t == 0xdb || t == 0xc6:
		return p.take(p.number(4))
	case t == 0xc0:
		return nil
	}
	p.bad = true
	return nil
}

// contents is everything a log file holds, read and checked without bolt.
type contents struct {
	head     head
	settings map[string][]byte
	first    uint64 // the whole log: that in the file and, after join, that in the journal
	last     uint64
	seal     uint32   // of the last entry
	entries  []stored // first..last
	lastTerm uint64
	bytes    int64  // of all entries
	garbage  uint64 // entries outside first..last that still have to be deleted
	lowest   uint64 // index of all entries there are, garbage included
	highest  uint64
	fileSize uint64
	usedSize uint64
	txid     uint64 // of the last transaction

	// Of a log in segments.
	table  segmentTable
	repair segmentRepair
	cut    int64 // bytes of a batch that was not completed
}

// stored is what is remembered of every entry: its checksum and about how many bytes it takes.
type stored struct {
	seal uint32
	size uint32
}

// readContents reads the log of a mapped file. Entries are read completely if all together take
// no more than verifyBytes.
func (b *boltFile) readContents(verifyBytes int64) (*contents, error) {
	c := &contents{fileSize: uint64(len(b.data)), txid: b.meta.txid}
	_, err := shielded(b.path, func() error { return c.read(b, verifyBytes) })
	if err != nil {
		return nil, err
	}
	c.usedSize = b.used * b.pageSize
	return c, nil
}

func (c *contents) read(b *boltFile, verifyBytes int64) error {
	// The head comes last, so what is found is judged afterwards.
	type found struct {
		index, term uint64
		prev        uint32
		stored
		value []byte
	}
	var all []found
	var haveHead bool
	err := b.walk(func(key, value []byte) error {
		if len(key) != 8 {
			return b.damaged("a key of the log has %d bytes", len(key))
		}
		index := binary.BigEndian.Uint64(key)
		l, err := parseEntry(value)
		if err == nil && l.Index != index {
			err = errors.New("it has another index inside")
		}
		if err != nil {
			return b.damaged("entry %d: %v", index, err)
		}
		if index == headIndex {
			haveHead = true
			if c.head, err = decodeHead(l.Data); err == nil {
				c.settings, err = decodeSettings(c.head.settings)
			}
			if err != nil {
				return b.damaged("%v", err)
			}
			return nil
		}
		prev, seal, err := unseal(&l)
		if err != nil {
			return b.damaged("entry %d: %v", index, err)
		}
		c.bytes += int64(len(value))
		all = append(all, found{index, l.Term, prev, stored{seal, uint32(min(len(value), math.MaxUint32))}, value})
		return nil
	})
	if err != nil {
		return err
	}
	h := &c.head
	if !haveHead {
		return b.damaged("the head record is missing")
	}
	if !h.written(c.txid, b.sameRoot) {
		return b.damaged("the head record is of transaction %d, the last one was %d", h.txid, c.txid)
	}
	if h.first > h.last || (h.first == 0) != (h.last == 0) || (h.empty() && h.seal != 0) {
		return b.damaged("the head record names entries %d to %d", h.first, h.last)
	}

	checkAll := c.bytes <= verifyBytes
	next, prev := h.first, uint32(0)
	if len(all) > 0 {
		c.lowest, c.highest = all[0].index, all[len(all)-1].index
	}
	for _, e := range all {
		if !h.holds(e.index) {
			c.garbage++
			continue
		}
		switch {
		case e.index != next:
			return b.damaged("entry %d is missing", next)
		case e.index > h.first && e.prev != prev:
			return b.damaged("entry %d does not follow entry %d", e.index, e.index-1)
		case e.term < c.lastTerm:
			return b.damaged("entry %d is of term %d, the one before of term %d", e.index, e.term, c.lastTerm)
		}
		if checkAll {
			l, _ := parseEntry(e.value)
			_, _, _ = unseal(&l)
			if sealOf(&l, e.prev) != e.seal {
				return b.damaged("entry %d: checksum does not match", e.index)
			}
		}
		next, prev, c.lastTerm = next+1, e.seal, e.term
		c.entries = append(c.entries, e.stored)
	}
	if !h.empty() && next != h.last+1 {
		return b.damaged("entry %d is missing", next)
	}
	if prev != h.seal {
		return b.damaged("entry %d is not the one that was written last", h.last)
	}
	if c.garbage > 0 && h.trim == 0 {
		return b.damaged("it has %d entries outside %d to %d", c.garbage, h.first, h.last)
	}
	c.first, c.last, c.seal = h.first, h.last, h.seal
	return nil
}

// join adds the entries in the journal j of the log at path to those in raft.db, which are theirs.
func (c *contents) join(path string, j *journalContents) error {
	for _, r := range j.records {
		for i, e := range r.logs {
			if e.Term < c.lastTerm {
				return damaged(segmentPath(path, r.segment), "record at byte %d: entry %d is of term %d, the one before of term %d",
					r.offset, e.Index, e.Term, c.lastTerm)
			}
			c.lastTerm = e.Term
			c.bytes += int64(r.stored[i].size)
		}
		if c.first == 0 {
			c.first = r.first()
		}
		c.last, c.seal = r.lastLog(), r.last
		c.entries = append(c.entries, r.stored...)
	}
	return nil
}

// readWholeLog checks a log file and the journal beside it, and returns what is in both.
func readWholeLog(path string, verifyBytes int64, exclusive bool) (*contents, *journalContents, error) {
	c, err := readLogFile(path, verifyBytes, exclusive)
	if err != nil {
		return nil, nil, err
	}
	j, err := c.complete(path, nil)
	if err != nil {
		return nil, nil, err
	}
	return c, j, nil
}

// complete adds what the log at path has outside raft.db. With segments it calls visit, if there is
// one, with every entry.
func (c *contents) complete(path string, visit func(*raft.Log) error) (*journalContents, error) {
	j, err := readJournal(path, c.head)
	if err != nil {
		return nil, err
	}
	if c.kind() == WAL {
		return j, c.readSegments(path, visit)
	}
	return j, c.join(path, j)
}
