//go:build linux && docker

package docker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestComposeUp starts the compose project with docker run, service by service, as docker compose up does:
// each after those that it depends on, and when these are as far as it wants them to be.
func TestComposeUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, "compose")
	project := readCompose(t)
	for name := range project.Volumes {
		b.volume(name)
	}
	started := map[string]bool{}
	for len(started) < len(project.Services) {
		next := b.startable(project, started)
		if len(next) == 0 {
			t.Fatalf("after %v nothing can be started: services depend on each other in a circle", started)
		}
		for _, name := range next {
			b.startService(project, name)
			started[name] = true
		}
	}
	b.waitHealth("healthy", "n1", "n2", "n3")
	// The client in a container may ask the cluster for its members; one on the host may not.
	if out, err := b.exec("n1", "set", "/greeting", "hello"); err != nil || out != "hello" {
		t.Errorf("set /greeting hello in n1 = %q (%v)", out, err)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if out, err := b.get(name, "/v2/keys/greeting?quorum=true"); err != nil || !strings.Contains(out, `"value":"hello"`) {
			t.Errorf("GET /greeting at the port of %s = %s (%v), want hello", name, out, err)
		}
	}
	if out, err := b.exec("n3", "cluster-health"); err != nil || strings.Count(out, "is healthy: got healthy result") != 3 {
		t.Errorf("cluster-health: %v\n%s", err, out)
	}
}

// startable are the services whose dependencies are started, sorted, without those that are.
func (b *bench) startable(project composeFile, started map[string]bool) []string {
	var next []string
	for name, s := range project.Services {
		ready := !started[name]
		for dep := range s.DependsOn {
			ready = ready && started[dep]
		}
		if ready {
			next = append(next, name)
		}
	}
	slices.Sort(next)
	return next
}

// startService waits for what a service depends on and starts its container. On the network it has the name of
// the service. It publishes ports that are free instead of those in the file.
func (b *bench) startService(project composeFile, name string) {
	b.t.Helper()
	s := project.Services[name]
	for dep, want := range s.DependsOn {
		switch cmp.Or(want.Condition, "service_started") {
		case "service_started":
		case "service_healthy":
			b.waitHealth("healthy", dep)
		case "service_completed_successfully":
			if code := b.docker("wait", b.name(dep)); code != "0" {
				b.t.Fatalf("%s ended with exit status %s:\n%s", dep, code, b.docker("logs", b.name(dep)))
			}
		default:
			b.t.Fatalf("%s waits for %s to be %s, which compose does not know", name, dep, want.Condition)
		}
	}
	options := []string{"--network-alias", name, "--restart", cmp.Or(s.Restart, "no")}
	if s.ReadOnly {
		options = append(options, "--read-only")
	}
	for _, c := range s.CapDrop {
		options = append(options, "--cap-drop", c)
	}
	for key, value := range s.Environment {
		options = append(options, "--env", key+"="+value)
	}
	for _, p := range s.Ports {
		_, inside, _ := strings.Cut(p, ":")
		options = append(options, "--publish", "127.0.0.1::"+inside)
	}
	for _, v := range s.Volumes {
		volume, path, _ := strings.Cut(v, ":")
		options = append(options, "--volume", fmt.Sprintf("%s:%s", b.name(volume), path))
	}
	b.add("run", name, options, s.Command...)
}
