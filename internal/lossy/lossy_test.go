//go:build linux

package lossy

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// mounted returns a disk and where it is.
func mounted(t *testing.T, seed uint64) (*Disk, string) {
	t.Helper()
	if err := Available(); err != nil {
		t.Skipf("no FUSE here: %v", err)
	}
	d, dir := New(seed), t.TempDir()
	if err := d.Mount(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Detach(); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return d, dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string, data []byte, off int64, sync bool) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	must(t, err)
	_, err = f.WriteAt(data, off)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
	must(t, f.Close())
}

func syncDir(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	must(t, err)
	must(t, f.Sync(), f.Close())
}

// It is a file system.
func TestFiles(t *testing.T) {
	_, dir := mounted(t, 1)
	must(t, os.MkdirAll(filepath.Join(dir, "a", "b"), 0o700))
	path := filepath.Join(dir, "a", "b", "f")
	write(t, path, []byte("hello"), 10, false)
	write(t, path, bytes.Repeat([]byte("x"), 3000), 500, false)
	want := append(append(make([]byte, 10), "hello"...), make([]byte, 485)...)
	want = append(want, bytes.Repeat([]byte("x"), 3000)...)
	got, err := os.ReadFile(path)
	if must(t, err); !bytes.Equal(got, want) {
		t.Errorf("%d bytes differ from %d", len(got), len(want))
	}
	if out, err := exec.Command("cp", "-a", "--sparse=always", dir+"/a", dir+"/copy").CombinedOutput(); err != nil {
		t.Errorf("cp: %v\n%s", err, out)
	}
	must(t, os.RemoveAll(dir+"/copy"))
	must(t, os.Truncate(path, 600), os.Truncate(path, 700), os.Rename(path, filepath.Join(dir, "g")))
	got, err = os.ReadFile(filepath.Join(dir, "g"))
	if must(t, err); !bytes.Equal(got, append(want[:600:600], make([]byte, 100)...)) {
		t.Errorf("after truncating: %d bytes", len(got))
	}
	names, err := os.ReadDir(dir)
	if must(t, err); len(names) != 2 || names[0].Name() != "a" || names[1].Name() != "g" {
		t.Errorf("names: %v", names)
	}
	if err := os.Remove(filepath.Join(dir, "a")); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("Remove = %v", err)
	}
	must(t, os.RemoveAll(filepath.Join(dir, "a")))
	if err := os.Mkdir(filepath.Join(dir, "g"), 0o700); !errors.Is(err, os.ErrExist) {
		t.Errorf("Mkdir = %v", err)
	}
}

// What was synced is there after a power failure, and what was not is there or not, sector by sector.
func TestPowerFailure(t *testing.T) {
	const sectors = 40
	older, newer := bytes.Repeat([]byte("o"), sectors*sectorSize), bytes.Repeat([]byte("n"), sectors*sectorSize)
	kept, lostAll, torn, nameless := 0, 0, 0, 0
	for seed := range uint64(60) {
		d, dir := mounted(t, seed)
		path := filepath.Join(dir, "f")
		write(t, path, older, 0, true)
		syncDir(t, dir)
		write(t, path, newer, 0, false)
		write(t, filepath.Join(dir, "unsynced"), newer, 0, true)
		_, err := d.FailPower()
		must(t, err)
		got, err := os.ReadFile(path)
		must(t, err)
		if len(got) != len(older) {
			t.Fatalf("seed %d: %d bytes", seed, len(got))
		}
		n := 0
		for i := range sectors {
			switch s := got[i*sectorSize : (i+1)*sectorSize]; {
			case bytes.Equal(s, newer[:sectorSize]):
				n++
			case !bytes.Equal(s, older[:sectorSize]):
				t.Fatalf("seed %d: sector %d is of neither", seed, i)
			}
		}
		switch n {
		case 0:
			lostAll++
		case sectors:
			kept++
		default:
			torn++
		}
		if _, err := os.Stat(filepath.Join(dir, "unsynced")); err != nil {
			nameless++
		}
		// What survived is on the disk now.
		_, err = d.FailPower()
		must(t, err)
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("seed %d: changed by the second failure (%v)", seed, err)
		}
		must(t, d.Detach())
	}
	if kept == 0 || lostAll == 0 || torn == 0 || nameless == 0 || nameless == 60 {
		t.Errorf("kept %d, lost %d, torn %d, name lost %d: want some of each", kept, lostAll, torn, nameless)
	}
}

