package httpd_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/backup"
	"github.com/quorate/quorate/fsm/tree"
	"github.com/quorate/quorate/httpd"
	"github.com/quorate/quorate/httpd/httpdtest"
)

func TestSnapshot(t *testing.T) {
	r := start(t, httpd.Options{})
	r.set("/a/b", "1")
	for _, path := range []string{"/quorate/v1/snapshot", "/quorate/v1/snapshot?quorum=true"} {
		resp, body := r.do("GET", path, "")
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != backup.ContentType || resp.Header.Get("X-Etcd-Index") != "4" || !has(resp.Header, "X-Etcd-Cluster-Id") {
			t.Fatalf("GET %s: %d %v", path, resp.StatusCode, resp.Header)
		}
		content, err := backup.Read(strings.NewReader(body), int64(len(body)))
		if err != nil {
			t.Fatalf("GET %s: %v", path, err)
		}
		if i := content.Info; i.Index != 4 || i.Keys != 1 || i.Dirs != 1 || i.Member != r.member.Self.ID || i.Name != "default" {
			t.Errorf("GET %s has the header %+v", path, i)
		}
		restored := tree.New(1000)
		if err := restored.Restore(content.State()); err != nil {
			t.Fatal(err)
		}
		if got, _ := restored.Checksum(); got != sum(r.member) {
			t.Errorf("GET %s has another state than the member", path)
		}
	}
	r.want("GET", "/quorate/v1/snapshot?quorum=perhaps", "", 400, `{"message":"quorum is true or false, not \"perhaps\""}`)
	r.want("HEAD", "/quorate/v1/snapshot", "", 405, "")
}

func sum(m *httpdtest.Member) uint64 {
	sum, _ := m.Tree().Checksum()
	return sum
}

// A snapshot holds the hashes of passwords.
func TestSnapshotIsForRoot(t *testing.T) {
	r := start(t, httpd.Options{Authorizer: &refuser{}})
	r.want("GET", "/quorate/v1/snapshot", "", 401, `{"message":"Insufficient credentials"}`)
	r.want("POST", "/quorate/v1/leader", "", 401, `{"message":"Insufficient credentials"}`)
}

// backedUp is a member that gives out backups of the test's.
type backedUp struct {
	httpd.Backend
	backup func() (*backup.State, error)
}

func (b backedUp) Backup() (*backup.State, error) { return b.backup() }

func TestSnapshotFails(t *testing.T) {
	r := start(t, httpd.Options{})
	r.member.Fail = func(context.Context) error { return errors.New("no leader") }
	r.want("GET", "/quorate/v1/snapshot?quorum=true", "", 503, `{"message":"no quorum: no leader"}`)
	r.member.Fail = nil

	r.SetBackend(backedUp{r.member, func() (*backup.State, error) { return nil, errors.New("nothing yet") }})
	r.want("GET", "/quorate/v1/snapshot", "", 503, `{"message":"nothing yet"}`)

	// What fails on the way is cut off: neither the connection nor the file says that it is whole.
	released := make(chan bool, 1)
	r.SetBackend(backedUp{r.member, func() (*backup.State, error) {
		return &backup.State{State: failing{}, Release: func() { released <- true }}, nil
	}})
	resp, err := http.Get("http://" + r.addr + "/quorate/v1/snapshot")
	if err == nil {
		var body []byte
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if _, whole := backup.Read(bytes.NewReader(body), int64(len(body))); whole == nil {
			t.Error("what was cut off is a whole backup")
		}
	}
	if err == nil {
		t.Error("the answer ended as if it were complete")
	}
	<-released
}

type failing struct{}

func (failing) WriteTo(w io.Writer) (int64, error) {
	n, _ := w.Write(make([]byte, 1<<20))
	return int64(n), errors.New("disk on fire")
}

// Only so many are sent at once, and each makes room for another when it ends.
func TestManySnapshots(t *testing.T) {
	r := start(t, httpd.Options{})
	begun, goOn := make(chan bool, 1), make(chan bool)
	r.SetBackend(backedUp{r.member, func() (*backup.State, error) {
		select {
		case begun <- true:
		case <-goOn:
		}
		<-goOn
		return r.member.Backup()
	}})
	const limit = 4
	done := make(chan int, limit)
	get := func() {
		resp, err := http.Get("http://" + r.addr + "/quorate/v1/snapshot")
		if err != nil {
			t.Error(err)
			done <- 0
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		done <- resp.StatusCode
	}
	for range limit {
		go get()
		<-begun
	}
	r.want("GET", "/quorate/v1/snapshot", "", 503, `{"message":"too many snapshots are being read, try again later"}`)
	close(goOn)
	for range limit {
		if status := <-done; status != 200 {
			t.Errorf("status %d, want 200", status)
		}
	}
	// The last byte arrives before the handler returns.
	for deadline := time.Now().Add(patience); ; {
		go get()
		if status := <-done; status == 200 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("status %d afterwards, want 200", status)
		}
	}
}
