package peer

import "time"

// A member that cannot be reached is mentioned again after this time.
const outageReminder = 30 * time.Second

// outage is the time during which one member cannot be reached. The zero value is none.
type outage struct {
	since    time.Time // of the first attempt that failed
	said     time.Time // when it was last mentioned
	attempts int       // that failed
}

// failed counts an attempt and says whether to mention it: the first one, and then one now and then.
func (o *outage) failed(now time.Time) bool {
	o.attempts++
	if o.attempts == 1 {
		o.since = now
	} else if now.Sub(o.said) < outageReminder {
		return false
	}
	o.said = now
	return true
}

// over ends the outage. It returns how long it was, and whether there was one.
func (o *outage) over(now time.Time) (time.Duration, bool) {
	was := *o
	*o = outage{}
	return now.Sub(was.since), was.attempts > 0
}
