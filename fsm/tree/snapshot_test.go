package tree

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// save returns the snapshot of a tree.
func save(t testing.TB, tree *Tree) []byte {
	t.Helper()
	var b bytes.Buffer
	s := tree.Snapshot()
	defer s.Release()
	if n, err := s.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v; wrote %d bytes", n, err, b.Len())
	}
	return b.Bytes()
}

func copyState(t testing.TB, from, to *Tree) {
	t.Helper()
	if err := to.Restore(bytes.NewReader(save(t, from))); err != nil {
		t.Fatal(err)
	}
}

// dump is all that can be seen of a tree, in a fixed order.
func dump(t testing.TB, tree *Tree) string {
	t.Helper()
	var out strings.Builder
	for _, n := range inOrder(tree.slots) {
		line := appendIndexes(appendFields(nil, n, tree.clock, tree.offset, true), n)
		fmt.Fprintf(&out, "%s\n", line)
	}
	a, err := tree.Get("/", true, true)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(a.AppendJSON(nil, tree.clock))
	due, _ := tree.NextExpiry()
	fmt.Fprintln(&out, "index", tree.Index(), "clock", tree.Clock(), "due", due, "first", tree.history.first)
	for i := tree.history.first; i <= tree.history.last; i++ {
		if e := tree.history.at(i); e != nil {
			fmt.Fprintf(&out, "%d refresh %v %s", i, e.Refresh, e.JSON())
		}
	}
	stats := tree.Stats()
	stats.GetsSuccess, stats.GetsFail = 0, 0 // not part of the state
	fmt.Fprintf(&out, "%+v\n", stats)
	return out.String()
}

// A machine compares a tree with simple rules while rapid drives it.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := New(rapid.IntRange(1, 40).Draw(t, "history"))
		now, index := epoch, uint64(0)
		name := rapid.SampledFrom([]string{"a", "b", "_h", "\xff<"})
		path := rapid.Custom(func(t *rapid.T) string {
			return "/" + strings.Join(rapid.SliceOfN(name, 0, 3).Draw(t, "names"), "/")
		})
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				op := Op{
					Action:  Action(rapid.IntRange(int(Set), int(Delete)).Draw(t, "action")),
					Path:    path.Draw(t, "path"),
					Value:   rapid.SampledFrom([]string{"", "1", "2", "\xfe"}).Draw(t, "value"),
					Dir:     rapid.Bool().Draw(t, "dir"),
					InOrder: rapid.Bool().Draw(t, "inOrder"),
					Refresh: rapid.Bool().Draw(t, "refresh"), Recursive: rapid.Bool().Draw(t, "recursive"),
					PrevValue: rapid.SampledFrom([]string{"", "", "1"}).Draw(t, "prevValue"),
				}
				if rapid.Bool().Draw(t, "expires") {
					op.Expires = now + rapid.Int64Range(0, 5).Draw(t, "seconds")*int64(time.Second)
				}
				b := tree.Begin(now)
				e, err := b.Do(op)
				b.End()
				if err == nil {
					index++
					if e.Index != index || e.Node.Modified != index {
						t.Fatalf("event of index %d: %s", index, e.JSON())
					}
				}
			},
			"expire": func(t *rapid.T) {
				now += rapid.Int64Range(0, 3).Draw(t, "seconds") * int64(time.Second)
				b := tree.Begin(now)
				last := int64(0)
				for _, e := range b.Expire() {
					index++
					if e.Index != index || e.Prev.Expires < last || e.Prev.Expires > now {
						t.Fatalf("expired out of order: %s", e.JSON())
					}
					last = e.Prev.Expires
				}
				b.End()
				if due, ok := tree.NextExpiry(); ok && due <= now {
					t.Fatalf("after expiry the next is due at %d, now is %d", due, now)
				}
			},
			"skip": func(t *rapid.T) {
				b := tree.Begin(now)
				b.Skip(2)
				b.End()
				index += 2
			},
			"": func(t *rapid.T) {
				if tree.Index() != index {
					t.Fatalf("index %d, want %d", tree.Index(), index)
				}
				checkSlots(t, tree)
			},
			"restore": func(t *rapid.T) {
				var first, second bytes.Buffer
				if _, err := tree.Snapshot().WriteTo(&first); err != nil {
					t.Fatal(err)
				}
				restored := New(tree.history.capacity)
				if err := restored.Restore(bytes.NewReader(first.Bytes())); err != nil {
					t.Fatal(err)
				}
				checkSlots(t, restored)
				if _, err := restored.Snapshot().WriteTo(&second); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(first.Bytes(), second.Bytes()) {
					t.Fatalf("a restored tree has another snapshot")
				}
				a, _ := tree.Checksum()
				b, at := restored.Checksum()
				if a != b || at != index {
					t.Fatalf("checksum %x at %d, restored %x", a, at, b)
				}
				tree = restored // and on with it
			},
		})
	})
}

