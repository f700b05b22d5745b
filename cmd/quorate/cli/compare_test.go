//go:build linux

package cli_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/client"
)

// put is a key that is there before the verb runs. A name that ends in a slash is a directory.
type put struct {
	key, value string
	ttl        time.Duration
}

// Every verb on keys is run by etcdctl and by us, in all formats, each in a directory of its own. Indexes,
// times and names made from indexes differ; nothing else may, the exit code included.
func TestKeysLikeEtcdctl(t *testing.T) {
	t.Parallel()
	k := []put{{"k", "old", 0}}
	tests := []struct {
		name  string
		setup []put
		stdin string
		args  string // %s is the directory
	}{
		{"get", k, "", "get %s/k"},
		{"get without the leading slash", k, "", "get %.0s%[2]s/k"},
		{"get with flags behind", k, "", "get %s/k --quorum --sort"},
		{"get of a missing key", nil, "", "get %s/nope"},
		{"get of a directory", []put{{"d/", "", 0}}, "", "get %s/d"},
		{"get with a time to live", []put{{"k", "v", time.Hour}}, "", "get %s/k"},
		{"get of an empty value", []put{{"k", "", 0}}, "", "get %s/k"},
		{"get of lines and <marks>", []put{{"k", "a\nb<&>\"\x01\u2028é\n", 0}}, "", "get %s/k"},
		{"get without a key", nil, "", "get"},
		{"ls", []put{{"d/", "", 0}, {"d/a", "1", 0}, {"d/b/", "", 0}, {"d/_h", "1", 0}}, "", "ls --sort %s/d"},
		{"ls -p", []put{{"d/a", "1", 0}, {"d/b/", "", 0}, {"d/b/c/", "", 0}, {"d/b/c/d", "1", 0}}, "", "ls --sort --recursive -p %s/d"},
		{"ls -r -q", []put{{"d/a/b", "1", 0}}, "", "ls -r -q %s/d"},
		{"ls of a key", k, "", "ls %s/k"},
		{"ls of an empty directory", []put{{"d/", "", 0}}, "", "ls %s/d"},
		{"ls of nothing", nil, "", "ls %s/nope"},
		{"set", nil, "", "set %s/k new"},
		{"set over another", k, "", "set %s/k new"},
		{"set with a time to live", k, "", "set --ttl 100 %s/k new"},
		{"set with flags behind", k, "", "set %s/k new --ttl 100"},
		{"set with a negative time to live", k, "", "set --ttl=-1 %s/k new"},
		{"set from standard input", k, "new\nlines\n", "set %s/k"},
		{"set from empty standard input", k, "", "set %s/k"},
		{"set of a value with a dash", k, "", "set -- %s/k -v"},
		{"set without a key", k, "", "set"},
		{"set of a directory", []put{{"d/", "", 0}}, "", "set %s/d v"},
		{"swap by value", k, "", "set --swap-with-value old %s/k new"},
		{"swap by wrong value", k, "", "set --swap-with-value nope %s/k new"},
		{"swap by wrong index", k, "", "set --swap-with-index 999999 %s/k new"},
		{"swap of nothing", nil, "", "set --swap-with-value old %s/k new"},
		{"mk", nil, "", "mk %s/k v"},
		{"mk from standard input", nil, "v", "mk --ttl 50 %s/k"},
		{"mk of what exists", k, "", "mk %s/k v"},
		{"mk in order", nil, "", "mk --in-order %s/q job"},
		{"mk below a key", k, "", "mk %s/k/below v"},
		{"update", k, "", "update %s/k new"},
		{"update with a time to live", k, "", "update --ttl 20 %s/k new"},
		{"update ends a time to live", []put{{"k", "v", time.Hour}}, "", "update %s/k new"},
		{"update of nothing", nil, "", "update %s/k new"},
		{"rm", k, "", "rm %s/k"},
		{"rm of nothing", nil, "", "rm %s/k"},
		{"rm by value", k, "", "rm --with-value old %s/k"},
		{"rm by wrong value", k, "", "rm --with-value nope %s/k"},
		{"rm by wrong index", k, "", "rm --with-index 999999 %s/k"},
		{"rm of a directory", []put{{"d/", "", 0}}, "", "rm %s/d"},
		{"rm --dir", []put{{"d/", "", 0}}, "", "rm --dir %s/d"},
		{"rm --dir of a full directory", []put{{"d/a", "1", 0}}, "", "rm --dir %s/d"},
		{"rm --recursive", []put{{"d/a", "1", 0}}, "", "rm --recursive %s/d"},
		{"rm -r of a key", k, "", "rm -r %s/k"},
		{"rm without a key", nil, "", "rm"},
		{"rm of the root", nil, "", "rm --recursive /"},
		{"rmdir", []put{{"d/", "", 0}}, "", "rmdir %s/d"},
		{"rmdir of a key", k, "", "rmdir %s/k"},
		{"rmdir of a full directory", []put{{"d/a", "1", 0}}, "", "rmdir %s/d"},
		{"mkdir", nil, "", "mkdir %s/d/e"},
		{"mkdir with a time to live", nil, "", "mkdir --ttl 70 %s/d"},
		{"mkdir of what exists", []put{{"d/", "", 0}}, "", "mkdir %s/d"},
		{"mkdir without a key", nil, "", "mkdir"},
		{"setdir", nil, "", "setdir %s/d"},
		{"setdir over a key", k, "", "setdir %s/k"},
		{"setdir over a directory", []put{{"d/", "", 0}}, "", "setdir --ttl 5 %s/d"},
		{"updatedir", []put{{"d/", "", 0}}, "", "updatedir --ttl 60 %s/d"},
		{"updatedir ends a time to live", []put{{"d/", "", time.Hour}}, "", "updatedir %s/d"},
		{"updatedir of nothing", nil, "", "updatedir %s/d"},
		{"watch without a key", nil, "", "watch"},
		{"exec-watch without a command", nil, "", "exec-watch %s/k"},
	}
	endpoint, direct := etcd(t), keys(t)
	etcdctl(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, format := range []string{"simple", "extended", "json"} {
				run := func(who string, run func(*testing.T, string, ...string) result) string {
					dir := fmt.Sprintf("/compare/%03d-%s-%s", i, format, who)
					for _, p := range tt.setup {
						key, isDir := strings.CutSuffix(p.key, "/")
						if _, err := direct.Set(t.Context(), dir+"/"+key, p.value, client.SetOptions{Dir: isDir, TTL: p.ttl}); err != nil {
							t.Fatalf("set up %s: %v", p.key, err)
						}
					}
					line := tt.args
					if strings.Contains(line, "%") {
						line = fmt.Sprintf(line, dir, dir[1:])
						line, _, _ = strings.Cut(line, "%!(EXTRA")
					}
					args := append([]string{"--endpoints", endpoint, "--no-sync", "-o", format}, strings.Fields(line)...)
					return normal(strings.ReplaceAll(run(t, tt.stdin, args...).String(), dir, "DIR"))
				}
				want := run("etcdctl", runEtcdctl)
				if got := run("quorate", quorate); got != want {
					t.Errorf("-o %s %s\n%s\netcdctl:\n%s", format, tt.args, got, want)
				}
				if !strings.HasPrefix(want, "exit code 0") {
					break // the format makes no difference to errors
				}
			}
		})
	}
}

var (
	index   = regexp.MustCompile(`(Index: |Index":|\[999999 != |\[|/0)\d+\b`)
	counted = regexp.MustCompile(`(TTL: |"ttl":)[1-9]\d*`)
	moment  = regexp.MustCompile(`"expiration":"[^"]*Z"`)
)

// normal replaces what depends on when the verb ran.
func normal(s string) string {
	s = index.ReplaceAllString(s, "${1}N")
	s = counted.ReplaceAllString(s, "${1}T")
	return moment.ReplaceAllString(s, `"expiration":"WHEN"`)
}

// Without --sort the order is free.
func TestLsUnsorted(t *testing.T) {
	direct := keys(t)
	want := []string{"/unsorted/a", "/unsorted/b", "/unsorted/c"}
	for _, key := range want {
		if _, err := direct.Set(t.Context(), key, "", client.SetOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	got := strings.Fields(quorate(t, "", "-C", etcd(t), "ls", "unsorted").out)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("ls printed %q, want %q", got, want)
	}
	root := quorate(t, "", "-C", etcd(t), "ls")
	if !strings.Contains(root.out, "/unsorted\n") || root.code != 0 {
		t.Errorf("ls without a key does not list the root: %v", root)
	}
}
