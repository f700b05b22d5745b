package tree

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// filled returns a tree of n keys, children in each directory, with values of a size.
func filled(b *testing.B, n, children, value int) (*Tree, []string) {
	b.Helper()
	tree := New(1000)
	paths := make([]string, n)
	v := strings.Repeat("v", value)
	batch := tree.Begin(epoch)
	defer batch.End()
	for i := range paths {
		paths[i] = fmt.Sprintf("/app/%03d/svc/%06d", i/children, i)
		if _, err := batch.Do(Op{Action: Set, Path: paths[i], Value: v}); err != nil {
			b.Fatal(err)
		}
	}
	return tree, paths
}

func BenchmarkSet(b *testing.B) {
	for _, children := range []int{1000, 100000} {
		for _, value := range []int{128, 4096} {
			b.Run(fmt.Sprintf("children=%d/value=%dB", children, value), func(b *testing.B) {
				tree, paths := filled(b, children, children, value)
				values := []string{strings.Repeat("a", value), strings.Repeat("b", value)}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					batch := tree.Begin(epoch)
					_, err := batch.Do(Op{Action: Set, Path: paths[i%len(paths)], Value: values[i/len(paths)&1]})
					batch.End()
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkInsert makes new keys only, in random order, and says what a key costs in memory.
func BenchmarkInsert(b *testing.B) {
	for _, keys := range sizes(100000, 1000000) {
		b.Run(fmt.Sprintf("keys=%d/value=128B", keys), func(b *testing.B) {
			value := strings.Repeat("v", 128)
			order := rand.New(rand.NewPCG(1, 1)).Perm(keys)
			for b.Loop() {
				before := heapInUse()
				tree := New(1000)
				for _, i := range order {
					batch := tree.Begin(epoch)
					_, err := batch.Do(Op{Action: Set, Path: fmt.Sprintf("/app/%03d/svc/%06d", i/1000, i), Value: value})
					batch.End()
					if err != nil {
						b.Fatal(err)
					}
				}
				b.StopTimer()
				b.ReportMetric(float64(heapInUse()-before)/float64(keys), "B/key")
				runtime.KeepAlive(tree)
				b.StartTimer()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(keys), "ns/key")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, keys := range []int{1000, 100000} {
		b.Run(fmt.Sprintf("keys=%d/value=128B", keys), func(b *testing.B) {
			tree, paths := filled(b, keys, 1000, 128)
			var buf []byte
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a, err := tree.Get(paths[i%len(paths)], false, false)
				if err != nil {
					b.Fatal(err)
				}
				buf = a.AppendJSON(buf[:0], epoch)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, keys := range []int{100, 5000} {
		for _, sorted := range []bool{false, true} {
			b.Run(fmt.Sprintf("keys=%d/sorted=%v/value=128B", keys, sorted), func(b *testing.B) {
				tree, _ := filled(b, keys, 100, 128)
				var buf []byte
				b.ReportAllocs()
				for b.Loop() {
					a, err := tree.Get("/app", true, sorted)
					if err != nil {
						b.Fatal(err)
					}
					buf = a.AppendJSON(buf[:0], epoch)
				}
				b.SetBytes(int64(len(buf)))
			})
		}
	}
}

// BenchmarkSendList writes a listing in pieces, as large ones are.
func BenchmarkSendList(b *testing.B) {
	for _, keys := range []int{5000, 100000} {
		b.Run(fmt.Sprintf("keys=%d/value=128B", keys), func(b *testing.B) {
			tree, _ := filled(b, keys, 100, 128)
			var buf []byte
			sent := 0
			b.ReportAllocs()
			for b.Loop() {
				a, err := tree.Get("/app", true, false)
				if err != nil {
					b.Fatal(err)
				}
				sent = 0
				buf = a.SendJSON(buf[:0], epoch, func(piece []byte) []byte {
					sent += len(piece)
					return piece[:0]
				})
			}
			b.SetBytes(int64(sent + len(buf)))
		})
	}
}

// BenchmarkRender writes the JSON of one event.
func BenchmarkRender(b *testing.B) {
	for _, value := range []int{16, 128, 4096} {
		for name, text := range map[string]string{"plain": strings.Repeat("v", value), "escaped": strings.Repeat("\"", value)} {
			b.Run(fmt.Sprintf("value=%dB/%s", value, name), func(b *testing.B) {
				n := &Node{Key: "/app/000/svc/000001", Value: text, Created: 1000, Modified: 2000}
				e := &Event{Action: Set, Node: n, Prev: n, Index: 2000, Time: epoch}
				var buf []byte
				b.ReportAllocs()
				for b.Loop() {
					buf = e.AppendJSON(buf[:0], false)
				}
				b.SetBytes(int64(len(buf)))
			})
		}
	}
}

// BenchmarkNotify measures a write that wakes some watchers among many.
func BenchmarkNotify(b *testing.B) {
	for _, watchers := range []int{0, 10000} {
		for _, hit := range []int{1, 100} {
			b.Run(fmt.Sprintf("others=%d/woken=%d", watchers, hit), func(b *testing.B) {
				tree := New(1000)
				for i := range watchers {
					watch(b, tree, fmt.Sprintf("/other/%d", i), true, true, 0)
				}
				woken := make([]*Watcher, hit)
				for i := range woken {
					woken[i] = watch(b, tree, "/a/b", true, true, 0)
				}
				b.ReportAllocs()
				for b.Loop() {
					batch := tree.Begin(epoch)
					_, err := batch.Do(Op{Action: Set, Path: "/a/b/c/d", Value: "v"})
					batch.End()
					if err != nil {
						b.Fatal(err)
					}
					for _, w := range woken {
						w.take()
					}
				}
			})
		}
	}
}

// BenchmarkDeleteDirectory removes a directory that nobody watches, while another is watched.
func BenchmarkDeleteDirectory(b *testing.B) {
	const children = 1000
	b.Run(fmt.Sprintf("children=%d", children), func(b *testing.B) {
		tree := New(1000)
		watch(b, tree, "/other/1", true, true, 0)
		b.ReportAllocs()
		for b.Loop() {
			batch := tree.Begin(epoch)
			b.StopTimer()
			for i := range children {
				if _, err := batch.Do(Op{Action: Set, Path: fmt.Sprintf("/dir/%d", i)}); err != nil {
					b.Fatal(err)
				}
			}
			b.StartTimer()
			if _, err := batch.Do(Op{Action: Delete, Path: "/dir", Recursive: true}); err != nil {
				b.Fatal(err)
			}
			batch.End()
		}
	})
}

func BenchmarkSnapshot(b *testing.B) {
	for _, keys := range sizes(100000, 1000000) {
		name := fmt.Sprintf("keys=%d/value=128B", keys)
		tree, _ := filled(b, keys, 1000, 128)
		var saved bytes.Buffer
		if _, err := tree.Snapshot().WriteTo(&saved); err != nil {
			b.Fatal(err)
		}
		b.Run("lock/"+name, func(b *testing.B) {
			for b.Loop() {
				tree.Snapshot()
			}
		})
		b.Run("write/"+name, func(b *testing.B) {
			b.SetBytes(int64(saved.Len()))
			for b.Loop() {
				if _, err := tree.Snapshot().WriteTo(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("restore/"+name, func(b *testing.B) {
			b.SetBytes(int64(saved.Len()))
			for b.Loop() {
				if err := New(1000).Restore(bytes.NewReader(saved.Bytes())); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("checksum/"+name, func(b *testing.B) {
			for b.Loop() {
				tree.Checksum()
			}
		})
	}
}

var large = flag.Bool("large", false, "also run the benchmarks with a million keys")

// sizes leaves out what takes long and half a gigabyte, unless -large is given.
func sizes(small, big int) []int {
	if *large {
		return []int{small, big}
	}
	return []int{small}
}
