package linearizability

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// registerDir is the directory whose keys CheckRegisters looks at: keys there do not expire.
const registerDir = "/faults/register"

// Report is what the checks say about a history.
type Report struct {
	Violations []Violation
	Registers  *Registers
	Expiries   *Expiries
}

// Check runs all checks. limit is for the search of one key.
func Check(h *History, limit time.Duration) *Report {
	r := &Report{Registers: CheckRegisters(h, registerDir, limit), Expiries: CheckTTL(h)}
	for _, list := range [][]Violation{
		CheckFinals(h), CheckLog(h), CheckPosts(h), CheckReads(h), r.Registers.Violations, r.Expiries.Violations,
	} {
		r.Violations = append(r.Violations, list...)
	}
	return r
}

// Summary is one line about the history and what was found.
func (r *Report) Summary(h *History) string {
	outcomes := map[Outcome]int{}
	for i := range h.Ops {
		outcomes[h.Ops[i].Outcome]++
	}
	events := 0
	for _, w := range h.Watches {
		events += len(w.Events)
	}
	late := "none"
	if n := len(r.Expiries.Late); n > 0 {
		late = fmt.Sprintf("%d, median %v, last %v", n, ms(r.Expiries.Late[n/2]), ms(r.Expiries.Late[n-1]))
	}
	return fmt.Sprintf("operations=%d ok=%d refused=%d lost=%d unsent=%d watched=%d registers=%d undecided=%d expired-when-well=%s violations=%d",
		len(h.Ops), outcomes[OK], outcomes[Refused], outcomes[Lost], outcomes[Unsent], events,
		r.Registers.Keys, len(r.Registers.Undecided), late, len(r.Violations))
}

// Save leaves the history, the violations and a picture of each broken key in a directory.
func (r *Report) Save(h *History, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var text strings.Builder
	for _, v := range r.Violations {
		fmt.Fprintln(&text, v)
	}
	if err := os.WriteFile(filepath.Join(dir, "violations.txt"), []byte(text.String()), 0o600); err != nil {
		return err
	}
	for key := range r.Registers.Broken {
		name := strings.ReplaceAll(strings.Trim(key, "/"), "/", "-") + ".html"
		if err := r.Registers.Visualize(key, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return h.Save(filepath.Join(dir, "history.json"))
}
