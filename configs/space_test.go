package configs

import "testing"

func TestParseSpace(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Space
		show string
	}{
		{"0", Space{}, "0"},
		{"67108864", Space{Bytes: 64 << 20}, "64MiB"},
		{"64MiB", Space{Bytes: 64 << 20}, "64MiB"},
		{"1536KiB", Space{Bytes: 3 << 19}, "1536KiB"},
		{"2TiB", Space{Bytes: 2 << 40}, "2TiB"},
		{"100", Space{Bytes: 100}, "100"},
		{"5%", Space{Percent: 5}, "5%"},
		{"0%", Space{}, "0"},
	} {
		got, err := ParseSpace(tt.text)
		if got != tt.want || err != nil || got.String() != tt.show {
			t.Errorf("%s: %+v (%s) and %v, want %+v (%s)", tt.text, got, got, err, tt.want, tt.show)
		}
	}
	for _, text := range []string{"", "%", "-1", "100%", "5.5%", "64 MiB", "64MB", "MiB", "99999999TiB", "1e6"} {
		if got, err := ParseSpace(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}
