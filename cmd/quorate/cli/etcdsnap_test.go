//go:build linux

package cli_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/client"
)

// etcdSnapshot wraps a state as etcd does in its .snap files.
func etcdSnapshot(state string) []byte {
	field := func(b []byte, number uint64, value []byte) []byte {
		b = binary.AppendUvarint(b, number<<3|2)
		b = binary.AppendUvarint(b, uint64(len(value)))
		return append(b, value...)
	}
	inner := field(nil, 1, []byte(state))
	inner = field(inner, 2, []byte{0x10, 7, 0x18, 2}) // index 7 of term 2
	sum := crc32.Checksum(inner, crc32.MakeTable(crc32.Castagnoli))
	return field(binary.AppendUvarint([]byte{1 << 3}, uint64(sum)), 2, inner)
}

// TestImportEtcdSnapshot reads a file that etcd 3.4.23 has written, which ends before the newest keys,
// and files that are made here.
func TestImportEtcdSnapshot(t *testing.T) {
	ofEtcd := filepath.Join("testdata", "etcd-3.4.23.snap")
	s := newStore(t, "a")
	if got := s.run("", "import", "--dry-run", "--snap", ofEtcd); got.code != 0 || !strings.Contains(got.out, "+ /app/port \"8080\"\n") || s.dump() != "" {
		t.Errorf("import --dry-run: %v", got)
	}
	want := fmt.Sprintf("starting to import snapshot %s with 10 clients\nfinished importing 5 keys\n", ofEtcd)
	if got := s.run("", "import", "-c", "10", "--snap", ofEtcd); got != (result{0, want, ""}) {
		t.Errorf("import: %v", got)
	}
	const keys = "/1/nested=\"yes\"\n/app/name=\"two words\"\n/app/port=\"8080\"\n/empty/\n/n=\"4\"\n"
	if got := leaves(s.dump()); got != keys {
		t.Errorf("after the import:\n%s\nwant:\n%s", got, keys)
	}
	for range 2 { // what is there already is no obstacle
		if got := s.run("", "import", "--snap", ofEtcd, "--hidden", "_hidden"); got.code != 0 {
			t.Errorf("import of what is hidden: %v", got)
		}
	}
	if r, err := s.Get(t.Context(), "/_hidden/x", client.GetOptions{}); err != nil || *r.Node.Value != "secret" {
		t.Errorf("/_hidden/x: %v, %v", r, err)
	}

	at := func(d time.Duration) string { return time.Now().Add(d).Format(time.RFC3339Nano) }
	state := fmt.Sprintf(`{"Root":{"Path":"/","ExpireTime":"0001-01-01T00:00:00Z","Children":{
		"a":{"Path":"/a","Value":"1","ExpireTime":"0001-01-01T00:00:00Z","Children":null},
		"long":{"Value":"2","ExpireTime":%q},
		"short":{"Value":"3","ExpireTime":%q},
		"gone":{"Value":"4","ExpireTime":%q},
		"_etcd":{"Children":{"x":{"Value":"5"}}},
		"dir":{"ExpireTime":%q,"Children":{"b":{"Value":"6"}}}}},
		"CurrentIndex":7}`, at(5*time.Hour), at(time.Minute), at(-time.Minute), at(7*time.Hour))
	for name, file := range map[string][]byte{"of etcd 0.4": []byte(state), "as .snap": etcdSnapshot(state)} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t, "a")
			path := filepath.Join(t.TempDir(), "snap")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			got := s.run("", "import", "--snap", path)
			want := result{0, "starting to import snapshot " + path + " with 16 clients\nfinished importing 5 keys\n1 left out, their time to live is over\n",
				"extending key /short's ttl to 300 seconds\n"}
			if got != want {
				t.Errorf("import: %v", got)
			}
			if got, want := leaves(s.dump()), "/a=\"1\"\n/dir/ 7h\n/dir/b=\"6\"\n/long=\"2\" 5h\n/short=\"3\" 0h\n"; got != want {
				t.Errorf("after the import:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// leaves leaves out directories that hold something and live for ever.
func leaves(dump string) string {
	var b strings.Builder
	lines := strings.SplitAfter(dump, "\n")
	for i, line := range lines {
		if dir, ok := strings.CutSuffix(line, "/\n"); ok && i+1 < len(lines) && strings.HasPrefix(lines[i+1], dir+"/") {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// TestImportNoEtcdSnapshot has files that are refused before anything is written.
func TestImportNoEtcdSnapshot(t *testing.T) {
	good := etcdSnapshot(`{"Root":{"Children":{"a":{"Value":"1"}}}}`)
	damaged := append([]byte{}, good...)
	damaged[len(damaged)-20] ^= 1
	tests := []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "it is neither JSON nor a .snap file of etcd, or it is cut off"},
		{"text", []byte("hello, world"), "it is neither JSON nor a .snap file of etcd, or it is cut off"},
		{"cut off", good[:len(good)-1], "it is neither JSON nor a .snap file of etcd, or it is cut off"},
		{"damaged", damaged, "its checksum does not match: it is damaged"},
		{"a state that is no JSON", etcdSnapshot("nonsense"), "its state: invalid character"},
		{"another JSON", []byte(`{"format":"quorate-export/1","nodes":[]}`), "it holds no store of etcd's v2 API"},
		{"a file as root", []byte(`{"Root":{"Value":"1"}}`), "it holds no store of etcd's v2 API"},
		{"impossible key", []byte(`{"Root":{"Children":{"..":{"Value":"1"}}}}`), `".." below / is no key`},
		{"slash in a key", []byte(`{"Root":{"Children":{"a/b":{"Value":"1"}}}}`), `"a/b" below / is no key`},
		{"no node", []byte(`{"Root":{"Children":{"a":null}}}`), `"a" below / is no key`},
	}
	s := newStore(t, "a")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "snap")
			if err := os.WriteFile(path, tt.file, 0o600); err != nil {
				t.Fatal(err)
			}
			got := s.run("", "import", "--snap", path)
			if got.code != 1 || got.out != "" || !strings.HasPrefix(got.err, "Error:  cannot read snapshot file "+path+": ") || !strings.Contains(got.err, tt.want) {
				t.Errorf("import: %v, want %q", got, tt.want)
			}
		})
	}
	if got := s.run("", "import", "--snap", "nope"); got.code != 1 || !strings.Contains(got.err, "open nope: no such file or directory") {
		t.Errorf("import of a file that is not there: %v", got)
	}
	if got := s.run("", "import", "--snap", "nope", "x"); got.code != 1 || got.err != "Error:  --snap and FILE exclude each other\n" {
		t.Errorf("import of two files: %v", got)
	}
	if got := s.dump(); got != "" {
		t.Errorf("something was written:\n%s", got)
	}
}
