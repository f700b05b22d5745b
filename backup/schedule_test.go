package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// scheduled is a schedule in the time of a synctest bubble.
type scheduled struct {
	*Schedule
	t     *testing.T
	dir   string
	index uint64        // of the last state
	fail  atomic.Bool   // takes no state
	free  atomic.Uint64 // of a disk of 100 GiB
}

// scheduleOf makes a schedule with an interval of an hour that keeps 3 files.
func scheduleOf(t *testing.T, dir string, member uint64) *scheduled {
	s := &scheduled{t: t, dir: dir}
	s.free.Store(50 << 30)
	s.Schedule = NewSchedule(ScheduleOptions{
		Dir: dir, Interval: time.Hour, Keep: 3, Member: member, Logger: hclog.NewNullLogger(),
		Take: func() (*State, error) {
			if s.fail.Load() {
				return nil, errors.New("nothing yet")
			}
			s.index++
			state := sample("state")
			state.Info.Index, state.Info.Time = s.index, time.Now()
			return state, nil
		},
		space: func(string) (uint64, uint64, error) { return s.free.Load(), 100 << 30, nil },
	})
	return s
}

// run runs the schedule until the returned function is called.
func (s *scheduled) run() (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	synctest.Wait()
	return func() { cancel(); <-done }
}

// pass lets time pass, and everything happen that is due then.
func pass(d time.Duration) {
	time.Sleep(d) // the bubble's time
	synctest.Wait()
}

// indices returns those of the whole backups of a member, oldest first.
func (s *scheduled) indices() []uint64 {
	s.t.Helper()
	var indices []uint64
	for _, name := range names(s.t, s.dir) {
		if !strings.HasPrefix(name, s.prefix()) {
			continue
		}
		f, err := Open(filepath.Join(s.dir, name))
		if err != nil {
			s.t.Error(err)
			continue
		}
		indices = append(indices, f.Info.Index)
		if name != s.name(f.Info) {
			s.t.Errorf("%s holds %+v", name, f.Info)
		}
		f.Close()
	}
	slices.Sort(indices)
	return indices
}

func (s *scheduled) want(when string, indices ...uint64) {
	s.t.Helper()
	if got := s.indices(); !slices.Equal(got, indices) {
		s.t.Errorf("%s: there are backups of %v, want %v", when, got, indices)
	}
}

func TestSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scheduleOf(t, filepath.Join(t.TempDir(), "made", "by it"), uint64(10*time.Minute))
		stop := s.run()
		s.want("at the first start", 1)
		// The bubble's time begins at midnight.
		pass(9 * time.Minute)
		s.want("before its moment", 1)
		pass(time.Minute)
		s.want("at its moment", 1, 2)
		pass(time.Hour)
		s.want("an hour later", 1, 2, 3)
		pass(time.Hour)
		s.want("another hour later the first goes", 2, 3, 4)
		stop()

		// A restart is no reason for another one.
		pass(30 * time.Minute)
		s.run()()
		s.want("after a restart", 2, 3, 4)
		// What was missed is made up for, and does not move the next.
		pass(45 * time.Minute)
		stop = s.run()
		defer stop()
		s.want("after a start that came too late", 3, 4, 5)
		pass(45 * time.Minute)
		s.want("at the next moment", 4, 5, 6)
	})
}

// TestScheduleFails has failures of every kind: each is told, tried again, and ends.
func TestScheduleFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := scheduleOf(t, t.TempDir(), 0)
		s.o.MinFree = func(total uint64) uint64 { return total / 50 }
		registry := prometheus.NewRegistry()
		if err := s.Register(registry); err != nil {
			t.Fatal(err)
		}
		s.fail.Store(true)
		defer s.run()()
		problem := func(want string) {
			t.Helper()
			if got := s.Problem(); (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("Problem = %q, want %q", got, want)
			}
		}
		problem("the last scheduled backup failed: nothing yet")
		s.fail.Store(false)
		pass(retryAfter)
		problem("")
		s.want("a minute later", 1)

		s.free.Store(2<<30 + syncEvery - 1)
		pass(time.Hour)
		problem("only 2063 MiB are free on the disk of " + s.dir + ", and 2048 MiB are left for others")
		s.want("on a full disk the old ones stay", 1)
		if left := names(t, s.dir); len(left) != 1 {
			t.Errorf("the failure has left %v", left)
		}
		s.free.Store(2<<30 + syncEvery)
		pass(retryAfter)
		problem("")
		s.want("with room again", 1, 4) // two states were taken in vain

		metrics, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, m := range metrics {
			values[m.GetName()] = m.GetMetric()[0].GetGauge().GetValue() + m.GetMetric()[0].GetCounter().GetValue()
		}
		if values["quorate_backup_failures_total"] < 2 || values["quorate_backup_last_success_timestamp_seconds"] != float64(time.Now().Unix()) || values["quorate_backup_last_bytes"] == 0 {
			t.Errorf("metrics: %v", values)
		}
	})
}

// TestScheduleKeepsToItsOwn has other things in the directory, and other members at other moments.
func TestScheduleKeepsToItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := scheduleOf(t, dir, 0x1a)
		other := scheduleOf(t, dir, 0x1ab+uint64(20*time.Minute))
		foreign := []string{
			"notes.txt",
			"quorate-1a-20000101T000000Z-1.snap.bak",
			"quorate-1a-20000101T000000Z-x.snap",
			"quorate-1a-20001301T000000Z-1.snap",
			"quorate-1a-.snap",
			"quorate-1a-20000101T000000Z-1.snap.tmp.orig",
			"quorate-1abc-19990101T000000Z-1.snap.123.tmp",
		}
		unfinished := "quorate-1a-19990101T000000Z-1.snap.123.tmp"
		for _, name := range append(foreign, unfinished) {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		stop, stopOther := s.run(), other.run()
		pass(5 * time.Hour)
		stop()
		stopOther()
		left := names(t, dir)
		for _, name := range foreign {
			if !slices.Contains(left, name) {
				t.Errorf("%s is gone", name)
			}
		}
		if slices.Contains(left, unfinished) {
			t.Errorf("%s is still there", unfinished)
		}
		count := map[string]int{}
		for _, name := range left {
			for _, one := range []*scheduled{s, other} {
				if f, ok := one.parse(name); ok {
					count[one.prefix()]++
					if want := one.slotAfter(f.time.Add(-time.Second)); want.Sub(f.time).Abs() > time.Second {
						t.Errorf("%s is of %v, its moment was %v", name, f.time, want)
					}
				}
			}
		}
		if fmt.Sprint(count) != fmt.Sprint(map[string]int{s.prefix(): 3, other.prefix(): 3}) {
			t.Errorf("files of each member: %v, want 3: %v", count, left)
		}
	})
}

// TestScheduleEnds ends while a backup is written.
func TestScheduleEnds(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	s := scheduleOf(t, dir, 1)
	s.o.space = func(string) (uint64, uint64, error) { cancel(); return 1 << 40, 1 << 40, nil }
	s.Run(ctx)
	if left := names(t, dir); len(left) != 0 {
		t.Errorf("it has left %v", left)
	}
	if s.Problem() != "" {
		t.Errorf("Problem = %q", s.Problem())
	}
}

func TestDiskSpace(t *testing.T) {
	free, total, err := diskSpace(t.TempDir())
	if err != nil || total == 0 || free > total {
		t.Errorf("diskSpace = %d, %d, %v", free, total, err)
	}
	if _, _, err := diskSpace("/no/such/directory"); err == nil {
		t.Error("there is space in a directory that is not there")
	}
}
