package schedule

import "time"

var _ Policy = (*Fixed)(nil)

// Fixed polls every device once an interval, or once a lap (devices over rate) where the rate makes
// the interval impossible. A turn is due from the planned time of the one before, so that answers
// that take their time add no drift; turns that were missed are skipped and not made up for.
//
// As Policy says, it is not safe for concurrent use.
type Fixed struct {
	interval time.Duration
	rate     float64

	clock  clock
	roster roster
	intake intake
	turns  []turn // by slot
	line   queue  // by the planned time of the last turn: who comes next stays the same when the rate changes
	held   queue  // devices left alone beyond their next turn, by the end of that
	asked  queue  // by the time of asking, or the end of being left alone
}

type turn struct {
	planned   tick // of the last poll
	notBefore tick
}

// NewFixed returns a policy that polls each device once an interval, which must be positive.
func NewFixed(interval time.Duration) *Fixed {
	return &Fixed{interval: max(interval, time.Millisecond), roster: newRoster()}
}

// SetRate implements Policy.
func (f *Fixed) SetRate(now time.Time, perMinute float64) {
	f.clock.read(now)
	f.rate = limit(perMinute)
}

// limit is the rate as the policies use it: 0 for no limit.
func limit(perMinute float64) float64 {
	if !(perMinute > 0) || perMinute > 1e12 {
		return 0
	}
	return perMinute
}

// lap is how long one poll of each of n devices takes; 0 without a limit.
func lap(n int, perMinute float64) time.Duration {
	if perMinute == 0 {
		return 0
	}
	return time.Duration(min(float64(n)/perMinute*float64(time.Minute), float64(30*24*time.Hour)))
}

// period is the time from one turn of a device to its next.
func (f *Fixed) period() time.Duration { return max(f.interval, lap(f.roster.here, f.rate)) }

// Add implements Policy.
func (f *Fixed) Add(now time.Time, id string) {
	t := f.clock.read(now)
	slot, fresh := f.roster.add(id)
	if !fresh {
		return
	}
	if int(slot) == len(f.turns) {
		f.turns = append(f.turns, turn{})
	}
	f.turns[slot] = turn{}
	f.intake.add(t, slot)
}

// Remove implements Policy.
func (f *Fixed) Remove(now time.Time, id string) {
	f.clock.read(now)
	slot, freed := f.roster.remove(id)
	if !freed || f.intake.drop(slot) {
		return
	}
	f.line.drop(slot)
	f.held.drop(slot)
	f.asked.drop(slot)
}

// Next implements Policy.
func (f *Fixed) Next(now time.Time) (id string, ok bool, wake time.Time) {
	t := f.clock.read(now)
	f.release(t)
	if f.asked.len() > 0 {
		if slot, due := f.asked.top(); due <= t {
			return f.take(t, slot, f.turns[slot].planned), true, time.Time{}
		}
	}
	due, first := f.due()
	switch {
	case due > t:
		return "", false, f.wake(now, due)
	case first:
		return f.take(t, f.intake.take(due), due), true, time.Time{}
	}
	slot, _ := f.line.top()
	return f.take(t, slot, due), true, time.Time{}
}

// due is the earliest turn, and whether that is a first poll.
func (f *Fixed) due() (due tick, first bool) {
	due = never
	if f.line.len() > 0 {
		_, last := f.line.top()
		due = last.after(f.period())
	}
	if f.intake.waiting() > 0 {
		if next := f.intake.next(f.period(), f.roster.here); next < due {
			return next, true
		}
	}
	return due, false
}

// wake is when Next may say something else: the next turn, or the end of a wait before that.
func (f *Fixed) wake(now time.Time, due tick) time.Time {
	for _, q := range []*queue{&f.asked, &f.held} {
		if q.len() > 0 {
			_, end := q.top()
			due = min(due, end)
		}
	}
	if due == never {
		return time.Time{}
	}
	return f.clock.wall(now, due)
}

// release ends the waits that are over. Such a device joins in again at its own next turn, so that a
// whole fleet whose quota ends at midnight does not come back in one second.
func (f *Fixed) release(t tick) {
	for f.held.len() > 0 {
		slot, end := f.held.top()
		if end > t {
			return
		}
		f.held.drop(slot)
		f.line.set(slot, f.skip(t, f.turns[slot].planned))
	}
}

// skip is the last of the planned time's successors that is not after t.
func (f *Fixed) skip(t, planned tick) tick {
	if t <= planned {
		return planned
	}
	return t - (t-planned)%tick(f.period())
}

func (f *Fixed) take(t tick, slot int32, due tick) string {
	f.turns[slot].planned = f.skip(t, due)
	f.line.drop(slot)
	f.held.drop(slot)
	f.asked.drop(slot)
	f.roster.state[slot] = presence{out: true}
	return f.roster.names[slot]
}

// Done implements Policy.
func (f *Fixed) Done(now time.Time, id string, o Observation) {
	t := f.clock.read(now)
	soon := f.roster.askedFor(id)
	slot, ok := f.roster.back(id)
	if !ok {
		return
	}
	d := &f.turns[slot]
	d.notBefore = 0
	if !o.NotBefore.IsZero() {
		d.notBefore = f.clock.at(now, o.NotBefore)
	}
	f.plan(slot)
	if soon {
		f.asked.set(slot, max(t, d.notBefore))
	}
}

func (f *Fixed) plan(slot int32) {
	d := &f.turns[slot]
	if d.notBefore > d.planned.after(f.period()) {
		f.held.set(slot, d.notBefore)
		return
	}
	f.line.set(slot, d.planned)
}

// Soon implements Policy.
func (f *Fixed) Soon(now time.Time, id string) {
	t := f.clock.read(now)
	slot, ok := f.roster.find(id)
	if !ok {
		return
	}
	if f.roster.state[slot].out {
		f.roster.state[slot].soon = true
		return
	}
	if _, there := f.asked.due(slot); there {
		return
	}
	if f.intake.drop(slot) {
		f.turns[slot].planned = t
	}
	f.asked.set(slot, max(t, f.turns[slot].notBefore))
}

// Explain implements Policy.
func (f *Fixed) Explain(now time.Time, id string) Explanation {
	f.clock.read(now)
	slot, ok := f.roster.find(id)
	if !ok {
		return Explanation{Reason: ReasonUnknown, Line: "not under care"}
	}
	if f.roster.state[slot].out {
		return Explanation{Reason: ReasonOut, Line: "a poll is under way"}
	}
	what := "polled every " + human(f.period().Seconds())
	if due, ok := f.asked.due(slot); ok {
		return explanation(ReasonAsked, what, f.clock.wall(now, due))
	}
	if end, ok := f.held.due(slot); ok {
		return explanation(ReasonBackoff, what, f.clock.wall(now, end))
	}
	if last, ok := f.line.due(slot); ok {
		return explanation(ReasonInterval, what, f.clock.wall(now, last.after(f.period())))
	}
	return Explanation{Reason: ReasonFirst, Line: what + "; waits for its first poll, which are spread"}
}

// Stats implements Policy. A trip's first fix waits half a turn.
func (f *Fixed) Stats(now time.Time) Stats {
	f.clock.read(now)
	once := lap(f.roster.here, f.rate)
	return Stats{
		Devices:       f.roster.here,
		Rate:          f.rate,
		Lap:           once,
		LongestWait:   f.period(),
		Impossible:    once > f.interval,
		TripDetection: f.period() / 2,
	}
}

// Len implements Policy.
func (f *Fixed) Len() int { return f.roster.here }
