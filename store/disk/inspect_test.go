package disk

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// touch makes files, and the directories above them; a name that ends in / is a directory.
func touch(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// The rows of spec bootstrap 1, and what a member directory may lack.
func TestInspect(t *testing.T) {
	const snap = "member/snap/0000000000000001-0000000000000005.snap"
	tests := []struct {
		name   string
		files  []string
		walDir string // below the test's directory
		want   State
		errs   []string // parts of the error, DIR stands for the data directory
	}{
		{name: "empty", files: []string{"d/"}},
		{name: "does not exist"},
		{name: "member", files: []string{"d/member/identity.json", "d/member/wal/raft.db"}, want: Member},
		{name: "member with other things", files: []string{"d/lost+found/", "d/member/identity.json", "d/member/wal/raft.db"}, want: Member},
		{name: "proxy", files: []string{"d/proxy/cluster"}, want: Proxy},
		{name: "empty proxy", files: []string{"d/proxy/"}, want: Proxy},
		{name: "both", files: []string{"d/member/", "d/proxy/"},
			errs: []string{"invalid datadir. Both member and proxy directories exist."}},
		{name: "path is a file", files: []string{"d"}, errs: []string{"error listing data dir: DIR"}},
		{name: "files called member and proxy", files: []string{"d/member", "d/proxy"}},
		{name: "only unknown entries", files: []string{"d/x", "d/y/"}},
		{name: "first start ended early", files: []string{"d/member/lock", "d/member/snap/", "d/member/wal/"}},
		{name: "new log, no identity yet", files: []string{"d/member/wal/raft.db.new"}},
		{name: "identity and a new log", files: []string{"d/member/identity.json", "d/member/wal/raft.db.new"}, want: Member},
		{name: "separate wal", files: []string{"d/member/identity.json", "w/raft.db"}, walDir: "w", want: Member},
		{name: "wal-dir forgotten", files: []string{"d/member/identity.json", "w/raft.db"},
			errs: []string{"DIR/member/identity.json", "no log at DIR/member/wal/raft.db", "--wal-dir", "removing it and adding it again"}},
		{name: "snapshot alone", files: []string{"d/" + snap},
			errs: []string{"DIR/" + snap, "no log", "--wal-dir"}},
		{name: "snapshot and new log", files: []string{"d/" + snap, "d/member/wal/raft.db.new"},
			errs: []string{"DIR/" + snap, "no log"}},
		{name: "log alone", files: []string{"d/member/wal/raft.db"},
			errs: []string{"a log at DIR/member/wal/raft.db", "no identity", "--wal-dir"}},
		{name: "journal alone", files: []string{"d/member/wal/journal-7"},
			errs: []string{"a journal at DIR/member/wal/journal-7", "no log", "no identity"}},
		{name: "journal, the log is gone", files: []string{"d/member/identity.json", "d/member/wal/journal-7"},
			errs: []string{"no log at DIR/member/wal/raft.db"}},
		{name: "wal-dir of another member", files: []string{"d/", "w/raft.db"}, walDir: "w",
			errs: []string{"no identity"}},
		{name: "a directory of etcd", files: []string{"d/member/snap/db", "d/member/wal/0000000000000000-0000000000000000.wal"},
			errs: []string{"DIR/member/wal/0000000000000000-0000000000000000.wal is a log of etcd"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			touch(t, dir, tt.files...)
			data, wal := filepath.Join(dir, "d"), ""
			if tt.walDir != "" {
				wal = filepath.Join(dir, tt.walDir)
			}
			got, err := Inspect(data, wal)
			if len(tt.errs) == 0 && (err != nil || got != tt.want) {
				t.Fatalf("Inspect = %v, %v, want %v", got, err, tt.want)
			}
			for _, part := range tt.errs {
				part = strings.ReplaceAll(part, "DIR", data)
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("error %v does not say %q", err, part)
				}
			}
			if err != nil {
				if _, openErr := Open(Options{DataDir: data, WALDir: wal}); openErr == nil || openErr.Error() != err.Error() {
					t.Errorf("Open = %v, want %v", openErr, err)
				}
			}
		})
	}
}

func TestUnknownEntries(t *testing.T) {
	dir := t.TempDir()
	touch(t, dir, "member/", "fixtures/", "lost+found/", "proxy", "x")
	want := []string{"lost+found", "proxy", "x"}
	if got := UnknownEntries(dir); !reflect.DeepEqual(got, want) {
		t.Errorf("UnknownEntries = %q, want %q", got, want)
	}
	if got := UnknownEntries(filepath.Join(dir, "none")); got != nil {
		t.Errorf("UnknownEntries of nothing = %q", got)
	}
}

// The directory may be reached through symbolic links, as with mounted volumes.
func TestInspectLinks(t *testing.T) {
	dir := t.TempDir()
	touch(t, dir, "real/member/identity.json", "real/member/wal/raft.db", "d/")
	if err := os.Symlink(filepath.Join(dir, "real", "member"), filepath.Join(dir, "d", "member")); err != nil {
		t.Fatal(err)
	}
	if got, err := Inspect(filepath.Join(dir, "d"), ""); got != Member || err != nil {
		t.Errorf("Inspect = %v, %v, want member", got, err)
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	d := openMember(t, Options{DataDir: dir, NoSync: true})
	saveSnapshot(t, d, 1, 1, "x")
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(fileMode)
		if e.IsDir() {
			want = dirMode
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
