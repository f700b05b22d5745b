//go:build linux && faults

package linearizability

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// harm is what happens to a file.
type harm func(rng *rand.Rand, path string) error

// flipBit turns one bit over.
func flipBit(rng *rand.Rand, path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	at := rng.Int64N(info.Size())
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1 << rng.IntN(8)
	_, err = f.WriteAt(b, at)
	return err
}

// cutTail takes some of the end away.
func cutTail(rng *rand.Rand, path string) error {
	info, err := os.Stat(path)
	if err != nil || info.Size() == 0 {
		return err
	}
	return os.Truncate(path, info.Size()-1-rng.Int64N(min(info.Size(), 16<<10)))
}

func takeAway(_ *rand.Rand, path string) error { return os.Remove(path) }

// harms are drawn from.
var harms = []struct {
	name string
	do   harm
}{{"flipped bit", flipBit}, {"truncated", cutTail}, {"missing", takeAway}}

// damaging is a fault that kills a member and damages a file of it before it starts again. The member has to
// refuse its data, with a message that names what is wrong, or to do without what is damaged. If it
// refuses it gets its data back as it was, or is replaced by another one.
func damaging(pattern string) func(*troubleMaker, context.Context) {
	return func(t *troubleMaker, ctx context.Context) {
		n := t.pick([]role{leader, follower, follower}[t.rng.IntN(3)])[0]
		way := harms[t.rng.IntN(len(harms))]
		t.stop(n, syscall.SIGKILL)
		files, _ := filepath.Glob(filepath.Join(n.m.DataDir, "member", pattern))
		if len(files) == 0 || t.Failed() {
			t.Logf("%s has no %s", n.m.Name, pattern)
			t.startAgain(n)
			return
		}
		file := files[len(files)-1] // the newest: names are in the order of time
		kept := n.m.DataDir + ".kept"
		if out, err := exec.Command("cp", "-a", "--sparse=always", n.m.DataDir, kept).CombinedOutput(); err != nil {
			t.Fatalf("keep the data of %s: %v\n%s", n.m.Name, err, out)
		}
		if err := way.do(t.rng, file); err != nil {
			t.Fatalf("damage %s: %v", file, err)
		}
		t.Logf("%s: %s", way.name, file)
		t.count("(" + way.name + " " + pattern + ")")
		if !t.refuses(n) {
			_ = os.RemoveAll(kept)
			return
		}
		t.count("(refused its damaged data)")
		others := slices.DeleteFunc(t.present(), func(o *node) bool { return o == n })
		if len(others) >= 2 && t.rng.IntN(2) == 0 && t.succeed(ctx, n, others) {
			return
		}
		if err := errors.Join(os.RemoveAll(n.m.DataDir), os.Rename(kept, n.m.DataDir), syncAll(n.m.DataDir)); err != nil {
			t.Fatalf("bring back the data of %s: %v", n.m.Name, err)
		}
		t.startAgain(n)
	}
}

// syncAll makes a copied directory durable, as whoever restores one has to: disks of runs can lose the rest.
func syncAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncFile(path)
	})
	return errors.Join(err, syncFile(filepath.Dir(dir)))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// refusal is how a member says what is wrong with its data.
var refusal = regexp.MustCompile(`raft\.db|journal-|segments|\.snap|identity|snapshot`)

// refuses starts a member whose data is damaged, and says whether it has ended with a message about that.
// Else it runs as any other.
func (t *troubleMaker) refuses(n *node) bool {
	t.mu.Lock()
	n.life++
	t.mu.Unlock()
	n.m.Start()
	limit, cancel := context.WithTimeout(context.Background(), t.Patience())
	defer cancel()
	for n.m.Running() {
		look, done := context.WithTimeout(limit, time.Second)
		_, err := n.m.MemberList(look)
		done()
		if err == nil {
			t.mu.Lock()
			n.down = false
			t.mu.Unlock()
			t.count("(works with its damaged data)")
			return false
		}
		if limit.Err() != nil {
			t.Fatalf("%s, whose data is damaged, neither works nor ends", n.m.Name)
		}
		sleep(limit, 20*time.Millisecond)
	}
	lines := strings.Split(strings.TrimSpace(n.m.Log()), "\n")
	last := lines[len(lines)-1]
	if exit := n.m.Wait(); exit.Code <= 0 || !refusal.MatchString(last) {
		t.Errorf("%s, whose data is damaged, ended without saying so: %v\n%s", n.m.Name, exit, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	t.Logf("%s refuses: %s", n.m.Name, last)
	return true
}

// count notes that something has happened.
func (r *run) count(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults[what]++
}
