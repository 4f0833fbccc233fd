package schedule

import (
	"math"
	"time"
)

var _ Policy = (*Adaptive)(nil)

// AdaptiveOptions are the settings of Adaptive.
type AdaptiveOptions struct {
	// Interval is the longest that a device goes without a poll where the rate permits it; at least
	// a millisecond. See Adaptive for what happens where it does not.
	Interval time.Duration
	// TripStartWeight is how much more the first fix of a trip counts than any other: parked
	// devices are looked at more often, at the cost of the others. 1 or less: as much as any other.
	TripStartWeight float64
	// Seed decides the little that is drawn: where in a short stretch devices come back that were
	// to be left alone until the same moment. Equal seeds and equal calls give equal answers.
	Seed uint64
}

// Adaptive learns when each device makes fixes and how long they take to appear, and spends the rate
// where the most delay is saved: a request has a price in seconds of delay, the one at which the polls
// that are worth it are as many as the rate allows, and a device is polled when what has probably
// appeared since is worth it. The package comment has the details.
//
// No device waits longer than the smaller of the interval and four laps (a lap is devices over rate),
// but the bound is never less than two laps: where the rate makes the interval impossible, most
// requests would otherwise go to keeping it. Without a limit the bound is the interval. The price is
// never below a 150th of the interval (and that itself from 50 ms to 1 s), limit or not: requests that
// would save less are not made.
//
// As Policy says, it is not safe for concurrent use. It needs about half a kilobyte per device.
type Adaptive struct {
	interval time.Duration
	weight   float64
	seed     uint64
	rate     float64 // requests a minute, 0: no limit

	clock   clock
	roster  roster
	intake  intake
	devices []device // by slot
	due     queue    // by planned poll
	early   queue    // by the moment from which a spare request is well spent
	asked   queue    // by the time of asking, or the end of being left alone
	priced  tick     // when the price was last worked out
	bound   tick     // that all plans keep, from one request for a device to the next

	market  market
	hazard  *hazard
	waits   waits   // from poll to poll of parked devices
	typical float64 // period on the road of a device not known better, seconds
	drivers int     // parked devices that drive
	behind  float64 // seconds by which polls leave the line of due ones late, a running mean
	usual   float64 // lag of a device whose clock is right, seconds
}

// NewAdaptive returns a policy that knows nothing yet.
func NewAdaptive(o AdaptiveOptions) *Adaptive {
	return &Adaptive{
		interval: max(o.Interval, time.Millisecond),
		weight:   max(1, finite(o.TripStartWeight)),
		seed:     o.Seed,
		roster:   newRoster(),
		hazard:   newHazard(),
		typical:  40,
		usual:    3,
	}
}

func finite(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 1
	}
	return f
}

const (
	minGap       = 0.1 // seconds between an answer and the next request for the same device
	spareShare   = 0.5 // of the price from which a request without anything better to do is spent
	repriceEvery = 5.  // seconds at most between two looks at the price
)

func (a *Adaptive) lap() time.Duration { return lap(a.roster.here, a.rate) }

// longest is the bound on the time from one request for any device to the next.
func (a *Adaptive) longest() time.Duration {
	if l := a.lap(); 2*l > a.interval {
		return 4 * l
	} else if l > 0 {
		return min(a.interval, 4*l)
	}
	return a.interval
}

// drives says whether a device was seen to begin a trip in the last days.
func (d *device) drives(t tick) bool { return d.drove != 0 && t-d.drove < lately }

// lately is for how long a device counts as one that drives after its last trip.
const lately = tick(72 * time.Hour)

// driversShare is the part of the rate that the floor for parked devices that drive may use.
const driversShare = 0.4

// most is the bound on the time from one request for the device to the next.
func (a *Adaptive) most(d *device, t tick) time.Duration {
	bound := a.longest()
	if a.rate == 0 || !d.drives(t) {
		return bound
	}
	l := a.lap()
	bound = min(bound, max(2*l, a.interval))
	if a.weight > 1 && d.parked {
		laps := max(1, 3-a.weight, float64(a.drivers)/(driversShare*float64(max(1, a.roster.here))))
		bound = min(bound, time.Duration(laps*float64(l)))
	}
	return bound
}

// count keeps the number of parked devices that drive.
func (a *Adaptive) count(d *device, is bool) {
	if is && !d.yardbird {
		a.drivers++
	} else if !is && d.yardbird {
		a.drivers--
	}
	d.yardbird = is
}

// spread is over how long first polls are spread.
func (a *Adaptive) spread() time.Duration {
	if a.rate == 0 {
		return a.interval
	}
	return a.lap()
}

// SetRate implements Policy.
func (a *Adaptive) SetRate(now time.Time, perMinute float64) {
	t := a.clock.read(now)
	was := a.rate
	if a.rate = limit(perMinute); a.rate == was && was != 0 {
		return // the price is worked out from what was seen since it last was: not more often than that tells
	}
	if was == 0 {
		a.market = market{seen: t}
	}
	a.reprice(t)
}

func (a *Adaptive) reprice(t tick) {
	a.priced = t
	a.tighten()
	if a.rate == 0 {
		a.market.price = a.leastPrice()
		return
	}
	a.market.settle(a.rate/60, a.lap().Seconds(), a.leastPrice())
}

// leastPrice is what a request must save in seconds of delay, however many there are.
func (a *Adaptive) leastPrice() float64 { return min(1, max(0.05, a.interval.Seconds()/150)) }

