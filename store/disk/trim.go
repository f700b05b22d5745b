package disk

import (
	"fmt"
	"slices"
	"sync"
)

// DeleteRange deletes the entries min to max, which have to be at the beginning or the end of the
// log. One transaction moves the bounds of the log, which decides the deletion; those that then
// remove the entries are small, and if a crash prevents them they run at the next start. So the
// log has no hole at any time.
//
// Nothing is deleted in the journal: what is to go is moved into raft.db first.
func (l *LogStore) DeleteRange(min, max uint64) error {
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	l.appendMu.Lock()
	release := sync.OnceFunc(l.appendMu.Unlock)
	defer release()

	if err := l.writable(); err != nil {
		return err
	}
	l.mu.RLock()
	first, last := l.first, l.last
	l.mu.RUnlock()
	if last == 0 || min > max || max < first || min > last {
		return nil
	}
	if min > first && max < last {
		return fmt.Errorf("delete entries %d to %d: that would leave a hole in the log from %d to %d", min, max, first, last)
	}
	if l.segments != nil {
		return l.deleteSegments(min, max)
	}
	if max >= last {
		if err := l.drain(); err != nil {
			return err
		}
		return l.deleteEnd(min)
	}
	// Only the beginning may be removed while others append: they cannot write there.
	release()
	return l.deleteBeginning(max)
}

// deleteSegments is DeleteRange with segments. Called with appendMu held.
func (l *LogStore) deleteSegments(min, max uint64) error {
	first, last, seal, keep := l.first, l.last, l.seal, l.entries
	var err error
	switch {
	case max < last:
		err = l.segments.deleteTo(first, max)
		first, keep = max+1, keep[max+1-first:]
	case min <= first:
		err = l.segments.deleteFrom(first, last, 0)
		first, last, seal, keep = 0, 0, 0, nil
	default:
		err = l.segments.deleteFrom(min, last, min-1)
		last, keep = min-1, keep[:min-first]
		seal = keep[len(keep)-1].seal
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.first, l.last, l.seal, l.entries = first, last, seal, slices.Clone(keep)
	l.mu.Unlock()
	l.cache.keep(first, last)
	return nil
}

// deleteEnd deletes the entries from min on, or all. Called with appendMu held and nothing in the
// journal.
func (l *LogStore) deleteEnd(min uint64) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	old := l.head
	h, keep := old, l.entries
	if min <= old.first {
		h.first, h.last, h.seal, keep = 0, 0, 0, nil
	} else {
		keep = l.entries[:min-old.first]
		h.last, h.seal = min-1, keep[len(keep)-1].seal
	}
	pieces := outside(h, old.first, old.last)
	h.trim = uint32(len(pieces))
	if err := l.commit("delete", &h); err != nil {
		return err
	}
	l.publish(h, slices.Clone(keep))
	l.cache.keep(h.first, h.last)
	return l.remove(pieces, false)
}

// deleteBeginning deletes the entries up to max, which is not the last one.
func (l *LogStore) deleteBeginning(max uint64) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	for l.head.last <= max {
		// The entry behind them has to be in raft.db, too.
		l.writeMu.Unlock()
		_, err := l.moveSome()
		l.writeMu.Lock()
		if err != nil {
			return err
		}
	}
	old := l.head
	h := old
	h.first = max + 1
	pieces := outside(h, old.first, max)
	h.trim = uint32(len(pieces))
	if err := l.commit("delete", &h); err != nil {
		return err
	}
	l.mu.Lock()
	l.head = h
	l.entries = slices.Clone(l.entries[h.first-l.first:])
	l.first = h.first
	l.mu.Unlock()
	l.cache.keep(h.first, headIndex)
	return l.remove(pieces, true)
}

// begin writes the first head after raft-boltdb has opened the file, and deletes the pieces that
// an interrupted DeleteRange has left.
func (l *LogStore) begin(pieces []indexRange) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	h := l.head
	h.trim = uint32(len(pieces))
	if err := l.commit("open", &h); err != nil {
		return err
	}
	l.setHead(h)
	if len(pieces) == 0 {
		return nil
	}
	return l.remove(pieces, false)
}

type indexRange struct{ min, max uint64 }

// outside cuts what of low..high is not in the log into pieces that one transaction can delete.
func outside(h head, low, high uint64) []indexRange {
	var pieces []indexRange
	cut := func(low, high uint64) {
		for low <= high && low != 0 {
			end := min(high, low+deleteChunk-1)
			pieces = append(pieces, indexRange{low, end})
			low = end + 1
		}
	}
	if h.empty() {
		cut(low, high)
		return pieces
	}
	cut(low, min(high, h.first-1))
	cut(max(low, h.last+1), high)
	return pieces
}

// remove deletes pieces and then says that there is nothing left to delete. Called with writeMu
// held; with yield it lets other writers in between.
func (l *LogStore) remove(pieces []indexRange, yield bool) error {
	for _, p := range pieces {
		if yield {
			l.writeMu.Unlock()
			l.writeMu.Lock()
		}
		if err := l.transact("delete", func() error { return l.bolt.DeleteRange(p.min, p.max) }); err != nil {
			return err
		}
		h := l.head
		h.trim--
		l.setHead(h)
	}
	h := l.head
	if err := l.commit("delete", &h); err != nil {
		return err
	}
	l.setHead(h)
	return nil
}

// setHead replaces the head when the log is the same. Called with writeMu held.
func (l *LogStore) setHead(h head) {
	l.mu.Lock()
	l.head = h
	l.mu.Unlock()
}

// publish shows readers a new state, with all entries in raft.db. Called with appendMu and writeMu
// held.
func (l *LogStore) publish(h head, entries []stored) {
	l.mu.Lock()
	l.head, l.entries = h, entries
	l.first, l.last, l.seal = h.first, h.last, h.seal
	l.mu.Unlock()
}
