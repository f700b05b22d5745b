//go:build linux

package clients

import (
	"net/url"
	"os/exec"
	"strconv"
	"testing"
)

// TestPythonEtcd has python-etcd, Debian's python3-etcd, do all that it can with a cluster of three.
func TestPythonEtcd(t *testing.T) {
	// Debian's package is for Debian's interpreter, which need not be the first in PATH.
	const python = "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import etcd.auth").CombinedOutput(); err != nil {
		t.Skipf("python3-etcd is not installed: %v\n%s", err, out)
	}
	c := start(t, 3)
	u, err := url.Parse(c.Endpoints()[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(limit(t), python, "-W", "ignore", "testdata/smoke.py", u.Hostname(), u.Port(), strconv.Itoa(len(c.Members)))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
