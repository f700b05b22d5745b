//go:build linux && e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quorate/quorate/internal/cluster"
	"github.com/quorate/quorate/internal/lossy"
)

// logFiles are the files that entries are written to, by --log-store.
var logFiles = map[string]string{"boltdb": `/journal-\d+`, "wal": `/segments/[0-9a-f-]+\.wal`}

// eachLogStore runs a test with both kinds of log.
func eachLogStore(t *testing.T, test func(t *testing.T, kind string)) {
	quorateOnly(t, "its files are others")
	for kind := range logFiles {
		t.Run("log-store="+kind, func(t *testing.T) {
			t.Parallel()
			test(t, kind)
		})
	}
}

// TestSyncsBeforeAnswers looks with strace at what members do while they serve writes, one after the other:
// between each request and its answer a majority of them, the leader included, has synced its log.
func TestSyncsBeforeAnswers(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skipf("system calls cannot be seen: %v", err)
	}
	const writes = 40
	eachLogStore(t, func(t *testing.T, kind string) {
		for _, size := range []int{1, 3} {
			c := start(t, size, "--log-store="+kind)
			inOneTerm(t, c, func(leader *cluster.Member) string {
				return writesWithoutSync(t, c, leader, logFiles[kind], writes)
			})
		}
	})
}

// inOneTerm looks at a cluster while one member leads, and fails the test with what was seen. If there was
// another term meanwhile, as on a busy machine, that counts for nothing, and it looks again.
func inOneTerm(t *testing.T, c *cluster.Cluster, look func(leader *cluster.Member) string) {
	t.Helper()
	cluster.Eventually(t, "one member to lead for a while", func(context.Context) error {
		leader := c.WaitLeader()
		before, err := leader.Status(limit(t))
		if err != nil {
			return err
		}
		complaint := look(leader)
		if after, err := leader.Status(limit(t)); err != nil || after.Term != before.Term || c.WaitLeader() != leader {
			return fmt.Errorf("term %d, and %d before (%v)", after.Term, before.Term, err)
		}
		if complaint != "" {
			t.Errorf("%d members: %s", len(c.Members), complaint)
		}
		return nil
	})
}

// writesWithoutSync sends writes and says which of them was acknowledged too early, if one was.
func writesWithoutSync(t *testing.T, c *cluster.Cluster, leader *cluster.Member, files string, writes int) string {
	var traces []*trace
	for _, m := range c.Members {
		traces = append(traces, traceSyncs(t, m, files))
	}
	type window struct{ request, answer time.Time }
	var windows []window
	for i := range writes {
		w := window{request: time.Now().Round(0)}
		resp, err := leader.Put(limit(t), "/durable", strconv.Itoa(i))
		w.answer = time.Now().Round(0)
		if err == nil && resp.OK() {
			windows = append(windows, w)
		}
	}
	for _, tr := range traces {
		tr.stop(t)
	}
	if len(windows) < writes/2 {
		return fmt.Sprintf("%d writes of %d were acknowledged", len(windows), writes)
	}
	for i, w := range windows {
		synced, leaderToo := 0, false
		for _, tr := range traces {
			if tr.within(w.request, w.answer) {
				synced++
				leaderToo = leaderToo || tr.member == leader
			}
		}
		if synced <= len(c.Members)/2 || !leaderToo {
			return fmt.Sprintf("write %d was acknowledged after %d had synced their logs, the leader: %t", i, synced, leaderToo)
		}
	}
	return ""
}

// trace is what strace tells of the syncs of a member's log.
type trace struct {
	member *cluster.Member
	files  *regexp.Regexp
	path   string
	cmd    *exec.Cmd
	syncs  []syncCall
}

type syncCall struct{ begin, end time.Time }

// traceSyncs begins to watch a member, and returns when it sees its syncs.
func traceSyncs(t *testing.T, m *cluster.Member, files string) *trace {
	t.Helper()
	tr := &trace{member: m, files: regexp.MustCompile(files + `>\)\s+= 0 <([0-9.]+)>`), path: filepath.Join(t.TempDir(), "strace")}
	tr.cmd = exec.Command("strace", "-qq", "-f", "-y", "-ttt", "-T", "-e", "trace=fsync,fdatasync", "-o", tr.path, "-p", fmt.Sprint(m.Pid()))
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.cmd.Process.Kill(); _ = tr.cmd.Wait() })
	cluster.Eventually(t, "strace to see "+m.Name, func(ctx context.Context) error {
		if tr.cmd.ProcessState != nil {
			return errors.New("strace has ended")
		}
		if resp, err := m.Put(ctx, "/durable", "probe"); err != nil || !resp.OK() {
			return fmt.Errorf("%v (%v)", resp, err)
		}
		if b, err := os.ReadFile(tr.path); err != nil || len(b) == 0 {
			return fmt.Errorf("nothing was seen (%v)", err)
		}
		return nil
	})
	return tr
}

