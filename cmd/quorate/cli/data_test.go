//go:build linux

package cli_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/httpdtest"
	"github.com/quorate/quorate/internal/cluster"
)

// store is a cluster of one member without raft, in this process.
type store struct {
	t   *testing.T
	url string
	*client.Keys
}

func newStore(t *testing.T, name string) *store {
	t.Helper()
	member := httpdtest.New(1000)
	member.Self.ID = api.FormatID(api.MemberID([]string{"http://" + name}, ""))
	server := httpd.NewServer(httpd.Options{}, member)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	url := "http://" + l.Addr().String()
	c, err := client.New(client.Config{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), cluster.Deadline)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Errorf("shut %s down: %v", name, err)
		}
		<-served
		member.Close()
	})
	return &store{t, url, c.Keys("")}
}

// fill sets keys; a name that ends in a slash is a directory.
func (s *store) fill(puts ...put) {
	s.t.Helper()
	for _, p := range puts {
		key, dir := strings.CutSuffix(p.key, "/")
		if _, err := s.Set(s.t.Context(), key, p.value, client.SetOptions{Dir: dir, TTL: p.ttl}); err != nil {
			s.t.Fatalf("set %s: %v", p.key, err)
		}
	}
}

// dump lists everything, one line each, with times to live in hours.
func (s *store) dump() string {
	s.t.Helper()
	r, err := s.Get(s.t.Context(), "/", client.GetOptions{Recursive: true, Sort: true})
	if err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	var walk func(n *api.Node)
	walk = func(n *api.Node) {
		ttl := ""
		if n.TTL > 0 {
			ttl = fmt.Sprintf(" %.0fh", time.Duration(n.TTL*int64(time.Second)).Hours())
		}
		switch {
		case n.Dir && n.Key != "":
			fmt.Fprintf(&b, "%s/%s\n", n.Key, ttl)
		case !n.Dir:
			fmt.Fprintf(&b, "%s=%q%s\n", n.Key, *n.Value, ttl)
		}
		for _, child := range n.Nodes {
			walk(child)
		}
	}
	walk(r.Node)
	return b.String()
}

// run runs a verb on the store.
func (s *store) run(stdin string, args ...string) result {
	s.t.Helper()
	return quorate(s.t, stdin, append([]string{"-C", s.url, "--no-sync"}, args...)...)
}

// sample has one of everything.
var sample = []put{
	{"/app/port", "8080", 0},
	{"/app/text", "two\nlines: \"<&>\" é \u2028 \x01 'x' - # yes", 0},
	{"/app/empty", "", 0},
	{"/app/number", "007", 0},
	{"/app/null", "null", 0},
	{"/app/lease", "host-1", 5 * time.Hour},
	{"/app/dir/", "", 0},
	{"/app/gone/", "", 7 * time.Hour},
	{"/app/gone/child", "x", 0},
	{"/app/_hidden", "not exported", 0},
	{"/other", "1", 0},
}

func TestExportImport(t *testing.T) {
	for _, format := range []string{"json", "yaml"} {
		t.Run(format, func(t *testing.T) {
			a, b := newStore(t, "a"), newStore(t, "b")
			a.fill(sample...)
			file := a.run("", "export", "--format", format)
			if file.code != 0 {
				t.Fatalf("export: %v", file)
			}
			if got := b.run(file.out, "import", "--dry-run"); got.code != 0 || !strings.HasSuffix(got.out, "\n10 changes; nothing was written\n") || b.dump() != "" {
				t.Errorf("import --dry-run: %v", got)
			}
			if got := b.run(file.out, "import"); got != (result{0, "10 of 10 changes made, 0 keys and directories were right already\n", ""}) {
				t.Errorf("import: %v", got)
			}
			if got, want := b.dump(), a.dump(); got != want {
				t.Errorf("after the import:\n%s\nwant:\n%s", got, want)
			}
			if got := b.run(file.out, "diff", "-"); got != (result{}) {
				t.Errorf("diff: %v", got)
			}
			if got := b.run(file.out, "import"); got != (result{0, "0 of 0 changes made, 10 keys and directories were right already\n", ""}) {
				t.Errorf("import again: %v", got)
			}
		})
	}
}

