//go:build linux

package clients

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
)

// TestEtcdctlUsersAndRoles is a session with every verb of etcdctl about users and roles. The passwords that
// some of them ask for come by standard input.
func TestEtcdctlUsersAndRoles(t *testing.T) {
	c := start(t, 3)
	const root = "-u root:secret "
	const prompt = `New password: (stty: .*\n)*\n?` // etcdctl wants to silence a terminal that is not there
	tests := []struct {
		args  string
		input string
		want  string // a regular expression for the whole output
		code  int
	}{
		{"user list", "", ``, 0},
		{"role list", "", `root\n`, 0},
		{"auth enable", "", `auth: No root user available, please create one\n`, 1},
		{"user add root", "secret\n", prompt + `User root created\n`, 0},
		{"role add dev", "", `Role dev created\n`, 0},
		{"role add dev", "", `Role dev already exists\n`, 1},
		{"role grant dev --path /dev/* --readwrite", "", `Role dev updated\n`, 0},
		{"role grant dev --path /dev/* --read", "", `auth: Granting duplicate read permission /dev/\*\n`, 1},
		{"role grant dev --path /ro --read", "", `Role dev updated\n`, 0},
		{"role get dev", "", `Role: dev\nKV Read:\n\t/dev/\*\n\t/ro\nKV Write:\n\t/dev/\*\n`, 0},
		{"role get root", "", `Role: root\nKV Read:\n\t/\*\nKV Write:\n\t/\*\n`, 0},
		{"role get none", "", `auth: Role none does not exist\.\n`, 1},
		{"user add alice:a", "", `User alice created\n`, 0},
		{"user add alice:a", "", `User alice created\n`, 0}, // it says so, and changes the password
		{"user grant alice --roles dev", "", `User alice updated\n`, 0},
		{"user grant alice --roles dev", "", `auth: Granting duplicate role dev for user alice\n`, 1},
		{"user get alice", "", `User: alice\nRoles:  dev\n`, 0},
		{"user list", "", `alice\nroot\n`, 0},
		{"auth enable", "", `Authentication Enabled\n`, 0},
		{"user list", "", `Insufficient credentials\n`, 1},
		{root + "role list", "", `dev\nguest\nroot\n`, 0},
		{root + "role revoke guest --path /* --readwrite", "", `Role guest updated\n`, 0},
		{"set /dev/x 1", "", `Error:  110: The request requires user authentication \(Insufficient credentials\) \[0\]\n`, 4},
		{"-u alice:a set /dev/x 1", "", `1\n`, 0},
		{"-u alice:a get /ro", "", `Error:  100: Key not found \(/ro\) \[\d+\]\n`, 4},
		{"-u alice:a set /ro 1", "", `Error:  110: The request requires user authentication \(Insufficient credentials\) \[0\]\n`, 4},
		{root + "user passwd alice", "new\n", prompt + `Password updated\n`, 0},
		{"-u alice:a get /dev/x", "", `Error:  110: The request requires user authentication \(Insufficient credentials\) \[0\]\n`, 4},
		{"-u alice:new get /dev/x", "", `1\n`, 0},
		{root + "user revoke alice --roles dev", "", `User alice updated\n`, 0},
		{"-u alice:new get /dev/x", "", `Error:  110: The request requires user authentication \(Insufficient credentials\) \[0\]\n`, 4},
		{root + "user remove root", "", `auth: Cannot delete root user while auth is enabled\.\n`, 1},
		{root + "auth disable", "", `Authentication Disabled\n`, 0},
		{"user remove alice", "", `User alice removed\n`, 0},
		{"user remove alice", "", `auth: User alice does not exist\n`, 1},
		{"role remove dev", "", `Role dev removed\n`, 0},
		{"role remove dev", "", `auth: Role dev doesn't exist\.\n`, 1},
		{"role remove root", "", `auth: Cannot modify role root: is root role\.\n`, 1},
	}
	for _, tt := range tests {
		cmd := etcdctl(t, c, strings.Fields(tt.args)...)
		cmd.Stdin = strings.NewReader(tt.input)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		if cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile("^(" + tt.want + ")$").Match(out.Bytes()) {
			t.Errorf("etcdctl %s printed %q, want %q", tt.args, out.Bytes(), tt.want)
		}
		if code := cmd.ProcessState.ExitCode(); code != tt.code {
			t.Errorf("etcdctl %s ended with %d, want %d", tt.args, code, tt.code)
		}
	}
}
