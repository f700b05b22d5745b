package tree

import (
	"strconv"
	"time"
	"unicode/utf8"
)

// The functions here write what encoding/json writes for the types of package api, without
// reflection; FuzzAppendJSON holds the two equal.

func (e *Event) appendJSON(dst []byte) []byte {
	dst = append(dst, `{"action":"`...)
	dst = append(dst, e.Action.String()...)
	dst = append(dst, `","node":`...)
	dst = appendFields(dst, e.Node, e.Time+e.Offset, e.Offset, !e.Action.removes())
	dst = appendIndexes(dst, e.Node)
	if e.Prev != nil {
		dst = append(dst, `,"prevNode":`...)
		dst = appendFields(dst, e.Prev, e.Time+e.Offset, e.Offset, true)
		dst = appendIndexes(dst, e.Prev)
	}
	return append(dst, "}\n"...)
}

// appendFields appends a node's opening brace and the fields that come before its children, as they are
// shown at a time of day. The offset is that of Event.
func appendFields(dst []byte, n *Node, now, offset int64, value bool) []byte {
	if n.Key == "/" {
		return append(dst, `{"dir":true`...) // the root has nothing else to show
	}
	dst = append(dst, `{"key":`...)
	dst = appendString(dst, n.Key)
	switch {
	case n.Dir:
		dst = append(dst, `,"dir":true`...)
	case value:
		dst = append(dst, `,"value":`...)
		dst = appendString(dst, n.Value)
	}
	if n.Expires != 0 {
		dst = append(dst, `,"expiration":"`...)
		expires := timeOfDay(n.Expires, offset)
		dst = time.Unix(0, expires).UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
		if ttl := secondsLeft(expires, now); ttl != 0 {
			dst = append(dst, `,"ttl":`...)
			dst = strconv.AppendInt(dst, ttl, 10)
		}
	}
	return dst
}

// appendIndexes appends the fields that come after a node's children, and the closing brace.
func appendIndexes(dst []byte, n *Node) []byte {
	if n.Modified != 0 {
		dst = append(dst, `,"modifiedIndex":`...)
		dst = strconv.AppendUint(dst, n.Modified, 10)
	}
	if n.Created != 0 {
		dst = append(dst, `,"createdIndex":`...)
		dst = strconv.AppendUint(dst, n.Created, 10)
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// plain says which bytes stand for themselves in a string.
var plain = func() (plain [utf8.RuneSelf]bool) {
	for c := range plain {
		plain[c] = c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return plain
}()

// plainPrefix returns how many bytes at the beginning of s stand for themselves, at least up to the
// group of eight in which the first other one is: it looks at eight at a time.
func plainPrefix(s string) int {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		x := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56
		// Subtracting ones from a byte sets its high bit if it is 0 (or high already); from there
		// upwards bytes may be wrong, but whether there is any is right. Pairs of characters that
		// differ in one bit are found together.
		control := x - ' '*ones
		angle := (x | 2*ones ^ '>'*ones) - ones // '<' or '>'
		quote := (x | 4*ones ^ '&'*ones) - ones // '"' or '&'
		backslash := (x ^ '\\'*ones) - ones
		if (x|control|angle|quote|backslash)&highs != 0 {
			break
		}
	}
	return i
}

// appendString appends s as a JSON string, with the characters that HTML knows escaped, and each
// byte that is not UTF-8 shown as U+FFFD.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0 // s[:done] is in dst
	for i := plainPrefix(s); i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			dst = append(dst, s[done:i]...)
			switch c {
			case '"', '\\':
				dst = append(dst, '\\', c)
			case '\b':
				dst = append(dst, `\b`...)
			case '\f':
				dst = append(dst, `\f`...)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			case '\t':
				dst = append(dst, `\t`...)
			default:
				dst = append(dst, `\u00`...)
				dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			done = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[done:i]...)
			dst = append(dst, `\ufffd`...)
			done = i + size
		case r == '\u2028' || r == '\u2029': // line ends in JavaScript
			dst = append(dst, s[done:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&15])
			done = i + size
		}
		i += size
	}
	dst = append(dst, s[done:]...)
	return append(dst, '"')
}
