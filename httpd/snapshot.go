package httpd

import (
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/httpd/plain"
)

// maxSnapshots is how many snapshots are sent at once: each keeps alive what has been overwritten since
// it was taken, for as long as its client needs to read it.
const maxSnapshots = 4

var errManySnapshots = &api.StatusError{Status: http.StatusServiceUnavailable, Message: "too many snapshots are being read, try again later"}

// snapshot serves GET /quorate/v1/snapshot: all state of this member at one moment, as the file that
// package backup describes. With quorum=true it is at least as new as the moment of the request. It
// holds the hashes of passwords, so it is for the role root.
//
// Once the answer has begun, a failure can only be shown by its missing end.
func (s *Server) snapshot(w http.ResponseWriter, r *http.Request, m *member) error {
	start := time.Now()
	if !m.may(r, Access{Kind: Admin}) {
		return errAdminCredentials
	}
	quorum, err := boolParameter(r, "quorum")
	if err != nil {
		return err
	}
	select {
	case s.snapshots <- struct{}{}:
		defer func() { <-s.snapshots }()
	default:
		return errManySnapshots
	}
	if quorum {
		ctx, cancel := s.work(w, start)
		defer cancel()
		if err := m.Linearizable(ctx); err != nil {
			return &api.StatusError{Status: http.StatusServiceUnavailable, Message: "no quorum: " + err.Error()}
		}
	}
	state, err := m.Backup()
	if err != nil {
		return &api.StatusError{Status: http.StatusServiceUnavailable, Message: err.Error()}
	}
	defer state.Release()

	h := w.Header()
	h.Set("Content-Type", backup.ContentType)
	h[api.HeaderClusterID] = m.clusterID
	h.Set(api.HeaderIndex, strconv.FormatUint(state.Info.Index, 10))
	h.Set(api.HeaderRaftIndex, strconv.FormatUint(state.Info.RaftIndex, 10))
	h.Set(api.HeaderRaftTerm, strconv.FormatUint(state.Info.Term, 10))
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Time{}) // or it would end the request while it is answered
	n, err := state.WriteTo(&pieceWriter{w: w, rc: rc, timeout: s.opts.WriteTimeout})
	if err != nil {
		s.log.Warn("snapshot cut off", "bytes", n, "remote", r.RemoteAddr, "error", err)
		panic(http.ErrAbortHandler)
	}
	s.log.Info("snapshot sent", "index", state.Info.Index, "bytes", n, "elapsed", time.Since(start), "remote", r.RemoteAddr)
	return nil
}

// pieceWriter gives the client a time limit for each piece of an answer, not for the whole.
type pieceWriter struct {
	w       io.Writer
	rc      *http.ResponseController
	timeout time.Duration
}

func (p *pieceWriter) Write(b []byte) (int, error) {
	written := 0
	for {
		p.rc.SetWriteDeadline(time.Now().Add(p.timeout))
		n, err := p.w.Write(b[:min(len(b), plain.WritePiece)])
		written += n
		if b = b[n:]; err != nil || len(b) == 0 {
			return written, err
		}
	}
}

// boolParameter returns a parameter of the query that is true or false; false when it is not there.
func boolParameter(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, &api.StatusError{Status: http.StatusBadRequest, Message: name + " is true or false, not " + strconv.Quote(text)}
	}
	return on, nil
}
