package disk

import (
	"bytes"
	"errors"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quorate/quorate/api"
)

func TestIdentityDamage(t *testing.T) {
	valid, err := encodeIdentity(testIdentity())
	if err != nil {
		t.Fatal(err)
	}
	newer := testIdentity()
	newer.Format = identityFormat + 1
	future, err := encodeIdentity(newer)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		content []byte
		damaged bool
		want    string
	}{
		{"empty", nil, true, "not JSON"},
		{"cut off", valid[:len(valid)/2], true, "not JSON"},
		{"not JSON", []byte("hello"), true, "not JSON"},
		{"other JSON", []byte(`{}`), true, "no identity in it"},
		{"null", []byte(`{"identity":null,"sha256":""}`), true, "checksum does not match"},
		{"edited", bytes.Replace(valid, []byte("tokA"), []byte("tokB"), 1), true, "checksum does not match"},
		{"zeros", make([]byte, len(valid)), true, "not JSON"},
		{"of a newer program", future, false, "format 2 is newer than this program, which knows format 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := openMember(t, Options{DataDir: dir, NoSync: true})
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			path := d.member(identityFile)
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(Options{DataDir: dir})
			if err == nil || errors.Is(err, ErrDamaged) != tt.damaged || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), path) {
				t.Errorf("Open = %v, want %s ... %s", err, path, tt.want)
			}
		})
	}
}

