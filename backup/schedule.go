package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/quorate/quorate/internal/durable"
)

const (
	// retryAfter is how long a failed backup waits for the next attempt, if the interval is not shorter.
	retryAfter = time.Minute
	// A backup leaves at least this much of a disk free: a twentieth of it, and at most 1 GiB. The disk
	// may be the one that a member's log is on.
	reservePart = 20
	maxReserve  = 1 << 30
)

// ScheduleOptions say what a member writes by itself, where to and how often.
type ScheduleOptions struct {
	Dir      string
	Interval time.Duration
	// Keep is how many files of this member stay in the directory.
	Keep int
	// Member is the ID of the member. It is part of the names of files: members may share a directory.
	Member uint64
	// MinFree returns how much of a disk of the given size is to stay free in any case; nil for what a
	// backup leaves anyway.
	MinFree func(total uint64) uint64
	// Take takes the state to write.
	Take   func() (*State, error)
	Logger hclog.Logger

	space func(dir string) (free, total uint64, err error) // nil: what the file system says
}

// Schedule writes backups of one member. All methods may be called from any goroutine.
//
// Each member writes at moments of its own, as far apart within the interval as chance has it: they
// follow from its ID and the time of day, so that a restart moves nothing. What was missed is made up
// for at the start, and after a failure.
type Schedule struct {
	o ScheduleOptions

	lastSuccess, lastBytes prometheus.Gauge
	failures               prometheus.Counter

	mu      sync.Mutex
	problem string // guarded by mu: of the last attempt
}

// NewSchedule returns a schedule, which does nothing before Run.
func NewSchedule(o ScheduleOptions) *Schedule {
	if o.MinFree == nil {
		o.MinFree = func(uint64) uint64 { return 0 }
	}
	if o.space == nil {
		o.space = diskSpace
	}
	return &Schedule{
		o: o,
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quorate_backup_last_success_timestamp_seconds",
			Help: "Unix time of the state in this member's newest scheduled backup, 0 if there is none. Older than the interval, backups fail.",
		}),
		lastBytes: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "quorate_backup_last_bytes",
			Help: "Size of the scheduled backup that this process wrote last.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "quorate_backup_failures_total",
			Help: "Scheduled backups that failed. The log and /readyz?verbose say why.",
		}),
	}
}

// Register adds the metrics to a registry.
func (s *Schedule) Register(registry prometheus.Registerer) error {
	return errors.Join(registry.Register(s.lastSuccess), registry.Register(s.lastBytes), registry.Register(s.failures))
}

// Problem says why the last attempt failed, and "" when it did not.
func (s *Schedule) Problem() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problem
}

// Run writes backups until ctx ends. A failure is told and tried again, and never ends it.
func (s *Schedule) Run(ctx context.Context) {
	s.removeUnfinished()
	var newest time.Time
	if files, err := s.files(); err == nil && len(files) > 0 {
		newest = files[0].time
		s.lastSuccess.Set(float64(newest.Unix()))
	}
	wait := time.Duration(0)
	if now := time.Now(); !newest.Before(s.slotAfter(now).Add(-s.o.Interval)) {
		wait = s.slotAfter(now).Sub(now)
	}
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		err := s.once(ctx)
		if ctx.Err() != nil {
			return
		}
		s.tell(err)
		now := time.Now()
		wait = s.slotAfter(now).Sub(now)
		if err != nil {
			wait = min(wait, retryAfter)
		}
	}
}

// slotAfter returns the next moment that is this member's.
func (s *Schedule) slotAfter(now time.Time) time.Time {
	phase := time.Duration(s.o.Member % uint64(s.o.Interval))
	return now.Add(-phase).Truncate(s.o.Interval).Add(s.o.Interval + phase)
}

func (s *Schedule) tell(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem = ""
	if err != nil {
		s.problem = "the last scheduled backup failed: " + err.Error()
		s.failures.Inc()
		s.o.Logger.Warn("scheduled backup failed", "dir", s.o.Dir, "error", err)
	}
}

