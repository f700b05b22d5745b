package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBackup copies the directory of a member that is down, and starts the copy.
func TestBackup(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "old"), filepath.Join(dir, "made", "copy")
	m := start(t, serveArgs(old)...)
	wait(t, "PUT", "http://"+m.address+"/v2/keys/a", "value=1", 201)
	inUse := old + " is in use by a running member, which has to be stopped first"
	if code, _, stderr := verb(t, "backup", "--data-dir", old, "--backup-dir", fresh); code != 1 || !strings.HasPrefix(stderr, inUse) {
		t.Errorf("backup of a running member: exit status %d, %s", code, stderr)
	}
	m.stop()
	<-m.code
	tests := []struct {
		name           string
		args           []string
		code           int
		stdout, stderr string // contained
	}{
		{"no directories", []string{"backup"}, 1, "", "--data-dir and --backup-dir are required"},
		{"no member", []string{"backup", "--data-dir", dir, "--backup-dir", fresh}, 1, "", dir + " does not hold a member"},
		{"a copy", []string{"backup", "--data-dir", old, "--backup-dir", fresh}, 0, fresh + " now holds member ", ""},
		{"another in its place", []string{"backup", "--data-dir", old, "--backup-dir", fresh}, 1, "", fresh + " is in use: restore into an empty data directory"},
		{"over itself", []string{"backup", "--data-dir", old, "--backup-dir", old}, 1, "", "is in use"},
		{"with a log apart", []string{"backup", "--data-dir", old, "--backup-dir", filepath.Join(dir, "apart"), "--backup-wal-dir", filepath.Join(dir, "wal")}, 0, " now holds member ", ""},
		{"and of that", []string{"backup", "--data-dir", filepath.Join(dir, "apart"), "--wal-dir", filepath.Join(dir, "wal"), "--backup-dir", filepath.Join(dir, "again")}, 0, " now holds member ", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := verb(t, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit status %d, want %d\nstdout: %s\nstderr: %s\nwant %q, %q", code, tt.code, stdout, stderr, tt.stdout, tt.stderr)
			}
		})
	}
	if entries, err := os.ReadDir(fresh); err != nil || len(entries) != 1 {
		t.Errorf("the copy holds %v (%v), want the member alone", entries, err)
	}
	m = start(t, serveArgs(fresh)...)
	if body := wait(t, "GET", "http://"+m.address+"/v2/keys/a", "", 200); !strings.Contains(body, `"value":"1"`) {
		t.Errorf("the copy has %s", body)
	}
	wait(t, "PUT", "http://"+m.address+"/v2/keys/b", "value=1", 201)
}
