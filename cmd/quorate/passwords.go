package main

import (
	"bytes"
	"io"
	"regexp"
)

// inURL finds a password in a URL, as in http://user:password@host. It also finds it where the URL is
// wrong, in a message that says so.
var inURL = regexp.MustCompile(`(://[^/?#@:\s"]*:)[^/?#\s"]*@`)

// hidePasswords replaces the passwords of URLs by xxxxx.
func hidePasswords(text string) string { return inURL.ReplaceAllString(text, "${1}xxxxx@") }

// withoutPasswords is where the log goes: no line of it shows a password that came with a URL, whoever
// writes the line.
type withoutPasswords struct{ io.Writer }

// Write passes on one entry of the log.
func (w withoutPasswords) Write(entry []byte) (int, error) {
	if !bytes.Contains(entry, []byte("://")) || bytes.IndexByte(entry, '@') < 0 {
		return w.Writer.Write(entry)
	}
	if _, err := w.Writer.Write(inURL.ReplaceAll(entry, []byte("${1}xxxxx@"))); err != nil {
		return 0, err
	}
	return len(entry), nil
}
