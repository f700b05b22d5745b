package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// verb runs the program in this process.
func verb(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, nil, &out, &errs)
	return code, out.String(), errs.String()
}

// TestSnapshotVerbs saves the state of a member, looks at the file in every way, and makes a new member
// of it.
func TestSnapshotVerbs(t *testing.T) {
	dir := t.TempDir()
	m := start(t, serveArgs(filepath.Join(dir, "old"))...)
	endpoint := "http://" + m.address
	wait(t, "PUT", endpoint+"/v2/keys/a", "value=1", 201)
	wait(t, "PUT", endpoint+"/v2/keys/b/c", "value=2&ttl=5000", 201)
	wait(t, "PUT", endpoint+"/v2/keys/gone", "value=3", 201)

	file := filepath.Join(dir, "a.snap")
	cut := filepath.Join(dir, "cut.snap")
	restored := filepath.Join(dir, "new")
	nope := filepath.Join(dir, "nope")
	const id, cluster = "8e9e05c52164694d", "cdf818194e3a8c32" // spec bootstrap 4
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr []string // contained, one after the other
	}{
		{"save", []string{"-C", endpoint, "snapshot", "save", "--quorum", file}, 0,
			[]string{"saved " + file + ": index ", ", 3 keys, ", " bytes, of member " + id + " of cluster " + cluster}, nil},
		{"save, the file exists", []string{"-C", endpoint, "snapshot", "save", file}, 1, nil, []string{file + ": the file exists already; --force replaces it"}},
		{"save, forced, as JSON", []string{"-C", endpoint, "-o", "json", "snapshot", "save", "--force", file}, 0, []string{`{"file":"` + file + `","version":1,"cluster":"` + cluster + `"`, `"keys":3`}, nil},
		{"save, nobody there", []string{"-C", "http://127.0.0.1:1", "snapshot", "save", nope}, 4, nil, []string{"connection refused"}},
		{"save, no directory", []string{"-C", endpoint, "snapshot", "save", filepath.Join(nope, "x")}, 1, nil, []string{"no such file or directory"}},
		{"save, no file", []string{"-C", endpoint, "snapshot", "save"}, 1, nil, []string{"one file expected, got 0 arguments"}},
		{"save, bad output format", []string{"-o", "xml", "snapshot", "save", nope}, 1, nil, []string{"Unsupported output format: xml"}},
		{"info", []string{"snapshot", "info", file}, 0, []string{"FILE", "INDEX", "RAFT INDEX", "TERM", "KEYS", "BYTES", "CLUSTER", "TIME", "SHA-256\n", file, cluster, id}, nil},
		{"info as JSON", []string{"-o", "json", "snapshot", "info", file}, 0, []string{`{"file":"` + file + `"`, `"index":`, `"bytes":`, `"sha256":"`}, nil},
		{"info, nothing", []string{"snapshot", "info"}, 1, nil, []string{"a file is expected"}},
		{"info, missing", []string{"snapshot", "info", nope}, 1, nil, []string{"open " + nope + ": no such file or directory"}},
		{"info, cut off", []string{"snapshot", "info", cut}, 1, nil, []string{cut + ": this is not a whole backup of quorate"}},
		{"info, bad output format", []string{"-o", "xml", "snapshot", "info", file}, 1, nil, []string{"Unsupported output format: xml"}},
		{"verify", []string{"snapshot", "verify", file}, 0, []string{file + ": taken ", "by member " + id + " (default) of cluster " + cluster,
			"state: key index ", "; 3 keys, 1 directories, checksum ", "events: from index 1 on", "members: 1; users: 0, not in force", "everything is as it was written"}, nil},
		{"verify, cut off", []string{"snapshot", "verify", cut}, 1, nil, []string{cut + ": this is not a whole backup of quorate"}},
		{"export", []string{"snapshot", "export", file, "/b"}, 0, []string{`"format": "quorate-export/1"`, `"cluster": "` + cluster + `"`, `"key": "/b/c"`, `"value": "2"`, `"expiration": "`}, nil},
		{"export as YAML", []string{"snapshot", "export", "--format", "yaml", file}, 0, []string{"key: /a\n", "key: /b/c\n", "key: /gone\n"}, nil},
		{"export, bad format", []string{"snapshot", "export", "--format", "xml", file}, 1, nil, []string{"--format must be json or yaml"}},
		{"export, missing key", []string{"snapshot", "export", file, "/nope"}, 1, nil, []string{file + ": 100: Key not found (/nope)"}},
		{"import of a snapshot", []string{"-C", endpoint, "import", file}, 1, nil, []string{"this is a snapshot: quorate snapshot export " + file + " | quorate import -"}},
		{"restore, no directory", []string{"snapshot", "restore", file}, 1, nil, []string{"--data-dir is required"}},
		{"restore, cut off", []string{"snapshot", "restore", cut, "--data-dir", restored}, 1, nil, []string{cut + ": this is not a whole backup of quorate"}},
		{"restore, in use", []string{"snapshot", "restore", file, "--data-dir", filepath.Join(dir, "old")}, 1, nil, []string{"is in use: restore into an empty data directory"}},
		{"restore, not in the list", []string{"snapshot", "restore", file, "--data-dir", restored, "--initial-cluster", "x=http://127.0.0.1:1"}, 1, nil, []string{`couldn't find local name "default" in the initial cluster`}},
		{"restore, bad list", []string{"snapshot", "restore", file, "--data-dir", restored, "--initial-cluster", "default"}, 1, nil, []string{"--initial-cluster: "}},
		{"restore", []string{"snapshot", "restore", file, "--data-dir", restored}, 0, []string{restored + " now holds member ", " (default) of the new cluster ", ", with the 3 keys of index "}, nil},
		{"restore, twice", []string{"snapshot", "restore", file, "--data-dir", restored}, 1, nil, []string{restored + " is in use"}},
		{"restore, bad log store", []string{"snapshot", "restore", file, "--data-dir", filepath.Join(dir, "kind"), "--log-store", "x"}, 1, nil, []string{"--log-store must be boltdb or wal"}},
		{"restore of two", []string{"snapshot", "restore", file, "--data-dir", filepath.Join(dir, "two"), "--name", "a", "--initial-cluster", "a=http://127.0.0.1:1,b=http://127.0.0.1:2"}, 0,
			[]string{"Do the same for the other 1 with this file (SHA-256 "}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := os.Stat(cut); err != nil {
				cutOff(t, file, cut)
			}
			code, stdout, stderr := verb(t, tt.args...)
			if code != tt.code || !inOrder(stdout, tt.stdout) || !inOrder(stderr, tt.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s\nwant %q, %q", code, tt.code, stdout, stderr, tt.stdout, tt.stderr)
			}
		})
	}
	if _, err := os.Stat(nope); err == nil {
		t.Error("a failed save has left a file")
	}

	// What verify computes is what the member says of itself at this index.
	var verified verifiedBackup
	if code, stdout, stderr := verb(t, "snapshot", "verify", "--json", file); code != 0 || json.Unmarshal([]byte(stdout), &verified) != nil {
		t.Fatalf("exit status %d: %s%s", code, stdout, stderr)
	}
	var status struct {
		Index    uint64
		Checksum string
	}
	if err := json.Unmarshal([]byte(wait(t, http.MethodGet, endpoint+"/quorate/v1/status?checksum=true", "", 200)), &status); err != nil {
		t.Fatal(err)
	}
	if verified.Checksum != status.Checksum || verified.Index != status.Index || verified.Keys != 3 {
		t.Errorf("the file says %+v, the member %+v", verified, status)
	}

	// A key that was lost is fetched back into the running cluster.
	wait(t, "DELETE", endpoint+"/v2/keys/gone", "", 200)
	_, exported, _ := verb(t, "snapshot", "export", file)
	exportFile := filepath.Join(dir, "export.json")
	if err := os.WriteFile(exportFile, []byte(exported), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := verb(t, "-C", endpoint, "--no-sync", "import", exportFile); code != 0 || !strings.Contains(stdout, "1 of 1 changes made") {
		t.Errorf("import: exit status %d: %s%s", code, stdout, stderr)
	}
	m.stop()
	<-m.code

	m = start(t, serveArgs(restored)...)
	body := wait(t, "GET", "http://"+m.address+"/v2/keys/b/c", "", 200)
	if !strings.Contains(body, `"value":"2"`) || !strings.Contains(body, `"ttl":`) {
		t.Errorf("the restored member has %s", body)
	}
	wait(t, "PUT", "http://"+m.address+"/v2/keys/d", "value=1", 201)
}