// checkSlots says whether slots and directories have the same nodes, and the expiry those due.
func checkSlots(t interface{ Fatalf(string, ...any) }, tree *Tree) {
	used, live := 0, 0
	for slot, n := range tree.slots {
		if n == nil {
			continue
		}
		used++
		if n.Expires != 0 {
			live++
		}
		at, no := tree.find(n.Key)
		if no.code != 0 || at.node != n || int(n.slot) != slot || n.Dir != (at.dir != nil) {
			t.Fatalf("the node of slot %d, %s, is not in its place", slot, n.Key)
		}
	}
	reachable := 0
	var walk func(d *dir)
	walk = func(d *dir) {
		reachable += len(d.leaves) + len(d.dirs)
		for _, child := range d.dirs {
			walk(child)
		}
	}
	walk(tree.root)
	if used != reachable || used+len(tree.free) != len(tree.slots) {
		t.Fatalf("%d slots used, %d free, %d in all; %d nodes", used, len(tree.free), len(tree.slots), reachable)
	}
	if tree.due.live != live {
		t.Fatalf("%d nodes may expire, counted %d", live, tree.due.live)
	}
}

// grown returns a tree with some of everything.
func grown(t testing.TB, seed uint64, writes int) *Tree {
	t.Helper()
	tree := New(500)
	r := rand.New(rand.NewPCG(seed, 0))
	now := epoch
	for range writes {
		now += r.Int64N(int64(time.Second))
		b := tree.Begin(now)
		b.Expire()
		op := Op{
			Action: Set + Action(r.IntN(int(Delete))), Path: fmt.Sprintf("/%c/%c/_%c", 'a'+r.IntN(3), 'a'+r.IntN(3), 'a'+r.IntN(3)),
			Value: fmt.Sprint(r.IntN(3)), Dir: r.IntN(5) == 0, Recursive: r.IntN(5) == 0, PrevValue: "1", InOrder: r.IntN(2) == 0,
		}
		op.Path = op.Path[:[]int{2, 4, 7}[r.IntN(3)]]
		if r.IntN(3) == 0 {
			op.Expires = now + r.Int64N(20*int64(time.Second))
		}
		_, _ = b.Do(op) // refusals are part of it
		if r.IntN(20) == 0 {
			b.Skip(1)
		}
		b.End()
	}
	return tree
}

func TestRestore(t *testing.T) {
	for seed := range uint64(5) {
		tree := grown(t, seed, 2000)
		restored := New(500)
		copyState(t, tree, restored)
		if got, want := dump(t, restored), dump(t, tree); got != want {
			t.Errorf("seed %d: %s", seed, firstDifference(got, want))
		}
	}
}

// Slots, map order and the way here do not show in the bytes.
func TestSnapshotDependsOnStateAlone(t *testing.T) {
	first, second := New(1), New(1)
	for _, tree := range []*Tree{first, second} {
		b := tree.Begin(epoch)
		if tree == second { // use up some slots
			for i := range 50 {
				_, _ = b.Do(Op{Action: Set, Path: fmt.Sprintf("/gone/%d", i)})
			}
			_, _ = b.Do(Op{Action: Delete, Path: "/gone", Recursive: true})
			b.Skip(1)
		} else {
			b.Skip(52)
		}
		for i := range 40 {
			_, _ = b.Do(Op{Action: Set, Path: fmt.Sprintf("/d%d/%d", i%7, i), Value: "v", Expires: epoch + int64(i)})
		}
		b.End()
	}
	// Only the counters differ; give both those of the first.
	for a := range second.counters {
		second.counters[a].done.Store(first.counters[a].done.Load())
	}
	if !bytes.Equal(save(t, first), save(t, second)) {
		t.Errorf("equal trees have different snapshots")
	}
	a, _ := first.Checksum()
	b, _ := second.Checksum()
	if a != b {
		t.Errorf("equal trees have checksums %x and %x", a, b)
	}
	set(t, second, "/d1/1", "changed")
	if c, index := second.Checksum(); c == b || index != second.Index() {
		t.Errorf("a changed tree has checksum %x at %d, as before", c, index)
	}
}

// A snapshot stays what it was while the tree moves on.
func TestSnapshotIsIndependent(t *testing.T) {
	tree := grown(t, 7, 500)
	want := save(t, tree)
	s := tree.Snapshot()
	if s.Index() != tree.Index() {
		t.Errorf("snapshot at %d, want %d", s.Index(), tree.Index())
	}
	do(t, tree, Op{Action: Set, Path: "/new/key", Value: "v"})
	do(t, tree, Op{Action: Delete, Path: "/new", Recursive: true})
	var got bytes.Buffer
	if _, err := s.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the snapshot changed with the tree (error %v)", err)
	}
	s.Release()
	if _, err := s.WriteTo(io.Discard); err == nil {
		t.Errorf("a released snapshot was written")
	}
}

