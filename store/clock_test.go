package store

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorate/quorate/fsm/tree"
)

func TestClock(t *testing.T) {
	const second = int64(time.Second)
	for _, tt := range []struct {
		name string
		do   func(*clock)
		want int64 // after one more second
	}{
		{"the first leader takes the time of day", func(c *clock) { c.begin(100*second, 0) }, 101 * second},
		{"never before the state", func(c *clock) { c.begin(100*second, 300*second) }, 301 * second},
		{"a later term goes on", func(c *clock) {
			c.begin(100*second, 0)
			time.Sleep(time.Second)
			c.begin(4000*second, 50*second)
		}, 102 * second},
		{"a leader that has heard another one goes on from there", func(c *clock) {
			c.hear(100 * second)
			time.Sleep(5 * time.Second)
			c.begin(3700*second, 90*second)
		}, 106 * second},
		{"however far behind its own clock is", func(c *clock) {
			c.hear(100 * second)
			c.begin(10*second, 0)
		}, 101 * second},
		{"a newer reading counts", func(c *clock) {
			c.hear(100 * second)
			c.hear(200 * second)
		}, 201 * second},
		{"an older one does not", func(c *clock) {
			c.hear(100 * second)
			time.Sleep(3 * time.Second)
			c.hear(101 * second)
		}, 104 * second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c clock
				if now := c.now(); now != 0 {
					t.Errorf("now = %d of a new clock", now)
				}
				tt.do(&c)
				time.Sleep(time.Second)
				if now := c.now(); now != tt.want {
					t.Errorf("now = %d, want %d", now, tt.want)
				}
			})
		})
	}
}

func TestTimeOfDayIsFollowed(t *testing.T) {
	const hour = int64(time.Hour)
	synctest.Test(t, func(t *testing.T) {
		tr := tree.New(10)
		day := watchDay(tr)
		look := func(when string, offset int64, want bool) {
			t.Helper()
			got, ok := day.look(offset)
			if ok != want || ok && got != offset {
				t.Errorf("%s: look(%v) = %v, %v", when, time.Duration(offset), time.Duration(got), ok)
			}
			if ok {
				b := tr.Begin(0)
				b.SetOffset(got)
				b.End()
			}
		}
		look("at once", hour, false)
		time.Sleep(dayPause)
		look("seen once", hour, false)
		look("again, too early", hour, false)
		time.Sleep(dayPause)
		look("gone back", 0, false)
		time.Sleep(dayPause)
		look("no difference", 0, false)
		time.Sleep(dayPause)
		look("seen once more", hour, false)
		time.Sleep(dayPause)
		look("seen twice", hour+int64(time.Millisecond), true)
		time.Sleep(dayPause)
		look("as the tree has it", hour+int64(time.Second), false)

		day = watchDay(tr) // of the next leader, whose clock was always right
		time.Sleep(dayPause)
		look("seen once by the next", 0, false)
		time.Sleep(dayPause)
		look("seen twice by the next", 0, true)
	})
}
