package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"

	"github.com/hashicorp/raft"
)

// The log on disk proves that it is whole.
//
// Every entry carries two checksums behind its extensions: the seal of the entry before it, and
// its own, which covers index, term, type, time, data, extensions and the seal before. So an
// entry can be checked alone, and the entries of a log are a chain.
//
// Every transaction that we write also replaces the head, one sealed record under the highest
// possible index, which names the first and the last entry, the seal of the last, and all
// settings. The chain must end where the head says. The head finally holds the number of its own
// transaction, which bolt also keeps in its meta page. This is what catches the damage that a
// checksum of an entry cannot see: bolt's pages have none, and one wrong page number leads to an
// older state of the log, or of the settings, in which everything fits together.
//
// One record for log bounds and settings also means that everything a call has to change is
// changed in one transaction.
//
// The numbers agree except after two kinds of transaction that do not write a head:
//   - those that only delete entries outside first..last. The head before them announces how
//     many may follow (trim);
//   - one that changes nothing, so that both meta pages name the same root page: raft-boltdb
//     commits one whenever it opens a file. A head is written right after it, and if a crash
//     prevents that, before it the next time (catchUp): there are never two in a row.

var (
	order    = binary.LittleEndian
	crcTable = crc32.MakeTable(crc32.Castagnoli)
)

// headIndex is the log index under which the head is kept. Being the highest, it shares a page
// with the entries that are written next to it.
const headIndex = math.MaxUint64

const headFormat = 2 // 1 was without a journal, and never released

// head is what a transaction leaves behind. An empty log has first = last = 0.
type head struct {
	txid        uint64
	first, last uint64
	seal        uint32 // of the last entry; 0 when the log is empty
	trim        uint32 // how many transactions that delete entries outside first..last may follow
	serial      uint64 // counts the heads of this log; a copy of the file keeps it, unlike txid
	journal     journalMark
	settings    []byte // as encodeSettings makes it
}

func (h *head) empty() bool { return h.last == 0 }

func (h *head) holds(index uint64) bool { return index >= h.first && index <= h.last && index != 0 }

func (h *head) appendTo(b []byte) []byte {
	start := len(b)
	b = append(b, headFormat)
	b = order.AppendUint64(b, h.txid)
	b = order.AppendUint64(b, h.first)
	b = order.AppendUint64(b, h.last)
	b = order.AppendUint32(b, h.seal)
	b = order.AppendUint32(b, h.trim)
	b = order.AppendUint64(b, h.serial)
	b = h.journal.appendTo(b)
	b = append(b, h.settings...)
	return order.AppendUint32(b, crc32.Checksum(b[start:], crcTable))
}

const headFixed = 1 + 3*8 + 2*4 + 8 + journalMarkSize

func decodeHead(b []byte) (head, error) {
	var h head
	if len(b) < headFixed+4 {
		return h, errors.New("head record is too short")
	}
	body, sum := b[:len(b)-4], order.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, crcTable) != sum {
		return h, errors.New("head record: checksum does not match")
	}
	if body[0] != headFormat {
		return h, fmt.Errorf("head record: unknown format %d", body[0])
	}
	h.txid = order.Uint64(body[1:])
	h.first = order.Uint64(body[9:])
	h.last = order.Uint64(body[17:])
	h.seal = order.Uint32(body[25:])
	h.trim = order.Uint32(body[29:])
	h.serial = order.Uint64(body[33:])
	h.journal = decodeJournalMark(body[41:])
	h.settings = slices.Clone(body[headFixed:])
	return h, nil
}

// written reports whether h can be the head of a file whose last transaction is txid. With idle
// that transaction changed nothing.
func (h *head) written(txid uint64, idle bool) bool {
	allowed := uint64(h.trim)
	if idle {
		allowed++
	}
	return h.txid <= txid && txid-h.txid <= allowed
}

func encodeSettings(settings map[string][]byte) []byte {
	var b []byte
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		b = binary.AppendUvarint(b, uint64(len(key)))
		b = append(b, key...)
		b = binary.AppendUvarint(b, uint64(len(settings[key])))
		b = append(b, settings[key]...)
	}
	return b
}

func decodeSettings(b []byte) (map[string][]byte, error) {
	settings := map[string][]byte{}
	cut := false
	next := func() []byte {
		n, size := binary.Uvarint(b)
		if size <= 0 || n > uint64(len(b)-size) {
			b, cut = nil, true
			return nil
		}
		field := b[size : size+int(n)]
		b = b[size+int(n):]
		return field
	}
	for len(b) > 0 {
		key, value := next(), next()
		settings[string(key)] = bytes.Clone(value)
	}
	if cut {
		return nil, errors.New("head record: settings are cut off")
	}
	return settings, nil
}

// sealSize is what an entry carries behind its extensions: the seal before, and its own.
const sealSize = 8

// sealOf returns the checksum of an entry that follows one with the seal prev.
func sealOf(l *raft.Log, prev uint32) uint32 {
	var b [4 + 8 + 8 + 1 + 8 + 4 + 4 + 4]byte
	order.PutUint32(b[0:], prev)
	order.PutUint64(b[4:], l.Index)
	order.PutUint64(b[12:], l.Term)
	b[20] = byte(l.Type)
	// Not UnixNano, which is the same for times 2^64 ns apart.
	order.PutUint64(b[21:], uint64(l.AppendedAt.Unix()))
	order.PutUint32(b[29:], uint32(l.AppendedAt.Nanosecond()))
	order.PutUint32(b[33:], uint32(len(l.Data)))
	order.PutUint32(b[37:], uint32(len(l.Extensions)))
	sum := crc32.Update(0, crcTable, b[:])
	sum = crc32.Update(sum, crcTable, l.Data)
	return crc32.Update(sum, crcTable, l.Extensions)
}

// unseal takes the seals off an entry as it was stored. Whether they are right is for sealOf.
func unseal(l *raft.Log) (prev, seal uint32, err error) {
	n := len(l.Extensions) - sealSize
	if n < 0 {
		return 0, 0, errors.New("it has no checksum")
	}
	prev, seal = order.Uint32(l.Extensions[n:]), order.Uint32(l.Extensions[n+4:])
	if n == 0 {
		l.Extensions = nil
	} else {
		l.Extensions = l.Extensions[:n:n]
	}
	return prev, seal, nil
}
