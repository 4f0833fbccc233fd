package schedule

import "time"

// PutBack implements Policy.
func (a *Adaptive) PutBack(now time.Time, id string, notBefore time.Time) {
	t := a.clock.read(now)
	soon := a.roster.askedFor(id)
	slot, ok := a.roster.back(id)
	if !ok {
		return
	}
	d := &a.devices[slot]
	d.notBefore = 0
	if !notBefore.IsZero() {
		d.notBefore = a.clock.at(now, notBefore)
	}
	d.next, d.why = t, ReasonAsked
	if d.notBefore > t {
		d.next, d.why = a.comeback(slot, t, d.notBefore), ReasonBackoff
	}
	a.due.set(slot, d.next)
	a.early.set(slot, d.next)
	if soon {
		a.asked.set(slot, max(t, d.notBefore))
	}
}

// PutBack implements Policy.
func (f *Fixed) PutBack(now time.Time, id string, notBefore time.Time) {
	t := f.clock.read(now)
	slot, ok := f.roster.back(id)
	if !ok {
		return
	}
	d := &f.turns[slot]
	d.notBefore = 0
	if !notBefore.IsZero() {
		d.notBefore = f.clock.at(now, notBefore)
	}
	f.plan(slot)
	if d.notBefore <= d.planned.after(f.period()) {
		f.asked.set(slot, max(t, d.notBefore))
	}
}
