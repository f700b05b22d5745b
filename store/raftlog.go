package store

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// raftLog is raft's logger. About a member that cannot be reached raft says the same at each attempt,
// for as long as that lasts: the first time it is written, and then every repeatTime with the number of
// times since. Package peer says that the member is back.
type raftLog struct {
	hclog.Logger
	now func() time.Time

	mu   sync.Mutex // guards said
	said map[saying]*repetition
}

// repeatTime is how often a line about one member is repeated.
const repeatTime = 30 * time.Second

// A saying is a message about a member.
type saying struct{ message, member string }

type repetition struct {
	last  time.Time // when it was written
	count int       // how often it was not, since then
}

// aboutMember are the names of raft's arguments that say which member a line is about.
var aboutMember = []string{"peer", "target", "server-id", "from", "candidate"}

func newRaftLog(log hclog.Logger) *raftLog {
	return &raftLog{Logger: log, now: time.Now, said: make(map[saying]*repetition)}
}

// Warn implements hclog.Logger.
func (l *raftLog) Warn(message string, args ...any) {
	if args, ok := l.due(message, args); ok {
		l.Logger.Warn(message, args...)
	}
}

// Error implements hclog.Logger.
func (l *raftLog) Error(message string, args ...any) {
	if args, ok := l.due(message, args); ok {
		l.Logger.Error(message, args...)
	}
}

// due says whether to write a line, and with which arguments.
func (l *raftLog) due(message string, args []any) ([]any, bool) {
	if len(args) < 2 || !slices.Contains(aboutMember, fmt.Sprint(args[0])) {
		return args, true
	}
	key, now := saying{message, fmt.Sprint(args[1])}, l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.said[key]
	switch {
	case r == nil:
		l.forget(now)
		l.said[key] = &repetition{last: now}
		return args, true
	case now.Sub(r.last) < repeatTime:
		r.count++
		return nil, false
	}
	if r.count > 0 {
		args = append(slices.Clip(args), "repeated", r.count)
	}
	r.last, r.count = now, 0
	return args, true
}

// forget drops what has not been said for long. l.mu is held.
func (l *raftLog) forget(now time.Time) {
	for key, r := range l.said {
		if now.Sub(r.last) > 2*repeatTime {
			delete(l.said, key)
		}
	}
}
