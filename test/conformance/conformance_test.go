package conformance

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/auth"
	"github.com/quorate/quorate/httpd/httpdtest"
)

// TestReplay holds the HTTP layer, the tree, and users and roles to the transcripts, without raft in
// between.
func TestReplay(t *testing.T) {
	args := SkipBetter[:2:2]
	if testing.Short() {
		args = append([]string{"--phases", "fresh,serial,exclusive"}, args...) // what is left waits for keys to expire
	}
	member := httpdtest.New(1000) // the history of etcd
	defer member.Close()
	guard := auth.New(auth.Options{Cost: bcrypt.MinCost})
	guard.SetBackend(member)
	server := httpd.NewServer(httpd.Options{Authorizer: guard, Auth: guard}, member)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()

	Replay(t, "http://"+l.Addr().String(), args...)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}
