package discovery

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/quorate/quorate/api"
)

// Options says which token to use, and who is asking.
type Options struct {
	// URL is the token directory, exactly as the operator typed it: the member IDs hash these bytes,
	// so two spellings of one URL are two clusters. Its path is used as it is.
	URL string
	// Proxy is an HTTP proxy for these requests only; empty for none. The scheme may be left out.
	Proxy string
	// CAFile holds the certificates, in PEM, of the authorities that a https service is verified
	// with. Empty means those of TLS or, without them, the system's.
	CAFile string
	// TLS configures https requests; nil is the default. The node's own certificates do not belong here.
	TLS *tls.Config

	// Name is the name of this node, and PeerURLs are those it advertises. [Lookup] needs neither.
	Name     string
	PeerURLs []string
	// MemberID is what this node registers as. Zero means the ID that follows from PeerURLs and URL.
	MemberID uint64
	// DataDir is the node's data directory: to be named in messages, and to see that it is empty
	// before a registration found in the directory is taken for our own.
	DataDir string

	Logger hclog.Logger // nil for none

	sleep   func(context.Context, time.Duration) error // instead of real pauses, in tests
	timeout time.Duration                              // instead of requestTimeout, in tests
}

// Join registers this node under the token and waits, as long as it takes, until as many nodes as
// the token wants have done so. It returns the initial cluster, name=URL pairs joined by commas, the
// nodes in the order in which they came. An error is a *[Failure], or that of the context.
//
// Trouble with reading and waiting is retried for ever; trouble with registering is not, because its
// outcome is unknown. The next start finds out: a registration with exactly our value is taken for
// ours while DataDir holds no member. That also is the picture of a member which was up and then lost
// its data. The caller has to rule it out, by asking the other nodes of the result whether they
// know this member as started (spec bootstrap 3, check 5).
func Join(ctx context.Context, o Options) (string, error) {
	return o.run(ctx, (*session).join)
}

// Lookup is what a proxy does with a token: it waits like [Join] for the cluster to be complete, but
// does not register. A full cluster is its normal success.
func Lookup(ctx context.Context, o Options) (string, error) {
	return o.run(ctx, (*session).collect)
}

func (o Options) run(ctx context.Context, protocol func(*session, context.Context) (string, error)) (string, error) {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	o.Logger = o.Logger.Named("discovery")
	if o.sleep == nil {
		o.sleep = sleep
	}
	link, err := newLink(&o)
	if err != nil {
		return "", o.failure(ctx, err)
	}
	defer link.close()
	if o.timeout != 0 {
		link.timeout = o.timeout
	}
	cluster, err := protocol(&session{Options: &o, link: link, seen: map[string]bool{}}, ctx)
	return cluster, o.failure(ctx, err)
}

// session is one run of the protocol.
type session struct {
	*Options
	link    *link
	self    string // our key in the directory; empty for a proxy
	retries uint   // counts up over the whole run
	seen    map[string]bool
}

// directory is what the token directory looked like at one index.
type directory struct {
	size    int
	members []registered // by createdIndex
	index   uint64
}

type registered struct {
	id      string
	value   string
	created uint64
}

// find returns the registration under this ID.
func (d *directory) find(id string) (registered, bool) {
	i := slices.IndexFunc(d.members, func(r registered) bool { return r.id == id })
	if i < 0 {
		return registered{}, false
	}
	return d.members[i], true
}

// excludes says whether the cluster is complete without this ID.
func (d *directory) excludes(id string) bool {
	if len(d.members) < d.size {
		return false
	}
	return !slices.ContainsFunc(d.members[:d.size], func(r registered) bool { return r.id == id })
}

