package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fileSettings are the flags that a file can hold, under their names. Flags and environment win.
type fileSettings struct {
	Endpoints    string `yaml:"endpoints"`
	DiscoverySRV string `yaml:"discovery-srv"`
	Username     string `yaml:"username"`
	CertFile     string `yaml:"cert-file"`
	KeyFile      string `yaml:"key-file"`
	CAFile       string `yaml:"ca-file"`
}

// readSettings reads the file at path; an empty path is an empty file. A key that means nothing is an
// error, and so is a password that others may read.
func readSettings(path string) (fileSettings, error) {
	var s fileSettings
	if path == "" {
		return s, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return s, err
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	info, err := f.Stat()
	if err != nil {
		return s, err
	}
	if strings.Contains(s.Username, ":") && info.Mode().Perm()&0o077 != 0 {
		return s, fmt.Errorf("%s has a password that others may read: chmod 600 %s", path, path)
	}
	return s, nil
}
