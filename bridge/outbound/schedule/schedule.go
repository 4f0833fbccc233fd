package schedule

import (
	"math"
	"time"

	"plaspy-bridge/bridge/outbound/schedule/forecast"
)

// tick is a moment on the schedule's own time line: nanoseconds since the first call.
type tick = forecast.Tick

const never = forecast.Never

// planner decides when one device is polled next. Slots are small numbers that stand for devices.
type planner interface {
	// observe learns from an answer that came at t, whose fix has its own time at stamp.
	observe(t tick, slot int32, u *deviceState, o Observation, stamp tick)
	// plan returns when the device is polled next, given the knowledge at t.
	plan(t tick, slot int32, u *deviceState) plan
	// bound returns the longest time from one request for the device to the next, and for slot -1
	// that for any device.
	bound(t tick, slot int32) time.Duration
}

// plan is a planner's decision for one device.
type plan struct {
	due   tick // the next poll
	spare tick // the earliest time that is worth a spare request; never if there is none
	// step is the distance from one such time to the next, if the request is worth it only just
	// after one; 0 if it is worth it at any later time.
	step tick
	why  Reason
}

// deviceState is the state of a device between two polls.
type deviceState struct {
	handedOut tick // when Next returned the device last
	due       tick // when that poll was planned for
	notBefore tick
	step      tick // see plan
	why       Reason
	failures  uint8 // polls in a row without an answer, up to 10
}

// pace is the interval, the number of devices, the rate and the terms of single devices, which planners read.
type pace struct {
	interval time.Duration // at least a millisecond
	devices  int
	rate     float64         // requests a minute; 0 means no limit
	terms    map[int32]Terms // by slot, of the devices that have any
}

// lap is how long one poll of each device takes; 0 without a limit.
func (p *pace) lap() time.Duration {
	if p.rate == 0 {
		return 0
	}
	return time.Duration(min(float64(p.devices)/p.rate*float64(time.Minute), float64(30*24*time.Hour)))
}

// Schedule decides which device to poll next. Make it with [NewFixed] or [NewAdaptive]. It is passed the
// time and never looks at a clock, so equal calls give equal answers. It is not safe for concurrent use.
// No call blocks, and for N devices none takes longer than O(log N) (Stats: O(1)), apart from the
// amortised cost of growing.
//
// The times passed in are by the caller's own clock. They may carry a monotonic reading (time.Now does),
// which then shields the plan from steps of the wall clock. A time before the last one passed in counts
// as that last one.
type Schedule struct {
	clock    clock
	slots    slots
	first    firstPolls
	due      queue // by planned poll
	spare    queue // by the moment from which a spare request is well spent
	soon     queue // devices that Soon or Now put first, by the time from which they may be polled
	states   pages[deviceState]
	pace     *pace
	planner  planner
	adaptive *adaptive // the planner, nil with a fixed interval
	bound    tick      // the longest time between two polls of a device that all plans keep
	loose    int       // the slots below this number may exceed bound; tightenSome looks at them
	seed     uint64
}

func newSchedule(interval time.Duration, seed uint64) *Schedule {
	p := &pace{interval: max(interval, time.Millisecond), terms: make(map[int32]Terms)}
	return &Schedule{slots: newSlots(), pace: p, seed: seed}
}

// NewFixed returns a schedule that polls each device once an interval (at least a millisecond), or once a
// lap if the rate makes the interval impossible. A turn is due from the planned time of the one before, so
// slow answers add no drift. Missed turns are skipped and not made up for.
func NewFixed(interval time.Duration) *Schedule {
	s := newSchedule(interval, 0)
	s.planner = &fixed{s.pace}
	return s
}

// SetRate sets how many requests a minute polls may use from now on; 0, a negative number or NaN means no
// limit. The schedule plans with it but does not count requests: the caller holds the budget and calls
// Next only when a request may be sent.
func (s *Schedule) SetRate(now time.Time, perMinute float64) {
	t := s.clock.read(now)
	if !(perMinute > 0) || perMinute > 1e12 {
		perMinute = 0
	}
	if s.pace.rate == perMinute && perMinute != 0 {
		return // the price follows from the answers since it was last worked out
	}
	s.pace.rate = perMinute
	s.tighten()
	s.tightenSome(t)
}

// Add puts a device into the schedule. A device that is there already stays as it is. First polls are
// spread evenly, the first of them at once.
func (s *Schedule) Add(now time.Time, id string) {
	t := s.clock.read(now)
	if slot, fresh := s.add(id); fresh {
		s.first.add(t, slot)
	}
}

// add returns the slot of a device, cleared if it is fresh.
func (s *Schedule) add(id string) (slot int32, fresh bool) {
	slot, fresh = s.slots.add(id)
	s.resize()
	if !fresh {
		return slot, false
	}
	*s.states.make(slot) = deviceState{}
	delete(s.pace.terms, slot)
	s.adaptive.enter(slot)
	return slot, true
}

