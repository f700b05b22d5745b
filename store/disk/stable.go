package disk

import (
	"sync"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// The settings raft writes to vote, in this order, with one call each.
const (
	voteTermKey      = "LastVoteTerm"
	voteCandidateKey = "LastVoteCand"
)

// stableStore is raft's settings: current term and vote. All are kept in one record and replaced
// together (head.go).
//
// A vote is two values, and raft sets the term first (hashicorp/raft#661). A crash in between
// would leave the new term with the old candidate, and after the restart this member would tell
// that candidate it had its vote in the new term too, without comparing logs. So the term is kept
// here until the candidate comes, and both are written in one transaction: after a crash there is
// the old vote or the new one.
type stableStore struct {
	log *LogStore

	mu       sync.Mutex // guards voteTerm; held while a vote is written
	voteTerm []byte     // set, but not yet written; nil when there is none
}

// Set writes a value durably. Values set at once with the term of a vote are an exception, see
// the type.
func (s *stableStore) Set(key, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	value = append([]byte{}, value...)
	switch string(key) {
	case voteTermKey:
		s.voteTerm = value
		return nil
	case voteCandidateKey:
		err := s.log.changeSettings(func(settings map[string][]byte) error {
			settings[voteCandidateKey] = value
			if s.voteTerm != nil {
				settings[voteTermKey] = s.voteTerm
			}
			return nil
		})
		s.voteTerm = nil
		return err
	}
	return s.log.setting(string(key), func([]byte) ([]byte, error) { return value, nil })
}

// Get returns the value on disk. A missing one is raftboltdb.ErrKeyNotFound, whose text is the
// one raft looks for.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	value, ok, err := s.log.getSetting(string(key))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return append([]byte{}, value...), nil
}

// SetUint64 is Set for a number.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	return s.Set(key, encodeUint64(value))
}

// GetUint64 is Get for a number.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	return decodeUint64(string(key), value)
}
