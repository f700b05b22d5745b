package disk

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
)

// Each write is durable. The directory is on the disk of the temporary files, so set TMPDIR.
func BenchmarkStoreLogs(b *testing.B) {
	for _, batch := range []int{1, 16, 64, 256, 1024} {
		for _, size := range []int{128, 1024, 64 << 10} {
			if batch*size > 4<<20 {
				continue
			}
			name := fmt.Sprintf("batch=%d/size=%dB", batch, size)
			b.Run(name+"/store=quorate", func(b *testing.B) {
				d := openMember(b, Options{DataDir: b.TempDir()})
				storeAll(b, d.LogStore().StoreLogs, batch, size)
			})
			b.Run(name+"/store=raft-boltdb", func(b *testing.B) {
				bolt, err := openBolt(filepath.Join(b.TempDir(), logFile), false)
				if err != nil {
					b.Fatal(err)
				}
				defer bolt.Close()
				storeAll(b, bolt.StoreLogs, batch, size)
			})
		}
	}
}

func storeAll(b *testing.B, store func([]*raft.Log) error, batch, size int) {
	data := make([]byte, size)
	logs := make([]*raft.Log, batch)
	next := uint64(1)
	b.SetBytes(int64(batch * size))
	b.ReportAllocs()
	for b.Loop() {
		for i := range logs {
			logs[i] = &raft.Log{Index: next, Term: 1, Data: data}
			next++
		}
		if err := store(logs); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGetLog(b *testing.B) {
	for name, cache := range map[string]int64{"from=cache": 0, "from=file": 1} {
		b.Run(name, func(b *testing.B) {
			d := openMember(b, Options{DataDir: b.TempDir(), NoSync: true, CacheBytes: cache})
			mustStore(b, d.LogStore(), entriesOf(1, 1000, 1))
			b.ReportAllocs()
			var e raft.Log
			for i := uint64(0); b.Loop(); i++ {
				if err := d.LogStore().GetLog(1+i%1000, &e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, entries := range []uint64{0, 10_000, 100_000} {
		b.Run(fmt.Sprintf("entries=%d/size=128B", entries), func(b *testing.B) {
			d := openMember(b, Options{DataDir: b.TempDir(), NoSync: true})
			for i := uint64(1); i <= entries; i += 1000 {
				logs := entriesOf(i, i+999, 1)
				for _, e := range logs {
					e.Data = make([]byte, 128)
				}
				mustStore(b, d.LogStore(), logs)
			}
			for b.Loop() {
				d = reopen(b, d)
			}
		})
	}
}
