package discovery

import (
	"context"
	"errors"
	"fmt"
)

// Reasons why discovery ends, to be matched with errors.Is. Every one that is returned comes in a
// [Failure]. The texts are etcd's.
var (
	// ErrFull means that as many nodes as the token wants have registered, and this is none of them.
	ErrFull = errors.New("discovery: cluster is full")
	// ErrSizeNotFound means that there is no such token, or that its size was never written.
	ErrSizeNotFound = errors.New("discovery: size key not found")
	// ErrBadSize means that the size of the token is not a positive whole number.
	ErrBadSize = errors.New("discovery: size key is bad")
	// ErrBadEndpoint means that whatever answers at the URL does not speak the keys API.
	ErrBadEndpoint = errors.New("discovery: bad discovery endpoint")
	// ErrInvalidURL means that a registered value is not a list of name=URL.
	ErrInvalidURL = errors.New("discovery: invalid URL")
	// ErrRegistered means that this member ID is taken: by an earlier life of this node whose data
	// is lost, or by another node with the same peer URLs.
	ErrRegistered = errors.New("discovery: found duplicate id")
	// ErrDuplicateName means that two of the registered nodes have one name.
	ErrDuplicateName = errors.New("discovery: found duplicate name")
	// ErrDuplicateURL means that two of the registered nodes have one peer URL.
	ErrDuplicateURL = errors.New("discovery: found duplicate url")
)

// FallbackNotice is what a node says that becomes a proxy because of a [Failure] with Fallback set.
// It takes the place of the Lines of that failure.
const FallbackNotice = "discovery cluster full, falling back to proxy"

// Level is the importance of a line, as the one letter that etcd prints.
type Level byte

// The levels, from the gravest on.
const (
	LevelCritical Level = 'C'
	LevelError    Level = 'E'
	LevelWarning  Level = 'W'
	LevelNotice   Level = 'N'
	LevelInfo     Level = 'I'
)

func (l Level) String() string { return string(rune(l)) }

// LogLine is one line that the operator is told.
type LogLine struct {
	Level Level
	Text  string
}

func (l LogLine) String() string { return l.Level.String() + " | " + l.Text }

// Failure is the end of a discovery that did not succeed. The process is expected to print Lines, and
// nothing else about it, and to exit with status 1 (spec discovery 4, bootstrap 8).
type Failure struct {
	// Reason is one of the Err values above or wraps it, or says what the service or the network did.
	Reason error
	Lines  []LogLine
	// Fallback says that a node which was told so may become a proxy instead of exiting. Only a full
	// cluster is such a case; [Lookup] then finds who is in it.
	Fallback bool
}

func (f *Failure) Error() string { return f.Reason.Error() }

// Unwrap lets errors.Is and errors.As see the reason.
func (f *Failure) Unwrap() error { return f.Reason }

// duplicateURLError carries the list in which the URL occurs twice, for the one line about it.
type duplicateURLError struct{ cluster string }

func (e *duplicateURLError) Error() string {
	return fmt.Sprintf("discovery cluster %s has duplicate url", e.cluster)
}

func (e *duplicateURLError) Unwrap() error { return ErrDuplicateURL }

// failure turns the reason of an end into a [Failure]. An end that the caller's context asked for
// is none and stays as it is.
func (o *Options) failure(ctx context.Context, reason error) error {
	if reason == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f := &Failure{Reason: reason}
	switch {
	case errors.Is(reason, ErrRegistered):
		f.Lines = []LogLine{
			{LevelError, fmt.Sprintf("member %q has previously registered with discovery service token (%s).", o.Name, o.URL)},
			{LevelError, fmt.Sprintf("But etcd could not find valid cluster configuration in the given data dir (%s).", o.DataDir)},
			{LevelInfo, "Please check the given data dir path if the previous bootstrap succeeded"},
			{LevelInfo, "or use a new discovery token if the previous bootstrap failed."},
		}
	case errors.Is(reason, ErrDuplicateName):
		f.Lines = []LogLine{
			{LevelError, fmt.Sprintf("member with duplicated name has registered with discovery service token(%s).", o.URL)},
			{LevelError, "please check (cURL) the discovery token for more information."},
			{LevelError, "please do not reuse the discovery token and generate a new one to bootstrap the cluster."},
		}
	case errors.Is(reason, ErrDuplicateURL):
		f.Lines = []LogLine{{LevelCritical, reason.Error()}}
	default:
		f.Fallback = errors.Is(reason, ErrFull)
		f.Lines = []LogLine{
			{LevelError, fmt.Sprintf("failed to join discovery cluster (%v)", reason)},
			{LevelInfo, "discovery token URL was used, but failed to bootstrap the cluster."},
			{LevelInfo, "please generate a new discovery token and try to bootstrap again."},
		}
	}
	return f
}
