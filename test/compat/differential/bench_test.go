package differential

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/fsm/tree"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v2store"
)

// The benchmarks do the same on both stores, up to the JSON; read them side by side.

func bothFilled(b *testing.B, keys int) (v2store.Store, *tree.Tree, []string) {
	b.Helper()
	etcd, ours := v2store.New("/0", prefix), tree.New(1000)
	value := strings.Repeat("v", 128)
	paths := make([]string, keys)
	batch := ours.Begin(time.Now().UnixNano())
	defer batch.End()
	for i := range paths {
		paths[i] = fmt.Sprintf("/app/%03d/svc/%06d", i/100, i)
		if _, err := etcd.Set(prefix+paths[i], false, value, v2store.TTLOptionSet{}); err != nil {
			b.Fatal(err)
		}
		if _, err := batch.Do(tree.Op{Action: tree.Set, Path: paths[i], Value: value}); err != nil {
			b.Fatal(err)
		}
	}
	return etcd, ours, paths
}

func BenchmarkList(b *testing.B) {
	for _, keys := range []int{1, 5000} {
		etcd, ours, paths := bothFilled(b, keys)
		path := "/app"
		if keys == 1 {
			path = paths[0]
		}
		for _, sorted := range []bool{false, true} {
			name := fmt.Sprintf("keys=%d/sorted=%v/value=128B", keys, sorted)
			b.Run("etcd/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					e, err := etcd.Get(prefix+path, true, sorted)
					if err != nil {
						b.Fatal(err)
					}
					e = e.Clone() // as its server does to take the prefix off
					trimNode(e.Node)
					if err := json.NewEncoder(io.Discard).Encode(e); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.Run("ours/"+name, func(b *testing.B) {
				var buf []byte
				b.ReportAllocs()
				for b.Loop() {
					a, err := ours.Get(path, true, sorted)
					if err != nil {
						b.Fatal(err)
					}
					buf = a.AppendJSON(buf[:0], time.Now().UnixNano())
				}
			})
		}
	}
}

func BenchmarkSet(b *testing.B) {
	etcd, ours, paths := bothFilled(b, 100000)
	value := strings.Repeat("w", 128)
	b.Run("etcd/keys=100000/value=128B", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := etcd.Set(prefix+paths[i%len(paths)], false, value, v2store.TTLOptionSet{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ours/keys=100000/value=128B", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			batch := ours.Begin(0)
			_, err := batch.Do(tree.Op{Action: tree.Set, Path: paths[i%len(paths)], Value: value})
			batch.End()
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