// Remove forgets a device, also while it is being polled. Done must be called for that poll
// nevertheless. Until then an Add brings the device back with everything that was learnt.
func (s *Schedule) Remove(now time.Time, id string) {
	s.clock.read(now)
	slot, freed := s.slots.remove(id)
	s.resize()
	if !freed {
		return
	}
	s.first.drop(slot)
	s.adaptive.leave(slot)
	s.withdraw(slot)
}

// resize records the number of devices.
func (s *Schedule) resize() {
	if s.slots.here != s.pace.devices {
		s.adaptive.resize(s.pace.devices, s.slots.here)
	}
	s.pace.devices = s.slots.here
}

// withdraw removes a slot from all queues.
func (s *Schedule) withdraw(slot int32) {
	s.due.drop(slot)
	s.spare.drop(slot)
	s.soon.drop(slot)
}

// SetTerms sets an operator's terms for a device, from its next plan on. An earlier poll that shorter
// terms make necessary is planned at once.
func (s *Schedule) SetTerms(now time.Time, id string, terms Terms) {
	t := s.clock.read(now)
	slot, ok := s.slots.find(id)
	if !ok {
		return
	}
	if !(terms.Weight > 0) || terms.Weight == 1 {
		terms.Weight = 0
	}
	if s.pace.terms[slot] = terms; terms == (Terms{}) {
		delete(s.pace.terms, slot)
	}
	if due, planned := s.due.due(slot); planned {
		s.shorten(t, slot, due)
	}
}

// Next returns the device that the next request should go to. A poll of it is then in flight, and it is
// not returned again until Done or PutBack. If ok is false, nothing is worth a request before wake; a zero
// wake means until another call changes something.
func (s *Schedule) Next(now time.Time) (id string, ok bool, wake time.Time) {
	t := s.clock.read(now)
	s.tightenSome(t)
	slot, at := s.pick(t)
	if at > t && s.loose > 0 {
		return "", false, now.Add(time.Millisecond) // to go on with the rest
	}
	switch {
	case at == never:
		return "", false, time.Time{}
	case at > t:
		return "", false, s.clock.wall(now, at)
	}
	s.withdraw(slot)
	s.adaptive.asked(slot)
	s.states.at(slot).handedOut = t
	s.slots.state[slot] = presence{out: true}
	return s.slots.names[slot], true, time.Time{}
}

// pick chooses a slot and a moment, which is not later than t if a device is to be polled now. A device
// that is chosen for its first poll leaves that line.
func (s *Schedule) pick(t tick) (slot int32, at tick) {
	at = never
	if s.soon.len() > 0 {
		if slot, at = s.soon.top(); at <= t {
			return slot, at
		}
	}
	if s.first.waiting() > 0 {
		first := s.first.next(s.spread(), s.slots.here)
		if first <= t && (s.due.len() == 0 || first <= s.due.first()) {
			slot = s.first.take(first)
			s.states.at(slot).due = first
			return slot, first
		}
		at = min(at, first)
	}
	if s.due.len() > 0 {
		slot, due := s.due.top()
		if due <= t {
			s.states.at(slot).due = due
			s.adaptive.served(t - due)
			return slot, due
		}
		at = min(at, due)
	}
	if s.pace.rate > 0 && s.spare.len() > 0 {
		s.pass(t)
		slot, spare := s.spare.top()
		if spare <= t {
			return slot, spare
		}
		at = min(at, spare)
	}
	return slot, at
}

// spread is the time over which first polls are spread.
func (s *Schedule) spread() time.Duration {
	if l := s.pace.lap(); l > 0 && s.adaptive != nil {
		return l
	}
	return s.planner.bound(0, -1) // with a fixed interval at least a lap
}

// passedOver is the number of late devices that one spare request may skip.
const passedOver = 8

// pass moves on the devices that are too late for a spare request, if another device can have it:
// between two fixes a poll gets the one late and the next not at all. If there is no other device, as when
// a whole fleet reports in the same second, late is better than never.
func (s *Schedule) pass(t tick) {
	var slots [passedOver]int32
	var was [passedOver]tick
	for n := range passedOver + 1 {
		slot, spare := int32(0), never
		if s.spare.len() > 0 {
			slot, spare = s.spare.top()
		}
		passed := spare <= t && s.states.at(slot).missed(t-spare)
		if spare <= t && !passed {
			return
		}
		if !passed || n == passedOver {
			for i := range n {
				s.spare.set(slots[i], was[i])
			}
			return
		}
		slots[n], was[n] = slot, spare
		due, _ := s.due.due(slot)
		s.spare.set(slot, min(spare+s.states.at(slot).step, due))
	}
}

// missed reports whether a moment so long ago is over.
func (u *deviceState) missed(ago tick) bool { return u.step > 0 && ago > max(1e9, u.step/10) }

