//go:build linux && docker

package docker

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
)

// TestImage looks at what is in the image, and at how a container of it runs and ends.
func TestImage(t *testing.T) {
	t.Parallel()
	b := newBench(t, "image")
	for field, want := range map[string]string{
		".Config.User":                  "65532:65532",
		"json .Config.Volumes":          `{"/data":{}}`,
		"json .Config.ExposedPorts":     `{"2379/tcp":{},"2380/tcp":{}}`,
		"json .Config.Entrypoint":       `["/quorate"]`,
		"json .Config.Healthcheck.Test": `["CMD","/quorate","health"]`,
		"len .RootFS.Layers":            "2", // the binary and the directory
	} {
		if have := b.docker("image", "inspect", "--format", "{{"+field+"}}", b.image); have != want {
			t.Errorf("%s of the image is %s, want %s", field, have, want)
		}
	}

	b.add("run", "one", []string{"--read-only", "--cap-drop", "ALL", "--volume", b.volume("one") + ":/data"})
	b.waitHealth("healthy", "one")
	if top := strings.Fields(b.docker("top", b.name("one"), "-eo", "pid,uid,gid,args")); len(top) != 9 || !slices.Equal(top[5:], []string{"65532", "65532", "/quorate", "serve"}) {
		t.Errorf("processes are %v, want only the server, of user 65532", top)
	}
	if out, err := b.try("exec", b.name("one"), "/bin/sh", "-c", "true"); err == nil {
		t.Errorf("there is a shell in the image, it says %q", out)
	}
	if out, err := b.exec("one", "set", "/x", "1"); err != nil || out != "1" {
		t.Errorf("set /x 1 = %q, %v", out, err)
	}
	b.docker("stop", b.name("one"))
	if code := b.inspect("one", ".State.ExitCode"); code != "0" {
		t.Errorf("docker stop ended it with exit status %s, want 0", code)
	}
	b.docker("rm", b.name("one"))
	b.add("run", "two", []string{"--volume", b.volume("one") + ":/data"})
	b.waitHealth("healthy", "two")
	if out, err := b.exec("two", "get", "/x"); err != nil || out != "1" {
		t.Errorf("a new container on the same volume says /x = %q (%v), want 1", out, err)
	}
}

// member is the docker arguments of a member that finds the others by a discovery URL. It is reached by the name
// of its container.
func (b *bench) member(short, name, discovery string) []string {
	host := b.name(short)
	return []string{
		"--read-only", "--cap-drop", "ALL",
		"--volume", b.volume(short) + ":/data",
		"--publish", "127.0.0.1::2379",
		"--env", "QUORATE_NAME=" + name,
		"--env", "QUORATE_DISCOVERY=" + discovery,
		"--env", "QUORATE_INITIAL_ADVERTISE_PEER_URLS=http://" + host + ":2380",
		"--env", "QUORATE_ADVERTISE_CLIENT_URLS=http://" + host + ":2379",
	}
}

// TestCluster has three containers find each other by a discovery URL, cuts one off from the network, and moves
// one to another container.
func TestCluster(t *testing.T) {
	t.Parallel()
	b := newBench(t, "cluster")
	b.add("run", "discovery", []string{"--publish", "127.0.0.1::2379"}, "serve", "--discovery-service-url", "http://"+b.name("discovery")+":2379")
	b.waitHealth("healthy", "discovery")
	token, err := b.get("discovery", "/new?size=3")
	if err != nil {
		t.Fatal(err)
	}
	token = strings.TrimSpace(token)
	members := []string{"n1", "n2", "n3"}
	for _, m := range members {
		b.add("run", m, b.member(m, m, token))
	}
	b.waitHealth("healthy", members...)

	b.mustPut("n1", "/greeting", "hello")
	for _, m := range members {
		if out, err := b.exec(m, "get", "--quorum", "/greeting"); err != nil || out != "hello" {
			t.Errorf("in %s /greeting = %q (%v), want hello", m, out, err)
		}
	}
	// The host of the token is needed no more.
	b.docker("rm", "-f", b.name("discovery"))

	if !t.Run("cut off", b.testCutOff) {
		return
	}
	t.Run("moved", func(t *testing.T) { b.testMoved(t, token) })
}

