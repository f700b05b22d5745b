package fsm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/fsm/tree"
)

// A snapshot is
//
//	"QUORATE" version(1 byte) | length(4) | head (JSON) | CRC-32C of all before(4) | tree
//
// with numbers in little endian; the tree's own format says where it ends and checks itself.
const (
	snapshotMagic   = "QUORATE"
	snapshotVersion = 1
	// maxSnapshotHead bounds what a damaged length can reserve.
	maxSnapshotHead = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotHead is all of the state but the tree.
type snapshotHead struct {
	Applied    uint64     `json:"applied"`
	Membership Membership `json:"membership"`
	// Auth is left out, and nil, as long as there has never been a user or role.
	Auth     *auth.State `json:"auth,omitzero"`
	Requests []runState  `json:"requests,omitempty"`
}

type snapshot struct {
	head snapshotHead
	tree *tree.Snapshot
}

func (f *FSM) snapshot() *snapshot {
	return &snapshot{
		head: snapshotHead{
			Applied:    f.applied.Load(),
			Membership: *f.membership.Load(),
			Auth:       f.auth.Load(),
			Requests:   f.requests.state(),
		},
		tree: f.tree.Snapshot(),
	}
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() { s.tree.Release() }

func (s *snapshot) write(w io.Writer) error {
	head, err := json.Marshal(s.head)
	if err != nil {
		return fmt.Errorf("encode head of snapshot: %w", err)
	}
	b := append([]byte(snapshotMagic), snapshotVersion)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = append(b, head...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if _, err := s.tree.WriteTo(w); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func readSnapshotHead(r io.Reader) (snapshotHead, error) {
	var head snapshotHead
	fixed := make([]byte, len(snapshotMagic)+1+4)
	if _, err := io.ReadFull(r, fixed); err != nil {
		return head, fmt.Errorf("read snapshot: %w", err)
	}
	if string(fixed[:len(snapshotMagic)]) != snapshotMagic {
		return head, errors.New("read snapshot: this is no snapshot of quorate")
	}
	if v := fixed[len(snapshotMagic)]; v != snapshotVersion {
		return head, fmt.Errorf("read snapshot: format %d is not known to this version of quorate: run a newer one", v)
	}
	n := binary.LittleEndian.Uint32(fixed[len(snapshotMagic)+1:])
	if n > maxSnapshotHead {
		return head, fmt.Errorf("read snapshot: damaged: a head of %d bytes", n)
	}
	// ReadAll grows with what is there, so a damaged length costs nothing.
	rest, err := io.ReadAll(io.LimitReader(r, int64(n)+4))
	if err != nil {
		return head, fmt.Errorf("read snapshot: %w", err)
	}
	if len(rest) != int(n)+4 {
		return head, fmt.Errorf("read snapshot: %w", io.ErrUnexpectedEOF)
	}
	sum := crc32.Update(crc32.Checksum(fixed, castagnoli), castagnoli, rest[:n])
	if sum != binary.LittleEndian.Uint32(rest[n:]) {
		return head, errors.New("read snapshot: damaged: the checksum of its head does not match")
	}
	if err := json.Unmarshal(rest[:n], &head); err != nil {
		return head, fmt.Errorf("read snapshot: %w", err)
	}
	return head, nil
}
