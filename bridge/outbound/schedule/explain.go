package schedule

import (
	"fmt"
	"math"
	"time"
)

// Explain implements Policy.
func (a *Adaptive) Explain(now time.Time, id string) Explanation {
	t := a.clock.read(now)
	slot, ok := a.roster.find(id)
	switch {
	case !ok:
		return Explanation{Reason: ReasonUnknown, Line: "not under care"}
	case a.roster.state[slot].out:
		return Explanation{Reason: ReasonOut, Line: a.describe(now, slot) + "; a poll is under way"}
	}
	if at, ok := a.asked.due(slot); ok {
		return explanation(ReasonAsked, a.describe(now, slot), a.clock.wall(now, max(at, t)))
	}
	if _, ok := a.due.due(slot); !ok {
		return Explanation{Reason: ReasonFirst, Line: "never polled yet; first polls are spread"}
	}
	d := &a.devices[slot]
	return explanation(d.why, a.describe(now, slot), a.clock.wall(now, d.next))
}

// explanation is the line for a plan. The caller's times may be any zone; people compare logs in UTC.
func explanation(why Reason, what string, next time.Time) Explanation {
	line := fmt.Sprintf("%s; next poll %s because %s", what, next.UTC().Format(time.TimeOnly), why.because())
	return Explanation{Line: line, Next: next, Reason: why}
}

// describe says what is known of a device.
func (a *Adaptive) describe(now time.Time, slot int32) string {
	d := &a.devices[slot]
	var what string
	switch {
	case !d.seen:
		return "no fix seen yet"
	case d.parked:
		what = "parked since " + a.clock.wall(now, d.since).UTC().Format(time.TimeOnly)
		if d.yard.known() {
			what += ", reports every " + human(float64(d.yard.period))
		}
	case d.cadence().known():
		what = "reports every " + human(d.period(a.typical))
	default:
		what = "reports at no known rhythm, about every " + human(1/d.rate(a.typical))
	}
	if !d.lag.known() {
		return what
	}
	// The policy's own time line knows no steps of the wall clock; what people see does.
	stepped := now.Round(0).Sub(a.clock.base.Round(0)) - time.Duration(a.clock.last)
	lag := d.mid + stepped.Seconds()
	if lag < 0 {
		return what + ", seen " + human(-lag) + " before its own time"
	}
	return what + ", seen " + human(lag) + " after its own time"
}

// human is a number of seconds with a unit and no more digits than mean something.
func human(seconds float64) string {
	switch {
	case seconds < 9.95:
		return fmt.Sprintf("%.2g s", seconds)
	case seconds < 120:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 7200:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.1f h", seconds/3600)
	}
	return fmt.Sprintf("%.0f days", math.Round(seconds/86400))
}
