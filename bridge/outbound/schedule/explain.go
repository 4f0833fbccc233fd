package schedule

import (
	"fmt"
	"math"
	"time"
)

// Due returns when the device is due and why then: [Schedule.Explain] without words, for many devices. The
// time is zero if it is not known.
func (s *Schedule) Due(now time.Time, id string) (time.Time, Reason) {
	t := s.clock.read(now)
	slot, ok := s.slots.find(id)
	switch {
	case !ok:
		return time.Time{}, ReasonUnknown
	case s.slots.state[slot].out:
		return time.Time{}, ReasonOut
	}
	if at, ok := s.soon.due(slot); ok {
		return s.clock.wall(now, max(at, t)), ReasonAsked
	}
	due, ok := s.due.due(slot)
	if !ok {
		return time.Time{}, ReasonFirst
	}
	return s.clock.wall(now, due), s.states.at(slot).why
}

// Explain describes the device and its next poll.
func (s *Schedule) Explain(now time.Time, id string) Explanation {
	next, why := s.Due(now, id)
	e := Explanation{Next: next, Reason: why}
	switch why {
	case ReasonUnknown:
		e.Line = "not in the schedule"
	case ReasonFirst:
		e.Line = "never polled yet; first polls are spread"
	case ReasonOut:
		e.Line = s.describe(now, id) + "; a poll is in flight"
	default:
		// The caller's times may be in any zone; people compare logs in UTC.
		e.Line = fmt.Sprintf("%s; next poll %s because %s", s.describe(now, id), next.UTC().Format(time.TimeOnly), why.because())
	}
	return e
}

// describe sums up the knowledge about a device that is in the schedule.
func (s *Schedule) describe(now time.Time, id string) string {
	slot, _ := s.slots.find(id)
	if s.adaptive == nil {
		return "polled every " + human(s.planner.bound(s.clock.last, slot).Seconds())
	}
	d := s.adaptive.devices.at(slot)
	var text string
	switch period, known := s.adaptive.fleet.Period(&d.Device); {
	case !d.Seen():
		return "no fix seen yet"
	case d.Parked():
		text = "parked since " + s.clock.wall(now, d.ParkedSince()).UTC().Format(time.TimeOnly)
		if beat := d.Heartbeat(); beat > 0 {
			text += ", reports every " + human(beat)
		}
	case known:
		text = "reports every " + human(period)
	default:
		text = "reports at no known rhythm, about every " + human(period)
	}
	lag, known := d.Lag()
	if !known {
		return text
	}
	// Steps of the wall clock do not show on the schedule's own time line, but people see them.
	stepped := now.Round(0).Sub(s.clock.base.Round(0)) - time.Duration(s.clock.last)
	if lag += stepped.Seconds(); lag < 0 {
		return text + ", seen " + human(-lag) + " before its own time"
	}
	return text + ", seen " + human(lag) + " after its own time"
}

// Stats returns the schedule's own numbers.
func (s *Schedule) Stats(now time.Time) Stats {
	t := s.clock.read(now)
	longest, lap := s.planner.bound(t, -1), s.pace.lap()
	stats := Stats{Lap: lap, LongestWait: longest, Impossible: lap > s.pace.interval, TripDetection: longest / 2}
	if s.adaptive != nil {
		stats.TripDetection = time.Duration(s.adaptive.waits.median() / 2 * float64(time.Second))
	}
	return stats
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
