package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quorate/quorate/fsm"
	"github.com/quorate/quorate/internal/durable"
)

// The roster file DATA/member/roster.json is the membership as this member last applied it. After a
// restart nothing of the log counts until a leader says what is committed, and to find a leader a
// member must know where the others listen now: not where they did when it was first started.
//
// It is an address book and decides nothing. A damaged one is left aside with a warning, and what
// the first start was told is used in its place.
const rosterFile = "roster.json"

// rosterOnDisk is the content of the file.
type rosterOnDisk struct {
	Membership json.RawMessage `json:"membership"`
	Checksum   uint32          `json:"crc32c"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func rosterPath(dataDir string) string { return filepath.Join(dataDir, "member", rosterFile) }

func writeRoster(dataDir string, m *fsm.Membership) error {
	membership, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode roster: %w", err)
	}
	data, err := json.Marshal(rosterOnDisk{Membership: membership, Checksum: crc32.Checksum(membership, castagnoli)})
	if err != nil {
		return fmt.Errorf("encode roster: %w", err)
	}
	if err := durable.WriteFile(rosterPath(dataDir), append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write roster: %w", err)
	}
	return nil
}

// readRoster returns nil without an error when there is no roster yet.
func readRoster(dataDir string) (*fsm.Membership, error) {
	path := rosterPath(dataDir)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var onDisk rosterOnDisk
	if err := json.Unmarshal(data, &onDisk); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if crc32.Checksum(onDisk.Membership, castagnoli) != onDisk.Checksum {
		return nil, fmt.Errorf("%s is damaged: its checksum does not match", path)
	}
	m := new(fsm.Membership)
	if err := json.Unmarshal(onDisk.Membership, m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return m, nil
}

// membership returns who belongs to the cluster: as the state machine has it, or before it has
// anything, as this member last knew it.
func (s *Store) membership() *fsm.Membership {
	if m := s.fsm.Membership(); len(m.Members) > 0 {
		return m
	}
	return s.lastKnown
}

// loadRoster sets lastKnown from the roster on disk, or from what the first start was told.
func (s *Store) loadRoster() {
	m, err := readRoster(s.options.DataDir)
	if err != nil {
		s.log.Warn("the list of members as this one last knew it cannot be used; going on with that of its first start", "error", err)
	}
	if m == nil {
		m = &fsm.Membership{ClusterID: s.identity.Cluster, Epoch: s.identity.Epoch}
		for _, i := range s.identity.Initial {
			m.Members = append(m.Members, fsm.Member{ID: i.ID, Name: i.Name, PeerURLs: i.PeerURLs})
		}
	}
	s.lastKnown = m
}