// join is the whole way of a member: read, register, confirm, and then collect.
func (s *session) join(ctx context.Context) (string, error) {
	value := formatRegistration(s.Name, s.PeerURLs)
	if _, err := ParseRegistration(value); err != nil {
		// It would spoil the attempt for every other node too.
		return "", fmt.Errorf("%w: %w", ErrInvalidURL, err)
	}
	id := s.MemberID
	if id == 0 {
		id = api.MemberID(s.PeerURLs, s.URL)
	}
	s.self = api.FormatID(id)

	before, err := s.read(ctx)
	if err != nil {
		return "", err
	}
	if before.excludes(s.self) {
		return "", ErrFull
	}
	if err := s.register(ctx, before, value); err != nil {
		return "", err
	}
	return s.collect(ctx)
}

// register writes our key, and returns when the endpoint shows it.
func (s *session) register(ctx context.Context, before *directory, value string) error {
	created, err := s.link.create(ctx, s.self, value)
	var refused *refusal
	switch {
	case err == nil:
		return s.confirm(ctx, created.node.CreatedIndex)
	case errors.Is(err, errNothing):
		return ErrBadEndpoint
	case errors.Is(err, api.KeyExists):
		return s.recognize(ctx, before, value)
	case errors.As(err, &refused) && refused.Status == 403:
		// A service that keeps count may say so when others came first since we looked.
		if now, e := s.link.get(ctx, ""); e == nil {
			d := directory{size: before.size, members: members(&now.node)}
			if d.excludes(s.self) {
				return ErrFull
			}
		}
	}
	return err
}

// recognize decides whether the registration that is there under our ID is our own: of an earlier
// start that crashed, or whose answer was lost.
func (s *session) recognize(ctx context.Context, before *directory, value string) error {
	found, ok := before.find(s.self)
	if !ok {
		now, err := s.link.get(ctx, "")
		if err != nil {
			return ErrRegistered
		}
		d := directory{members: members(&now.node)}
		if found, ok = d.find(s.self); !ok {
			return ErrRegistered
		}
	}
	if found.value != value || !vacant(s.DataDir) {
		return ErrRegistered
	}
	s.Logger.Info(fmt.Sprintf("found own registration %s of an earlier start, going on with it", s.self))
	return nil
}