// A smaller history takes the newest events of a snapshot, and values may be longer than a block.
func TestRestoreIntoSmallerHistory(t *testing.T) {
	tree := New(100)
	big := strings.Repeat("x", 3*blockSize)
	for i := range 20 {
		set(t, tree, fmt.Sprintf("/k%d", i), "v")
	}
	set(t, tree, "/big", big)
	small := New(5)
	copyState(t, tree, small)
	if a, err := small.Get("/big", false, false); err != nil || a.Node.Value != big {
		t.Errorf("a long value was damaged: %v", err)
	}
	if small.history.first != 17 {
		t.Errorf("history begins at %d, want 17", small.history.first)
	}
	if e, n := small.history.at(21).Node, small.root.leaves["big"]; e != n {
		t.Errorf("a value is held twice: by the tree and by the history")
	}
}

func TestRestoreReadsNoFurther(t *testing.T) {
	text := save(t, grown(t, 1, 100))
	r := bytes.NewReader(append(text, "more"...))
	if err := New(10).Restore(r); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "more" {
		t.Errorf("left %q, want %q", rest, "more")
	}
}

// Every damaged snapshot is refused, and the tree stays as it is.
func TestRestoreRefusesDamage(t *testing.T) {
	text := save(t, grown(t, 3, 60))
	tree := grown(t, 4, 60)
	before, state := dump(t, tree), save(t, tree)
	refuse := func(what string, damaged []byte, want error) {
		t.Helper()
		if err := tree.Restore(bytes.NewReader(damaged)); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", what, err, want)
		}
	}
	for i := range text {
		damaged := bytes.Clone(text)
		damaged[i] ^= 0x20
		refuse(fmt.Sprintf("byte %d changed", i), damaged, ErrSnapshotDamaged)
	}
	for i := range len(text) {
		refuse(fmt.Sprintf("cut off at %d", i), text[:i], ErrSnapshotDamaged)
	}
	newer := framed([]byte{snapshotVersion + 1})
	refuse("newer version", newer, ErrSnapshotVersion)
	if !bytes.Equal(save(t, tree), state) {
		t.Errorf("the tree changed: %s", firstDifference(dump(t, tree), before))
	}

	broken := errors.New("disk on fire")
	if err := tree.Restore(io.MultiReader(bytes.NewReader(text[:20]), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	s := tree.Snapshot()
	if _, err := s.WriteTo(failing{broken}); !errors.Is(err, broken) {
		t.Errorf("write: error %v, want %v", err, broken)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// framed puts bytes in one block with the right checksum, and ends the stream.
func framed(payload []byte) []byte {
	sum := crc32.Checksum(payload, castagnoli)
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
	b = binary.LittleEndian.AppendUint32(b, sum)
	b = append(b, payload...)
	b = append(b, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, sum)
}

// FuzzRestore feeds Restore with bytes that pass the checksum, and with raw ones. What it accepts
// must be a sound tree.
func FuzzRestore(f *testing.F) {
	for seed := range uint64(4) {
		text := save(f, grown(f, seed, 10+int(seed)*20))
		f.Add(text[blockHeader:len(text)-blockHeader], true)
		f.Add(text, false)
	}
	f.Add(save(f, New(1)), false)
	// Lengths and numbers far beyond what follows.
	f.Add(binary.AppendUvarint([]byte{1, 5, 2, 7}, 1<<40), true)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4, 5}, false)
	f.Fuzz(func(t *testing.T, text []byte, frame bool) {
		if frame {
			text = framed(text)
		}
		tree := New(50)
		before := tree.Index()
		if err := tree.Restore(bytes.NewReader(text)); err != nil {
			if tree.Index() != before || len(tree.slots) != 0 {
				t.Errorf("refused with %v, but the tree changed", err)
			}
			return
		}
		checkSlots(t, tree)
		again := New(50)
		copyState(t, tree, again)
		if !bytes.Equal(save(t, tree), save(t, again)) {
			t.Errorf("what was accepted is not stable")
		}
		b := tree.Begin(1<<63 - 1)
		b.Expire()
		_, _ = b.Do(Op{Action: Delete, Path: "/a", Recursive: true})
		b.End()
		checkSlots(t, tree)
		if _, err := tree.Get("/", true, true); err != nil {
			t.Error(err)
		}
	})
}

// One request can make a very deep path. It must not take memory in the square of its length, now or
// after a restart.
func TestDeepPath(t *testing.T) {
	const depth = 20000
	path := strings.Repeat("/a", depth)
	tree := New(10)
	before := heapInUse()
	set(t, tree, path, "v")
	text := save(t, tree)
	restored := New(10)
	if err := restored.Restore(bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if size, limit := heapInUse()-before, int64(2*2000*depth); size > limit {
		t.Errorf("two trees with a path of %d components take %d bytes, want at most %d", depth, size, limit)
	}
	if a, err := restored.Get(path, false, false); err != nil || a.Node.Value != "v" {
		t.Errorf("the key is lost: %v", err)
	}
	a, _ := tree.Checksum()
	b, _ := restored.Checksum()
	if a != b {
		t.Errorf("checksum %x, restored %x", a, b)
	}
	do(t, restored, Op{Action: Delete, Path: "/a", Recursive: true})
	checkSlots(t, restored)
}
