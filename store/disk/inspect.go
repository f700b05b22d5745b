package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// State is what a data directory was used for.
type State int

const (
	Empty  State = iota // nothing, or a first start that did not get far enough to matter
	Member              // a member that has an identity and a log
	Proxy               // a proxy
)

func (s State) String() string {
	switch s {
	case Empty:
		return "empty"
	case Member:
		return "member"
	case Proxy:
		return "proxy"
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// Inspect says what is in a data directory, before any other flag is looked at (spec bootstrap 1).
// It changes nothing and takes no lock. An empty walDir means DATA/member/wal.
//
// A member is one that has an identity and a log. One without the other is refused: starting on
// such a directory would give a second history to a member that already has one.
func Inspect(dataDir, walDir string) (State, error) {
	entries, err := os.ReadDir(dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		entries, err = nil, nil
	}
	if err != nil {
		return Empty, fmt.Errorf("error listing data dir: %s", dataDir)
	}
	var member, proxy bool
	for _, e := range entries {
		switch {
		case e.Name() == "member" && isDir(dataDir, e):
			member = true
		case e.Name() == "proxy" && isDir(dataDir, e):
			proxy = true
		}
	}
	switch {
	case member && proxy:
		return Empty, errors.New("invalid datadir. Both member and proxy directories exist.")
	case proxy:
		return Proxy, nil
	}
	return inspectMember(filepath.Join(dataDir, "member"), walDir)
}

func inspectMember(dir, walDir string) (State, error) {
	if walDir == "" {
		walDir = filepath.Join(dir, "wal")
	}
	for _, d := range []string{filepath.Join(dir, "wal"), walDir} {
		if names, _ := filepath.Glob(filepath.Join(globQuote(d), "*.wal")); len(names) > 0 {
			return Empty, fmt.Errorf("%s is a log of etcd, which cannot be read here: use an empty data directory and add this member to the cluster", names[0])
		}
	}
	identity, err := exists(filepath.Join(dir, identityFile))
	if err != nil {
		return Empty, err
	}
	log, err := exists(filepath.Join(walDir, logFile))
	if err != nil {
		return Empty, err
	}
	newLog, err := exists(filepath.Join(walDir, newLogFile))
	if err != nil {
		return Empty, err
	}
	journals, _ := filepath.Glob(filepath.Join(globQuote(walDir), journalPrefix+"[0-9]*"))
	segments, _ := filepath.Glob(filepath.Join(globQuote(walDir), segmentsDir, "*.wal"))
	snapshots, _ := filepath.Glob(filepath.Join(globQuote(filepath.Join(dir, "snap")), "*"+snapSuffix))

	const lost = "If the log is gone, restore this member by removing it and adding it again with an empty data directory"
	switch {
	case identity && (log || newLog):
		return Member, nil
	case identity:
		return Empty, fmt.Errorf("%s says who this member is, but there is no log at %s. Was it started with another --wal-dir? %s",
			filepath.Join(dir, identityFile), filepath.Join(walDir, logFile), lost)
	case log:
		return Empty, fmt.Errorf("there is a log at %s, but no identity at %s. Does the --wal-dir belong to another member? If the identity is gone, restore this member by removing it and adding it again with an empty data directory and an empty --wal-dir",
			filepath.Join(walDir, logFile), filepath.Join(dir, identityFile))
	case len(journals) > 0:
		return Empty, fmt.Errorf("there is a journal at %s, but no log at %s and no identity. Does the --wal-dir belong to another member? %s",
			journals[0], filepath.Join(walDir, logFile), lost)
	case len(segments) > 0:
		return Empty, fmt.Errorf("there is a segment of a log at %s, but no %s and no identity. Does the --wal-dir belong to another member? %s",
			segments[0], filepath.Join(walDir, logFile), lost)
	case len(snapshots) > 0:
		return Empty, fmt.Errorf("there is a snapshot at %s, but no log at %s and no identity. Was this member started with another --wal-dir? %s",
			snapshots[0], filepath.Join(walDir, logFile), lost)
	}
	return Empty, nil
}

// fixtures is a directory of self-signed certificates, which is no concern of this package.
const fixtures = "fixtures"

// UnknownEntries returns the names in a data directory that mean nothing to us. They deserve a
// warning and are otherwise ignored.
func UnknownEntries(dataDir string) []string {
	var unknown []string
	entries, _ := os.ReadDir(dataDir)
	for _, e := range entries {
		if name := e.Name(); (name != "member" && name != "proxy" && name != fixtures) || !isDir(dataDir, e) {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// isDir also follows a symbolic link, as a data directory is often mounted through one.
func isDir(parent string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(parent, e.Name()))
	return err == nil && info.IsDir()
}

// exists is false only when the file is certainly not there.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if err == nil {
		return true, nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return false, nil
	}
	return false, fmt.Errorf("look at data directory: %w", err)
}

func globQuote(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
