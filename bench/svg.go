//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The drawing of a curve, in pixels. Both axes are logarithmic: a straight line that rises by one decade for
// each decade is linear growth.
const (
	svgWidth, svgHeight = 560, 360
	plotLeft, plotTop   = 70, 40
	plotRight           = svgWidth - 20
	plotBottom          = svgHeight - 50
)

var colours = []string{"#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#7f7f7f"}

// axis maps values to pixels.
type axis struct{ low, high, from, to float64 } // low and high are decimal logarithms

func (a axis) pixel(v float64) float64 {
	return a.from + (math.Log10(v)-a.low)/(a.high-a.low)*(a.to-a.from)
}

// axisOver returns an axis of whole decades around values, which are positive.
func axisOver(values []float64, from, to float64) axis {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		low, high = min(low, math.Log10(v)), max(high, math.Log10(v))
	}
	a := axis{math.Floor(low), math.Ceil(high), from, to}
	if a.high == a.low {
		a.high++
	}
	return a
}

// svg draws the curve.
func (c *curve) svg() string {
	var xs, ys []float64
	for _, s := range c.series {
		for i := range s.x {
			s.y[i] = max(s.y[i], 1e-3) // a logarithm has to exist
		}
		xs, ys = append(xs, s.x...), append(ys, s.y...)
	}
	x, y := axisOver(xs, plotLeft, plotRight), axisOver(ys, plotBottom, plotTop)

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n", svgWidth, svgHeight)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	write := func(x, y float64, anchor, text string) {
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`+"\n", x, y, anchor, html.EscapeString(text))
	}
	rule := func(x1, y1, x2, y2 float64) {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", x1, y1, x2, y2)
	}
	write(svgWidth/2, 20, "middle", c.title)
	for e := x.low; e <= x.high; e++ {
		at := x.pixel(math.Pow(10, e))
		rule(at, plotTop, at, plotBottom)
		write(at, plotBottom+16, "middle", decade(e))
	}
	for e := y.low; e <= y.high; e++ {
		at := y.pixel(math.Pow(10, e))
		rule(plotLeft, at, plotRight, at)
		write(plotLeft-6, at+4, "end", decade(e))
	}
	write((plotLeft+plotRight)/2, svgHeight-14, "middle", c.x)
	write(plotLeft, plotTop-6, "end", c.y)
	for i, s := range c.series {
		colour := colours[i%len(colours)]
		var points []string
		for j := range s.x {
			px, py := x.pixel(s.x[j]), y.pixel(s.y[j])
			points = append(points, fmt.Sprintf("%.1f,%.1f", px, py))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", px, py, colour)
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), colour)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", plotLeft+8, plotTop+14+14*i, colour, html.EscapeString(s.name))
	}
	return b.String() + "</svg>\n"
}

// decade names a power of ten.
func decade(e float64) string {
	if e < 0 {
		return fmt.Sprintf("%.*f", int(-e), math.Pow(10, e))
	}
	n := fmt.Sprintf("%.0f", math.Pow(10, e))
	for _, unit := range []struct{ zeros, name string }{{"000000000", "G"}, {"000000", "M"}, {"000", "k"}} {
		if short, ok := strings.CutSuffix(n, unit.zeros); ok {
			return short + unit.name
		}
	}
	return n
}