// vacant says whether the data directory holds neither a member nor a proxy: no file in those
// places, but for the lock of the process that asks. An unknown directory is not vacant.
func vacant(dataDir string) bool {
	if dataDir == "" {
		return false
	}
	for _, part := range []string{"member", "proxy"} {
		err := filepath.WalkDir(filepath.Join(dataDir, part), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && d.Name() != "lock" {
				return fs.ErrExist
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

// confirm waits until the endpoint knows our key, which it might have let another member write.
// Nothing depends on it: whatever is wrong here, the reads that follow find out.
func (s *session) confirm(ctx context.Context, created uint64) error {
	err := s.link.wait(ctx, s.self, created)
	var trouble unavailable
	switch {
	case errors.As(err, &trouble):
		return s.backOff(ctx, trouble, "cluster status check")
	case errors.Is(err, errNothing), errors.Is(err, api.EventIndexCleared):
		return nil
	}
	return err
}

// collect waits until the directory is complete, and returns the initial cluster.
func (s *session) collect(ctx context.Context) (string, error) {
	d, err := s.read(ctx)
	for last := -1; err == nil; {
		if s.self != "" && d.excludes(s.self) {
			return "", ErrFull
		}
		s.report(d)
		if len(d.members) >= d.size {
			s.Logger.Info(fmt.Sprintf("found %d needed peer(s)", d.size))
			values := make([]string, d.size)
			for i := range values {
				values[i] = d.members[i].value
			}
			return joinRegistrations(values)
		}
		if last != len(d.members) {
			last = len(d.members)
			s.Logger.Info(fmt.Sprintf("found %d peer(s), waiting for %d more", last, d.size-last))
		}
		d, err = s.next(ctx, d)
	}
	return "", err
}

// report tells of every registration once.
func (s *session) report(d *directory) {
	for _, m := range d.members[:min(d.size, len(d.members))] {
		if s.seen[m.id] {
			continue
		}
		s.seen[m.id] = true
		who := "peer"
		if m.id == s.self {
			who = "self"
		}
		s.Logger.Info(fmt.Sprintf("found %s %s in the cluster", who, m.id))
	}
}

// next waits for something to happen in the directory and reads it again. The event itself is not
// looked at: it may be a removal or a repetition as well as a new node.
func (s *session) next(ctx context.Context, d *directory) (*directory, error) {
	err := s.link.wait(ctx, "", d.index+1)
	var trouble unavailable
	switch {
	case err == nil:
		return s.list(ctx, d.size)
	case errors.As(err, &trouble):
		if err := s.backOff(ctx, trouble, "waiting for other nodes"); err != nil {
			return nil, err
		}
		return s.read(ctx)
	case errors.Is(err, errNothing), errors.Is(err, api.EventIndexCleared):
		// The pause is for servers that do nothing else.
		if err := s.sleep(ctx, time.Second); err != nil {
			return nil, err
		}
		return s.list(ctx, d.size)
	}
	return nil, err
}

// read reads size and directory, until it succeeds or is told something that no repetition changes.
func (s *session) read(ctx context.Context) (*directory, error) {
	for {
		d, err := s.tryRead(ctx)
		var trouble unavailable
		if !errors.As(err, &trouble) {
			return d, err
		}
		if err := s.backOff(ctx, trouble, "cluster status check"); err != nil {
			return nil, err
		}
	}
}

func (s *session) tryRead(ctx context.Context) (*directory, error) {
	a, err := s.link.get(ctx, "_config/size")
	switch {
	case errors.Is(err, api.KeyNotFound):
		return nil, fmt.Errorf("%w (%w)", ErrSizeNotFound, err)
	case errors.Is(err, errNothing):
		return nil, ErrBadEndpoint
	case err != nil:
		return nil, err
	}
	var size uint64
	if a.node.Value != nil {
		// Anything but digits fails, a sign too; the width only keeps it an int.
		size, err = strconv.ParseUint(*a.node.Value, 10, 31)
	}
	if err != nil || size < 1 {
		return nil, ErrBadSize
	}
	return s.tryList(ctx, int(size))
}

// list reads the directory alone; at trouble it goes back to reading everything.
func (s *session) list(ctx context.Context, size int) (*directory, error) {
	d, err := s.tryList(ctx, size)
	var trouble unavailable
	if !errors.As(err, &trouble) {
		return d, err
	}
	if err := s.backOff(ctx, trouble, "cluster status check"); err != nil {
		return nil, err
	}
	return s.read(ctx)
}

func (s *session) tryList(ctx context.Context, size int) (*directory, error) {
	a, err := s.link.get(ctx, "")
	if errors.Is(err, errNothing) {
		return nil, ErrBadEndpoint
	}
	if err != nil {
		return nil, err
	}
	return &directory{size: size, members: members(&a.node), index: a.index}, nil
}

// members picks the registrations out of a listing, in the order in which they were made.
func members(dir *api.Node) []registered {
	var all []registered
	for _, n := range dir.Nodes {
		if n == nil {
			continue
		}
		id := path.Base(n.Key)
		if strings.HasPrefix(id, "_") {
			continue
		}
		r := registered{id: id, created: n.CreatedIndex}
		if n.Value != nil {
			r.value = *n.Value
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b registered) int { return cmp.Compare(a.created, b.created) })
	return all
}

// backOff tells of the trouble and pauses: 2s the first time, then twice as long each time up to
// 256s. The count is that of the whole run, as in etcd 3.4.
func (s *session) backOff(ctx context.Context, trouble error, during string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.retries++
	pause := time.Second << min(s.retries, 8)
	s.Logger.Error(fmt.Sprintf("error #0: %v", trouble))
	s.Logger.Info(fmt.Sprintf("%s: error connecting to %s, retrying in %s", during, s.link.name(), pause))
	return s.sleep(ctx, pause)
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
