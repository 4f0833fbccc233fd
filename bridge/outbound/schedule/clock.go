package schedule

import (
	"math"
	"time"
)

// tick is a moment on the policy's own time line: nanoseconds since the first call.
type tick int64

// never lies after every plan.
const never = tick(math.MaxInt64)

// clock turns the caller's times into ticks that never go back. Sub uses the monotonic readings where
// both times have one, so a step of the wall clock moves no plan; without them, a step back is
// absorbed, where it would otherwise leave every device waiting for as long as the step.
type clock struct {
	started bool
	base    time.Time
	shift   tick
	last    tick
}

func (c *clock) read(now time.Time) tick {
	if !c.started {
		c.started, c.base = true, now
	}
	t := tick(now.Sub(c.base)) + c.shift
	if t < c.last {
		c.shift += c.last - t
		t = c.last
	}
	c.last = t
	return t
}

// wall is the caller's time of a tick, seen from now.
func (c *clock) wall(now time.Time, t tick) time.Time { return now.Add(time.Duration(t - c.last)) }

// at is the tick of a time that need not be now, such as the end of a wait.
func (c *clock) at(now, t time.Time) tick { return c.last.after(t.Sub(now)) }

// after adds a duration without running over the end.
func (t tick) after(d time.Duration) tick {
	if d > 0 && t > never-tick(d) {
		return never
	}
	return t + tick(d)
}