// People may reformat the file; they may not change it.
func TestIdentityReformatted(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	path := d.member(identityFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(`"member": "`+api.FormatID(testIdentity().Member)+`"`)) {
		t.Errorf("no member ID in hex in %s", data)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(data, []byte("\n"), nil), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readIdentity(path)
	if err != nil || !reflect.DeepEqual(*got, testIdentity()) {
		t.Errorf("identity = %+v, %v", got, err)
	}
}

// A forced recovery gives the member a new epoch.
func TestIdentityChange(t *testing.T) {
	d := openMember(t, Options{DataDir: t.TempDir(), NoSync: true})
	mustStore(t, d.LogStore(), entriesOf(1, 3, 1))
	id, _ := d.Identity()
	id.Epoch = 99
	id.Initial[0].PeerURLs[0] = "changed"
	if now, _ := d.Identity(); now.Epoch != 7 || now.Initial[0].PeerURLs[0] == "changed" {
		t.Error("Identity returned something shared")
	}
	if err := d.WriteIdentity(*id); err != nil {
		t.Fatal(err)
	}
	d = reopen(t, d)
	if now, _ := d.Identity(); !reflect.DeepEqual(now, id) {
		t.Errorf("Identity = %+v, want %+v", now, id)
	}
	wantLog(t, d.LogStore(), entriesOf(1, 3, 1))
}

// A crash during the first WriteIdentity leaves one of these.
func TestFirstStartInterrupted(t *testing.T) { eachKind(t, testFirstStartInterrupted) }

func testFirstStartInterrupted(t *testing.T, kind Kind) {
	rename := func(t *testing.T, from, to string) {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		crash func(t *testing.T, d *Dir)
		want  bool // there is an identity
	}{
		{"log half made", func(t *testing.T, d *Dir) {
			rename(t, d.wal(logFile), d.wal(newLogFile))
			if err := errors.Join(os.Truncate(d.wal(newLogFile), 100), os.Remove(d.member(identityFile)), os.RemoveAll(d.wal(segmentsDir))); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"identity half written", func(t *testing.T, d *Dir) {
			rename(t, d.wal(logFile), d.wal(newLogFile))
			rename(t, d.member(identityFile), d.member(identityFile+".tmp"))
			if err := os.RemoveAll(d.wal(segmentsDir)); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"log not renamed", func(t *testing.T, d *Dir) { rename(t, d.wal(logFile), d.wal(newLogFile)) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			d := openMember(t, Options{LogStore: kind, DataDir: dir, NoSync: true})
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			tt.crash(t, d)
			d, err := Open(Options{LogStore: kind, DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			_, got := d.Identity()
			if got != tt.want || (d.LogStore() != nil) != tt.want {
				t.Errorf("identity %v, log %v, want %v", got, d.LogStore() != nil, tt.want)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = openMember(t, Options{LogStore: kind, DataDir: dir})
			mustStore(t, d.LogStore(), entriesOf(1, 2, 1))
			wantLog(t, reopen(t, d).LogStore(), entriesOf(1, 2, 1))
		})
	}
}

func TestNextBoot(t *testing.T) { eachKind(t, testNextBoot) }

func testNextBoot(t *testing.T, kind Kind) {
	now := time.Unix(1000, 5)
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, now: func() time.Time { return now }})
	next := func() uint64 {
		t.Helper()
		boot, err := d.NextBoot()
		if err != nil {
			t.Fatal(err)
		}
		return boot
	}
	steps := []struct {
		name string
		now  time.Time
		want uint64
	}{
		{"first", time.Unix(1000, 5), 1000*1e9 + 5},
		{"same time", time.Unix(1000, 5), 1000*1e9 + 6},
		{"clock went back", time.Unix(900, 0), 1000*1e9 + 7},
		{"clock before 1970", time.Unix(-1, 0), 1000*1e9 + 8},
		{"clock went on", time.Unix(2000, 0), 2000 * 1e9},
	}
	for _, s := range steps {
		now = s.now
		if got := next(); got != s.want {
			t.Errorf("%s: NextBoot = %d, want %d", s.name, got, s.want)
		}
		d = reopen(t, d)
	}
	if err := d.StableStore().SetUint64([]byte(bootKey), math.MaxUint64); err != nil {
		t.Fatal(err)
	}
	if boot, err := d.NextBoot(); err == nil {
		t.Errorf("NextBoot after the highest number = %d", boot)
	}
}

func TestStableStore(t *testing.T) { eachKind(t, testStableStore) }

func testStableStore(t *testing.T, kind Kind) {
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true})
	s := d.StableStore()
	if _, err := s.Get([]byte("k")); err == nil || err.Error() != "not found" {
		t.Errorf("Get of nothing = %v, want the text raft looks for", err)
	}
	if _, err := s.GetUint64([]byte("k")); err == nil || err.Error() != "not found" {
		t.Errorf("GetUint64 of nothing = %v", err)
	}
	value := []byte("v")
	if err := errors.Join(s.Set([]byte("k"), value), s.Set([]byte("empty"), nil), s.SetUint64([]byte("n"), math.MaxUint64)); err != nil {
		t.Fatal(err)
	}
	value[0] = 'x'
	for range 2 {
		got, err := s.Get([]byte("k"))
		if string(got) != "v" || err != nil {
			t.Errorf("Get = %q, %v, want v", got, err)
		}
		got[0] = 'y'
		if got, err := s.Get([]byte("empty")); got == nil || len(got) != 0 || err != nil {
			t.Errorf("Get of an empty value = %v, %v", got, err)
		}
		if n, err := s.GetUint64([]byte("n")); n != math.MaxUint64 || err != nil {
			t.Errorf("GetUint64 = %d, %v", n, err)
		}
		if _, err := s.GetUint64([]byte("k")); err == nil {
			t.Error("GetUint64 of a text worked")
		}
		d = reopen(t, d)
		s = d.StableStore()
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Set([]byte("k"), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Set after Close = %v, want %v", err, ErrClosed)
	}
	if _, err := s.Get([]byte("k")); !errors.Is(err, ErrClosed) {
		t.Errorf("Get after Close = %v, want %v", err, ErrClosed)
	}
}

// raft sets the current term again at every start: that costs no write.
func TestSettingUnchanged(t *testing.T) { eachKind(t, testSettingUnchanged) }

func testSettingUnchanged(t *testing.T, kind Kind) {
	fault := &faultBolt{at: -1}
	d := openMember(t, Options{LogStore: kind, DataDir: t.TempDir(), NoSync: true, wrapBolt: fault.wrap})
	fault.start()
	for range 5 {
		if err := d.StableStore().SetUint64([]byte("CurrentTerm"), 4); err != nil {
			t.Fatal(err)
		}
	}
	if fault.n != 1 {
		t.Errorf("%d transactions, want 1", fault.n)
	}
}

func FuzzSettings(f *testing.F) {
	f.Add(encodeSettings(map[string][]byte{"CurrentTerm": encodeUint64(3), "": nil, "LastVoteCand": []byte("x")}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		settings, err := decodeSettings(b)
		if err != nil {
			return
		}
		again, err := decodeSettings(encodeSettings(settings))
		if err != nil || len(again) != len(settings) {
			t.Fatalf("%q: %v, %v", settings, again, err)
		}
		for k, v := range settings {
			if !bytes.Equal(again[k], v) {
				t.Fatalf("%q: %q, want %q", k, again[k], v)
			}
		}
	})
}
