package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOfflineVerbs runs recover and verify on the directory of a member that is down.
func TestOfflineVerbs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m")
	m := start(t, serveArgs(dir)...)
	wait(t, "PUT", "http://"+m.address+"/v2/keys/a", "value=1", 201)
	wait(t, "PUT", "http://"+m.address+"/v2/keys/b/c", "value=1", 201)
	runsIn := dir + " is in use by a running member, which has to be stopped first: open wal error: file already locked\n"
	for _, args := range [][]string{{"verify", dir}, {"recover", "--data-dir", dir}, {"recover", "--data-dir", dir, "--apply"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, nil, &stdout, &stderr); code != 1 || stderr.String() != runsIn {
			t.Errorf("%v of a running member: exit status %d, %q, want 1, %q", args, code, &stderr, runsIn)
		}
	}
	m.stop()
	<-m.code
	damaged := filepath.Join(t.TempDir(), "damaged")
	if err := os.CopyFS(damaged, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(damaged, "member", "identity.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	const id, cluster = "8e9e05c52164694d", "cdf818194e3a8c32" // spec bootstrap 4
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr []string // contained, one after the other
	}{
		{"verify", []string{"verify", dir}, 0, []string{
			dir + ": member " + id + " (default) of cluster " + cluster + "\n", "log: entries 1 to ", "; ", " bytes\n",
			"state: key index ", " after entry ", ", 1 members, checksum ", "everything is as it was written\n"}, nil},
		{"verify finds damage", []string{"verify", damaged}, 1, []string{"PROBLEM: " + damaged + "/member/identity.json is damaged: "}, nil},
		{"verify nothing", []string{"verify", filepath.Join(dir, "nope")}, 1, nil, []string{dir + "/nope does not hold a member\n"}},
		{"verify without an argument", []string{"verify"}, 1, nil, []string{"accepts 1 arg(s), received 0"}},
		{"convert-log without a kind", []string{"convert-log", dir}, 1, nil, []string{`required flag(s) "to" not set`}},
		{"convert-log to nothing", []string{"convert-log", dir, "--to", "etcd"}, 1, nil, []string{"--to must be boltdb or wal\n"}},
		{"convert-log nothing", []string{"convert-log", filepath.Join(dir, "nope"), "--to", "wal"}, 1, nil, []string{"does not hold a member\n"}},
		{"convert-log to what it is", []string{"convert-log", dir, "--to", "boltdb"}, 0, []string{"the log of " + dir + " is of the kind boltdb already\n"}, nil},
		{"convert-log", []string{"convert-log", dir, "--to", "wal"}, 0, []string{"the log of " + dir + " is of the kind wal now: start the member with --log-store=wal\n"}, nil},
		{"serve with the other kind", []string{"serve", "--data-dir", dir, "--listen-peer-urls", "http://127.0.0.1:0", "--listen-client-urls", "http://127.0.0.1:0",
			"--advertise-client-urls", "http://127.0.0.1:1"}, 1, nil, []string{`of the kind "wal", but --log-store is "boltdb"`, "quorate convert-log " + dir + " --to boltdb"}},
		{"verify after convert-log", []string{"verify", dir}, 0, []string{"log: entries 1 to ", "everything is as it was written\n"}, nil},
		{"convert-log back", []string{"convert-log", dir, "--to", "boltdb"}, 0, []string{"is of the kind boltdb now"}, nil},
		{"recover without a directory", []string{"recover"}, 1, nil, []string{"--data-dir is required\n"}},
		{"recover nothing", []string{"recover", "--data-dir", filepath.Join(dir, "nope"), "--apply"}, 1, nil, []string{"does not hold a member\n"}},
		{"recover, wal-dir of one of two", []string{"recover", "--data-dir", dir, "--data-dir", dir, "--wal-dir", dir}, 1, nil,
			[]string{"--wal-dir is given 1 times and --data-dir 2 times: give it once for each, or not at all\n"}},
		{"recover, damage", []string{"recover", "--data-dir", damaged, "--data-dir", dir}, 1,
			[]string{dir + "  " + id}, []string{damaged + "/member/identity.json is damaged: "}},
		{"recover, apply to two", []string{"recover", "--data-dir", dir, "--data-dir", damaged, "--apply"}, 1, nil,
			[]string{"--apply takes one --data-dir, that of the member to go on with; 2 are given\n"}},
		{"recover, a look", []string{"recover", "--data-dir", dir, "--wal-dir", dir + "/member/wal"}, 0, []string{
			"DATA DIR", "MEMBER", "NAME", "CLUSTER", "LAST INDEX", "TERM", "SNAPSHOT", "KEY INDEX", "KEYS\n",
			dir + "  " + id + "  default  " + cluster, "none", "3\n",
			"Nothing was changed.", "quorate recover --data-dir " + dir + " --wal-dir " + dir + "/member/wal --apply\n"}, nil},
		{"recover, apply", []string{"recover", "--data-dir", dir, "--apply"}, 0, []string{
			dir + " now holds a cluster of one: member " + id + " of cluster " + cluster + ", recovery epoch ", "quorate member add NAME PEER-URL\n"}, nil},
		{"recover, before and after", []string{"recover", "--data-dir", dir, "--data-dir", dir}, 0,
			[]string{"Most advanced: " + dir, "would lose nothing."}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), tt.args, nil, &stdout, &stderr)
			if code != tt.code || !inOrder(stdout.String(), tt.stdout) || !inOrder(stderr.String(), tt.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s\nwant %q, %q", code, tt.code, &stdout, &stderr, tt.stdout, tt.stderr)
			}
		})
	}

	t.Run("verify as JSON", func(t *testing.T) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"verify", "--json", dir}, nil, &stdout, &stderr)
		var got verification
		if err := json.Unmarshal(stdout.Bytes(), &got); err != nil || code != 0 {
			t.Fatalf("exit status %d, %v\n%s%s", code, err, &stdout, &stderr)
		}
		if !got.OK || got.Member != id || got.Cluster != cluster || len(got.Snapshots) != 1 || len(got.Members) != 1 || len(got.Checksum) != 16 {
			t.Errorf("verify = %+v", got)
		}
	})

	// The recovered member serves as before.
	m = start(t, serveArgs(dir)...)
	wait(t, "PUT", "http://"+m.address+"/v2/keys/b/d", "value=1", 201)
	if body := wait(t, "GET", "http://"+m.address+"/v2/keys/b/c", "", 200); !strings.Contains(body, `"value":"1"`) {
		t.Errorf("after recover: %s", body)
	}
}

// inOrder says whether s has all parts, one after the other.
func inOrder(s string, parts []string) bool {
	for _, p := range parts {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}
