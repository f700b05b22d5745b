package api

import (
	"fmt"
	"net/http"
)

// Code is an etcd v2 error code, and an error, so that callers can write
// errors.Is(err, api.KeyNotFound). The numbers and texts are those of etcd 3.4 (spec errors 1.1).
type Code int

// The codes that really occur.
const (
	KeyNotFound       Code = 100
	CompareFailed     Code = 101
	NotFile           Code = 102
	NotDirectory      Code = 104
	KeyExists         Code = 105
	RootReadOnly      Code = 107
	DirectoryNotEmpty Code = 108
	Unauthorized      Code = 110

	PrevValueRequired  Code = 201
	TTLNotNumber       Code = 202
	IndexNotNumber     Code = 203
	InvalidField       Code = 209
	InvalidForm        Code = 210
	RefreshValue       Code = 211
	RefreshTTLRequired Code = 212

	RaftInternal Code = 300
	// DiskFull is not one of etcd's: a write was refused, and nothing done, for want of free disk space.
	DiskFull Code = 310

	EventIndexCleared Code = 401
)

var codeMessages = map[Code]string{
	KeyNotFound:        "Key not found",
	CompareFailed:      "Compare failed",
	NotFile:            "Not a file",
	NotDirectory:       "Not a directory",
	KeyExists:          "Key already exists",
	RootReadOnly:       "Root is read only",
	DirectoryNotEmpty:  "Directory not empty",
	Unauthorized:       "The request requires user authentication",
	PrevValueRequired:  "PrevValue is Required in POST form",
	TTLNotNumber:       "The given TTL in POST form is not a number",
	IndexNotNumber:     "The given index in POST form is not a number",
	InvalidField:       "Invalid field",
	InvalidForm:        "Invalid POST form",
	RefreshValue:       "Value provided on refresh",
	RefreshTTLRequired: "A TTL must be provided on refresh",
	RaftInternal:       "Raft Internal Error",
	DiskFull:           "Not enough free disk space",
	EventIndexCleared:  "The event in requested index is outdated and cleared",
}

// Error returns the message that etcd gives for the code.
func (c Code) Error() string {
	if m, ok := codeMessages[c]; ok {
		return m
	}
	return fmt.Sprintf("error code %d", int(c))
}

// HTTPStatus returns the status that an answer with this code has.
func (c Code) HTTPStatus() int {
	switch c {
	case KeyNotFound:
		return http.StatusNotFound
	case CompareFailed, KeyExists:
		return http.StatusPreconditionFailed
	case NotFile, DirectoryNotEmpty:
		return http.StatusForbidden
	case Unauthorized:
		return http.StatusUnauthorized
	case RaftInternal:
		return http.StatusInternalServerError
	case DiskFull:
		return http.StatusInsufficientStorage
	}
	return http.StatusBadRequest
}

// Error is a refusal under /v2/keys: {"errorCode":…,"message":…,"cause":…,"index":…}.
type Error struct {
	Code  Code
	Cause string
	// Index is the store's index when the store refused, and 0 when the request never got there.
	Index uint64
}

// Error reads like etcdctl's: 100: Key not found (/nope) [5].
func (e *Error) Error() string {
	return fmt.Sprintf("%d: %v (%s) [%d]", int(e.Code), e.Code, e.Cause, e.Index)
}

// Unwrap lets errors.Is find the code.
func (e *Error) Unwrap() error { return e.Code }

// The causes of code 300 (spec errors 3). A request that ends in one of the first three may still
// take effect: its outcome is unknown.
var (
	ErrTimeout           = &Error{Code: RaftInternal, Cause: "etcdserver: request timed out"}
	ErrTimeoutLeaderFail = &Error{Code: RaftInternal, Cause: "etcdserver: request timed out, possibly due to previous leader failure"}
	ErrTimeoutConnection = &Error{Code: RaftInternal, Cause: "etcdserver: request timed out, possibly due to connection lost"}
	ErrStopped           = &Error{Code: RaftInternal, Cause: "etcdserver: server stopped"}
	ErrCanceled          = &Error{Code: RaftInternal, Cause: "etcdserver: request cancelled"}
)

// StatusError is a refusal outside /v2/keys: an HTTP status and {"message":…}.
type StatusError struct {
	Status  int
	Message string
}

func (e *StatusError) Error() string { return e.Message }
