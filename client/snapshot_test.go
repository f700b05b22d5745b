//go:build linux

package client_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/quorate/quorate/api"
	"github.com/quorate/quorate/client"
)

// TestSnapshot goes on to the next endpoint after one that is down or cannot, and not after a refusal.
func TestSnapshot(t *testing.T) {
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.String() != "/quorate/v1/snapshot?quorum=true" {
				t.Errorf("asked for %s", r.URL)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	busy, _ := serve(t, answer(503, `{"message":"too many"}`))
	good, asked := serve(t, answer(200, "the file"))
	forbidden, _ := serve(t, answer(401, `{"message":"Insufficient credentials"}`))
	cut, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1<<16))
		panic(http.ErrAbortHandler)
	})
	snapshot := func(endpoints ...string) (string, error) {
		c, err := client.New(client.Config{Endpoints: endpoints})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseIdleConnections()
		body, err := c.Snapshot(t.Context(), true)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(body)
		return string(b), errors.Join(err, body.Close())
	}

	if got, err := snapshot(refused(t), busy, good); err != nil || got != "the file" {
		t.Errorf("Snapshot = %q, %v", got, err)
	}
	before := asked.Load()
	_, err := snapshot(forbidden, good)
	if refusal := (*api.StatusError)(nil); !errors.As(err, &refusal) || refusal.Status != 401 || asked.Load() != before {
		t.Errorf("Snapshot after a refusal: %v, and %d more requests", err, asked.Load()-before)
	}
	_, err = snapshot(refused(t), busy)
	if failed := (*client.ConnectError)(nil); !errors.As(err, &failed) || len(failed.Errors) != 2 {
		t.Errorf("Snapshot from nobody: %v", err)
	}
	if _, err := snapshot(cut); err == nil {
		t.Error("an answer that broke off is no error")
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c, err := client.New(client.Config{Endpoints: []string{good}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Snapshot(ctx, true); !errors.Is(err, context.Canceled) {
		t.Errorf("Snapshot when nobody wants it: %v", err)
	}
}
