package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// parseEntry and raft-boltdb's decoder read the same from what raft-boltdb stores.
func TestParseEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	bolt, err := openBolt(path, true)
	if err != nil {
		t.Fatal(err)
	}
	logs := entriesOf(1, 12, 3)
	logs[0].Data = nil
	logs[1].Data = []byte{}
	for i, n := range []int{1, 31, 32, 255, 256, 65535, 65536} {
		logs[2+i].Data = bytes.Repeat([]byte{byte(i)}, n)
		logs[2+i].Extensions = bytes.Repeat([]byte{byte(i)}, n)
	}
	logs[9].Term, logs[10].Term = 1<<31, 1<<63
	logs[11].Type = raft.LogConfiguration
	if err := bolt.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	var decoded []raft.Log
	for i := range logs {
		var l raft.Log
		if err := bolt.GetLog(uint64(i+1), &l); err != nil {
			t.Fatal(err)
		}
		decoded = append(decoded, l)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := openBoltFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	n := 0
	if err := b.walk(func(_, value []byte) error {
		got, err := parseEntry(value)
		if err != nil || !sameEntry(&got, &decoded[n]) || !sameEntry(&got, logs[n]) {
			t.Errorf("entry %d = %+v, %v, want %+v", n+1, got, err, decoded[n])
		}
		n++
		return nil
	}); err != nil || n != len(logs) {
		t.Errorf("walk: %d entries, %v", n, err)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte("\x86\xa5Index\x01\xa4Term\x02\xa4Type\x00\xa4Data\xa1x\xaaExtensions\xc0\xaaAppendedAt\xaf\x01\x00\x00\x00\x0e\xbb\x1c\x5d\x00\x00\x00\x00\x00\xff\xff\x00"))
	f.Add([]byte("\x86\xa4Data\xdb\xff\xff\xff\xffx"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseEntry(b)
		if err == nil && len(l.Data)+len(l.Extensions) > len(b) {
			t.Fatalf("%d bytes from %d", len(l.Data)+len(l.Extensions), len(b))
		}
	})
}

// Whatever a file holds, it is read or refused; nothing faults or panics.
func FuzzBoltFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), logFile)
	if err := createLog(path, BoltDB); err != nil {
		f.Fatal(err)
	}
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	file = file[:6*4096]
	if err := (&boltFile{path: path, data: file}).readMeta(); err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte(nil))
	f.Add(uint32(4096*3), []byte{1, 2, 3})
	f.Add(uint32(4096*5+8), []byte{2, 0, 255, 255})
	f.Fuzz(func(t *testing.T, at uint32, patch []byte) {
		data := bytes.Clone(file)
		copy(data[int(at)%len(data):], patch)
		b := &boltFile{path: path, data: data}
		panicked, err := shielded(path, func() error {
			if err := b.readMeta(); err != nil {
				return err
			}
			return (&contents{txid: b.meta.txid}).read(b, 1<<30)
		})
		if panicked {
			t.Fatal(err)
		}
	})
}
