package schedule

import "time"

// clock turns the caller's times into ticks that never go back. Sub uses the monotonic readings if both
// times have one, so a step of the wall clock moves no plan. Without them a step back is absorbed; it would
// otherwise leave every device waiting for as long as the step.
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

// origin is the wall time of tick 0, by the time of the first call. A step of the wall clock since then makes a
// difference only to a memory that another process reads.
func (c *clock) origin() time.Time { return c.base.Round(0).Add(-time.Duration(c.shift)) }

// until is the tick of the end of a wait, and 0 for none.
func (c *clock) until(now, end time.Time) tick {
	if end.IsZero() {
		return 0
	}
	return c.last.After(end.Sub(now))
}

// stamp is the tick of a time by another clock, relative to the first call.
func (c *clock) stamp(t time.Time) tick { return tick(t.Sub(c.base)) }
