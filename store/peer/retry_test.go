package peer

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// What raft sends to a member that has started again arrives, although raft still has connections to the
// time before.
func TestMessageAfterRestart(t *testing.T) {
	a, b := open(t, Config{Self: 0xa}), open(t, Config{Self: 0xb})
	introduce(a, b)
	config := TransportConfig{CurrentTerm: func() uint64 { return 0 }, HeartbeatTimeout: time.Hour}
	config.Self = 0xa
	from := NewTransport(a.StreamLayer(), config)
	defer from.Close()
	id := raft.ServerID(api.FormatID(0xb))
	ask := func(to *Transport) error {
		done := make(chan error, 1)
		go func() {
			done <- from.RequestVote(id, addressOf(id), &raft.RequestVoteRequest{RPCHeader: from.header(), Term: 7}, new(raft.RequestVoteResponse))
		}()
		rpc := take(t, to)
		rpc.Respond(&raft.RequestVoteResponse{Term: 7, Granted: true}, nil)
		return <-done
	}
	config.Self = 0xb
	for range 2 {
		to := NewTransport(b.StreamLayer(), config)
		if err := ask(to); err != nil {
			t.Error(err)
		}
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestResend(t *testing.T) {
	transport := &Transport{cfg: TransportConfig{MaxPool: 4}}
	ended := fmt.Errorf("read: %w", io.EOF)
	for _, tt := range []struct {
		name   string
		errors []error
		sent   int
		fails  bool
	}{
		{"it arrives", []error{nil}, 1, false},
		{"old connections", []error{ended, syscall.ECONNRESET, syscall.EPIPE, nil}, 4, false},
		{"nobody is there", []error{syscall.ECONNREFUSED, nil}, 1, true},
		{"a new connection ends, too", []error{ended, ended, ended, ended, ended, nil}, 5, true},
	} {
		sent := 0
		err := transport.resend(func() error { sent++; return tt.errors[sent-1] })
		if sent != tt.sent || (err != nil) != tt.fails {
			t.Errorf("%s: sent %d times, error %v; want %d times, an error: %v", tt.name, sent, err, tt.sent, tt.fails)
		}
	}
}
