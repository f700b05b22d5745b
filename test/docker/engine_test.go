//go:build linux && docker

package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// deadline is how long every wait lasts before it fails the test. Nothing comes near it on a healthy machine.
const deadline = 60 * time.Second

// bench is what one test makes in the engine. It is removed with the test.
type bench struct {
	t      *testing.T
	prefix string // of all names
	image  string
	net    string
	ports  map[string]string // published addresses, by container
}

// newBench makes a network, and the image if it is the first. Tests may run side by side.
func newBench(t *testing.T, name string) *bench {
	t.Helper()
	b := &bench{t: t, prefix: prefix + os.Getenv(runVariable) + "-" + name + "-", ports: map[string]string{}}
	b.image = prefix + os.Getenv(runVariable)
	image.Do(func() {
		if unable == nil {
			b.build()
		}
	})
	if unable != nil {
		t.Skip(unable)
	}
	b.net = b.prefix + "net"
	b.docker("network", "create", b.net)
	b.t.Cleanup(func() { b.docker("network", "rm", b.net) })
	return b
}

// image guards the image, and unable while tests run.
var image sync.Once

// build makes the image as "make image" does, around the binary that TestMain has built.
func (b *bench) build() {
	b.t.Helper()
	dir := b.t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "data"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Link(os.Getenv(binaryVariable), filepath.Join(dir, "quorate")); err != nil {
		b.t.Fatal(err)
	}
	b.docker("build", "-q", "-t", b.image, "-f", filepath.Join(root, "configs/docker/Dockerfile.local"), dir)
	// 125 says that the engine failed, and not the program.
	var exit *exec.ExitError
	if _, err := b.try("run", "--rm", b.image, "version"); errors.As(err, &exit) && exit.ExitCode() == 125 {
		unable = fmt.Errorf("the engine cannot run containers: %w", err)
	}
}

// name is what something of this test is called in the engine, and in the network.
func (b *bench) name(short string) string { return b.prefix + short }

// docker runs the docker command and returns what it printed. A failure ends the test.
func (b *bench) docker(args ...string) string {
	b.t.Helper()
	out, err := b.try(args...)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *bench) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	// The builder of old, which every engine has.
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("docker %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// volume declares a volume, which is made when it is used first.
func (b *bench) volume(short string) string {
	name := b.name(short)
	b.t.Cleanup(func() {
		if _, err := b.try("volume", "inspect", name); err == nil {
			b.docker("volume", "rm", name)
		}
	})
	return name
}

// add makes a container, with docker's own arguments, the image and the arguments of the server, and starts it
// unless verb is create. It is removed with the test; its log is shown when the test fails.
func (b *bench) add(verb, short string, options []string, command ...string) {
	b.t.Helper()
	name := b.name(short)
	b.t.Cleanup(func() {
		if b.t.Failed() {
			text, err := exec.Command("docker", "logs", name).CombinedOutput()
			b.t.Logf("end of the log of %s (%v):\n%s", name, err, tail(string(text), 15))
		}
		if _, err := b.try("container", "inspect", name); err == nil {
			b.docker("rm", "-f", name)
		}
	})
	args := []string{verb, "--name", name, "--network", b.net, "--health-interval", "1s"}
	if verb == "run" {
		args = append(args, "--detach")
	}
	args = append(append(args, options...), b.image)
	b.docker(append(args, command...)...)
}

// exec runs the program's own client in a container: there is no other program.
func (b *bench) exec(short string, args ...string) (string, error) {
	patient := []string{"exec", b.name(short), "/quorate", "--timeout", "20s", "--total-timeout", "20s"}
	return b.try(append(patient, args...)...)
}

// inspect returns a field of a container.
func (b *bench) inspect(short, field string) string {
	b.t.Helper()
	return b.docker("container", "inspect", "--format", "{{"+field+"}}", b.name(short))
}

// waitHealth waits until the engine's own check of a container has this result.
func (b *bench) waitHealth(want string, shorts ...string) {
	b.t.Helper()
	for _, short := range shorts {
		b.eventually(short+" to be "+want, func() error {
			if have := b.inspect(short, ".State.Health.Status"); have != want {
				return fmt.Errorf("it is %s", have)
			}
			return nil
		})
	}
}

// eventually looks at a condition until it holds.
func (b *bench) eventually(what string, condition func() error) {
	b.t.Helper()
	start := time.Now()
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Since(start) > deadline {
			b.t.Fatalf("waited %v for %s: %v", deadline, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// client sends requests from outside, to published ports.
var client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

// url is a path on the published port of a container. The port is asked for once.
func (b *bench) url(short, path string) string {
	b.t.Helper()
	if b.ports[short] == "" {
		b.ports[short], _, _ = strings.Cut(b.docker("port", b.name(short), "2379/tcp"), "\n")
	}
	return "http://" + b.ports[short] + path
}

// get returns the body of an answer with status 200.
func (b *bench) get(short, path string) (string, error) {
	b.t.Helper()
	resp, err := client.Get(b.url(short, path))
	return body(resp, err)
}

// put sets a key from outside.
func (b *bench) put(short, key, value string) error {
	b.t.Helper()
	form := url.Values{"value": {value}}.Encode()
	req, err := http.NewRequest(http.MethodPut, b.url(short, "/v2/keys"+key), strings.NewReader(form))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, err = body(client.Do(req))
	return err
}

func (b *bench) mustPut(short, key, value string) {
	b.t.Helper()
	if err := b.put(short, key, value); err != nil {
		b.t.Fatalf("PUT %s on %s: %v", key, short, err)
	}
}

func body(resp *http.Response, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode/100 != 2 {
		return "", errors.New(resp.Status + " " + string(text))
	}
	return string(text), nil
}

// pipe runs two commands, the output of one being the input of the other.
func pipe(from, to []string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	one, other := exec.CommandContext(ctx, from[0], from[1:]...), exec.CommandContext(ctx, to[0], to[1:]...)
	var text strings.Builder
	one.Stderr, other.Stdout, other.Stderr = &text, &text, &text
	through, err := one.StdoutPipe()
	if err != nil {
		return "", err
	}
	other.Stdin = through
	if err := one.Start(); err != nil {
		return "", err
	}
	err = other.Run()
	through.Close() // nobody reads any more
	return text.String(), errors.Join(err, one.Wait())
}
