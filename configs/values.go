package configs

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The reasons that the standard flag package gives, and so etcd.
var (
	errParse = errors.New("parse error")
	errRange = errors.New("value out of range")
	errEnum  = errors.New("invalid value")
)

func numberError(err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return errRange
	}
	return errParse
}

func parseUint(s string) (uint64, error) {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil {
		return 0, numberError(err)
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, errParse
	}
	return b, nil
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

// parseMillis reads a whole number of milliseconds that fits a time.Duration.
func parseMillis(s string) (time.Duration, error) {
	n, err := parseUint(s)
	if err != nil {
		return 0, err
	}
	const most = uint64(1<<63-1) / uint64(time.Millisecond)
	if n > most {
		return 0, errRange
	}
	return time.Duration(n) * time.Millisecond, nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
func unsigned(n uint64) string            { return strconv.FormatUint(n, 10) }

// kind is the type of an option's value. Its text is what YAML errors call it.
type kind string

const (
	kindString   kind = "string"
	kindBool     kind = "bool"
	kindUint     kind = "uint"
	kindDuration kind = "time.Duration"
	kindList     kind = "[]string" // one text with commas, or a YAML list
)

// option describes one option once, for all three sources and for the help text.
type option struct {
	name string
	kind kind
	// usage is one sentence or several lines; empty keeps the option out of the help text.
	usage string
	// set stores a value. Its error is the bare reason.
	set func(*settings, string) error
	// show is the value as the help text prints it.
	show func(*settings) string

	// section and key say where the option is in the file; "" means the top level, and the name.
	section, key string
	// noEnv and noFile exclude a source.
	noEnv, noFile bool
	// ignored is why the option has no effect; setting it is worth one warning.
	ignored string
	// loose options of etcd 0.4 may stand without their value.
	loose bool
	// foreign options are etcd's only; there is no QUORATE_ variable for them.
	foreign bool
}

// group is a heading of the help text with its options.
type group struct {
	title   string
	options []option
}

// settings are a Config in the making, with what only the parser needs.
type settings struct {
	Config
	configFile string
	version    bool
	debug      bool
	// The addresses of etcd 0.4, ip:port.
	addr, bindAddr, peerAddr, peerBindAddr string
	// The CA files of etcd 2.3.
	caFile, peerCAFile string
}

func text(name string, field func(*settings) *string, usage string) option {
	return option{name: name, kind: kindString, usage: usage,
		set:  func(s *settings, v string) error { *field(s) = v; return nil },
		show: func(s *settings) string { return quoted(*field(s)) },
	}
}

func enum(name string, field func(*settings) *string, usage string, words ...string) option {
	o := text(name, field, usage)
	o.set = func(s *settings, v string) error {
		if !slices.Contains(words, v) {
			return errEnum
		}
		*field(s) = v
		return nil
	}
	return o
}

func boolean(name string, field func(*settings) *bool, usage string) option {
	return option{name: name, kind: kindBool, usage: usage,
		set: func(s *settings, v string) (err error) {
			*field(s), err = parseBool(v)
			return err
		},
		show: func(s *settings) string { return quoted(strconv.FormatBool(*field(s))) },
	}
}

func number[T uint | uint64](name string, field func(*settings) *T, usage string) option {
	return option{name: name, kind: kindUint, usage: usage,
		set: func(s *settings, v string) error {
			n, err := parseUint(v)
			if err == nil && uint64(T(n)) != n {
				err = errRange
			}
			if err == nil {
				*field(s) = T(n)
			}
			return err
		},
		show: func(s *settings) string { return quoted(unsigned(uint64(*field(s)))) },
	}
}

func millis(name string, field func(*settings) *time.Duration, usage string) option {
	return option{name: name, kind: kindUint, usage: usage,
		set: func(s *settings, v string) (err error) {
			*field(s), err = parseMillis(v)
			return err
		},
		show: func(s *settings) string { return quoted(milliseconds(*field(s))) },
	}
}

func duration(name string, field func(*settings) *time.Duration, usage string) option {
	return option{name: name, kind: kindDuration, usage: usage,
		set: func(s *settings, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil || d < 0 {
				return errParse
			}
			*field(s) = d
			return nil
		},
		show: func(s *settings) string { return quoted(field(s).String()) },
	}
}

func space(name string, field func(*settings) *Space, usage string) option {
	return option{name: name, kind: kindString, usage: usage,
		set: func(s *settings, v string) (err error) {
			*field(s), err = ParseSpace(v)
			return err
		},
		show: func(s *settings) string { return quoted(field(s).String()) },
	}
}

func urls(name string, field func(*settings) *URLs, usage string) option {
	return option{name: name, kind: kindList, usage: usage,
		set: func(s *settings, v string) (err error) {
			*field(s), err = ParseURLs(v)
			return err
		},
		show: func(s *settings) string { return quoted(field(s).String()) },
	}
}

// words is a list of texts; parse may be nil.
func words(name string, field func(*settings) *[]string, parse func(string) ([]string, error), usage string) option {
	if parse == nil {
		parse = func(v string) ([]string, error) {
			var list []string
			for w := range strings.SplitSeq(v, ",") {
				if w = strings.TrimSpace(w); w != "" {
					list = append(list, w)
				}
			}
			return list, nil
		}
	}
	return option{name: name, kind: kindList, usage: usage,
		set: func(s *settings, v string) error {
			list, err := parse(v)
			if err == nil {
				*field(s) = list
			}
			return err
		},
		show: func(s *settings) string { return quoted(strings.Join(*field(s), ",")) },
	}
}

// address is one of etcd 0.4's ip:port flags. They are not in the file, which is younger.
func address(name string, field func(*settings) *string) option {
	o := text(name, field, "")
	o.set = func(s *settings, v string) (err error) {
		*field(s), err = parseAddr(v)
		return err
	}
	o.noFile = true
	return o
}

// nothing is an option that is accepted and does nothing.
func nothing(name string, k kind, why string) option {
	o := option{name: name, kind: k, ignored: why}
	o.set = func(_ *settings, v string) error {
		if k == kindBool {
			_, err := parseBool(v)
			return err
		}
		return nil
	}
	return o
}

// in moves an option into a section of the file.
func (o option) in(section, key string) option {
	o.section, o.key = section, key
	return o
}

func (o option) notInFile() option { o.noFile = true; return o }
func (o option) onlyFlag() option  { o.noEnv, o.noFile = true, true; return o }

// path is where the option is in the file.
func (o option) path() string {
	key := o.key
	if key == "" {
		key = o.name
	}
	if o.section != "" {
		return o.section + "." + key
	}
	return key
}

// env is the name of the option's variable behind the prefix QUORATE_ or ETCD_.
func (o option) env() string { return strings.ToUpper(strings.ReplaceAll(o.name, "-", "_")) }

func quoted(s string) string { return "'" + s + "'" }
