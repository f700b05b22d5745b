package httpd

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/quorate/quorate/fsm/tree"
)

// watch serves GET with wait=true. The head of the answer leaves at once, with the indexes of now,
// before there is any event; so later trouble can only show as an end of the body (spec watch 2).
//
// It ends after one event, or with stream=true when the client goes away, when the client was too
// slow and has got all that was queued for it, or when the server stops.
//
// It returns false if it could not begin. What to answer is in c then, unless there are too many watchers,
// which it answers itself.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, c *call) bool {
	s.metrics.watchRequests.Inc()
	done, refusal := s.limits.Watch(r.RemoteAddr)
	if refusal != nil {
		c.status = refusal.Status
		s.metrics.failed(c.method, c.status)
		refusal.Write(w)
		return true
	}
	defer done()
	watcher, err := c.member.Tree().Watch(c.path, c.recursive, c.stream, c.waitIndex)
	if err != nil {
		s.refuse(c, err)
		s.metrics.failed(c.method, c.status)
		return false
	}
	defer watcher.Close()

	rc := http.NewResponseController(w)
	// A watch may wait for ever; each event gets a time limit of its own. Not every
	// ResponseWriter has deadlines: without, the limits of its connection apply.
	rc.SetReadDeadline(time.Time{})
	rc.SetWriteDeadline(time.Time{})

	c.watchedFrom, c.status = watcher.StartIndex(), http.StatusOK
	c.raftIndex, c.raftTerm = c.member.RaftState()
	c.setHeader(w.Header())
	w.WriteHeader(c.status)
	if rc.Flush() == nil {
		s.sendEvents(w, rc, r, watcher, c.stream)
	}
	return true
}

// sendEvents sends what watcher sees until the watch ends.
func (s *Server) sendEvents(w http.ResponseWriter, rc *http.ResponseController, r *http.Request, watcher *tree.Watcher, stream bool) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	for {
		event, err := watcher.Next(ctx)
		switch {
		case err == nil:
		case errors.Is(err, tree.ErrWatcherClosed):
			return
		case s.stopping.Err() != nil:
			// A final chunk would say that the answer is complete. Without it the client knows to
			// ask another member.
			panic(http.ErrAbortHandler)
		default:
			return // the client went away
		}
		rc.SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
		if _, err := w.Write(event.JSON()); err != nil {
			return
		}
		if !stream {
			return
		}
		if err := rc.Flush(); err != nil {
			return
		}
		rc.SetWriteDeadline(time.Time{})
	}
}
