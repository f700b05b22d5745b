package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/internal/durable"
)

const (
	identityFile   = "identity.json"
	identityFormat = 1
)

// Identity is who a member is. It outlives every flag (spec bootstrap 6).
type Identity struct {
	Format  int // of the file; set by WriteIdentity
	Member  uint64
	Cluster uint64
	Token   string // cluster token the IDs were made from
	Epoch   uint64 // changed by a forced recovery: members of different epochs do not speak
	Name    string // at the first start; the published name may differ
	// Initial are the members a new cluster begins with, empty when Joined.
	Initial []InitialMember
	Joined  bool // started with --initial-cluster-state existing: never bootstrap
}

// InitialMember is one member of a new cluster.
type InitialMember struct {
	ID       uint64
	Name     string
	PeerURLs []string
}

func (id Identity) clone() Identity {
	id.Initial = slices.Clone(id.Initial)
	for i := range id.Initial {
		id.Initial[i].PeerURLs = slices.Clone(id.Initial[i].PeerURLs)
	}
	return id
}

// The file, readable by people: IDs in hex as everywhere else, and a hash over the compact form
// of the identity.
type (
	identityEnvelope struct {
		Identity json.RawMessage `json:"identity"`
		SHA256   string          `json:"sha256"`
	}
	identityRecord struct {
		Format  int             `json:"format"`
		Member  string          `json:"member"`
		Cluster string          `json:"cluster"`
		Token   string          `json:"token"`
		Epoch   uint64          `json:"epoch"`
		Name    string          `json:"name"`
		Initial []initialRecord `json:"initial,omitempty"`
		Joined  bool            `json:"joined,omitempty"`
	}
	initialRecord struct {
		ID       string   `json:"id"`
		Name     string   `json:"name"`
		PeerURLs []string `json:"peerURLs"`
	}
)

func writeIdentity(path string, id Identity) error {
	data, err := encodeIdentity(id)
	if err == nil {
		err = durable.WriteFile(path, data, fileMode)
	}
	if err != nil {
		return fmt.Errorf("write identity: %w", err)
	}
	return nil
}

// readIdentity returns nil without an error when there is no file.
func readIdentity(path string) (*Identity, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id, err := decodeIdentity(data)
	if newer := (*newerFormatError)(nil); errors.As(err, &newer) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil {
		return nil, damaged(path, "%v", err)
	}
	return id, nil
}

type newerFormatError struct{ format int }

func (e *newerFormatError) Error() string {
	return fmt.Sprintf("format %d is newer than this program, which knows format %d", e.format, identityFormat)
}

func encodeIdentity(id Identity) ([]byte, error) {
	rec := identityRecord{
		Format: id.Format, Member: api.FormatID(id.Member), Cluster: api.FormatID(id.Cluster),
		Token: id.Token, Epoch: id.Epoch, Name: id.Name, Joined: id.Joined,
	}
	for _, m := range id.Initial {
		rec.Initial = append(rec.Initial, initialRecord{ID: api.FormatID(m.ID), Name: m.Name, PeerURLs: m.PeerURLs})
	}
	raw, err := json.Marshal(rec)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	data, err := json.MarshalIndent(identityEnvelope{Identity: raw, SHA256: hex.EncodeToString(sum[:])}, "", "  ")
	return append(data, '\n'), err
}

func decodeIdentity(data []byte) (*Identity, error) {
	var env identityEnvelope
	if err := json.Unmarshal(data, &env); err != nil {
		return nil, fmt.Errorf("not JSON (%w)", err)
	}
	var raw bytes.Buffer
	if err := json.Compact(&raw, env.Identity); err != nil {
		return nil, fmt.Errorf("no identity in it (%w)", err)
	}
	sum := sha256.Sum256(raw.Bytes())
	if hex.EncodeToString(sum[:]) != env.SHA256 {
		return nil, errors.New("checksum does not match")
	}
	var rec identityRecord
	if err := json.Unmarshal(raw.Bytes(), &rec); err != nil {
		return nil, err
	}
	if rec.Format > identityFormat {
		return nil, &newerFormatError{rec.Format}
	}
	id := &Identity{
		Format: rec.Format, Token: rec.Token, Epoch: rec.Epoch, Name: rec.Name, Joined: rec.Joined,
	}
	var err error
	parse := func(s string) uint64 {
		v, e := api.ParseID(s)
		err = errors.Join(err, e)
		return v
	}
	id.Member, id.Cluster = parse(rec.Member), parse(rec.Cluster)
	for _, m := range rec.Initial {
		id.Initial = append(id.Initial, InitialMember{ID: parse(m.ID), Name: m.Name, PeerURLs: m.PeerURLs})
	}
	return id, err
}
