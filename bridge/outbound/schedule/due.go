package schedule

import "time"

// Due implements Policy.
func (a *Adaptive) Due(now time.Time, id string) (time.Time, Reason) {
	t := a.clock.read(now)
	slot, ok := a.roster.find(id)
	switch {
	case !ok:
		return time.Time{}, ReasonUnknown
	case a.roster.state[slot].out:
		return time.Time{}, ReasonOut
	}
	if at, ok := a.asked.due(slot); ok {
		return a.clock.wall(now, max(at, t)), ReasonAsked
	}
	if _, ok := a.due.due(slot); !ok {
		return time.Time{}, ReasonFirst
	}
	d := &a.devices[slot]
	return a.clock.wall(now, d.next), d.why
}

// Due implements Policy.
func (f *Fixed) Due(now time.Time, id string) (time.Time, Reason) {
	f.clock.read(now)
	slot, ok := f.roster.find(id)
	switch {
	case !ok:
		return time.Time{}, ReasonUnknown
	case f.roster.state[slot].out:
		return time.Time{}, ReasonOut
	}
	if due, ok := f.asked.due(slot); ok {
		return f.clock.wall(now, due), ReasonAsked
	}
	if end, ok := f.held.due(slot); ok {
		return f.clock.wall(now, end), ReasonBackoff
	}
	if last, ok := f.line.due(slot); ok {
		return f.clock.wall(now, last.after(f.period())), ReasonInterval
	}
	return time.Time{}, ReasonFirst
}
