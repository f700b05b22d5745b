package disk

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/durable"
)

// files is what a journal needs of the file system. Names are durable when a call returns, and
// what was written to a file is once Sync has.
type files interface {
	create(path string) (journalFile, error) // replaces a file that is there
	rename(from, to string) error
	remove(path string) error
}

type journalFile interface {
	WriteAt(b []byte, off int64) (int, error)
	Sync() error
	Close() error
}

// journalOptions are the sizes of a journal. The zero value means those below.
type journalOptions struct {
	firstSegment int64 // bytes of the first segment; each is twice as large as the one before
	maxSegment   int64 // up to this size
	off          bool  // there is none: entries go into raft.db at once
	manual       bool  // nothing happens in the background
	files        files
}

const (
	// The first segment is small, so that a member starts quickly and one that writes little
	// takes little room.
	firstSegment = 1 << 20
	maxSegment   = 64 << 20
	zeroChunk    = 1 << 20 // bytes of zeros that are written at once, between appends to the journal
)

func (o *journalOptions) setDefaults(noSync bool) {
	if o.firstSegment == 0 {
		o.firstSegment = firstSegment
	}
	if o.maxSegment == 0 {
		o.maxSegment = maxSegment
	}
	if o.files == nil {
		o.files = osFiles{noSync}
	}
}

// journal is the end of the journal, where records are appended. It is guarded by
// LogStore.appendMu; the goroutine that prepares the next segment touches nothing of it.
type journal struct {
	journalOptions
	path string // of raft.db

	id     uint64 // 0 while there is no segment
	number uint64 // of the segment that is written to, or of the first to be made
	file   journalFile
	size   int64
	at     int64  // where the next record begins
	record uint64 // number of the last record
	seal   uint32 // and its seal

	next    chan preparedSegment // of the segment that is being prepared, nil when none is
	stopped atomic.Bool          // preparing is to end

	payload, framed []byte // scratch space
}

type preparedSegment struct {
	file journalFile
	size int64
	err  error
}

// fits reports whether the segment has room for a payload of n bytes.
func (j *journal) fits(n int) bool {
	return j.file != nil && j.at+int64(sectors(n))*sectorSize <= j.size
}

// extend makes the next segment the one that is written to. It has room for a payload of n bytes.
func (j *journal) extend(n int) error {
	number := j.number + 1
	if j.file == nil {
		number = j.number
	}
	size := max(j.nextSize(), sectorSize*int64(1+sectors(n)))
	var p preparedSegment
	if j.next != nil {
		p = <-j.next
		j.next = nil
	}
	if p.file != nil && p.size < size {
		_ = p.file.Close()
		p.file = nil
	}
	if p.file == nil {
		// Also if preparing it has failed: there may be room on the disk by now.
		p = j.prepare(number, size)
		if errors.Is(p.err, syscall.ENOSPC) {
			// A small one may do until there is room again.
			p = j.prepare(number, max(j.firstSegment, sectorSize*int64(1+sectors(n))))
		}
		if p.err != nil {
			return p.err
		}
	}
	id, seal := j.id, j.seal
	if id == 0 {
		for id == 0 {
			var b [8]byte
			_, _ = rand.Read(b[:]) // never fails
			id = order.Uint64(b[:])
		}
		seal = firstSeal(id)
	}
	header := segmentHeader{id: id, number: number, size: uint64(p.size), record: j.record, seal: seal}
	to := segmentPath(j.path, number)
	_, err := p.file.WriteAt(header.encode(), 0)
	if err == nil {
		err = p.file.Sync()
	}
	if err == nil {
		err = j.files.rename(to+newJournalSuffix, to)
	}
	if err != nil {
		return errors.Join(err, p.file.Close())
	}
	if j.file != nil {
		_ = j.file.Close() // it was synced
	}
	j.file, j.id, j.seal, j.number = p.file, id, seal, number
	j.size, j.at = p.size, sectorSize
	return nil
}

func (j *journal) nextSize() int64 {
	if j.file == nil {
		return j.firstSegment
	}
	return min(max(2*j.size, j.firstSegment), j.maxSegment)
}

// prepareNext begins to make the next segment when it will be needed soon.
func (j *journal) prepareNext() {
	if j.manual || j.next != nil || j.at < j.size/2 {
		return
	}
	number, size, next := j.number+1, j.nextSize(), make(chan preparedSegment, 1)
	j.next = next
	go func() { next <- j.prepare(number, size) }()
}

var errStopped = errors.New("the log is being closed")

// prepare makes a file of zeros. It uses nothing of j that changes.
//
// The zeros are written, since an extent that is only reserved costs an update of the file's
// metadata, and a second flush, when it is first written to.
func (j *journal) prepare(number uint64, size int64) preparedSegment {
	path := segmentPath(j.path, number) + newJournalSuffix
	f, err := j.files.create(path)
	if err != nil {
		return preparedSegment{err: err}
	}
	zeros := make([]byte, min(zeroChunk, size))
	for at := int64(0); at < size && err == nil; at += int64(len(zeros)) {
		if j.stopped.Load() {
			err = errStopped
			break
		}
		if _, err = f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err == nil {
			err = f.Sync()
		}
	}
	if err != nil {
		// The room it takes may be needed more urgently.
		err = fmt.Errorf("make %d bytes of journal: %w", size, err)
		return preparedSegment{err: errors.Join(err, f.Close(), j.files.remove(path))}
	}
	return preparedSegment{file: f, size: size}
}

// append writes a record, which has to fit, and returns when it is on disk.
func (j *journal) append(r *record) error {
	r.number, r.before = j.record+1, j.seal
	r.segment, r.offset = j.number, uint64(j.at)
	j.payload = r.encode(j.payload[:0])
	j.framed = frame(j.framed[:0], j.payload)
	if _, err := j.file.WriteAt(j.framed, j.at); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		return err
	}
	j.record, j.seal = r.number, r.seal
	j.at += int64(len(j.framed))
	if cap(j.framed) > 4<<20 { // do not keep what one large batch needed
		j.payload, j.framed = nil, nil
	}
	return nil
}

// current returns the file that is written to, for messages.
func (j *journal) current() string { return segmentPath(j.path, j.number) }

// mark says that all of the journal is in raft.db up to its beginning.
func (j *journal) mark() journalMark {
	return journalMark{id: j.id, segment: j.number, record: j.record, seal: j.seal, known: j.record}
}

// close ends what runs in the background, deletes the segment that was being prepared, and closes
// the other.
func (j *journal) close() error {
	j.stopped.Store(true)
	var err error
	if j.next != nil {
		if p := <-j.next; p.file != nil {
			err = errors.Join(p.file.Close(), j.files.remove(segmentPath(j.path, j.number+1)+newJournalSuffix))
		}
		j.next = nil
	}
	if j.file != nil {
		err = errors.Join(err, j.file.Close())
		j.file = nil
	}
	return err
}

// osFiles are files of the operating system.
type osFiles struct{ noSync bool }

func (o osFiles) create(path string) (journalFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f, o.noSync}, nil
}

func (o osFiles) rename(from, to string) error {
	if o.noSync {
		return os.Rename(from, to)
	}
	return durable.Rename(from, to)
}

func (osFiles) remove(path string) error { return removeIfThere(path) }

type osFile struct {
	*os.File
	noSync bool
}

// Sync also writes the size of the file, and what else is needed to read it, but not its times.
func (f osFile) Sync() error {
	for !f.noSync {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			if err != nil {
				err = &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
			}
			return err
		}
	}
	return nil
}
