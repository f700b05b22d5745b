package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/quorate/quorate/configs"
)

func TestHidePasswords(t *testing.T) {
	for in, want := range map[string]string{
		"http://joe:secret@h:1/t":                           "http://joe:xxxxx@h:1/t",
		"http://joe:se@cret@h":                              "http://joe:xxxxx@h",
		"http://:secret@h":                                  "http://:xxxxx@h",
		`parse "http://joe:secret@h:x": invalid port "@:x"`: `parse "http://joe:xxxxx@h:x": invalid port "@:x"`,
		"a=http://u:p@h:1,b=https://v:q@i:2":                "a=http://u:xxxxx@h:1,b=https://v:xxxxx@i:2",
		"http://joe@h, http://h:1/a:b@c, u:p@h":             "http://joe@h, http://h:1/a:b@c, u:p@h",
	} {
		if got := hidePasswords(in); got != want {
			t.Errorf("hidePasswords(%q) = %q, want %q", in, got, want)
		}
	}
}

// Passwords can be in URLs of the configuration. The log shows the values in use, and errors show what is
// wrong with them; neither shows a password, in any format, nor does a member on its other pages.
func TestNoPasswordsInTheLog(t *testing.T) {
	for _, format := range []string{configs.LogText, configs.LogJSON} {
		cfg := configs.Default()
		cfg.LogFormat, cfg.Discovery = format, "http://joe:secret@discovery.example/token"
		var out bytes.Buffer
		log := newLogger(&cfg, &out)
		for _, line := range cfg.EffectiveValues(true) {
			log.Info(line)
		}
		log.Named("raft").With("url", cfg.Discovery).Error("failed at "+cfg.Discovery, "list", []string{cfg.Discovery})
		if got := out.String(); strings.Contains(got, "secret") || strings.Count(got, "http://joe:xxxxx@discovery.example/token") != 4 {
			t.Errorf("%s: %s", format, got)
		}
	}
}
