package backup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// text is a state for tests.
type text string

func (s text) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, string(s))
	return int64(n), err
}

var sampleInfo = Info{
	Version: version, Cluster: "cdf818194e3a8c32", Member: "8e9e05c52164694d", Name: "a",
	Index: 7, RaftIndex: 9, Term: 2, Keys: 3, Dirs: 1, Time: time.Date(2026, 11, 30, 22, 0, 0, 0, time.UTC),
}

func sample(state string) *State {
	return &State{Info: sampleInfo, State: text(state), Release: func() {}}
}

// encoded returns a whole backup.
func encoded(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v, for %d bytes", n, err, b.Len())
	}
	return b.Bytes()
}

func read(b []byte) (*Content, error) { return Read(bytes.NewReader(b), int64(len(b))) }

func TestReadWhatWasWritten(t *testing.T) {
	for _, state := range []string{"", "state", strings.Repeat("x", 3<<20)} {
		b := encoded(t, sample(state))
		c, err := read(b)
		if err != nil {
			t.Fatalf("Read of a state of %d bytes: %v", len(state), err)
		}
		if got, err := io.ReadAll(c.State()); err != nil || string(got) != state {
			t.Errorf("State has %d bytes (%v), want %d", len(got), err, len(state))
		}
		if c.Info != sampleInfo || c.Bytes != int64(len(b)) || len(c.Sum) != 64 {
			t.Errorf("Read = %+v", c)
		}
	}
}

// TestDamage changes each byte of a backup, cuts it off after each, and adds one at every place.
func TestDamage(t *testing.T) {
	whole := encoded(t, sample("the state of a cluster"))
	refused := func(what string, b []byte) {
		t.Helper()
		if c, err := read(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: Read = %+v, %v, want ErrDamaged", what, c, err)
		}
	}
	for i := range whole {
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			b := bytes.Clone(whole)
			b[i] ^= flip
			refused(fmt.Sprintf("byte %d ^ %#x", i, flip), b)
		}
		refused(fmt.Sprintf("cut off after %d bytes", i), whole[:i])
		refused(fmt.Sprintf("without its first %d bytes", i+1), whole[i+1:])
		refused(fmt.Sprintf("one byte more at %d", i), append(append(bytes.Clone(whole[:i]), 0), whole[i:]...))
		refused(fmt.Sprintf("without byte %d", i), append(bytes.Clone(whole[:i]), whole[i+1:]...))
	}
	refused("one byte more at the end", append(bytes.Clone(whole), 0))
	refused("twice", append(bytes.Clone(whole), whole...))
	long := bytes.Clone(whole)
	binary.LittleEndian.PutUint32(long[len(magic):], 1<<31)
	refused("a header of 2 GiB", long)
}

// TestNewerFormat has a file with a right checksum, of a format that is not known here.
func TestNewerFormat(t *testing.T) {
	var b bytes.Buffer
	s := sample("x")
	if _, err := s.writeAs(version+1, &b); err != nil {
		t.Fatal(err)
	}
	if _, err := read(b.Bytes()); err == nil || errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "use a newer one") {
		t.Errorf("Read = %v, want an error about the format", err)
	}
}

// TestFailingWriter fails each write in turn: the error comes out, whatever was being written.
func TestFailingWriter(t *testing.T) {
	for at := range 3 {
		w := &failingWriter{left: at}
		if _, err := sample("state").WriteTo(w); !errors.Is(err, errDisk) {
			t.Errorf("write %d fails: WriteTo = %v", at, err)
		}
	}
}

var errDisk = errors.New("disk on fire")

type failingWriter struct{ left int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.left--; w.left < 0 {
		return 0, errDisk
	}
	return len(b), nil
}

func TestSave(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.snap")
	write := func(state string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := sample(state).WriteTo(w)
			return err
		}
	}
	cutOff := func(w io.Writer) error {
		b := encoded(t, sample("state"))
		_, err := w.Write(b[:len(b)-1])
		return err
	}
	holds := func(want string) {
		t.Helper()
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := io.ReadAll(f.State()); err != nil || string(got) != want {
			t.Errorf("the file holds %q (%v), want %q", got, err, want)
		}
	}
	tests := []struct {
		name  string
		force bool
		write func(io.Writer) error
		want  error
		holds string // afterwards; empty: there is no file
	}{
		{"a failing write leaves nothing", false, func(io.Writer) error { return errDisk }, errDisk, ""},
		{"nor does what is cut off", false, cutOff, ErrDamaged, ""},
		{"a new file", false, write("one"), nil, "one"},
		{"is not replaced", false, write("two"), ErrExists, "one"},
		{"unless forced", true, write("two"), nil, "two"},
		{"but not by what is cut off", true, cutOff, ErrDamaged, "two"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Save(path, tt.force, tt.write)
			if !errors.Is(err, tt.want) || (err == nil) != (c != nil) {
				t.Errorf("Save = %+v, %v, want %v", c, err, tt.want)
			}
			want := []string{"a.snap"}
			if tt.holds == "" {
				want = nil
			} else {
				holds(tt.holds)
			}
			if got := names(t, dir); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the directory holds %v, want %v", got, want)
			}
		})
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v, want 0600: it holds hashes of passwords", info.Mode(), err)
	}
	if _, err := Save(dir, true, write("x")); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("Save over a directory = %v", err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a directory was opened")
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// FuzzRead reads what need not be a backup. What is accepted is what WriteTo makes.
func FuzzRead(f *testing.F) {
	whole := encoded(f, sample("the state of a cluster"))
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(magic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := read(b)
		if err != nil {
			return
		}
		state, err := io.ReadAll(c.State())
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(encoded(t, &State{Info: c.Info, State: text(state)}))
		if err != nil || again.Info != c.Info {
			t.Errorf("%+v was read, and written and read again it is %+v (%v)", c.Info, again, err)
		}
	})
}
