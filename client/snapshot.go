package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/quorate/quorate/api"
)

// maxRefusal bounds what is read of an answer that is no snapshot.
const maxRefusal = 64 << 10

// Snapshot asks the endpoints in turn until one sends its snapshot, which is to be read to its end and
// closed. With quorum it is at least as new as the moment of the call. Whether it is whole only the
// file itself can say (package backup).
func (c *Client) Snapshot(ctx context.Context, quorum bool) (io.ReadCloser, error) {
	c.mu.Lock()
	endpoints, first := c.endpoints, c.pinned
	c.mu.Unlock()

	r := request{method: http.MethodGet, path: "/quorate/v1/snapshot", query: url.Values{"quorum": {strconv.FormatBool(quorum)}}}
	failed := &ConnectError{Sent: true}
	for i := range endpoints {
		body, err := c.stream(ctx, endpoints[(first+i)%len(endpoints)], r)
		if err == nil {
			return body, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var refused *api.StatusError
		if errors.As(err, &refused) && refused.Status < 500 {
			return nil, refused
		}
		failed.Errors = append(failed.Errors, err)
	}
	return nil, failed
}

// stream sends a request to one endpoint and returns the body of the answer, for the caller to read.
func (c *Client) stream(ctx context.Context, endpoint *url.URL, r request) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	u := *endpoint
	u.Path = endpoint.Path + r.path
	u.RawQuery = r.query.Encode()
	res, err := c.roundTrip(ctx, cancel, endpoint, &u, r)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if res.StatusCode == http.StatusOK {
		return &streamed{res.Body, cancel}, nil
	}
	defer cancel(nil)
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	if err != nil {
		return nil, err
	}
	return nil, refusal(&answer{endpoint.String(), res.StatusCode, res.Header, body})
}

// streamed is a body that ends its request when it is closed.
type streamed struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (s *streamed) Close() error {
	err := s.ReadCloser.Close()
	s.cancel(nil)
	return err
}
