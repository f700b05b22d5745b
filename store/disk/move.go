package disk

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// Entries wait in the journal, and in memory, until there are many of them or none have come for a
// while. Then they are moved into raft.db, in transactions of whole records.
const (
	moveIdle    = 100 * time.Millisecond
	moveBytes   = 4 << 20  // of entries in memory from which they are moved at once
	moveEntries = 4096     // the same for their number, since each takes time
	moveMost    = 32 << 20 // of entries in memory, at which writers wait
	moveChunk   = 2048     // entries from which a transaction is large enough
	chunkBytes  = 4 << 20
)

// appendJournal is StoreLogs with a journal. Called with appendMu held.
func (l *LogStore) appendJournal(logs []*raft.Log, start time.Time) error {
	if err := l.writable(); err != nil {
		return err
	}
	if err := l.checkAppend(l.last, logs); err != nil {
		return err
	}
	for l.waiting() > moveMost {
		if _, err := l.moveSome(); err != nil {
			return err
		}
	}
	j := l.journal
	size := recordSize(logs)
	if size > maxRecord {
		return fmt.Errorf("append to log: entries %d to %d take more than %d bytes", logs[0].Index, logs[len(logs)-1].Index, maxRecord)
	}
	timer := l.watchdog.start("append")
	defer l.watchdog.stop(timer)
	if !j.fits(size) {
		if err := l.extendJournal(size); err != nil {
			return err
		}
	}

	// appendMu keeps others from changing the end of the log, so it may be read without mu.
	r := &record{prev: l.seal, logs: slices.Clone(logs), stored: make([]stored, len(logs))}
	r.last = r.prev
	for i, e := range logs {
		r.last = sealOf(e, r.last)
		r.stored[i] = stored{seal: r.last, size: storedSize(e)}
		r.bytes += cost(e)
	}
	l.mu.RLock()
	r.serial = l.head.serial
	l.mu.RUnlock()
	if err := j.append(r); err != nil {
		return l.fail(j.current(), "append", err)
	}

	l.mu.Lock()
	if l.last == 0 {
		l.first = r.first()
	}
	l.last, l.seal = r.lastLog(), r.last
	l.entries = append(l.entries, r.stored...)
	l.pending = append(l.pending, r)
	l.pendingBytes += r.bytes
	l.pendingLogs += len(r.logs)
	l.written = r.number
	wake := len(l.pending) == 1 || l.manyWait()
	l.mu.Unlock()
	l.cache.add(logs)
	l.appended.Store(time.Now().UnixNano())
	if wake {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
	j.prepareNext()
	if l.onStored != nil {
		l.onStored(len(logs), time.Since(start))
	}
	return nil
}

// extendJournal begins a segment. The first one is made known to raft.db before it is used. Called
// with appendMu held.
func (l *LogStore) extendJournal(size int) error {
	j, isNew := l.journal, l.journal.file == nil
	if err := j.extend(size); err != nil {
		return l.fail(segmentPath(j.path, j.number+1), "make journal", err)
	}
	if !isNew {
		return nil
	}
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	h := l.head
	h.journal = j.mark()
	if err := l.commit("journal", &h); err != nil {
		return err
	}
	l.mu.Lock()
	l.head, l.written = h, 0
	l.mu.Unlock()
	return nil
}

// waiting returns how many bytes of entries are in the journal only.
func (l *LogStore) waiting() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.pendingBytes
}

// manyWait says whether entries should be moved at once. Called with mu held.
func (l *LogStore) manyWait() bool {
	return l.pendingBytes >= moveBytes || l.pendingLogs >= moveEntries
}

// move moves entries until stop is closed, or a write has failed.
func (l *LogStore) move(stop <-chan struct{}) {
	timer := time.NewTimer(moveIdle)
	defer timer.Stop()
	for {
		select {
		case <-stop:
			return
		case <-l.wake:
		case <-timer.C:
		}
		for {
			l.mu.RLock()
			some, many := len(l.pending) > 0, l.manyWait()
			l.mu.RUnlock()
			quiet := time.Since(time.Unix(0, l.appended.Load()))
			if some && !many && quiet < moveIdle {
				timer.Reset(moveIdle - quiet)
			}
			if !some || (!many && quiet < moveIdle) {
				break
			}
			if _, err := l.moveSome(); err != nil {
				return // it was reported, and nothing can be written any more
			}
		}
	}
}

// moveSome moves some of the entries that are in the journal only, in one transaction, and reports
// whether there were any.
func (l *LogStore) moveSome() (bool, error) {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	l.mu.RLock()
	n, size := 0, int64(0)
	l.logs = l.logs[:0]
	for n < len(l.pending) && len(l.logs) < moveChunk && size < chunkBytes {
		l.logs = append(l.logs, l.pending[n].logs...)
		size += l.pending[n].bytes
		n++
	}
	records := slices.Clip(l.pending[:n])
	l.mu.RUnlock()
	if n == 0 {
		return false, nil
	}
	defer func() { clear(l.logs) }() // let go of the data

	h, last := l.head, records[n-1]
	if h.empty() {
		h.first = records[0].first()
	}
	l.batch = sealAll(l.batch[:0], l.logs, records[0].prev, nil)
	h.last, h.seal = last.lastLog(), sealIn(&l.batch[len(l.batch)-1])
	if h.seal != last.last {
		clear(l.batch)
		l.batch = l.batch[:0]
		return false, l.fail(l.path, "move", fmt.Errorf("entries %d to %d were changed after they had been stored", records[0].first(), h.last))
	}
	h.journal = journalMark{id: h.journal.id, segment: last.segment, offset: last.offset, record: last.number, seal: last.seal, known: h.journal.known}
	old := l.head.journal.segment
	if err := l.commit("move", &h); err != nil {
		return false, err
	}
	l.mu.Lock()
	l.head = h
	clear(l.pending[:n])
	l.pending = l.pending[n:]
	l.pendingBytes -= size
	l.pendingLogs -= len(l.logs)
	l.mu.Unlock()
	for ; old < h.journal.segment; old++ {
		l.discard(segmentPath(l.path, old))
	}
	return true, nil
}

// drain moves all entries into raft.db. Called with appendMu held.
func (l *LogStore) drain() error {
	for {
		if more, err := l.moveSome(); err != nil || !more {
			return err
		}
	}
}

// retire ends the journal, of which all is in raft.db, and deletes its files. The next segment
// will have the number next. Called with appendMu held.
func (l *LogStore) retire(next uint64, garbage []string) error {
	l.writeMu.Lock()
	defer l.writeMu.Unlock()
	if l.head.journal.open() {
		h := l.head
		h.journal = journalMark{segment: next}
		if err := l.commit("journal", &h); err != nil {
			return err
		}
		l.setHead(h)
	}
	for _, path := range garbage {
		l.discard(path)
	}
	return nil
}

// discard deletes a file that nobody will read. If that fails it is tried again at the next start.
func (l *LogStore) discard(path string) {
	if err := l.journalFiles.remove(path); err != nil {
		l.logger.Warn("a file of the journal that is not needed any more was not deleted", "path", path, "error", err)
	}
}
