package fsm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/quorate/quorate/fsm/auth"
	"github.com/quorate/quorate/fsm/tree"
)

// EntryVersion is the format of a log entry. A member that meets a version it does not know stops:
// had it skipped the entry, it could no longer claim to agree with the others.
const EntryVersion = 1

// Kind says what a command does.
type Kind uint8

// The kinds of commands. The numbers are in logs and snapshots on disk: never reuse one.
const (
	// KindTick changes nothing by itself. It carries the leader's time, so that what is due
	// expires, and it is the first command of every leader's term.
	KindTick Kind = 1
	// KindWrite is a write of a client to the key tree.
	KindWrite Kind = 2
	// KindBootstrap gives a new cluster its first members. Later ones change nothing.
	KindBootstrap Kind = 3
	// KindPublish is a member's own name and client URLs.
	KindPublish Kind = 4
	// KindAddMember, KindUpdateMember and KindRemoveMember change who belongs to the cluster.
	KindAddMember    Kind = 5
	KindUpdateMember Kind = 6
	KindRemoveMember Kind = 7
	// KindClusterVersion is the version that all members have agreed on.
	KindClusterVersion Kind = 8
	// KindReset makes one member the only one, after a disaster.
	KindReset Kind = 9
	// KindAuth changes users, roles, or the switch that puts them in force.
	KindAuth Kind = 10
	// KindOffset says how far the time of the cluster is from the time of day.
	KindOffset Kind = 11
)

// RequestID names one request of one run of one member, so that a request that was sent to two
// leaders is applied once. The zero RequestID is for what leaders propose themselves and may repeat.
type RequestID struct {
	Member uint64
	// Boot is the number of the member's run; later runs have greater ones.
	Boot uint64
	// Sequence counts the requests of the run, from 1.
	Sequence uint64
	// Lowest is the least sequence that the member still waits for. Anything below is over:
	// its caller was answered, and it must not be applied any more.
	Lowest uint64
}

// Command is one thing to do to the replicated state.
type Command struct {
	ID   RequestID
	Kind Kind
	// Write is set for KindWrite. Its Expires is not: it follows from the entry's time and TTL.
	Write tree.Write
	// Change is set for the kinds about members.
	Change Change
	// Auth is set for KindAuth.
	Auth *auth.Change
	// Offset is set for KindOffset, in nanoseconds: see tree.Batch.SetOffset.
	Offset int64
}

