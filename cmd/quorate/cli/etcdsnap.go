package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/quorate/quorate/client"
)

// minImportTTL is what a shorter time to live in a file of etcd is extended to, as by etcdctl: whoever
// owns the key gets the chance to refresh it.
const minImportTTL = 300 * time.Second

// etcdState is the state of an etcd v2 store in JSON: a whole file of etcd 0.4, and what a .snap file of
// later ones has inside.
type etcdState struct {
	Root         *etcdNode
	CurrentIndex uint64
}

// etcdNode is a directory if it has Children, be they none.
type etcdNode struct {
	Value      string
	ExpireTime time.Time // zero: never
	Children   map[string]*etcdNode
}

// readEtcdSnapshot returns what is in a file of etcd as an export. Hidden keys are left out unless they
// are below one of the given prefixes. Times to live that are about to end are extended, and tell is
// told which.
func readEtcdSnapshot(name string, hidden []string, tell func(key string)) (e export, err error) {
	defer func() {
		if err != nil {
			err = usagef("cannot read snapshot file %s: %v", name, err)
		}
	}()
	b, err := os.ReadFile(name)
	if err != nil {
		return e, err
	}
	if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) {
		if b, err = etcdSnapshotData(b); err != nil {
			return e, err
		}
	}
	var state etcdState
	if err := json.Unmarshal(b, &state); err != nil {
		return e, fmt.Errorf("its state: %w", err)
	}
	root := state.Root
	if root == nil || root.Children == nil {
		return e, errors.New("it holds no store of etcd's v2 API")
	}
	// Since 2.0 members are at /0 and keys at /1.
	if keys := root.Children["1"]; keys != nil && keys.Children != nil && root.Children["0"] != nil && len(root.Children) == 2 {
		root = keys
	}
	found := entries{}
	if err := found.addEtcd("/", root, hidden); err != nil {
		return e, err
	}
	now := time.Now()
	for _, key := range found.keys() {
		if x := found[key]; x.expires.After(now) && x.expires.Before(now.Add(minImportTTL)) {
			x.expires = now.Add(minImportTTL)
			found[key] = x
			tell(key)
		}
	}
	return newExport(found, &client.Response{Index: state.CurrentIndex}, "/"), nil
}

// addEtcd adds what is below a directory.
func (e entries) addEtcd(dir string, n *etcdNode, hidden []string) error {
	for name, child := range n.Children {
		key := strings.TrimSuffix(dir, "/") + "/" + name
		if child == nil || name == "" || key != path.Join(dir, name) || strings.Contains(name, "/") {
			return fmt.Errorf("%q below %s is no key", name, dir)
		}
		if isHidden(key) && !slices.ContainsFunc(hidden, func(p string) bool { return within(key, p) || within(p, key) }) {
			continue
		}
		x := entry{value: child.Value, dir: child.Children != nil, expires: child.ExpireTime}
		if x.dir {
			x.value = ""
			x.implied = len(child.Children) > 0 && x.expires.IsZero()
		}
		e[key] = x
		if err := e.addEtcd(key, child, hidden); err != nil {
			return err
		}
	}
	return nil
}

// within says whether a key is a directory or below it.
func within(key, dir string) bool { return key == dir || strings.HasPrefix(key, dir+"/") }

// isHidden says whether a part of a key begins with an underscore.
func isHidden(key string) bool { return strings.Contains(key, "/_") }

var (
	errEtcdSnapshot = errors.New("it is neither JSON nor a .snap file of etcd, or it is cut off")
	errEtcdChecksum = errors.New("its checksum does not match: it is damaged")
)

// etcdSnapshotData returns the state in a .snap file. That is two messages of protocol buffers, one in
// the other: {1: CRC-32C of 2, 2: {1: state, 2: what raft has to know}}.
func etcdSnapshotData(b []byte) ([]byte, error) {
	outer, err := protoFields(b)
	if err != nil {
		return nil, err
	}
	sum, snapshot := outer[1].number, outer[2].bytes
	if len(snapshot) == 0 {
		return nil, errEtcdSnapshot
	}
	if uint64(crc32.Checksum(snapshot, crc32.MakeTable(crc32.Castagnoli))) != sum {
		return nil, errEtcdChecksum
	}
	inner, err := protoFields(snapshot)
	if err != nil {
		return nil, err
	}
	if len(inner[1].bytes) == 0 {
		return nil, errEtcdSnapshot
	}
	return inner[1].bytes, nil
}

// protoField is a field of a message: a number, or bytes.
type protoField struct {
	number uint64
	bytes  []byte
}

// protoFields returns the fields of a message that consists of numbers and bytes.
func protoFields(b []byte) (map[uint64]protoField, error) {
	fields := map[uint64]protoField{}
	next := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	const varint, lengthDelimited = 0, 2
	for len(b) > 0 {
		tag, ok := next()
		v, ok2 := next()
		if !ok || !ok2 {
			return nil, errEtcdSnapshot
		}
		switch tag & 7 {
		case varint:
			fields[tag>>3] = protoField{number: v}
		case lengthDelimited:
			if v > uint64(len(b)) {
				return nil, errEtcdSnapshot
			}
			fields[tag>>3] = protoField{bytes: b[:v]}
			b = b[v:]
		default:
			return nil, errEtcdSnapshot
		}
	}
	return fields, nil
}
