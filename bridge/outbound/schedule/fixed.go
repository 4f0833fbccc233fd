package schedule

import "time"

// fixed plans every device once an interval.
type fixed struct{ pace *pace }

// bound is the time from one turn of the device to the next.
func (f *fixed) bound(_ tick, slot int32) time.Duration {
	if interval := f.pace.terms[slot].Interval; interval > 0 {
		return interval
	}
	return max(f.pace.interval, f.pace.lap())
}

// observe learns nothing.
func (*fixed) observe(tick, int32, *deviceState, Observation, tick) {}

// plan returns the turn after the one that was served last. Turns that passed before the device was asked are
// skipped. A device that was left alone comes back at a turn of its own, so a whole fleet that may not be polled before
// midnight does not come back in one second.
func (f *fixed) plan(t tick, slot int32, u *deviceState) plan {
	period := tick(f.bound(t, slot))
	next := u.due + period
	if past := max(u.handedOut, u.notBefore); past >= next {
		next += ((past-next)/period + 1) * period
	}
	return plan{due: next, spare: never, why: ReasonInterval}
}