// stop ends strace and reads what it has seen.
func (tr *trace) stop(t *testing.T) {
	t.Helper()
	if err := tr.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = tr.cmd.Wait() // it ends by the signal
	f, err := os.Open(tr.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// 123 1700000000.123456 fdatasync(9</path>) = 0 <0.000123>, or with <unfinished ...> in a line of
	// its own and the rest in another.
	unfinished := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		thread, rest, _ := strings.Cut(line, " ")
		if head, ok := strings.CutSuffix(rest, " <unfinished ...>"); ok {
			unfinished[thread] = head
			continue
		}
		if _, tail, ok := strings.Cut(rest, " resumed>"); ok {
			rest = unfinished[thread] + tail
		}
		m := tr.files.FindStringSubmatch(rest)
		if m == nil {
			continue
		}
		at, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		begin, err1 := strconv.ParseFloat(at, 64)
		took, err2 := strconv.ParseFloat(m[1], 64)
		if err := errors.Join(err1, err2); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		b := time.UnixMicro(int64(begin * 1e6))
		tr.syncs = append(tr.syncs, syncCall{b, b.Add(time.Duration(took * float64(time.Second)))})
	}
}

// within says whether a sync was begun and has ended between two times. strace and the clock that we read
// may disagree by a rounding of microseconds.
func (tr *trace) within(from, to time.Time) bool {
	const rounding = 2 * time.Microsecond
	for _, s := range tr.syncs {
		if s.begin.After(from.Add(-rounding)) && s.end.Before(to.Add(rounding)) {
			return true
		}
	}
	return false
}

// TestNoAnswerBeforeTheDisk holds the syncs of disks: while those of the leader or of all others are held,
// no write is acknowledged, and while one follower's are, all are.
func TestNoAnswerBeforeTheDisk(t *testing.T) {
	if err := lossy.Available(); err != nil {
		t.Skipf("no file system of our own can be mounted here: %v", err)
	}
	eachLogStore(t, func(t *testing.T, kind string) {
		for _, size := range []int{1, 3} {
			dir, disks := t.TempDir(), map[*cluster.Member]*lossy.Disk{}
			t.Cleanup(func() { // after the members have ended
				for _, d := range disks {
					if err := d.Detach(); err != nil {
						t.Error(err)
					}
				}
			})
			c := cluster.New(t, cluster.Options{Size: size, Flags: []string{"--log-store=" + kind}})
			for _, m := range c.Members {
				mount := filepath.Join(dir, m.Name)
				if err := os.Mkdir(mount, 0o700); err != nil {
					t.Fatal(err)
				}
				disks[m] = lossy.New(1)
				if err := disks[m].Mount(mount); err != nil {
					t.Fatal(err)
				}
				m.DataDir = filepath.Join(mount, "data")
			}
			c.StartAll()
			c.WaitReady()
			eventuallyPut(t, c.Members[0], "/held", "before")
			inOneTerm(t, c, func(leader *cluster.Member) string { return putWhileHeld(t, leader, disks[leader]) })
			if size == 1 {
				continue
			}
			inOneTerm(t, c, func(leader *cluster.Member) string {
				var others []*lossy.Disk
				for m, d := range disks {
					if m != leader {
						others = append(others, d)
					}
				}
				return putWhileHeld(t, leader, others...)
			})
			release := disks[c.Followers()[0]].Hold()
			eventuallyPut(t, c.WaitLeader(), "/held", "one follower's disk hangs")
			release()
			wantValue(t, c.Members[0], "/held", "one follower's disk hangs")
		}
	})
}

// putWhileHeld holds the syncs of disks, and says whether a write was acknowledged meanwhile.
func putWhileHeld(t *testing.T, via *cluster.Member, held ...*lossy.Disk) string {
	t.Helper()
	for _, d := range held {
		release := d.Hold()
		defer release()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if resp, err := via.Put(ctx, "/held", "held"); err == nil && resp.OK() {
		return fmt.Sprintf("acknowledged while %d disks were held: %v", len(held), resp)
	}
	return ""
}