// Done reports the result of a poll, at the time at which its answer came. It does nothing if
// no poll of the device is under way.
func (s *Schedule) Done(now time.Time, id string, o Observation) {
	t := s.clock.read(now)
	slot, soon, ok := s.slots.back(id)
	if !ok {
		return
	}
	u := s.states.at(slot)
	u.notBefore = s.clock.until(now, o.NotBefore)
	if o.Failed {
		u.failures = min(u.failures+1, 10)
	} else {
		u.failures = 0
		s.planner.observe(t, slot, u, o, s.clock.stamp(o.FixTime))
	}
	p := s.planner.plan(t, slot, u)
	retry := s.retry(t, u)
	if u.failures > 0 && s.adaptive != nil {
		p.due = min(retry, u.handedOut.After(s.planner.bound(t, slot)))
		p.spare, p.step, p.why = p.due, 0, ReasonBackoff
	}
	s.set(t, slot, p)
	switch {
	case soon:
		s.soon.set(slot, max(t, u.notBefore))
	case u.failures > 0 && s.adaptive == nil && retry >= u.notBefore && retry < p.due:
		s.soon.set(slot, retry) // beside the turns at the fixed interval, which do not move
	}
}

// PutBack gives back a device that was not asked about: nothing is learnt, and it is due again at notBefore,
// or at once if that is zero or past. It does nothing if no poll of the device is under way.
func (s *Schedule) PutBack(now time.Time, id string, notBefore time.Time) {
	t := s.clock.read(now)
	slot, soon, ok := s.slots.back(id)
	if !ok {
		return
	}
	u := s.states.at(slot)
	u.notBefore = s.clock.until(now, notBefore)
	p := s.planner.plan(t, slot, u)
	s.set(t, slot, p)
	if soon || u.notBefore <= p.due {
		s.soon.set(slot, max(t, u.notBefore))
	}
}

// retry is when a device is polled again after a failure: before its ordinary turn, but with a growing
// distance.
func (s *Schedule) retry(t tick, u *deviceState) tick {
	return t.After(time.Duration(u.failures) * max(time.Second, s.pace.lap()/10))
}

// set enters a plan. It postpones the plan to notBefore.
func (s *Schedule) set(t tick, slot int32, p plan) {
	u := s.states.at(slot)
	if u.notBefore > p.due {
		p.due, p.why = s.comeback(slot, t, u.notBefore), ReasonBackoff
		p.spare = p.due
	}
	u.step, u.why = p.step, p.why
	s.due.set(slot, p.due)
	if p.spare == never {
		s.spare.drop(slot)
	} else {
		s.spare.set(slot, max(p.spare, u.notBefore))
	}
}

// comeback returns when a device with a notBefore of then is polled: soon after, spread over up to a quarter
// of the wait, so that the devices of a fleet with used-up quotas are not all polled at midnight.
func (s *Schedule) comeback(slot int32, t, then tick) tick {
	within := min(s.spread(), time.Duration(then-t)/4)
	share := math.Mod(float64(slot)*0.6180339887498949+float64(s.seed%1024)/1024, 1)
	return then.After(time.Duration(share * float64(within)))
}

// Soon asks for a device to be polled before all others that are not asked for in the same way, because its
// state is in doubt. NotBefore of the last observation is still honoured.
func (s *Schedule) Soon(now time.Time, id string) {
	t := s.clock.read(now)
	slot, ok := s.slots.find(id)
	if !ok {
		return
	}
	if s.slots.state[slot].out {
		s.slots.state[slot].soon = true
		return
	}
	if _, there := s.soon.due(slot); there {
		return
	}
	u := s.states.at(slot)
	if s.first.drop(slot) {
		u.due = t
	}
	s.soon.set(slot, max(t, u.notBefore))
}

// Now is [Schedule.Soon] for a device that a caller waits for: it ends the time for which the device is left
// alone.
func (s *Schedule) Now(now time.Time, id string) {
	if slot, ok := s.slots.find(id); ok && !s.slots.state[slot].out {
		u := s.states.at(slot)
		u.notBefore = min(u.notBefore, s.clock.read(now))
		s.soon.drop(slot)
	}
	s.Soon(now, id)
}

// tighten has the plans brought forward that were made under a longer bound, as while the rate was throttled: a
// wait of two laps at a few requests an hour must not outlive those. It waits until the bound has shrunk by a
// fifth, because all devices are looked at.
func (s *Schedule) tighten() {
	longest := tick(s.planner.bound(s.clock.last, -1))
	if longest >= s.bound-s.bound/5 {
		s.bound = max(s.bound, longest)
		return
	}
	s.bound = longest
	s.loose = len(s.slots.names)
}

// tightenAtOnce is the number of devices whose plans one call brings forward.
const tightenAtOnce = 1000

// tightenSome brings the plans of the next devices forward.
func (s *Schedule) tightenSome(t tick) {
	for range min(s.loose, tightenAtOnce) {
		s.loose--
		if due, ok := s.due.due(int32(s.loose)); ok {
			s.shorten(t, int32(s.loose), due)
		}
	}
}

// shorten brings the planned poll of a device forward to the end of its longest wait.
func (s *Schedule) shorten(t tick, slot int32, due tick) {
	u := s.states.at(slot)
	from, why := u.handedOut, ReasonLongest
	if s.adaptive == nil {
		from, why = u.due, ReasonInterval // turns keep their distance on the grid
	}
	if most := max(from.After(s.planner.bound(t, slot)), u.notBefore); due > most {
		u.why = why
		s.due.set(slot, most)
	}
}

// Len returns the number of devices in the schedule.
func (s *Schedule) Len() int { return s.slots.here }
