package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/quorate/quorate/api"
)

// The handshake is an HTTP/1.1 upgrade:
//
//	GET /quorate/peer HTTP/1.1
//	Host: 10.0.0.2:2380
//	Connection: Upgrade
//	Upgrade: quorate-peer/1
//	Quorate-Cluster: 63bcf61ee1e1aa41
//	Quorate-From: c981532dd89b74a4
//	Quorate-To: 2943212f5e2cf73
//	Quorate-Epoch: 0
//	Quorate-Kind: raft
//
// IDs and the epoch are hex. The answer is 101 with the same Connection and Upgrade, or one of the
// statuses of RefusedError and one line of text.
const (
	upgradePath = "/quorate/peer"
	protocol    = "quorate-peer/1"

	headerCluster = "Quorate-Cluster"
	headerFrom    = "Quorate-From"
	headerTo      = "Quorate-To"
	headerEpoch   = "Quorate-Epoch"
	headerKind    = "Quorate-Kind"

	kindRaft   = "raft"
	kindAppend = "append"
	kindRPC    = "rpc"

	// handshakeTimeout bounds the whole handshake, on both sides.
	handshakeTimeout = 5 * time.Second
	// dialTimeout bounds its first step. The kernel repeats its request for a connection after 1, 3
	// and 7 s: a new one in between finds a network that is whole again sooner.
	dialTimeout = 2 * time.Second
	maxHeader   = 16 << 10 // of the request, in bytes
)

// RefusedError is a handshake that another member refused.
type RefusedError struct {
	// Status is 400 for a request that makes no sense, 409 when another member answers at this URL,
	// 410 when we are removed from the cluster, 412 for another cluster or recovery epoch, 426 for
	// another version of the protocol, and 503 when the other side has only just started.
	Status int
	Text   string // what it said
	URL    string // where
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s refused the connection: %d %s", e.URL, e.Status, e.Text)
}

// Texts of refusals. The first is etcd's.
const (
	textWrongCluster = "cluster ID mismatch"
	textWrongEpoch   = "recovery epoch mismatch"
	textRemoved      = "the member has been permanently removed from the cluster"
	textNotReady     = "not ready"
	textOwnID        = "the sender has the ID of the receiver"
)

// hello is what a handshake says.
type hello struct {
	cluster, from, to, epoch uint64
	kind                     string
}

// refusal is why a handshake fails here.
type refusal struct {
	status int
	text   string
}

