package configs

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// source is where a value came from.
type source struct {
	layer layer
	// label names it in messages: flag -name, ETCD_NAME, conf.yml line 3.
	label string
}

type layer uint8

const (
	fromFlag layer = iota + 1
	fromEnv
	fromFile
)

// parser collects values, the strongest source first.
type parser struct {
	settings
	given   map[string]source
	notices []Notice
}

// Parse reads args, the command line behind the program's name and verb, then environ, in the form
// of os.Environ, then the file that one of them names. The result has been validated.
//
// Errors are [ErrHelp], [ErrVersion] or an [*Error]. The notices are for the log, also when there
// is an error.
func Parse(args, environ []string) (*Config, []Notice, error) {
	p := &parser{settings: settings{Config: Default()}, given: map[string]source{}}
	err := p.parse(args, environ)
	if err != nil {
		return nil, p.notices, err
	}
	return &p.Config, p.notices, nil
}

func (p *parser) parse(args, environ []string) error {
	rest, err := p.flags(args)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return refusef("'%s' is not a valid flag", rest[0])
	}
	if p.version {
		return ErrVersion
	}
	if err := p.environment(environ); err != nil {
		return err
	}
	if p.configFile != "" {
		if err := p.file(p.configFile); err != nil {
			return err
		}
	}
	if err := p.resolve(); err != nil {
		return err
	}
	if err := p.Validate(); err != nil {
		return err
	}
	p.notices = append(p.notices, p.Warnings()...)
	return nil
}

// flags reads the command line with the syntax of the standard flag package: one dash or two, the
// value behind = or as the next argument, booleans alone. The last of several wins. It is not that
// package itself because the values of retired flags are optional.
func (p *parser) flags(args []string) (rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		if len(arg) < 2 || arg[0] != '-' {
			return args, nil
		}
		args = args[1:]
		if arg == "--" {
			return args, nil
		}
		body := strings.TrimPrefix(arg[1:], "-")
		if body == "" || body[0] == '-' || body[0] == '=' {
			return nil, usagef("bad flag syntax: %s", arg)
		}
		name, value, hasValue := strings.Cut(body, "=")
		o := options[name]
		if o == nil {
			if name == "help" || name == "h" {
				return nil, ErrHelp
			}
			return nil, usagef("flag provided but not defined: -%s", name)
		}
		switch {
		case hasValue:
		case o.kind == kindBool:
			value = "true"
		case o.loose && (len(args) == 0 || strings.HasPrefix(args[0], "-")):
		case len(args) == 0:
			return nil, usagef("flag needs an argument: -%s", name)
		default:
			value, args = args[0], args[1:]
		}
		if err := p.set(o, value, source{fromFlag, "flag -" + name}); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// set stores one value and remembers where it came from.
func (p *parser) set(o *option, value string, from source) error {
	before, again := p.given[o.name]
	again = again && before.layer == from.layer
	p.given[o.name] = from
	if o.ignored != "" && !again {
		p.notices = append(p.notices, ignoring(o, from))
	}
	err := o.set(&p.settings, value)
	var refusal *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refusal):
		return refusal
	case from.layer == fromFlag && o.kind == kindBool:
		return usagef("invalid boolean value %q for -%s: %v", value, o.name, err)
	case from.layer == fromFlag:
		return usagef("invalid value %q for flag -%s: %v", value, o.name, err)
	case from.layer == fromFile && o.name == "initial-cluster-state":
		return refusef("%s: unexpected clusterState %q", from.label, value)
	case from.layer == fromFile:
		return refusef("%s: invalid value %q for %s: %v", from.label, value, o.path(), err)
	}
	return refusef("invalid value %q for %s: %v", value, from.label, err)
}

func ignoring(o *option, from source) Notice {
	if o.loose {
		return warnf("flag %q is no longer supported - ignoring.", "-"+o.name)
	}
	return warnf("%s has no effect - ignoring: %s", from.label, o.ignored)
}

// The prefixes of environment variables, the stronger first.
var prefixes = []string{"QUORATE_", "ETCD_"}

// clientVariables are what the client verbs of the same program read behind QUORATE_. They are often
// set where a server runs too, and are no mistake.
var clientVariables = []string{"ENDPOINTS", "ENDPOINT", "PEERS", "USERNAME", "CA_FILE"}

