// Package disk is the data directory of a member: who it is, its raft log and settings, and its
// snapshots.
//
//	DATA/                       --data-dir; 0700, files 0600
//	  member/
//	    lock                    held (flock) by the one process that may be here
//	    identity.json           member ID, cluster ID, epoch; written once, before the log exists
//	    wal/                    or --wal-dir
//	      raft.db               log and settings; one bolt file
//	      journal-N             the newest entries, on their way into raft.db; not there after Close
//	      journal-N.new         being filled with zeros; removed at the next start
//	      segments/             the entries, if the log is of the kind WAL; raft.db then has settings only
//	      raft.db.convert       a log of the other kind that is not in use yet
//	      raft.db.new           a log that is not in use yet: a first start was interrupted
//	    snap/
//	      TERM-INDEX.snap       term and index in 16 hex digits
//	      TERM-INDEX.snap.broken   damaged, kept for inspection, never read
//	      TERM-INDEX.snap.tmp   being written; removed at the next start
//	  restoring/                a member that is being made of a backup; never read, removed by the next attempt
//	  proxy/                    a proxy's directory instead (not ours)
//
// Whatever was acknowledged is on disk, and what is read is what was written. Every log entry,
// setting, snapshot and identity carries a checksum; entries are also chained, and every
// transaction names the whole state it leaves behind (head.go). Damage is reported with the name
// of the file and never served, repaired or guessed around: a member that has forgotten a vote or
// an entry it acknowledged can make the cluster lose data, one that stays down cannot.
//
// Entries are acknowledged when they are in the journal, and moved into raft.db soon after
// (journal.go, move.go). Or they are in the segments of raft-wal (segments.go).
//
// A write that fails is final: what reached the disk is then unknown, so every later write is
// refused with the same error and [Options.OnFailure] is told. The process has to start again.
//
// It does not decide what to do with a directory, speaks to nobody and knows no commands.
package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/quorate/quorate/internal/durable"
	"github.com/quorate/quorate/internal/wallclock"
)

const (
	dirMode  = 0o700
	fileMode = 0o600

	logFile    = "raft.db"
	newLogFile = logFile + ".new"
)

var (
	// ErrLocked is returned when another process uses the directory. The text is that of etcd
	// 2.3 (spec bootstrap 1).
	ErrLocked = errors.New("open wal error: file already locked")
	// ErrClosed is returned by everything that is used after Close.
	ErrClosed = errors.New("the data directory is closed")

	errNoIdentity = errors.New("the data directory has no identity yet")
)

// Options say where the directory is and how to treat it. Only DataDir is required.
type Options struct {
	DataDir string
	// WALDir holds the log. Empty means DataDir/member/wal.
	WALDir string
	// LogStore is the kind of log. A log that is of another kind is refused. Empty means that of the
	// log that is there, and BoltDB for a new one.
	LogStore Kind
	// MaxSnapshots is how many snapshots are kept. Zero means all.
	MaxSnapshots int
	// Reserve is how much space snapshots leave to the log, and what [Dir.Space] compares with.
	Reserve Reserve
	// CacheBytes bounds the memory for recent log entries. Zero means 32 MiB.
	CacheBytes int64
	// VerifyBytes bounds how much log is read completely at Open. A longer log is checked for
	// gaps and order only, and each entry when it is read. Zero means 256 MiB.
	VerifyBytes int64

	// StallLimit is how long one write of the log may take before OnStall is called, once.
	// Zero means never. A stuck disk does not stop raft's heartbeats, so a leader with one
	// would block its cluster for ever: OnStall should end the process.
	StallLimit time.Duration
	OnStall    func(op string, waited time.Duration)
	// OnCorrupt is told, once, that the log is damaged, and OnFailure that a write failed, before
	// the error is returned. raft panics when it cannot read an entry it needs or save its term:
	// a callback that returns may be followed by that. Both are called with locks held, and must
	// not use the directory.
	OnCorrupt func(error)
	OnFailure func(error)
	// OnSnapshotLost is told when the newest snapshot turns out to be damaged or gone after Open, so that
	// a new one is made: other members may need it. It must not block, or use the directory.
	OnSnapshotLost func()
	// OnStored is told of every successful write of log entries, for metrics.
	OnStored func(entries int, took time.Duration)

	Logger hclog.Logger
	// NoSync leaves out fsync on the log. Only for tests and benchmarks.
	NoSync bool

	journal     journalOptions
	segmentSize int                       // zero means segmentSize
	wrapFiles   func(types.VFS) types.VFS // fault injection in segments
	// quietLeftovers: segments that are not used need no warning.
	quietLeftovers bool
	compactAbove   int64                     // file size from which compaction is considered; zero means 1 GiB
	wrapBolt       func(boltStore) boltStore // fault injection
	now            func() time.Time          // clock for NextBoot
}