// cutOff copies a file without its last byte, or an empty one if there is none.
func cutOff(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		return
	}
	if err := os.WriteFile(to, b[:len(b)-1], 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServeWithBackups has a member that writes backups by itself, and one that cannot, which says so
// and serves all the same.
func TestServeWithBackups(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "backups")
	m := start(t, serveArgs(t.TempDir(), "--backup-dir", dir, "--backup-interval", "1s", "--backup-keep", "1000")...)
	await(t, "a backup", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "quorate-*.snap"))
		return err == nil && len(files) > 0
	})
	files, err := filepath.Glob(filepath.Join(dir, "quorate-*.snap"))
	if err != nil {
		t.Fatal(err)
	}
	if code, stdout, stderr := verb(t, "snapshot", "verify", files[0]); code != 0 {
		t.Errorf("exit status %d: %s%s", code, stdout, stderr)
	}
	await(t, "the metric", func() bool {
		body := wait(t, "GET", "http://"+m.address+"/metrics", "", 200)
		return strings.Contains(body, "\nquorate_backup_last_bytes ") && !strings.Contains(body, "\nquorate_backup_last_bytes 0\n")
	})

	inTheWay := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m = start(t, serveArgs(t.TempDir(), "--backup-dir", inTheWay)...)
	await(t, "the failure in readyz", func() bool {
		body := wait(t, "GET", "http://"+m.address+"/readyz?verbose", "", 200)
		return strings.Contains(body, "- the last scheduled backup failed: mkdir "+inTheWay+": a file is in the way")
	})
	wait(t, "PUT", "http://"+m.address+"/v2/keys/a", "value=1", 201)
}

// await waits until f is true.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !f(); time.Sleep(20 * time.Millisecond) { // between two looks
		if time.Now().After(end) {
			t.Fatalf("never seen: %s", what)
		}
	}
}