// Each fault is what a program sees.
func TestFaults(t *testing.T) {
	d, dir := mounted(t, 1)
	path := filepath.Join(dir, "f")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	big := make([]byte, 64<<10)
	for i := range big {
		big[i] = byte(i) | 1
	}
	_, err = f.WriteAt(big, 0)
	must(t, err, f.Sync())

	d.Set(Faults{ShortWrites: true})
	if n, err := unix.Pwrite(int(f.Fd()), big, 0); err != nil || n <= 0 || n >= len(big) {
		t.Errorf("short write: %d, %v", n, err)
	}
	for _, want := range []syscall.Errno{syscall.EIO, syscall.ENOSPC} {
		d.Set(Faults{SyncError: want})
		if err := f.Sync(); !errors.Is(err, want) {
			t.Errorf("Sync = %v, want %v", err, want)
		}
		d.Set(Faults{WriteError: want})
		if _, err := f.WriteAt(big, 0); !errors.Is(err, want) {
			t.Errorf("WriteAt = %v, want %v", err, want)
		}
	}
	d.Set(Faults{ReadOnly: true})
	_, err1 := f.WriteAt(big, 0)
	_, err2 := os.Create(filepath.Join(dir, "g"))
	for _, err := range []error{err1, err2, os.Remove(path), os.Rename(path, path+"2"), f.Truncate(1)} {
		if !errors.Is(err, syscall.EROFS) {
			t.Errorf("read-only: %v", err)
		}
	}
	d.Set(Faults{Room: 10 * sectorSize})
	if _, err := f.WriteAt(big, int64(len(big))); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("full: %v", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != int64(len(big)+10*sectorSize) {
		t.Errorf("full: %v, %v", info, err)
	}
	if _, err := f.WriteAt(big, 0); err != nil {
		t.Errorf("full, where something is: %v", err)
	}
	d.Set(Faults{SyncDelay: 20 * time.Millisecond})
	begin := time.Now()
	if must(t, f.Sync()); time.Since(begin) < 20*time.Millisecond {
		t.Error("the sync was too fast")
	}
	d.Set(Faults{})
	release, before, done := d.Hold(), d.Syncs(), make(chan error, 1)
	go func() { done <- f.Sync() }()
	if d.Syncs() != before {
		t.Error("a sync was answered while they are held")
	}
	release()
	if must(t, <-done); d.Syncs() != before+1 {
		t.Errorf("%d syncs, want %d", d.Syncs(), before+1)
	}
}

// boltFile is set in the environment of a process that is to write to a bolt file, or look into it.
const boltFile = "QUORATE_LOSSY_BOLT"

func TestMain(m *testing.M) {
	if path := os.Getenv(boltFile); path != "" {
		if err := useBolt(path, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// useBolt writes a value and ends without closing the file, or checks that it is there.
func useBolt(path, value string) error {
	value, look := strings.CutPrefix(value, "=")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Minute})
	if err != nil {
		return err
	}
	if look {
		return db.View(func(tx *bbolt.Tx) error {
			if got := string(tx.Bucket([]byte("b")).Get([]byte("k"))); got != value {
				return fmt.Errorf("it has %q, want %q", got, value)
			}
			return nil
		})
	}
	for _, v := range []string{"something else", value} {
		if err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put([]byte("k"), []byte(v))
		}); err != nil {
			return err
		}
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return d.Sync()
}

// bolt works on it, and finds its last transaction after a power failure. It runs in a process of its
// own: one that touches a page of a file it serves itself may wait for ever.
func TestBolt(t *testing.T) {
	for seed := range uint64(6) {
		d, dir := mounted(t, seed)
		run := func(value string) {
			cmd := exec.Command(os.Args[0], value)
			cmd.Env = append(os.Environ(), boltFile+"="+filepath.Join(dir, "db"))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("seed %d, %s: %v\n%s", seed, value, err, out)
			}
		}
		for _, value := range []string{"a", "b"} {
			run(value)
			_, err := d.FailPower()
			must(t, err)
			run("=" + value)
		}
		must(t, d.Detach())
	}
}