func refuse(status int, format string, args ...any) *refusal {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// parseHello reads a handshake. It does not look at who the sender is.
func parseHello(r *http.Request) (hello, *refusal) {
	var h hello
	if r.Method != http.MethodGet {
		return h, refuse(http.StatusMethodNotAllowed, "Method Not Allowed")
	}
	upgrade := r.Header.Get("Upgrade")
	if upgrade != protocol || !hasToken(r.Header.Values("Connection"), "upgrade") || !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 {
		return h, refuse(http.StatusUpgradeRequired, "this is %s", protocol)
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return h, refuse(http.StatusBadRequest, "the request has a body")
	}
	for _, f := range []struct {
		name string
		to   *uint64
	}{{headerCluster, &h.cluster}, {headerFrom, &h.from}, {headerTo, &h.to}, {headerEpoch, &h.epoch}} {
		v, err := api.ParseID(r.Header.Get(f.name))
		if err != nil {
			return h, refuse(http.StatusBadRequest, "header %s is not a number in hex", f.name)
		}
		*f.to = v
	}
	h.kind = r.Header.Get(headerKind)
	if h.kind != kindRaft && h.kind != kindAppend && h.kind != kindRPC {
		return h, refuse(http.StatusBadRequest, "header %s is neither raft nor append nor rpc", headerKind)
	}
	return h, nil
}

// hasToken looks for a token, in any case, in a header that is a comma-separated list.
func hasToken(values []string, token string) bool {
	for _, v := range values {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// admit decides on a handshake. A sender that is not in the directory and not removed is let in: the
// log entry that adds it may not have arrived here yet.
func (p *Peers) admit(h hello) *refusal {
	ready := p.ready.Load()
	switch {
	case h.cluster != p.cfg.Cluster:
		return refuse(http.StatusPreconditionFailed, textWrongCluster)
	case h.epoch != p.cfg.Epoch:
		return refuse(http.StatusPreconditionFailed, textWrongEpoch)
	case ready && p.cfg.Directory.Removed(h.from):
		return refuse(http.StatusGone, textRemoved)
	case h.to != p.cfg.Self:
		return refuse(http.StatusConflict, "this is member %s, not %s", api.FormatID(p.cfg.Self), api.FormatID(h.to))
	case h.from == p.cfg.Self:
		return refuse(http.StatusConflict, textOwnID)
	case !ready:
		return refuse(http.StatusServiceUnavailable, textNotReady)
	}
	return nil
}

// serveUpgrade is the receiving side of the handshake.
func (p *Peers) serveUpgrade(w http.ResponseWriter, r *http.Request) {
	h, no := parseHello(r)
	drops := p.dropped(h.from)
	if no == nil {
		if no = p.admit(h); no != nil {
			p.logRefused(h, no, r.RemoteAddr)
		}
	}
	var l *Layer
	if no == nil && h.kind != kindRPC {
		p.mu.RLock()
		l = p.layer
		p.mu.RUnlock()
		if l == nil || l.isClosed() {
			no = refuse(http.StatusServiceUnavailable, textNotReady)
		}
	}
	if no != nil {
		if no.status == http.StatusUpgradeRequired {
			w.Header().Set("Upgrade", protocol)
		}
		if no.status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", http.MethodGet)
		}
		http.Error(w, no.text, no.status)
		return
	}

	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	raw.SetDeadline(time.Now().Add(handshakeTimeout))
	if _, err := io.WriteString(raw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol+"\r\n\r\n"); err != nil {
		raw.Close()
		return
	}
	raw.SetDeadline(time.Time{})
	c, err := p.track(raw, buffered.Reader, h.from, drops)
	if err != nil {
		return
	}
	if l != nil {
		l.deliver(c, h.kind)
		return
	}
	p.accepted(c)
}

// logRefused says once in a while what an operator should know about a refused sender.
func (p *Peers) logRefused(h hello, no *refusal, addr string) {
	if no.status == http.StatusServiceUnavailable || !p.quiet.allow(no.text, h.from, time.Now()) {
		return
	}
	from := api.FormatID(h.from)
	switch no.text {
	case textWrongCluster:
		p.log.Error("request cluster ID mismatch", "peer", from, "address", addr,
			"got", api.FormatID(h.cluster), "want", api.FormatID(p.cfg.Cluster))
	case textRemoved:
		p.log.Warn("rejected the stream from a peer since it was removed", "peer", from, "address", addr)
	default:
		p.log.Error("refused a peer", "peer", from, "address", addr, "reason", no.text)
	}
}

// dial opens an upgraded connection to a member: at the first of its URLs where that member answers.
func (p *Peers) dial(ctx context.Context, to uint64, kind string) (*conn, error) {
	drops := p.dropped(to)
	urls := p.cfg.Directory.PeerURLs(to)
	if len(urls) == 0 {
		return nil, fmt.Errorf("no peer URL of member %s is known", api.FormatID(to))
	}
	var errs []error
	for _, u := range urls {
		c, err := p.dialURL(ctx, to, drops, u, kind)
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			p.refused(to, refused)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// refused passes on that a member does not want to speak with us.
func (p *Peers) refused(by uint64, e *RefusedError) {
	if e.Status == http.StatusPreconditionFailed && p.quiet.allow("refused us: "+e.Text, by, time.Now()) {
		p.log.Error("request sent was ignored", "reason", e.Text, "peer", api.FormatID(by), "url", e.URL,
			"cluster", api.FormatID(p.cfg.Cluster), "epoch", p.cfg.Epoch)
	}
	if p.cfg.OnRefused != nil {
		p.cfg.OnRefused(by, e)
	}
}

func (p *Peers) dialURL(ctx context.Context, to, drops uint64, rawURL, kind string) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, err
	}
	var raw net.Conn
	dialer := &net.Dialer{Timeout: dialTimeout}
	switch u.Scheme {
	case "http":
		raw, err = dialer.DialContext(ctx, "tcp", u.Host)
	case "https":
		raw, err = (&tls.Dialer{NetDialer: dialer, Config: p.tlsConfig()}).DialContext(ctx, "tcp", u.Host)
	default:
		err = errors.New("scheme must be http or https")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rawURL, err)
	}
	// The context ends the handshake, but not the connection.
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	c, err := p.greet(raw, u, to, drops, kind)
	if !stop() && err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: %w", rawURL, ctx.Err())
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

// greet is the sending side of the handshake.
func (p *Peers) greet(raw net.Conn, u *url.URL, to, drops uint64, kind string) (*conn, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n", upgradePath, u.Host, protocol)
	for _, f := range [][2]string{
		{headerCluster, api.FormatID(p.cfg.Cluster)},
		{headerFrom, api.FormatID(p.cfg.Self)},
		{headerTo, api.FormatID(to)},
		{headerEpoch, strconv.FormatUint(p.cfg.Epoch, 16)},
		{headerKind, kind},
	} {
		fmt.Fprintf(&b, "%s: %s\r\n", f[0], f[1])
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(raw, b.String()); err != nil {
		return nil, fmt.Errorf("%s: handshake: %w", u, err)
	}
	// What is read ahead of the answer's end belongs to the connection.
	limited := &io.LimitedReader{R: raw, N: maxHeader}
	r := bufio.NewReader(limited)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return nil, fmt.Errorf("%s: handshake: %w", u, err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		resp.Body.Close()
		return nil, &RefusedError{Status: resp.StatusCode, Text: strings.TrimSpace(string(text)), URL: u.String()}
	}
	if resp.Header.Get("Upgrade") != protocol {
		return nil, fmt.Errorf("%s: handshake: upgraded to %q, want %q", u, resp.Header.Get("Upgrade"), protocol)
	}
	return p.track(raw, r, to, drops)
}