func (o *Options) setDefaults() {
	if o.WALDir == "" {
		o.WALDir = filepath.Join(o.DataDir, "member", "wal")
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 32 << 20
	}
	if o.VerifyBytes == 0 {
		o.VerifyBytes = 256 << 20
	}
	if o.segmentSize == 0 {
		o.segmentSize = segmentSize
	}
	if o.compactAbove == 0 {
		o.compactAbove = 1 << 30
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.now == nil {
		o.now = wallclock.Now
	}
}

// Dir is an open data directory. Its methods may be called from any goroutine.
type Dir struct {
	opts      Options
	lock      *os.File
	snapshots *snapshotStore

	mu       sync.Mutex // guards what follows
	identity *Identity
	log      *LogStore // nil until there is an identity
	stable   *stableStore
	closed   bool
}

// Open locks the data directory, makes what is missing of it and opens what is there.
//
// A directory without an identity has no log either: LogStore and StableStore return nil until
// WriteIdentity has made one. With an identity, everything is checked before Open returns.
func Open(o Options) (*Dir, error) {
	o.setDefaults()
	state, err := Inspect(o.DataDir, o.WALDir)
	if err != nil {
		return nil, err
	}
	if state == Proxy {
		return nil, fmt.Errorf("%s holds a proxy, not a member", o.DataDir)
	}
	for _, name := range UnknownEntries(o.DataDir) {
		o.Logger.Warn(fmt.Sprintf("found invalid file/dir %s under data dir %s (Ignore this if you are upgrading etcd)", name, o.DataDir))
	}

	d := &Dir{opts: o}
	for _, path := range []string{o.DataDir, d.member(), d.member("snap"), o.WALDir} {
		if err := durable.Mkdir(path, dirMode); err != nil {
			return nil, fmt.Errorf("make data directory: %w", err)
		}
	}
	if d.lock, err = lockFile(d.member("lock"), os.O_CREATE|os.O_RDWR, true); err != nil {
		return nil, err
	}
	if err := d.open(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) open() error {
	var err error
	if d.snapshots, err = openSnapshots(d.member("snap"), d.opts.MaxSnapshots, d.opts.Reserve, d.opts.Logger); err != nil {
		return err
	}
	d.snapshots.onLost = d.opts.OnSnapshotLost
	if d.identity, err = readIdentity(d.member(identityFile)); err != nil {
		return err
	}
	if d.identity == nil {
		// Nobody was told of a log that has no identity.
		return removeIfThere(d.wal(newLogFile))
	}
	if _, err := os.Lstat(d.wal(logFile)); errors.Is(err, os.ErrNotExist) {
		// Inspect has seen the new log: the first start ended between the two names.
		if err := durable.Rename(d.wal(newLogFile), d.wal(logFile)); err != nil {
			return err
		}
	}
	return d.openLog()
}

func (d *Dir) openLog() error {
	log, err := openLog(d.wal(logFile), d.opts, d.snapshots)
	if err != nil {
		return err
	}
	d.log, d.stable = log, &stableStore{log: log}
	return nil
}

func (d *Dir) member(names ...string) string {
	return filepath.Join(append([]string{d.opts.DataDir, "member"}, names...)...)
}

func (d *Dir) wal(name string) string { return filepath.Join(d.opts.WALDir, name) }

// Identity returns who this member is, and false when the directory does not say yet.
func (d *Dir) Identity() (*Identity, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.identity == nil {
		return nil, false
	}
	id := d.identity.clone()
	return &id, true
}

// WriteIdentity makes id this member's identity, durably. The first time it also makes the log.
// A crash in between leaves a directory that opens either as if WriteIdentity had not been called
// or as if it had succeeded.
func (d *Dir) WriteIdentity(id Identity) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	id = id.clone()
	id.Format = identityFormat
	if d.log != nil {
		if err := writeIdentity(d.member(identityFile), id); err != nil {
			return err
		}
		d.identity = &id
		return nil
	}

	// Log first, under a name that means nothing without an identity, then the identity, then
	// the log's own name: an identity with no log at all is always a lost log.
	if err := createLog(d.wal(newLogFile), d.opts.LogStore); err != nil {
		return err
	}
	if err := writeIdentity(d.member(identityFile), id); err != nil {
		return err
	}
	if err := durable.Rename(d.wal(newLogFile), d.wal(logFile)); err != nil {
		return err
	}
	d.identity = &id
	return d.openLog()
}

// bootKey is the setting that holds the last boot number.
const bootKey = "Boot"

// NextBoot returns a number larger than any it ever returned for this directory, and durable
// before it is returned: the time in nanoseconds, or one more than the last when the clock is
// behind. It needs an identity.
func (d *Dir) NextBoot() (uint64, error) {
	log := d.LogStore()
	if log == nil {
		return 0, errNoIdentity
	}
	boot := uint64(max(d.opts.now().UnixNano(), 1))
	err := log.setting(bootKey, func(old []byte) ([]byte, error) {
		if old != nil {
			last, err := decodeUint64(bootKey, old)
			if err != nil {
				return nil, err
			}
			if last+1 == 0 {
				return nil, errors.New("boot numbers are used up")
			}
			boot = max(boot, last+1)
		}
		return encodeUint64(boot), nil
	})
	return boot, err
}

// Booted says whether NextBoot was ever called for this directory. It needs an identity.
func (d *Dir) Booted() (bool, error) {
	log := d.LogStore()
	if log == nil {
		return false, errNoIdentity
	}
	_, ok, err := log.getSetting(bootKey)
	return ok, err
}

// LogStore returns the raft log, nil before there is an identity.
func (d *Dir) LogStore() *LogStore {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log
}

// StableStore returns raft's settings, nil before there is an identity.
func (d *Dir) StableStore() raft.StableStore {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stable == nil {
		return nil
	}
	return d.stable
}

// Snapshots returns the snapshot store.
func (d *Dir) Snapshots() raft.SnapshotStore { return d.snapshots }

// Close closes the log and gives up the lock. It may be called again.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var err error
	if d.log != nil {
		err = d.log.close()
	}
	return errors.Join(err, d.lock.Close())
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func decodeUint64(key string, b []byte) (uint64, error) {
	if len(b) != 8 {
		return 0, errors.New("setting " + strconv.Quote(key) + " is not a number")
	}
	return order.Uint64(b), nil
}

func encodeUint64(v uint64) []byte { return order.AppendUint64(nil, v) }
