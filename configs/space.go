package configs

import (
	"strconv"
	"strings"
)

// Space is an amount of disk space: a number of bytes, or a part of the file system.
type Space struct {
	Bytes   uint64
	Percent uint // of the file system; Bytes is 0 then
}

// units of a Space, the largest first.
var units = []struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

// ParseSpace reads bytes (67108864), bytes with a unit (64MiB), or a percentage (5%).
func ParseSpace(text string) (Space, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		n, err := parseUint(number)
		if err == nil && n > 99 {
			err = errRange
		}
		return Space{Percent: uint(n)}, err
	}
	factor := uint64(1)
	for _, u := range units {
		if number, ok := strings.CutSuffix(text, u.name); ok {
			text, factor = number, u.bytes
			break
		}
	}
	n, err := parseUint(text)
	if err == nil && n > 1<<62/factor {
		err = errRange
	}
	if err != nil {
		return Space{}, err
	}
	return Space{Bytes: n * factor}, nil
}

// String is what ParseSpace reads.
func (s Space) String() string {
	if s.Percent > 0 {
		return strconv.FormatUint(uint64(s.Percent), 10) + "%"
	}
	for _, u := range units {
		if s.Bytes >= u.bytes && s.Bytes%u.bytes == 0 {
			return strconv.FormatUint(s.Bytes/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatUint(s.Bytes, 10)
}