func TestExportFile(t *testing.T) {
	s := newStore(t, "a")
	s.fill(sample...)
	got := s.run("", "export", "--format", "yaml", "/app/dir")
	form := regexp.MustCompile(`^format: quorate-export/1
cluster: [0-9a-f]+
index: \d+
time: \S+
prefix: /app/dir
nodes:
  - key: /app/dir
    dir: true
$`)
	if got.code != 0 || !form.MatchString(got.out) {
		t.Errorf("export of an empty directory: %v", got)
	}
	if got := s.run("", "export", "/nowhere"); got.code != 0 || !strings.Contains(got.out, `"nodes": []`) {
		t.Errorf("export of nothing: %v", got)
	}
	if got := s.run("", "export", "/app/_hidden"); got.code != 0 || !strings.Contains(got.out, "not exported") {
		t.Errorf("export of a hidden key by its name: %v", got)
	}
}

func TestImport(t *testing.T) {
	file := func(nodes string) string {
		return `{"format":"quorate-export/1","prefix":"/","nodes":[` + nodes + `]}`
	}
	tests := []struct {
		name  string
		have  []put
		file  string
		flags string
		code  int
		out   string // part of it
		want  string
	}{
		{"other keys stay", []put{{"/x", "1", 0}}, file(`{"key":"/a","value":"1"}`), "", 0, "1 of 1 changes made", "/a=\"1\"\n/x=\"1\"\n"},
		{"prune", []put{{"/x", "1", 0}, {"/d/e/", "", 0}, {"/d/f/g", "1", 0}}, file(`{"key":"/a","value":"1"}`), "--prune", 0, "6 of 6 changes made", "/a=\"1\"\n"},
		{"another place", nil, file(`{"key":"/a/b","value":"1"}`), "--prefix /copy", 0, "1 of 1", "/copy/\n/copy/a/\n/copy/a/b=\"1\"\n"},
		{"a value that differs", []put{{"/a", "1", time.Hour}}, file(`{"key":"/a","value":"2"}`), "", 0, "1 of 1", "/a=\"2\"\n"},
		{"a time to live that ends", []put{{"/a", "1", time.Hour}}, file(`{"key":"/a","value":"1"}`), "", 0, "1 of 1", "/a=\"1\"\n"},
		{"expired", nil, file(`{"key":"/a","value":"1","expiration":"2020-01-02T03:04:05Z"}`), "", 0, "1 left out", ""},
		{"a key in place of a directory", []put{{"/a/b", "1", 0}}, file(`{"key":"/a","value":"2"}`), "--prune", 0, "2 of 2", "/a=\"2\"\n"},
		{"a key in place of a directory that must stay", []put{{"/a/b", "1", 0}}, file(`{"key":"/a","value":"2"}`), "", 4, "0 of 1", "/a/\n/a/b=\"1\"\n"},
		{"a directory in place of a key", []put{{"/a", "1", 0}}, file(`{"key":"/a","dir":true}`), "", 0, "1 of 1", "/a/\n"},
		{"a directory with a key in place of a key", []put{{"/a", "1", 0}}, file(`{"key":"/a/b","value":"1"}`), "--prune", 0, "2 of 2", "/a/\n/a/b=\"1\"\n"},
		{"a directory that is there", []put{{"/a/b", "1", 0}}, file(`{"key":"/a","dir":true}`), "", 0, "0 of 0", "/a/\n/a/b=\"1\"\n"},
		{"a directory's time to live ends", []put{{"/a/", "", time.Hour}, {"/a/b", "1", 0}}, file(`{"key":"/a/b","value":"1"}`), "--prune", 0, "1 of 1", "/a/\n/a/b=\"1\"\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStore(t, "a")
			for _, p := range tt.have {
				// Directories with a time to live exist already when their children come.
				s.fill(p)
			}
			got := s.run(tt.file, append([]string{"import"}, strings.Fields(tt.flags)...)...)
			if got.code != tt.code || !strings.Contains(got.out, tt.out) {
				t.Errorf("%v\nwant exit code %d and %q", got, tt.code, tt.out)
			}
			if dump := s.dump(); dump != tt.want {
				t.Errorf("the store has\n%s\nwant\n%s", dump, tt.want)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	s := newStore(t, "a")
	tests := []struct{ name, file, err string }{
		{"nothing", "", "the file is empty"},
		{"no export", `{"nodes":[]}`, `format "", want "quorate-export/1"`},
		{"another file", "just text", "read -: "},
		{"a later format", `{"format":"quorate-export/2"}`, "later version"},
		{"unknown fields", `{"format":"quorate-export/1","nodes":[{"key":"/a","valeu":"1"}]}`, "valeu"},
		{"no key", `{"format":"quorate-export/1","nodes":[{"value":"1"}]}`, `node 0: "" is no key`},
		{"unclean key", `{"format":"quorate-export/1","nodes":[{"key":"/a/../b","value":"1"}]}`, `"/a/../b" is no key`},
		{"outside of the prefix", `{"format":"quorate-export/1","prefix":"/a","nodes":[{"key":"/ab","value":"1"}]}`, "key /ab is not below /a"},
		{"no value", `{"format":"quorate-export/1","nodes":[{"key":"/a"}]}`, "needs either a value or dir"},
		{"twice", `{"format":"quorate-export/1","nodes":[{"key":"/a","value":"1"},{"key":"/a","value":"2"}]}`, "twice"},
		{"key and directory", `{"format":"quorate-export/1","nodes":[{"key":"/a","value":"1"},{"key":"/a/b","value":"2"}]}`, "/a is a key and a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := s.run(tt.file, "import")
			if got.code != 1 || !strings.Contains(got.err, tt.err) {
				t.Errorf("%v\nwant exit code 1 and %q", got, tt.err)
			}
		})
	}
	if s.dump() != "" {
		t.Errorf("something was written: %s", s.dump())
	}
}

func TestDiff(t *testing.T) {
	s := newStore(t, "a")
	s.fill(put{"/a", "1", 0}, put{"/b", "2", 0}, put{"/c", "3", 0}, put{"/t", "4", time.Hour})
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one.json"), filepath.Join(dir, "two.yaml")
	if err := os.WriteFile(one, []byte(s.run("", "export").out), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.run("", "diff", one); got != (result{}) {
		t.Errorf("diff without a difference: %v", got)
	}
	s.fill(put{"/a", "changed", 0}, put{"/t", "4", 0}, put{"/new", strings.Repeat("x", 100), 0})
	if _, err := s.Delete(t.Context(), "/b", client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^~ /a "changed" -> "1"
\+ /b "2"
- /new "x{60}"\.\.\.
~ /t "4" -> "4" \([0-9hms]+ left\)
$`)
	if got := s.run("", "diff", one); got.code != 1 || got.err != "" || !want.MatchString(got.out) {
		t.Errorf("diff: %v", got)
	}
	if err := os.WriteFile(two, []byte(s.run("", "export", "--format", "yaml").out), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := quorate(t, "", "diff", one, two); got.code != 1 || !want.MatchString(got.out) {
		t.Errorf("diff of two files: %v", got)
	}
}

func TestMigrate(t *testing.T) {
	from, to := newStore(t, "from"), newStore(t, "to")
	from.fill(sample...)
	to.fill(put{"/mine", "stays", 0}, put{"/other", "wrong", 0})

	got := to.run("", "migrate", "--from", from.url, "--dry-run")
	if got.code != 0 || !strings.Contains(got.out, `~ /other "wrong" -> "1"`) || !strings.HasSuffix(got.out, "10 changes; nothing was written\n") {
		t.Errorf("dry run: %v", got)
	}
	if got := to.run("", "migrate", "--from", from.url, "--verify-only"); got.code != 1 || !strings.Contains(got.err, "10 differences") {
		t.Errorf("verify before: %v", got)
	}
	got = to.run("", "migrate", "--from", from.url)
	if got.code != 0 || !strings.Contains(got.out, "10 written\nthe destination has 1 keys or directories more\nverified: 8 keys and 2 directories of the source") {
		t.Errorf("migrate: %v", got)
	}
	if have, want := to.dump(), strings.Replace(from.dump(), "/other", "/mine=\"stays\"\n/other", 1); have != want {
		t.Errorf("the destination has\n%s\nwant\n%s", have, want)
	}
	if got := to.run("", "migrate", "--from", from.url, "--prune"); got.code != 0 || to.dump() != from.dump() {
		t.Errorf("migrate --prune: %v\n%s", got, to.dump())
	}
	if got := to.run("", "migrate", "--from", to.url); got.code != 1 || !strings.Contains(got.err, "source and destination are the same cluster") {
		t.Errorf("migrate to itself: %v", got)
	}
	for _, args := range []string{"migrate", "migrate --from ftp://x", "migrate --from x --resync 1ms", "migrate --from x --parallel 0"} {
		if got := to.run("", strings.Fields(args)...); got.code != 1 || got.err == "" {
			t.Errorf("%s: %v", args, got)
		}
	}
}

func TestMigrateFollow(t *testing.T) {
	from, to := newStore(t, "from"), newStore(t, "to")
	from.fill(sample...)
	r := start(t, "-C", to.url, "--no-sync", "migrate", "--from", from.url, "--follow")
	r.out.wait(t, "following; Ctrl-C ends it\n")

	from.fill(put{"/app/port", "9090", 0}, put{"/late/dir/", "", 3 * time.Hour}, put{"/late/key", "new", 2 * time.Hour})
	from.fill(put{"/app/dir/now", "full", 0})
	for _, del := range []struct {
		key string
		o   client.DeleteOptions
	}{{"/other", client.DeleteOptions{}}, {"/app/gone", client.DeleteOptions{Recursive: true}}} {
		if _, err := from.Delete(t.Context(), del.key, del.o); err != nil {
			t.Fatal(err)
		}
	}
	exist := true
	if _, err := from.Set(t.Context(), "/late/dir", "", client.SetOptions{Dir: true, PrevExist: &exist, TTL: 4 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	from.fill(put{"/last", "1", 0})
	cluster.Eventually(t, "the last event is copied", func(ctx context.Context) error {
		_, err := to.Get(ctx, "/last", client.GetOptions{})
		return err
	})
	// Longer there, in case it is refreshed; a minute does not show in hours.
	lease, err := to.Get(t.Context(), "/app/lease", client.GetOptions{})
	if err != nil || lease.Node.TTL <= 5*3600 {
		t.Errorf("the time to live while following: %+v, %v", lease, err)
	}
	if have, want := to.dump(), from.dump(); have != want {
		t.Errorf("the destination has\n%s\nwant\n%s", have, want)
	}
	r.stop()
	if code := r.end(t); code != 0 || !strings.Contains(r.out.String(), "\nverified: ") {
		t.Errorf("exit code %d: %s%s", code, r.out, r.err)
	}
	if lease, err = to.Get(t.Context(), "/app/lease", client.GetOptions{}); err != nil || lease.Node.TTL > 5*3600 {
		t.Errorf("the time to live in the end: %+v, %v", lease, err)
	}
}

// While following, comparing again finds what no event told of: refreshed times to live, and removals that
// have left the history.
func TestMigrateComparesAgain(t *testing.T) {
	t.Parallel()
	from, to := newStore(t, "from"), newStore(t, "to")
	from.fill(put{"/lease", "x", time.Hour}, put{"/gone", "x", 0})
	to.fill(put{"/mine", "x", 0})
	r := start(t, "-C", to.url, "--no-sync", "migrate", "--from", from.url, "--follow", "--resync", "1s")
	r.out.wait(t, "following")
	exist := true
	if _, err := from.Set(t.Context(), "/lease", "", client.SetOptions{Refresh: true, PrevExist: &exist, TTL: 9 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	if _, err := from.Delete(t.Context(), "/gone", client.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	to.fill(put{"/gone", "came back by a late replay", 0})
	cluster.Eventually(t, "the destination is put right", func(ctx context.Context) error {
		if dump := to.dump(); dump != "/lease=\"x\" 9h\n/mine=\"x\"\n" {
			return errors.New(dump)
		}
		return nil
	})
	r.stop()
	if code := r.end(t); code != 0 {
		t.Errorf("exit code %d: %s%s", code, r.out, r.err)
	}
}
