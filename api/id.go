package api

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MemberID returns the ID of a member that is there from the start: the first eight bytes of the
// SHA-1 of its sorted peer URLs followed by the cluster token (spec bootstrap 4). With discovery
// the token is the whole discovery URL.
func MemberID(peerURLs []string, token string) uint64 {
	return hashID(peerURLs, token)
}

// AddedMemberID returns the ID of a member that was added at run time: the same hash with the Unix
// time of the request in place of the token, so that one URL added twice gets two IDs.
func AddedMemberID(peerURLs []string, at time.Time) uint64 {
	return hashID(peerURLs, strconv.FormatInt(at.Unix(), 10))
}

func hashID(peerURLs []string, salt string) uint64 {
	sorted := slices.Sorted(slices.Values(peerURLs))
	sum := sha1.Sum([]byte(strings.Join(sorted, "") + salt))
	return binary.BigEndian.Uint64(sum[:8])
}

// ClusterID returns the ID of the cluster whose initial members have these IDs. It never changes
// afterwards, whoever joins or leaves (spec bootstrap 4).
func ClusterID(memberIDs []uint64) uint64 {
	var b []byte
	for _, id := range slices.Sorted(slices.Values(memberIDs)) {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha1.Sum(b)
	return binary.BigEndian.Uint64(sum[:8])
}

// FormatID writes an ID as the API shows it: lower-case hex without leading zeros.
func FormatID(id uint64) string { return strconv.FormatUint(id, 16) }

// ParseID reads an ID in hex, in either case, with or without leading zeros.
func ParseID(s string) (uint64, error) { return strconv.ParseUint(s, 16, 64) }
