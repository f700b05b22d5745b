package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/store/disk"
)

// A disk that is full ends a member: what it could not write it must not acknowledge. So before that, writes
// are refused while there is still room for everything else: DELETE, expiry, changes of members, users and
// terms, all small, and snapshots (docs/decisions/0016).
//
//	a follower has too little space   it says so, and goes on; the others are a quorum without it
//	the leader                        it hands over to a voter that has enough
//	so many that no quorum has        every member refuses writes, until there is room again
//
// Every member looks at its own disk. The leader asks the voters, and decides; the others ask the leader.
const (
	spaceInterval = 500 * time.Millisecond
	// handOverPause is how long a leader waits after it has tried to hand over before it tries again.
	handOverPause = 5 * time.Second
	// roomAgain is by which part of the reserve there must be more before space counts as enough again.
	roomAgain = 8
)

// shortage is a disk with too little free space, and whose it is.
type shortage struct {
	Member string `json:"member"` // its name
	Dir    string `json:"dir"`
	Free   uint64 `json:"free"` // bytes
	Need   uint64 `json:"need"` // bytes that are to stay free
}

func (l *shortage) String() string {
	return fmt.Sprintf("member %s has %s free in %s and keeps %s (--min-free-disk)", l.Member, mebibytes(l.Free), l.Dir, mebibytes(l.Need))
}

func mebibytes(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// space is what this member knows of free space in its cluster.
type space struct {
	own     atomic.Pointer[shortage] // of this member's disk
	refused atomic.Pointer[shortage] // why writes are refused, here and elsewhere
	handed  time.Time                // of the last attempt to hand over; watchSpace's

	mu   sync.Mutex
	last []disk.Space // guarded by mu: what was measured last, for metrics
}

// growing says whether a write is one that a full disk forbids.
func growing(w *tree.Write) bool {
	return w.Action != tree.Delete && w.Action != tree.CompareAndDelete
}

// haveRoom returns the refusal of a write, nil if it may be tried. Nothing was done then.
func (s *Store) haveRoom(w *tree.Write) error {
	short := s.space.refused.Load()
	if short == nil || !growing(w) {
		return nil
	}
	return &api.Error{
		Code:  api.DiskFull,
		Cause: short.String() + ": make room there or move it to a larger disk; reads, watches and DELETE go on",
		Index: s.fsm.Tree().Index(),
	}
}

// watchSpace looks for free space until the store stops.
func (s *Store) watchSpace() {
	ticker := time.NewTicker(spaceInterval)
	defer ticker.Stop()
	for {
		s.measure()
		s.setRefused(s.judge())
		select {
		case <-s.stopping:
			return
		case <-ticker.C:
		}
	}
}

// measure looks at this member's own disk.
func (s *Store) measure() {
	look := s.dir.Space
	if s.options.measureSpace != nil {
		look = s.options.measureSpace
	}
	all, err := look()
	if err != nil {
		s.log.Error("free space is not known", "error", err)
		return
	}
	s.space.mu.Lock()
	s.space.last = all
	s.space.mu.Unlock()
	before := s.space.own.Load()
	var now *shortage
	for _, one := range all {
		need := one.Reserve
		if before != nil {
			one.Reserve += one.Reserve / roomAgain
		}
		if one.Low() && now == nil {
			now = &shortage{Member: s.options.Name, Dir: one.Dir, Free: one.Free, Need: need}
		}
	}
	s.space.own.Store(now)
	switch {
	case now != nil && before == nil:
		s.log.Warn("the disk is nearly full: make room, or this member will end when it is full", "directory", now.Dir, "free", now.Free, "minFree", now.Need)
	case now == nil && before != nil:
		s.log.Info("there is enough free space on the disk again", "directory", before.Dir)
	}
}

func (s *Store) setRefused(now *shortage) {
	before := s.space.refused.Swap(now)
	switch {
	case now != nil && before == nil:
		s.log.Warn("writes are refused until there is enough free space: " + now.String())
	case now == nil && before != nil:
		s.log.Info("writes are accepted again")
	}
}

// judge says whether writes have to be refused, as far as this member can know.
func (s *Store) judge() *shortage {
	r := s.raft.Load()
	leader := s.leaderID()
	if r == nil || leader == 0 {
		return nil // writes get nowhere anyway
	}
	if leader != s.self {
		if status, ok := s.askStatus(leader); ok {
			return status.Refused
		}
		return s.space.refused.Load() // it will answer, or another one will lead
	}
	return s.judgeAsLeader(r)
}

// judgeAsLeader asks the voters how much room they have.
func (s *Store) judgeAsLeader(r *runningRaft) *shortage {
	own := s.space.own.Load()
	short, with, all := own, 0, 0 // voters with enough space
	var heir uint64
	if own == nil {
		with++
	}
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		all++
		id, err := parseServerID(server.ID)
		if err != nil || id == s.self {
			continue
		}
		status, ok := s.askStatus(id)
		switch {
		case !ok:
		case status.Short != nil:
			if short == nil {
				short = status.Short
			}
		default:
			with++
			if status.nearlyHas(r.CommitIndex()) && !status.Leaving {
				heir = id
			}
		}
	}
	if short == nil {
		return nil
	}
	if with < all/2+1 {
		return short
	}
	if own != nil && heir != 0 && time.Since(s.space.handed) > handOverPause {
		s.space.handed = time.Now()
		s.log.Warn("handing over leadership to a member with more free space", "member", formatID(heir))
		if err := s.transfer(r, heir); err != nil {
			s.log.Warn("leadership was not handed over", "member", formatID(heir), "error", err)
		}
	}
	return nil
}

// askStatus asks a member how far it is and how much room it has.
func (s *Store) askStatus(id uint64) (status peerStatus, ok bool) {
	if _, active := s.peers.Active(id); !active {
		s.peers.Connect(id)
		return status, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.options.ElectionTimeout/4)
	defer cancel()
	answer, err := s.peers.Call(ctx, id, kindStatus, nil)
	return status, err == nil && json.Unmarshal(answer, &status) == nil
}

// explain adds to an error of the disk what to do about it.
func explain(err error, dir string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: the disk of %s is full; this member ends with all it has acknowledged on disk: make room and start it again", err, dir)
	case errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: a member must be able to write to %s: make it writable and start the member again", err, dir)
	}
	return err
}
