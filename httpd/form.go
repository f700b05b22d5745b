package httpd

import (
	"errors"
	"net/url"
	"strings"
)

// field is one of the parameters that /v2/keys knows. All others are ignored.
type field uint8

const (
	fieldValue field = iota
	fieldTTL
	fieldDir
	fieldPrevExist
	fieldPrevValue
	fieldPrevIndex
	fieldRefresh
	fieldNoValueOnSuccess
	fieldRecursive
	fieldSorted
	fieldQuorum
	fieldWait
	fieldWaitIndex
	fieldStream
	numFields
)

// fieldOf returns the parameter with the given name; names are case-sensitive.
func fieldOf(name string) (field, bool) {
	switch name {
	case "value":
		return fieldValue, true
	case "ttl":
		return fieldTTL, true
	case "dir":
		return fieldDir, true
	case "prevExist":
		return fieldPrevExist, true
	case "prevValue":
		return fieldPrevValue, true
	case "prevIndex":
		return fieldPrevIndex, true
	case "refresh":
		return fieldRefresh, true
	case "noValueOnSuccess":
		return fieldNoValueOnSuccess, true
	case "recursive":
		return fieldRecursive, true
	case "sorted":
		return fieldSorted, true
	case "quorum":
		return fieldQuorum, true
	case "wait":
		return fieldWait, true
	case "waitIndex":
		return fieldWaitIndex, true
	case "stream":
		return fieldStream, true
	}
	return 0, false
}

// form holds the first value of each parameter that was given.
type form struct {
	given  uint32 // one bit for each field
	values [numFields]string
}

func (f *form) has(n field) bool { return f.given&(1<<n) != 0 }

// errSemicolon is what net/url says of a raw semicolon; etcd passes it on (spec errors 1.3).
var errSemicolon = errors.New("invalid semicolon separator in query")

// add takes the parameters out of an urlencoded text. Of a name that repeats, and of one that an
// earlier add has seen, the first value counts.
//
// It gives exactly what url.ParseQuery gives, errors included, but makes no map: a text of a million
// names costs nothing but the time to read it. The values are parts of s where nothing was escaped.
func (f *form) add(s string) error {
	var err error
	for s != "" {
		var pair string
		pair, s, _ = strings.Cut(s, "&")
		if strings.IndexByte(pair, ';') >= 0 {
			// Like net/url, this forgets about an error before it.
			err = errSemicolon
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, nameErr := unescape(name)
		if nameErr != nil {
			if err == nil {
				err = nameErr
			}
			continue
		}
		value, valueErr := unescape(value)
		if valueErr != nil {
			if err == nil {
				err = valueErr
			}
			continue
		}
		if n, ok := fieldOf(name); ok && !f.has(n) {
			f.given |= 1 << n
			f.values[n] = value
		}
	}
	return err
}

// unescape is url.QueryUnescape with a short cut for what has no escapes.
func unescape(s string) (string, error) {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '%' || c == '+' {
			return url.QueryUnescape(s)
		}
	}
	return s, nil
}
