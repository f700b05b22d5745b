package docker

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/quorate/quorate/configs"
)

// root is the repository.
const root = "../.."

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// composeFile is what we use of a compose project.
type composeFile struct {
	Services map[string]service     `yaml:"services"`
	Volumes  map[string]interface{} `yaml:"volumes"`
	Common   interface{}            `yaml:"x-member"`
}

type service struct {
	Image       string            `yaml:"image"`
	Command     []string          `yaml:"command"`
	Restart     string            `yaml:"restart"`
	ReadOnly    bool              `yaml:"read_only"`
	CapDrop     []string          `yaml:"cap_drop"`
	Environment map[string]string `yaml:"environment"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	DependsOn   map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	var c composeFile
	decoder := yaml.NewDecoder(strings.NewReader(readFile(t, "configs/docker/compose.yaml")))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// environ is the environment of a container: the image's, and what the service adds.
func environ(t *testing.T, s service) []string {
	t.Helper()
	env := imageEnv(t)
	maps.Copy(env, s.Environment)
	var out []string
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	return out
}

// TestCompose checks that every member of the compose project has a configuration that the server takes without
// a word, that the members are three, and that they find each other by a discovery URL.
func TestCompose(t *testing.T) {
	c := readCompose(t)
	published := map[string]string{}
	discovered := 0
	for name, s := range c.Services {
		for dep := range s.DependsOn {
			if _, ok := c.Services[dep]; !ok {
				t.Errorf("%s depends on %s, which there is not", name, dep)
			}
		}
		for _, v := range s.Volumes {
			volume, path, _ := strings.Cut(v, ":")
			if _, ok := c.Volumes[volume]; !ok || path != "/data" {
				t.Errorf("%s has volume %s, want a declared one at /data", name, v)
			}
		}
		for _, p := range s.Ports {
			if other, ok := published[p]; ok {
				t.Errorf("%s and %s both publish %s", name, other, p)
			}
			published[p] = name
		}
		args := s.Command
		if len(args) > 0 {
			if args[0] != "serve" {
				continue // a client
			}
			args = args[1:]
		}
		cfg, notices, err := configs.Parse(args, environ(t, s))
		if err != nil {
			t.Errorf("configuration of %s: %v", name, err)
			continue
		}
		for _, n := range append(notices, cfg.Warnings()...) {
			if n.Warn {
				t.Errorf("configuration of %s: %s", name, n.Text)
			}
		}
		if len(s.Volumes) != 1 {
			t.Errorf("%s has volumes %v, want one for its data", name, s.Volumes)
		}
		if cfg.Discovery == "" {
			continue
		}
		discovered++
		for _, urls := range []configs.URLs{cfg.InitialAdvertisePeerURLs, cfg.AdvertiseClientURLs} {
			if len(urls) != 1 || !strings.HasPrefix(urls[0], "http://"+name+":") {
				t.Errorf("%s advertises %v, where no other container finds it", name, urls)
			}
		}
		if cfg.Name != name {
			t.Errorf("the name of %s is %s", name, cfg.Name)
		}
	}
	if discovered != 3 {
		t.Errorf("%d members use a discovery URL, want 3", discovered)
	}
}

// TestDockerfiles checks that the image of a release and the one around a local binary are the same in all that
// a container shows.
func TestDockerfiles(t *testing.T) {
	release, local := stage(t, "Dockerfile"), stage(t, "configs/docker/Dockerfile.local")
	if !slices.Equal(release, local) {
		t.Errorf("the images differ:\n%s\n\n%s", strings.Join(release, "\n"), strings.Join(local, "\n"))
	}
	for _, want := range []string{"USER 65532:65532", "VOLUME /data", "EXPOSE 2379 2380", `ENTRYPOINT ["/quorate"]`} {
		if !slices.Contains(release, want) {
			t.Errorf("the image has no %s", want)
		}
	}
	if _, notices, err := configs.Parse(nil, environ(t, service{})); err != nil || len(notices) > 0 {
		for _, n := range notices {
			if n.Warn {
				t.Errorf("the image's environment: %s", n.Text)
			}
		}
		if err != nil {
			t.Errorf("the image's environment: %v", err)
		}
	}
}

// stage is what the last stage of a Dockerfile sets, apart from the files: an instruction each, on one line.
func stage(t *testing.T, path string) []string {
	t.Helper()
	text := strings.ReplaceAll(readFile(t, path), "\\\n", "")
	last := text[strings.LastIndex(text, "\nFROM "):]
	var out []string
	for line := range strings.Lines(last) {
		line = strings.Join(strings.Fields(line), " ")
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "COPY ") {
			continue
		}
		out = append(out, line)
	}
	return out
}

// imageEnv is the environment that the image sets.
func imageEnv(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, line := range stage(t, "configs/docker/Dockerfile.local") {
		if pairs, ok := strings.CutPrefix(line, "ENV "); ok {
			for _, pair := range strings.Fields(pairs) {
				k, v, _ := strings.Cut(pair, "=")
				env[k] = v
			}
		}
	}
	return env
}
