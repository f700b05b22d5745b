package disk

import (
	"fmt"
	"slices"
)

// DeleteRange deletes the entries min to max, which have to be at the beginning or the end of the
// log. One transaction moves the bounds of the log, which decides the deletion; those that then
// remove the entries are small, and if a crash prevents them they run at the next start. So the
// log has no hole at any time.
func (l *LogStore) DeleteRange(min, max uint64) error {
	l.trimMu.Lock()
	defer l.trimMu.Unlock()

	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	old := l.head
	if old.empty() || min > max || max < old.first || min > old.last {
		return nil
	}
	h, keep := old, l.entries
	switch {
	case min <= old.first && max >= old.last:
		h.first, h.last, h.seal, keep = 0, 0, 0, nil
	case min <= old.first:
		h.first, keep = max+1, l.entries[max+1-old.first:]
	case max >= old.last:
		keep = l.entries[:min-old.first]
		h.last, h.seal = min-1, keep[len(keep)-1].seal
	default:
		return fmt.Errorf("delete entries %d to %d: that would leave a hole in the log from %d to %d", min, max, old.first, old.last)
	}
	pieces := outside(h, old.first, old.last)
	h.trim = uint32(len(pieces))
	if err := l.commit("delete", h); err != nil {
		return err
	}
	l.publish(h, slices.Clone(keep))
	l.cache.keep(h.first, h.last)
	// Only the beginning may be removed while others append: they cannot write there.
	return l.remove(pieces, h.last == old.last)
}

// begin writes the first head after raft-boltdb has opened the file, and deletes the pieces that
// an interrupted DeleteRange has left.
func (l *LogStore) begin(pieces []indexRange) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	h := l.head
	h.trim = uint32(len(pieces))
	if err := l.commit("open", h); err != nil || len(pieces) == 0 {
		return err
	}
	l.publish(h, l.entries)
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
		l.publish(h, l.entries)
	}
	return l.commit("delete", l.head)
}

// publish shows readers a new state. Called with writeMu held.
func (l *LogStore) publish(h head, entries []stored) {
	l.mu.Lock()
	l.head, l.entries = h, entries
	l.mu.Unlock()
}
