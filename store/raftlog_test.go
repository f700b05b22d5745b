package store

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRaftRepeatsItselfSeldom(t *testing.T) {
	var out bytes.Buffer
	log := newRaftLog(hclog.New(&hclog.LoggerOptions{Output: &out, DisableTime: true}))
	now := time.Unix(1000, 0)
	log.now = func() time.Time { return now }
	for range 120 { // a minute
		log.Error("failed to heartbeat to", "peer", "a", "error", "refused")
		now = now.Add(500 * time.Millisecond)
	}
	log.Error("failed to heartbeat to", "peer", "b", "error", "refused")
	log.Warn("failed to contact", "server-id", "a")
	for range 2 {
		log.Warn("heartbeat timeout reached")
		log.Info("pipelining replication", "peer", "a")
	}
	want := strings.Join([]string{
		"[ERROR] failed to heartbeat to: peer=a error=refused",
		"[ERROR] failed to heartbeat to: peer=a error=refused repeated=59",
		"[ERROR] failed to heartbeat to: peer=b error=refused",
		"[WARN]  failed to contact: server-id=a",
		"[WARN]  heartbeat timeout reached",
		"[INFO]  pipelining replication: peer=a",
		"[WARN]  heartbeat timeout reached",
		"[INFO]  pipelining replication: peer=a",
		"",
	}, "\n")
	if out.String() != want {
		t.Errorf("the log is\n%s\nwant\n%s", &out, want)
	}
}
