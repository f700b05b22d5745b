package peer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
)

// A connection of kind append carries AppendEntries one way and their answers the other way, in order.
// Who leads is known from the handshake. Little endian:
//
//	message  length uint32 of what follows; term, index and term of the entry before, commit index,
//	         each uint64; entries
//	entry    index, term, Unix time of its making, each uint64; nanoseconds of that, length of data
//	         and length of extensions, each uint32, lengths plus 1 and 0 for nil; type byte; data;
//	         extensions
//	answer   term, last index, each uint64; flags byte
const (
	appendHead   = 4 * 8
	entryHead    = 3*8 + 3*4 + 1
	appendAnswer = 2*8 + 1
	maxAppend    = 1 << 30 // length of a message, in bytes
)

// Flags of an answer.
const (
	flagSuccess = 1 << iota
	flagNoRetryBackoff
)

var errBadAppend = errors.New("malformed AppendEntries")

// appendStream is the leader's end of such a connection.
type appendStream struct {
	conn    net.Conn
	in      *bufio.Reader
	timeout time.Duration
	until   time.Time // the connection's deadline
	out     []byte
}

func newAppendStream(c net.Conn, timeout time.Duration) *appendStream {
	return &appendStream{conn: c, in: bufio.NewReaderSize(c, 32*appendAnswer), timeout: timeout}
}

// send writes a message. It and its answer have the time-out or, as setting a deadline has its price, up to
// twice that.
func (s *appendStream) send(req *raft.AppendEntriesRequest) error {
	if now := time.Now(); s.until.Sub(now) < s.timeout {
		s.until = now.Add(2 * s.timeout)
		if err := s.conn.SetDeadline(s.until); err != nil {
			return err
		}
	}
	out := appendMessage(s.out[:0], req)
	if len(out) > maxAppend {
		return fmt.Errorf("%w: %d bytes of entries", ErrTooLarge, len(out))
	}
	if s.out = out; cap(out) > maxKept {
		s.out = nil
	}
	_, err := s.conn.Write(out)
	return err
}

// receive reads an answer.
func (s *appendStream) receive(resp *raft.AppendEntriesResponse) error {
	b, err := s.in.Peek(appendAnswer)
	if err != nil {
		return err
	}
	resp.RPCHeader.ProtocolVersion = raft.ProtocolVersionMax
	resp.Term, resp.LastLog = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	resp.Success, resp.NoRetryBackoff = b[16]&flagSuccess != 0, b[16]&flagNoRetryBackoff != 0
	_, err = s.in.Discard(appendAnswer)
	return err
}

// serveAppends is the follower's end: raft gets one message after the other, and its answers go back.
func (t *Transport) serveAppends(c net.Conn, from uint64) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 64<<10)
	answers := make(chan raft.RPCResponse, 1)
	leader := []byte(api.FormatID(from))
	var out [appendAnswer]byte
	for {
		req, err := readMessage(in)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				t.cfg.Logger.Debug("connection of a leader has ended", "leader", string(leader), "error", err)
			}
			return
		}
		req.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: leader, Addr: leader}
		req.Leader = leader
		t.cfg.Stats.received(req)
		clampCommit(req)
		if !t.deliver(raft.RPC{Command: req, RespChan: answers}) {
			return
		}
		var answer raft.RPCResponse
		select {
		case answer = <-answers:
		case <-t.ctx.Done():
			return
		}
		resp, ok := answer.Response.(*raft.AppendEntriesResponse)
		if answer.Error != nil || !ok {
			t.cfg.Logger.Error("entries of the leader were not taken", "leader", string(leader), "error", answer.Error)
			return
		}
		b := binary.LittleEndian.AppendUint64(out[:0], resp.Term)
		b = binary.LittleEndian.AppendUint64(b, resp.LastLog)
		var flags byte
		if resp.Success {
			flags |= flagSuccess
		}
		if resp.NoRetryBackoff {
			flags |= flagNoRetryBackoff
		}
		if err := c.SetWriteDeadline(time.Now().Add(t.cfg.Timeout)); err != nil {
			return
		}
		if _, err := c.Write(append(b, flags)); err != nil {
			return
		}
	}
}

func appendMessage(b []byte, req *raft.AppendEntriesRequest) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0)
	for _, v := range [...]uint64{req.Term, req.PrevLogEntry, req.PrevLogTerm, req.LeaderCommitIndex} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	for _, e := range req.Entries {
		for _, v := range [...]uint64{e.Index, e.Term, uint64(e.AppendedAt.Unix())} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		for _, v := range [...]int{e.AppendedAt.Nanosecond(), markLen(e.Data), markLen(e.Extensions)} {
			b = binary.LittleEndian.AppendUint32(b, uint32(v))
		}
		b = append(b, byte(e.Type))
		b = append(b, e.Data...)
		b = append(b, e.Extensions...)
	}
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4)) // send refuses what does not fit
	return b
}

// markLen is 0 for nil, so that nil and empty stay apart.
func markLen(b []byte) int {
	if b == nil {
		return 0
	}
	return len(b) + 1
}

// readMessage reads what appendMessage has made.
func readMessage(r *bufio.Reader) (*raft.AppendEntriesRequest, error) {
	h, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(h)
	if n > maxAppend {
		return nil, fmt.Errorf("%w: it has %d bytes", errBadAppend, n)
	}
	if _, err := r.Discard(4); err != nil {
		return nil, err
	}
	b, err := readPayload(r, int(n))
	if err != nil {
		return nil, err
	}
	return parseMessage(b)
}

// parseMessage reads a message without its length. The entries refer to b.
func parseMessage(b []byte) (*raft.AppendEntriesRequest, error) {
	if len(b) < appendHead {
		return nil, fmt.Errorf("%w: it is cut off", errBadAppend)
	}
	req := &raft.AppendEntriesRequest{
		Term:              binary.LittleEndian.Uint64(b),
		PrevLogEntry:      binary.LittleEndian.Uint64(b[8:]),
		PrevLogTerm:       binary.LittleEndian.Uint64(b[16:]),
		LeaderCommitIndex: binary.LittleEndian.Uint64(b[24:]),
	}
	for b = b[appendHead:]; len(b) > 0; {
		if len(b) < entryHead {
			return nil, fmt.Errorf("%w: entry %d is cut off", errBadAppend, len(req.Entries)+1)
		}
		e := &raft.Log{
			Index: binary.LittleEndian.Uint64(b), Term: binary.LittleEndian.Uint64(b[8:]),
			AppendedAt: time.Unix(int64(binary.LittleEndian.Uint64(b[16:])), int64(binary.LittleEndian.Uint32(b[24:]))).UTC(),
			Type:       raft.LogType(b[entryHead-1]),
		}
		data, extensions := binary.LittleEndian.Uint32(b[28:]), binary.LittleEndian.Uint32(b[32:])
		b = b[entryHead:]
		for _, f := range [...]struct {
			mark uint32
			to   *[]byte
		}{{data, &e.Data}, {extensions, &e.Extensions}} {
			if f.mark == 0 {
				continue
			}
			n := int(f.mark - 1)
			if n > len(b) {
				return nil, fmt.Errorf("%w: entry %d is cut off", errBadAppend, len(req.Entries)+1)
			}
			*f.to, b = b[:n:n], b[n:]
		}
		req.Entries = append(req.Entries, e)
	}
	return req, nil
}
