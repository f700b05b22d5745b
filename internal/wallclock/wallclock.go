// Package wallclock is where the server reads the time of day when something follows from it: the time
// with which keys expire, and the numbers of its runs. Intervals, and what is only shown in a log, are
// read from package time.
//
// Servers of the fault suite, built with the tag faults, have a clock here that can be set wrong.
package wallclock

import "time"

// Now returns the time of day. It has no monotonic reading: intervals cannot be measured with it.
func Now() time.Time { return time.Now().Round(0).Add(offset()) }
