//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// baselineSystem is the place of a baseline among the systems of a report.
const baselineSystem = -1

// report collects figures and shows their medians.
type report struct {
	Started time.Time `json:"started"`
	Machine string    `json:"machine"`
	Rounds  int       `json:"rounds"`
	// Duration is how long one throughput measurement lasted, as a Go duration.
	Duration string   `json:"duration"`
	Systems  []string `json:"systems"`
	Lines    []*row   `json:"lines"`
}

// row is one figure on all systems.
type row struct {
	Name        string `json:"name"`
	Unit        string `json:"unit"`
	LowerBetter bool   `json:"lowerIsBetter,omitempty"`
	// Values are all measurements, by system.
	Values map[string][]float64 `json:"values"`
	// Medians are theirs.
	Medians map[string]float64 `json:"medians"`
	// Ratio says how many times better the last system is than the first.
	Ratio float64 `json:"ratio,omitempty"`
	// Goal says what is to be reached, and Met whether it is. Without a goal both are empty.
	Goal string `json:"goal,omitempty"`
	Met  *bool  `json:"met,omitempty"`

	goal goal
}

// judge compares what was measured with the goal.
func (r *row) judge(last float64) {
	var met bool
	switch g := r.goal; {
	case g.ratio > 0:
		r.Goal = fmt.Sprintf("%.2f times", g.ratio)
		met = r.Ratio >= g.ratio
	case g.atLeast > 0:
		r.Goal = fmt.Sprintf("at least %v %s", g.atLeast, r.Unit)
		met = last >= g.atLeast
	case r.LowerBetter && g.bounded:
		r.Goal = fmt.Sprintf("at most %v %s", g.atMost, r.Unit)
		met = last <= g.atMost
	default:
		return
	}
	r.Met = &met
}

func newReport(c config) *report {
	return &report{
		Started: time.Now().UTC().Truncate(time.Second), Machine: machine(),
		Rounds: c.rounds, Duration: c.duration.String(), Systems: c.systems,
	}
}

func (r *report) systemName(i int) string {
	if i == baselineSystem {
		return "bare"
	}
	// The same program twice shows how much of a ratio is noise.
	if n := slices.Index(r.Systems, r.Systems[i]); n != i {
		return fmt.Sprintf("%s#%d", r.Systems[i], i+1)
	}
	return r.Systems[i]
}

func (r *report) add(l line, v value, system int) {
	name := l.name + v.suffix
	i := slices.IndexFunc(r.Lines, func(row *row) bool { return row.Name == name })
	if i < 0 {
		i = len(r.Lines)
		r.Lines = append(r.Lines, &row{Name: name, Unit: v.unit, LowerBetter: v.lowerBetter,
			Values: map[string][]float64{}, Medians: map[string]float64{}, goal: v.goal})
	}
	row, s := r.Lines[i], r.systemName(system)
	row.Values[s] = append(row.Values[s], v.number)
	row.Medians[s] = median(row.Values[s])
	first, last := row.Medians[r.systemName(0)], row.Medians[r.systemName(len(r.Systems)-1)]
	switch {
	case first == 0 || last == 0:
		row.Ratio = 0
	case v.lowerBetter:
		row.Ratio = first / last
	default:
		row.Ratio = last / first
	}
	row.judge(last)
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// write writes the report in the form that was asked for.
func (r *report) write(w io.Writer, c config) error {
	text := r.table()
	switch {
	case c.json:
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	case c.markdown:
		text = r.markdown()
	}
	_, err := io.WriteString(w, text)
	return err
}

// cells are the table's contents: a head, then one row a figure.
func (r *report) cells() [][]string {
	head := []string{"line", "unit"}
	for i := range r.Systems {
		head = append(head, r.systemName(i))
	}
	out := [][]string{append(head, "bare", "times better", "goal", "met")}
	for _, l := range r.Lines {
		c := []string{l.Name, l.Unit}
		for i := range r.Systems {
			c = append(c, l.median(r.systemName(i)))
		}
		ratio, met := "-", "-"
		if l.Ratio > 0 {
			ratio = fmt.Sprintf("%.2f", l.Ratio)
		}
		if l.Met != nil {
			met = map[bool]string{true: "yes", false: "no"}[*l.Met]
		}
		out = append(out, append(c, l.median("bare"), ratio, cmp.Or(l.Goal, "-"), met))
	}
	return out
}

// median shows the median of a system, if there is one.
func (r *row) median(system string) string {
	v, ok := r.Medians[system]
	switch {
	case !ok:
		return "-"
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

func (r *report) table() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, c := range r.cells() {
		fmt.Fprintln(w, strings.Join(c, "\t")+"\t")
	}
	w.Flush()
	return b.String()
}

func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians of %d rounds of %s; %s.\n\n", r.Rounds, r.Duration, r.Machine)
	for i, c := range r.cells() {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(c, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(c)) + "|\n")
		}
	}
	return b.String()
}

// machine names the processor, the number of cores and the Go version.
func machine() string {
	model := runtime.GOARCH
	info, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for l := range strings.Lines(string(info)) {
			if name, ok := strings.CutPrefix(l, "model name"); ok {
				model = strings.TrimSpace(strings.TrimLeft(name, "\t :"))
				break
			}
		}
	}
	return fmt.Sprintf("%d cores, %s, %s", runtime.NumCPU(), model, runtime.Version())
}
