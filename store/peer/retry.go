package peer

import (
	"errors"
	"io"
	"slices"
	"syscall"

	"github.com/hashicorp/raft"
)

// Raft keeps connections for later, and does not look whether they still are there: the first messages to
// a member that has started again fail on those from before. A vote that is lost so costs an election
// time-out, and entries wait for CommitTimeout. All that passes here may be sent twice, so it is sent again
// on the next connection, the last of which is new.

// resend sends a message until it was not for an old connection that it failed.
func (t *Transport) resend(send func() error) (err error) {
	for range t.cfg.MaxPool + 1 {
		if err = send(); !endedByPeer(err) {
			break
		}
	}
	return err
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.resend(func() error { return t.NetworkTransport.RequestVote(id, target, req, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.resend(func() error { return t.NetworkTransport.RequestPreVote(id, target, req, resp) })
}

// TimeoutNow implements raft.Transport.
func (t *Transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.resend(func() error { return t.NetworkTransport.TimeoutNow(id, target, req, resp) })
}

// endedByPeer says of an error that the other side has ended the connection, or its kernel has.
func endedByPeer(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE},
		func(end error) bool { return errors.Is(err, end) })
}
