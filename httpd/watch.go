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
func (s *Server) watch(w http.ResponseWriter, r *http.Request, m *member, req *keyRequest) error {
	t := m.Tree()
	watcher, err := t.Watch(req.path, req.recursive, req.stream, req.waitIndex)
	if err != nil {
		return err
	}
	defer watcher.Close()

	rc := http.NewResponseController(w)
	// A watch may wait for ever; each event gets a time limit of its own. Not every
	// ResponseWriter has deadlines: without, the limits of its connection apply.
	rc.SetReadDeadline(time.Time{})
	rc.SetWriteDeadline(time.Time{})

	raftIndex, raftTerm := m.RaftState()
	setIndexes(w.Header(), watcher.StartIndex(), raftIndex, raftTerm)
	w.WriteHeader(http.StatusOK)
	if err := rc.Flush(); err != nil {
		return nil
	}

	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	for {
		event, err := watcher.Next(ctx)
		switch {
		case err == nil:
		case errors.Is(err, tree.ErrWatcherClosed):
			return nil
		case s.stopping.Err() != nil:
			// A final chunk would say that the answer is complete. Without it the client knows to
			// ask another member.
			panic(http.ErrAbortHandler)
		default:
			return nil // the client went away
		}
		rc.SetWriteDeadline(time.Now().Add(s.opts.WriteTimeout))
		if _, err := w.Write(event.JSON()); err != nil {
			return nil
		}
		if !req.stream {
			return nil
		}
		if err := rc.Flush(); err != nil {
			return nil
		}
		rc.SetWriteDeadline(time.Time{})
	}
}