// once writes one backup, and then removes the oldest beyond those to keep.
func (s *Schedule) once(ctx context.Context) error {
	start := time.Now()
	if err := durable.Mkdir(s.o.Dir, 0o700); err != nil {
		return err
	}
	state, err := s.o.Take()
	if err != nil {
		return err
	}
	defer state.Release()
	path := filepath.Join(s.o.Dir, s.name(state.Info))
	content, err := Save(path, true, func(w io.Writer) error {
		_, err := state.WriteTo(&frugalWriter{ctx: ctx, w: w, o: &s.o})
		return err
	})
	if err != nil {
		return err
	}
	s.lastSuccess.Set(float64(state.Info.Time.Unix()))
	s.lastBytes.Set(float64(content.Bytes))
	s.o.Logger.Info("backup saved", "path", path, "index", state.Info.Index, "bytes", content.Bytes, "elapsed", time.Since(start))
	return s.removeOld()
}

// file is a backup of this member in the directory.
type file struct {
	name  string
	time  time.Time
	index uint64
}

const nameTime = "20060102T150405Z"

func (s *Schedule) prefix() string { return fmt.Sprintf("quorate-%x-", s.o.Member) }

func (s *Schedule) name(i Info) string {
	return fmt.Sprintf("%s%s-%d.snap", s.prefix(), i.Time.UTC().Format(nameTime), i.Index)
}

var nameEnd = regexp.MustCompile(`^(\d{8}T\d{6}Z)-(\d{1,20})\.snap$`)

// parse says whether a name is one that this member gives.
func (s *Schedule) parse(name string) (file, bool) {
	rest, own := strings.CutPrefix(name, s.prefix())
	parts := nameEnd.FindStringSubmatch(rest)
	if !own || parts == nil {
		return file{}, false
	}
	at, err1 := time.Parse(nameTime, parts[1])
	index, err2 := strconv.ParseUint(parts[2], 10, 64)
	return file{name, at, index}, err1 == nil && err2 == nil
}

// files returns the backups of this member, newest first.
func (s *Schedule) files() ([]file, error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		if f, ok := s.parse(e.Name()); ok && e.Type().IsRegular() {
			files = append(files, f)
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(b.time.Compare(a.time), cmp.Compare(b.index, a.index)) })
	return files, nil
}

func (s *Schedule) removeOld() error {
	files, err := s.files()
	if err != nil {
		return fmt.Errorf("the backup was written, but old ones are not removed: %w", err)
	}
	var failed error
	for _, f := range files[min(s.o.Keep, len(files)):] {
		failed = errors.Join(failed, os.Remove(filepath.Join(s.o.Dir, f.name)))
	}
	if failed != nil {
		return fmt.Errorf("the backup was written, but old ones are not removed: %w", failed)
	}
	return nil
}

// removeUnfinished removes what an earlier run was writing when it ended.
func (s *Schedule) removeUnfinished() {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return // the first backup makes the directory, or says what is wrong
	}
	for _, e := range entries {
		name, unfinished := strings.CutSuffix(e.Name(), durable.TempSuffix)
		// Save has put a number behind the name.
		if _, own := s.parse(strings.TrimSuffix(name, filepath.Ext(name))); !own || !unfinished {
			continue
		}
		if err := os.Remove(filepath.Join(s.o.Dir, e.Name())); err != nil {
			s.o.Logger.Warn("an unfinished backup was not removed", "error", err)
		}
	}
}

// frugalWriter stops before a disk is full, and when its context ends.
type frugalWriter struct {
	ctx     context.Context
	w       io.Writer
	o       *ScheduleOptions
	checked bool
	written int // since the last check
}

func (f *frugalWriter) Write(p []byte) (int, error) {
	if err := f.ctx.Err(); err != nil {
		return 0, err
	}
	if f.written += len(p); !f.checked || f.written >= syncEvery {
		f.checked, f.written = true, 0
		free, total, err := f.o.space(f.o.Dir)
		if err != nil {
			return 0, fmt.Errorf("look for free space on %s: %w", f.o.Dir, err)
		}
		reserve := max(min(total/reservePart, maxReserve), f.o.MinFree(total))
		if free < reserve+syncEvery { // before the next check
			return 0, fmt.Errorf("only %d MiB are free on the disk of %s, and %d MiB are left for others: make room, or keep fewer backups", free>>20, f.o.Dir, reserve>>20)
		}
	}
	return f.w.Write(p)
}

// diskSpace returns how many bytes of the disk that holds dir are free for us, and how large it is.
func diskSpace(dir string) (free, total uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), uint64(st.Blocks) * uint64(st.Bsize), nil
}