// testCutOff takes the leader off the network and puts it back.
func (b *bench) testCutOff(t *testing.T) {
	b.t = t
	lone := b.leader("n1")
	others := slices.DeleteFunc([]string{"n1", "n2", "n3"}, func(m string) bool { return m == lone })
	b.docker("network", "disconnect", b.net, b.name(lone))
	start := time.Now()
	b.eventually("a write on the other side", func() error { return b.put(others[0], "/greeting", "goodbye") })
	t.Logf("measured: writable %v after the leader %s was cut off", time.Since(start).Round(time.Millisecond), lone)
	if out, err := b.exec(lone, "--no-sync", "get", "/greeting"); err != nil || out != "hello" {
		t.Errorf("in the lone %s /greeting = %q (%v), want the old value", lone, out, err)
	}
	if out, err := b.exec(lone, "--no-sync", "set", "/lone", "1"); err == nil {
		t.Errorf("a write was done in the lone %s: %q", lone, out)
	}
	b.waitHealth("unhealthy", lone)
	b.docker("network", "connect", b.net, b.name(lone))
	delete(b.ports, lone) // may be another now
	start = time.Now()
	b.eventually(lone+" to catch up", func() error {
		out, err := b.exec(lone, "--no-sync", "get", "/greeting")
		if err == nil && out != "goodbye" {
			err = fmt.Errorf("/greeting = %q", out)
		}
		return err
	})
	t.Logf("measured: caught up %v after it was put back", time.Since(start).Round(time.Millisecond))
	b.waitHealth("healthy", lone)
	for _, m := range []string{"n1", "n2", "n3"} {
		if out, err := b.exec(m, "--no-sync", "get", "--quorum", "/lone"); err == nil {
			t.Errorf("in %s the write appears that was not done: %q", m, out)
		}
	}
}

// leader returns the container of the leader.
func (b *bench) leader(asked string) string {
	b.t.Helper()
	text, err := b.get(asked, "/v2/members/leader")
	if err != nil {
		b.t.Fatal(err)
	}
	var m api.Member
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		b.t.Fatal(err)
	}
	return m.Name
}

// testMoved stops a member, copies its volume, and starts it in another container, at another address.
func (b *bench) testMoved(t *testing.T, token string) {
	b.t = t
	lead := b.leader("n1")
	old := "n3"
	if lead == "n3" {
		old = "n2"
	}
	id := b.memberID(lead, old)
	for i := range 50 {
		b.mustPut(old, fmt.Sprintf("/move/before-%d", i), "1")
	}
	b.docker("stop", b.name(old))
	fresh := old + "b"
	b.add("create", fresh, b.member(fresh, old, token))
	b.copyData(old, fresh)
	b.docker("rm", b.name(old))
	b.docker("volume", "rm", b.name(old))
	for i := range 50 {
		b.mustPut(lead, fmt.Sprintf("/move/after-%d", i), "1")
	}
	if out, err := b.exec(lead, "member", "update", id, "http://"+b.name(fresh)+":2380"); err != nil {
		t.Fatalf("member update: %v (%s)", err, out)
	}
	b.docker("start", b.name(fresh))
	b.waitHealth("healthy", fresh)

	if now := b.memberID(lead, old); now != id {
		t.Errorf("the ID of %s is now %s, was %s", old, now, id)
	}
	b.eventually("its new client URL in the list", func() error {
		out, err := b.exec(lead, "member", "list")
		if err == nil && !strings.Contains(out, "clientURLs=http://"+b.name(fresh)+":2379") {
			err = fmt.Errorf("members are\n%s", out)
		}
		return err
	})
	out, err := b.exec(fresh, "--no-sync", "ls", "/move")
	if err != nil || len(strings.Fields(out)) != 100 {
		t.Errorf("%s lists %d keys (%v), want all 100", fresh, len(strings.Fields(out)), err)
	}
	b.mustPut(fresh, "/greeting", "here again")
	if out, err := b.exec(lead, "cluster-health"); err != nil {
		t.Errorf("cluster-health: %v\n%s", err, out)
	}
}

// copyData copies the volume of a stopped container to that of one that was not started yet, with owners.
func (b *bench) copyData(from, to string) {
	b.t.Helper()
	if out, err := pipe(
		[]string{"docker", "cp", b.name(from) + ":/data/.", "-"},
		[]string{"docker", "cp", "-", b.name(to) + ":/data"},
	); err != nil {
		b.t.Fatalf("copy the volume: %v\n%s", err, out)
	}
}

// memberID finds a member by its name.
func (b *bench) memberID(asked, name string) string {
	b.t.Helper()
	text, err := b.get(asked, "/v2/members")
	if err != nil {
		b.t.Fatal(err)
	}
	var list struct{ Members []api.Member }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		b.t.Fatal(err)
	}
	i := slices.IndexFunc(list.Members, func(m api.Member) bool { return m.Name == name })
	if i < 0 {
		b.t.Fatalf("no member is called %s: %+v", name, list)
	}
	return list.Members[i].ID
}
