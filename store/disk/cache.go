package disk

import (
	"sync"

	"github.com/hashicorp/raft"
)

// entryCache holds the newest entries of the log, as many as fit, so that what is sent to the
// followers is not read back from the file. raft.LogCache bounds their number instead, which
// says nothing about memory: one entry can be hundreds of kilobytes.
type entryCache struct {
	limit int64

	mu      sync.RWMutex // guards what follows
	bytes   int64
	first   uint64      // index of entries[0]
	entries []*raft.Log // consecutive
}

func newEntryCache(limit int64) *entryCache { return &entryCache{limit: limit} }

func cost(e *raft.Log) int64 { return int64(len(e.Data)+len(e.Extensions)) + 128 }

// get copies the entry at index into log and reports whether it was there.
func (c *entryCache) get(index uint64, log *raft.Log) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if index < c.first || index-c.first >= uint64(len(c.entries)) {
		return false
	}
	*log = *c.entries[index-c.first]
	return true
}

// add appends entries. Nobody may change them afterwards, as with raft.LogCache.
func (c *entryCache) add(logs []*raft.Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(logs) == 0 {
		return
	}
	if c.first+uint64(len(c.entries)) != logs[0].Index {
		c.reset()
	}
	if len(c.entries) == 0 {
		c.first = logs[0].Index
	}
	c.entries = append(c.entries, logs...)
	for _, e := range logs {
		c.bytes += cost(e)
	}
	drop := 0
	for c.bytes > c.limit && drop < len(c.entries) {
		c.bytes -= cost(c.entries[drop])
		drop++
	}
	c.dropFirst(drop)
}

// keep forgets entries outside first..last; 0, 0 forgets all.
func (c *entryCache) keep(first, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.first + uint64(len(c.entries))
	if last == 0 || last < c.first || first >= end {
		c.reset()
		return
	}
	for ; end-1 > last; end-- {
		n := len(c.entries) - 1
		c.bytes -= cost(c.entries[n])
		c.entries[n] = nil
		c.entries = c.entries[:n]
	}
	if first > c.first {
		n := int(first - c.first)
		for _, e := range c.entries[:n] {
			c.bytes -= cost(e)
		}
		c.dropFirst(n)
	}
}

func (c *entryCache) dropFirst(n int) {
	clear(c.entries[:n]) // let go of the data; append moves the rest when it has to grow
	c.entries = c.entries[n:]
	c.first += uint64(n)
}

func (c *entryCache) reset() { c.bytes, c.first, c.entries = 0, 0, nil }