// Add implements Policy.
func (a *Adaptive) Add(now time.Time, id string) {
	t := a.clock.read(now)
	slot, fresh := a.roster.add(id)
	if !fresh {
		return
	}
	if int(slot) == len(a.devices) {
		a.devices = append(a.devices, device{})
	}
	a.devices[slot] = newDevice()
	a.intake.add(t, slot)
}

// Remove implements Policy.
func (a *Adaptive) Remove(now time.Time, id string) {
	a.clock.read(now)
	slot, freed := a.roster.remove(id)
	if !freed {
		return
	}
	a.intake.drop(slot)
	a.waits.forget(&a.devices[slot])
	a.count(&a.devices[slot], false)
	a.withdraw(slot)
}

// withdraw takes all plans for the slot back.
func (a *Adaptive) withdraw(slot int32) {
	a.due.drop(slot)
	a.early.drop(slot)
	a.asked.drop(slot)
}

// Next implements Policy.
func (a *Adaptive) Next(now time.Time) (id string, ok bool, wake time.Time) {
	t := a.clock.read(now)
	if (t - a.priced).seconds() > min(repriceEvery, max(1, a.lap().Seconds()/20)) {
		a.reprice(t)
	}
	slot, at := a.pick(t)
	switch {
	case at == never:
		return "", false, time.Time{}
	case at > t:
		return "", false, a.clock.wall(now, at)
	}
	a.withdraw(slot)
	a.waits.forget(&a.devices[slot])
	a.devices[slot].asked = t
	a.roster.state[slot] = presence{out: true}
	return a.roster.names[slot], true, time.Time{}
}

// pick chooses a slot and when: not later than t where there is one for now, which a first poll
// leaves the line for.
func (a *Adaptive) pick(t tick) (slot int32, at tick) {
	at = never
	if a.asked.len() > 0 {
		if slot, at = a.asked.top(); at <= t {
			return slot, at
		}
	}
	if a.intake.waiting() > 0 {
		first := a.intake.next(a.spread(), a.roster.here)
		if first <= t && (a.due.len() == 0 || first <= a.due.first()) {
			return a.intake.take(first), first
		}
		at = min(at, first)
	}
	if a.due.len() > 0 {
		s, due := a.due.top()
		if due <= t {
			a.behind += ((t - due).seconds() - a.behind) * 0.01
			return s, due
		}
		at = min(at, due)
	}
	if a.rate > 0 && a.early.len() > 0 {
		a.pass(t)
		s, early := a.early.top()
		if early <= t {
			return s, early
		}
		at = min(at, early)
	}
	return slot, at
}

// passedOver is how many that have missed their moment a spare request is withheld from at a time.
const passedOver = 8

// pass moves those on whose moment for a spare request has gone by, where there is anyone else to make
// it to: between two fixes a poll gets the one late and the next not at all. Where there is nobody else,
// as when a whole fleet reports in the same second, late is better than not at all.
func (a *Adaptive) pass(t tick) {
	var slots [passedOver]int32
	var was [passedOver]tick
	for n := range passedOver + 1 {
		var slot int32
		early := never
		if a.early.len() > 0 {
			slot, early = a.early.top()
		}
		late := early <= t && a.devices[slot].late(t-early)
		if early <= t && !late {
			return
		}
		if !late || n == passedOver {
			for i := range n {
				a.early.set(slots[i], was[i])
			}
			return
		}
		slots[n], was[n] = slot, early
		a.early.set(slot, min(early+a.devices[slot].step, a.devices[slot].next))
	}
}

// late says whether a moment so long ago is over.
func (d *device) late(over tick) bool { return d.step > 0 && over > max(fromSeconds(1), d.step/10) }

// Done implements Policy.
func (a *Adaptive) Done(now time.Time, id string, o Observation) {
	t := a.clock.read(now)
	soon := a.roster.askedFor(id)
	slot, ok := a.roster.back(id)
	if !ok {
		return
	}
	d := &a.devices[slot]
	waited := (d.asked - d.looked).seconds()
	d.notBefore = 0
	if !o.NotBefore.IsZero() {
		d.notBefore = a.clock.at(now, o.NotBefore)
	}
	if o.Failed {
		d.failures = min(d.failures+1, 10)
	} else {
		d.failures = 0
		a.account(d, t)
		a.learn(d, t, o)
	}
	a.plan(slot, t)
	if d.parked {
		a.waits.count(d, waited, a.hazard.at(max(0, (t-d.since).seconds()))*d.keen())
	}
	if soon {
		a.asked.set(slot, max(t, d.notBefore))
	}
}

// Soon implements Policy.
func (a *Adaptive) Soon(now time.Time, id string) {
	t := a.clock.read(now)
	slot, ok := a.roster.find(id)
	if !ok {
		return
	}
	if a.roster.state[slot].out {
		a.roster.state[slot].soon = true
		return
	}
	if _, there := a.asked.due(slot); there {
		return
	}
	a.intake.drop(slot)
	a.asked.set(slot, max(t, a.devices[slot].notBefore))
}

// Stats implements Policy.
func (a *Adaptive) Stats(now time.Time) Stats {
	a.clock.read(now)
	once := a.lap()
	return Stats{
		Devices:       a.roster.here,
		Rate:          a.rate,
		Lap:           once,
		LongestWait:   a.longest(),
		Impossible:    once > a.interval,
		Price:         time.Duration(a.market.price * float64(time.Second)),
		TripDetection: time.Duration(a.waits.median() / 2 * float64(time.Second)),
	}
}

// Len implements Policy.
func (a *Adaptive) Len() int { return a.roster.here }