// Change is a change of members.
type Change struct {
	ClusterID  uint64   `json:"clusterID,omitempty"`
	ID         uint64   `json:"id,omitempty"`
	Name       string   `json:"name,omitempty"`
	PeerURLs   []string `json:"peerURLs,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
	Version    string   `json:"version,omitempty"`
	Epoch      uint64   `json:"epoch,omitempty"`
	Members    []Member `json:"members,omitempty"`
}

var errTruncated = errors.New("truncated")

// Flags of an encoded write.
const (
	flagDir = 1 << iota
	flagRecursive
	flagInOrder
	flagRefresh
	flagTTL
)

// AppendCommand appends the encoding of c, preceded by its length, as it stands in a log entry.
func AppendCommand(dst []byte, c *Command) ([]byte, error) {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = append(dst, byte(c.Kind))
	dst = binary.LittleEndian.AppendUint64(dst, c.ID.Member)
	dst = binary.LittleEndian.AppendUint64(dst, c.ID.Boot)
	dst = binary.AppendUvarint(dst, c.ID.Sequence)
	dst = binary.AppendUvarint(dst, c.ID.Lowest)
	switch c.Kind {
	case KindTick:
	case KindWrite:
		dst = appendWrite(dst, &c.Write)
	case KindOffset:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.Offset))
	case KindAuth:
		var err error
		if dst, err = appendJSON(dst, c.Auth); err != nil {
			return nil, fmt.Errorf("encode change of users and roles: %w", err)
		}
	default:
		var err error
		if dst, err = appendJSON(dst, &c.Change); err != nil {
			return nil, fmt.Errorf("encode change of members: %w", err)
		}
	}
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst, nil
}

func appendJSON(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

func appendWrite(dst []byte, w *tree.Write) []byte {
	var flags byte
	set := func(on bool, bit byte) {
		if on {
			flags |= bit
		}
	}
	set(w.Dir, flagDir)
	set(w.Recursive, flagRecursive)
	set(w.InOrder, flagInOrder)
	set(w.Refresh, flagRefresh)
	set(w.HasTTL, flagTTL)
	dst = append(dst, byte(w.Action), flags)
	if w.HasTTL {
		dst = binary.AppendUvarint(dst, w.TTL)
	}
	dst = binary.AppendUvarint(dst, w.PrevIndex)
	dst = appendString(dst, w.PrevValue)
	dst = appendString(dst, w.Path)
	return append(dst, w.Value...)
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// AppendEntry appends the head of a log entry that holds commands stamped with now, in Unix
// nanoseconds. The commands, as AppendCommand wrote them, follow.
func AppendEntry(dst []byte, now int64) []byte {
	dst = append(dst, EntryVersion)
	return binary.LittleEndian.AppendUint64(dst, uint64(now))
}

// EntryHeadSize is the length of what AppendEntry writes.
const EntryHeadSize = 9

// decodeEntry calls do with each command of an entry, once all of them are known to be sound.
func decodeEntry(data []byte) (now int64, commands []Command, err error) {
	if len(data) < EntryHeadSize {
		return 0, nil, errTruncated
	}
	if data[0] != EntryVersion {
		return 0, nil, fmt.Errorf("format %d of log entries is not known to this version of quorate: run a newer one", data[0])
	}
	now = int64(binary.LittleEndian.Uint64(data[1:]))
	rest := data[EntryHeadSize:]
	commands = make([]Command, 0, 1+len(rest)/128)
	for len(rest) > 0 {
		if len(rest) < 4 {
			return 0, nil, errTruncated
		}
		n := uint64(binary.LittleEndian.Uint32(rest))
		rest = rest[4:]
		if n > uint64(len(rest)) {
			return 0, nil, errTruncated
		}
		commands = append(commands, Command{})
		if err := decodeCommand(rest[:n], &commands[len(commands)-1]); err != nil {
			return 0, nil, fmt.Errorf("command %d: %w", len(commands), err)
		}
		rest = rest[n:]
	}
	return now, commands, nil
}

// CheckCommands says whether data is a run of whole commands, as AppendCommand writes them.
// A leader asks before it takes commands from another member into its log.
func CheckCommands(data []byte) error {
	for n := 1; len(data) > 0; n++ {
		if len(data) < 4 {
			return errTruncated
		}
		size := uint64(binary.LittleEndian.Uint32(data))
		data = data[4:]
		if size > uint64(len(data)) {
			return errTruncated
		}
		if err := checkCommand(data[:size]); err != nil {
			return fmt.Errorf("command %d: %w", n, err)
		}
		data = data[size:]
	}
	return nil
}

// checkCommand is decodeCommand for those who only want to know whether it succeeds. Writes, nearly
// all there is, cost no memory.
func checkCommand(b []byte) error {
	d := decoder{b: b}
	kind := Kind(d.byte())
	if kind != KindWrite {
		return decodeCommand(b, new(Command))
	}
	d.uint64()
	d.uint64()
	d.uvarint()
	d.uvarint()
	action, flags := tree.Action(d.byte()), d.byte()
	if flags&flagTTL != 0 {
		d.uvarint()
	}
	d.uvarint()
	d.bytes()
	path := d.bytes()
	if d.failed {
		return errTruncated
	}
	return checkWrite(action, path)
}

// checkWrite refuses what no write can be.
func checkWrite(action tree.Action, path []byte) error {
	switch action {
	case tree.Set, tree.Create, tree.Update, tree.CompareAndSwap, tree.CompareAndDelete, tree.Delete:
	default:
		return fmt.Errorf("%v is no write", action)
	}
	if !cleanPath(path) {
		return fmt.Errorf("path %q is not clean", path)
	}
	return nil
}

// cleanPath says whether tree.Clean would leave the path as it is.
func cleanPath(path []byte) bool {
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	if len(path) == 1 {
		return true
	}
	for start := 1; start <= len(path); {
		end := start
		for end < len(path) && path[end] != '/' {
			end++
		}
		if name := path[start:end]; len(name) == 0 || string(name) == "." || string(name) == ".." {
			return false
		}
		start = end + 1
	}
	return true
}

func decodeCommand(b []byte, c *Command) error {
	d := decoder{b: b}
	c.Kind = Kind(d.byte())
	c.ID.Member = d.uint64()
	c.ID.Boot = d.uint64()
	c.ID.Sequence = d.uvarint()
	c.ID.Lowest = d.uvarint()
	if d.failed {
		return errTruncated
	}
	switch c.Kind {
	case KindTick:
		if len(d.b) > 0 {
			return errors.New("a tick has no content")
		}
		return nil
	case KindWrite:
		return decodeWrite(&d, &c.Write)
	case KindOffset:
		c.Offset = int64(d.uint64())
		if d.failed || len(d.b) > 0 {
			return errors.New("an offset has 8 bytes")
		}
		return nil
	case KindBootstrap, KindPublish, KindAddMember, KindUpdateMember, KindRemoveMember, KindClusterVersion, KindReset:
		if err := json.Unmarshal(d.b, &c.Change); err != nil {
			return fmt.Errorf("change of members: %w", err)
		}
		return nil
	case KindAuth:
		c.Auth = new(auth.Change)
		if err := json.Unmarshal(d.b, c.Auth); err != nil {
			return fmt.Errorf("change of users and roles: %w", err)
		}
		return c.Auth.Check()
	}
	return fmt.Errorf("kind %d is not known to this version of quorate: run a newer one", c.Kind)
}

func decodeWrite(d *decoder, w *tree.Write) error {
	w.Action = tree.Action(d.byte())
	flags := d.byte()
	w.Dir = flags&flagDir != 0
	w.Recursive = flags&flagRecursive != 0
	w.InOrder = flags&flagInOrder != 0
	w.Refresh = flags&flagRefresh != 0
	w.HasTTL = flags&flagTTL != 0
	if w.HasTTL {
		w.TTL = d.uvarint()
	}
	w.PrevIndex = d.uvarint()
	w.PrevValue = d.string()
	path := d.bytes()
	if d.failed {
		return errTruncated
	}
	if err := checkWrite(w.Action, path); err != nil {
		return err
	}
	w.Path = string(path)
	w.Value = string(d.b)
	return nil
}

// decoder takes values off the front of b; after a failure it returns zeros.
type decoder struct {
	b      []byte
	failed bool
}

func (d *decoder) byte() byte {
	if len(d.b) < 1 {
		d.failed = true
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) uint64() uint64 {
	if len(d.b) < 8 {
		d.failed, d.b = true, nil
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.failed, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.failed, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) string() string { return string(d.bytes()) }