// environment reads QUORATE_NAME and, where that is not set, ETCD_NAME for every option that the
// command line left open. An empty variable counts as not set.
func (p *parser) environment(environ []string) error {
	byName := map[string]*option{}
	for _, o := range options {
		if !o.noEnv {
			byName[o.env()] = o
		}
	}
	for _, prefix := range prefixes {
		for _, pair := range slices.Sorted(slices.Values(environ)) {
			key, value, _ := strings.Cut(pair, "=")
			name, ok := strings.CutPrefix(key, prefix)
			if !ok || value == "" {
				continue
			}
			o := byName[name]
			if prefix == prefixes[0] {
				if slices.Contains(clientVariables, name) {
					continue
				}
				if o != nil && o.foreign {
					o = nil
				}
			}
			if o == nil {
				p.notices = append(p.notices, warnf("unrecognized environment variable %s", pair))
				continue
			}
			switch before := p.given[o.name]; before.layer {
			case fromFlag:
				p.notices = append(p.notices, infof("recognized environment variable %s, but unused: shadowed by corresponding flag", key))
			case fromEnv:
				p.notices = append(p.notices, infof("recognized environment variable %s, but unused: shadowed by %s", key, before.label))
			default:
				if err := p.set(o, value, source{fromEnv, key}); err != nil {
					return err
				}
				p.notices = append(p.notices, infof("recognized and used environment variable %s", pair))
			}
		}
	}
	return nil
}

// isGiven reports whether any source set the option.
func (p *parser) isGiven(name string) bool { return p.given[name].layer != 0 }

// resolve works out the options that stand for others, or depend on which were given.
func (p *parser) resolve() error {
	if err := p.oldAddresses(); err != nil {
		return err
	}
	p.oldAuthority(p.caFile, &p.ClientTLS)
	p.oldAuthority(p.peerCAFile, &p.PeerTLS)
	p.PeerTLS.CipherSuites = p.ClientTLS.CipherSuites

	if p.debug {
		p.LogLevel = "debug"
	}
	if p.LogLevel == "panic" || p.LogLevel == "fatal" {
		p.LogLevel = "error" // nothing is logged above it
	}
	if p.SnapshotCount == 0 {
		p.SnapshotCount = DefaultSnapshotCount
		p.notices = append(p.notices, infof("set snapshot count to default %d", DefaultSnapshotCount))
	}
	if p.isGiven("max-wals") {
		p.notices = append(p.notices, infof("max-wals has no effect: the log is a single file"))
	}
	if p.DataDir == "" {
		p.DataDir = p.Name + ".etcd"
		p.notices = append(p.notices, warnf("no data-dir provided, using default data-dir ./%s", p.DataDir))
	}
	if p.isGiven("listen-client-urls") && !p.isGiven("advertise-client-urls") {
		p.AdvertiseClientURLs = nil // Validate decides whether that is allowed
	}
	// A cluster that was given as "" stays so, and is refused for not naming this member.
	if !p.isGiven("initial-cluster") && p.Discovery == "" && p.DiscoverySRV == "" {
		p.InitialCluster = InitialCluster{p.Name: p.InitialAdvertisePeerURLs}.String()
	}
	return nil
}

// oldAddresses turns the ip:port flags of etcd 0.4 into URLs. An address without a bind address
// listens on all interfaces, as it did then.
func (p *parser) oldAddresses() error {
	urlOf := func(tls TLS, addr string) URLs {
		if tls.Empty() {
			return URLs{"http://" + addr}
		}
		return URLs{"https://" + addr}
	}
	everywhere := func(addr string) string { return "0.0.0.0" + addr[strings.LastIndex(addr, ":"):] }
	replace := func(old, addr, name string, tls TLS, target *URLs) error {
		if addr == "" {
			return nil
		}
		if p.isGiven(name) {
			return refusef("Set only one of flags -%s and -%s", name, old)
		}
		*target = urlOf(tls, addr)
		p.given[name] = p.given[old]
		return nil
	}
	if p.bindAddr == "" && p.addr != "" && !p.isGiven("listen-client-urls") {
		p.bindAddr = everywhere(p.addr)
	}
	if p.peerBindAddr == "" && p.peerAddr != "" && !p.isGiven("listen-peer-urls") {
		p.peerBindAddr = everywhere(p.peerAddr)
	}
	return cmp.Or(
		replace("addr", p.addr, "advertise-client-urls", p.ClientTLS, &p.AdvertiseClientURLs),
		replace("bind-addr", p.bindAddr, "listen-client-urls", p.ClientTLS, &p.ListenClientURLs),
		replace("peer-addr", p.peerAddr, "initial-advertise-peer-urls", p.PeerTLS, &p.InitialAdvertisePeerURLs),
		replace("peer-bind-addr", p.peerBindAddr, "listen-peer-urls", p.PeerTLS, &p.ListenPeerURLs),
	)
}

// oldAuthority is --ca-file of etcd 2.3: an authority, and the demand for certificates.
func (p *parser) oldAuthority(file string, tls *TLS) {
	if file != "" {
		tls.TrustedCAFile, tls.ClientCertAuth = file, true
	}
}

// String makes a source readable in notices about overridden values.
func (s source) String() string {
	if s.layer == fromEnv {
		return fmt.Sprintf("environment variable %s", s.label)
	}
	return s.label
}
