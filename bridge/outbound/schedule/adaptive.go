package schedule

import (
	"encoding/binary"
	"math"
	"time"

	"plaspy-bridge/bridge/outbound/schedule/forecast"
)

// AdaptiveOptions are the settings of [NewAdaptive].
type AdaptiveOptions struct {
	// Interval is the longest that a device goes without a poll if the rate permits it; at least a
	// millisecond. See NewAdaptive for rates that do not.
	Interval time.Duration
	// TripStartWeight, above 1, makes the first fix of a trip count more than any other, at the cost of
	// the others. From 2 on, parked devices that drive wait about one lap; above 8 they also outbid
	// others. 1 or less means no preference.
	TripStartWeight float64
	// Seed decides the little that is drawn: the moments in a short stretch at which devices come back
	// that were to be left alone until the same time.
	Seed uint64
}

// NewAdaptive returns a schedule that learns when each device reports and spends the rate to save the most
// delay. The package comment has the method.
//
// No device waits longer than the smaller of the interval and four laps, but the bound is never less than two
// laps. If two laps exceed the interval, a device that was not seen on the road for three days waits up to
// four. Without a limit the bound is the interval. [Terms] change the bound of single devices. The price is
// never below a 150th of the interval (at least 50 ms, at most 1 s), with a limit or without: requests that
// would save less are not made. Memory is about 420 bytes a device.
func NewAdaptive(o AdaptiveOptions) *Schedule {
	s := newSchedule(o.Interval, o.Seed)
	weight := o.TripStartWeight
	if math.IsNaN(weight) || math.IsInf(weight, 0) {
		weight = 1
	}
	s.adaptive = &adaptive{
		pace: s.pace, fleet: forecast.NewFleet(),
		floor: max(1, 3-weight), floored: weight > 1, tripWeight: max(1, weight-7),
	}
	s.planner = s.adaptive
	return s
}

// adaptive plans by forecasts and prices. The methods that take note of something (enter, leave, resize, asked and
// served) do nothing for nil, which stands for a fixed interval.
type adaptive struct {
	floor      float64 // the most laps that a parked device which drives waits, if floored
	floored    bool    // TripStartWeight is above 1
	tripWeight float64
	pace       *pace
	fleet      *forecast.Fleet
	devices    pages[device]  // by slot
	restored   map[int32]tick // when a device that was not polled since was restored, by slot

	priced  tick    // when the price was last worked out
	rate    float64 // requests a minute at that time
	market  market
	waits   waits   // from poll to poll of parked devices
	drivers int     // parked devices that drive
	behind  float64 // seconds by which due polls are served late, a running mean
}

// device is the planner's knowledge of one device.
type device struct {
	forecast.Device
	weight  float32 // its weight in adaptive.waits
	bin     int16   // its place there, from 1 on; 0 means none
	polls   uint8   // planned, for the dither
	counted bool    // in adaptive.drivers
}

const (
	minGap       = 0.1 // seconds between an answer and the next request for the same device
	spareShare   = 0.5 // of the price from which a spare request is well spent
	repriceEvery = 5.  // seconds at most between two looks at the price
	driversShare = 0.4 // of the rate that the floor for parked devices may use
)

// enter notes that a slot has a new device.
func (a *adaptive) enter(slot int32) {
	if a == nil {
		return
	}
	*a.devices.make(slot) = device{Device: forecast.NewDevice()}
}

// leave notes that the device of a slot left.
func (a *adaptive) leave(slot int32) {
	if a == nil {
		return
	}
	d := a.devices.at(slot)
	a.waits.forget(d)
	a.count(d, false)
	a.forgetRestored(slot)
}

// keepRestored notes when a device was restored.
func (a *adaptive) keepRestored(slot int32, t tick) {
	if a.restored == nil {
		a.restored = make(map[int32]tick)
	}
	a.restored[slot] = t
}

// forgetRestored notes that a device is not one that was restored and not polled since.
func (a *adaptive) forgetRestored(slot int32) {
	if delete(a.restored, slot); len(a.restored) == 0 {
		a.restored = nil // a map does not shrink
	}
}

// count keeps the number of parked devices that drive.
func (a *adaptive) count(d *device, is bool) {
	if is && !d.counted {
		a.drivers++
	} else if !is && d.counted {
		a.drivers--
	}
	d.counted = is
}

// resize notes that the number of devices changed.
func (a *adaptive) resize(from, to int) {
	if a != nil {
		a.market.resize(from, to)
	}
}

// asked notes that a request for the device of a slot begins.
func (a *adaptive) asked(slot int32) {
	if a != nil {
		a.waits.forget(a.devices.at(slot))
	}
}

// served records the lateness of a due poll.
func (a *adaptive) served(late tick) {
	if a != nil {
		a.behind += (late.Seconds() - a.behind) * 0.01
	}
}

// bound implements planner.
func (a *adaptive) bound(t tick, slot int32) time.Duration {
	terms := a.pace.terms[slot]
	if terms.Interval > 0 {
		return terms.Interval
	}
	lap := a.pace.lap()
	switch {
	case lap == 0:
		return weighted(a.pace.interval, terms)
	case slot < 0 || a.devices.at(slot).Idle(t) && terms.Weight <= 1:
		if 2*lap > a.pace.interval {
			return weighted(4*lap, terms)
		}
		return weighted(min(a.pace.interval, 4*lap), terms)
	}
	bound := max(min(a.pace.interval, 4*lap), 2*lap)
	if a.floored && a.devices.at(slot).Parked() && a.devices.at(slot).Drives(t) {
		laps := max(a.floor, float64(a.drivers)/(driversShare*float64(max(1, a.pace.devices))))
		bound = min(bound, time.Duration(laps*float64(lap)))
	}
	return weighted(bound, terms)
}

// weighted divides a bound by the square root of the device's weight.
func weighted(bound time.Duration, terms Terms) time.Duration {
	if terms.Weight == 0 {
		return bound
	}
	return time.Duration(float64(bound) / math.Sqrt(terms.Weight))
}

// priceFor is the price that a device pays: the market's divided by its weight.
func priceFor(price float64, terms Terms) float64 {
	if terms.Weight == 0 {
		return price
	}
	return price / terms.Weight
}

// reprice works out the price again if the rate has changed or enough time has passed.
func (a *adaptive) reprice(t tick) {
	lap := a.pace.lap().Seconds()
	if a.rate == a.pace.rate && (t-a.priced).Seconds() <= min(repriceEvery, max(1, lap/20)) && a.market.price > 0 {
		return
	}
	if a.rate == 0 {
		a.market = market{seen: t, recalled: a.market.recalled}
	}
	a.priced, a.rate = t, a.pace.rate
	if a.rate == 0 {
		a.market.price = a.leastPrice()
		return
	}
	a.market.settle(a.rate/60, lap, a.leastPrice())
}

// leastPrice is the delay in seconds that a request must save, however many requests there are.
func (a *adaptive) leastPrice() float64 { return min(1, max(0.05, a.pace.interval.Seconds()/150)) }

// observe implements planner. It also adds to the market the polls that the device would have had since its
// last answer at each price.
func (a *adaptive) observe(t tick, slot int32, u *deviceState, o Observation, stamp tick) {
	d, terms := a.devices.at(slot), a.pace.terms[slot]
	a.reprice(t)
	if a.rate > 0 && d.Seen() {
		outlook := a.fleet.Outlook(&d.Device, d.Polled(), a.tripWeight)
		longest := a.bound(t, slot).Seconds()
		from := d.Polled()
		if at, ok := a.restored[slot]; ok { // it was counted by another process until then
			from = max(from, at)
		}
		a.market.add(t, (t - from).Seconds(), a.pace.lap().Seconds(), func(price float64) float64 {
			wait, _, _ := outlook.Wait(priceFor(price, terms), longest)
			return wait
		})
	}
	a.forgetRestored(slot)
	waited := d.Waited(u.handedOut)
	a.fleet.Observe(&d.Device, t, forecast.Observation{
		Asked: u.handedOut, Fix: o.Fix, Stamp: stamp, Changed: o.Changed, Speed: o.Speed, Input: o.Input,
	})
	if d.Parked() {
		a.waits.count(d, waited, a.fleet.TripLikelihood(&d.Device, t))
	}
}

var reasons = [...]Reason{
	forecast.Longest: ReasonLongest, forecast.Due: ReasonDue, forecast.Late: ReasonLate, forecast.Trip: ReasonParked, forecast.Rate: ReasonRate,
}

// plan implements planner.
func (a *adaptive) plan(t tick, slot int32, u *deviceState) plan {
	a.reprice(t)
	return a.planFrom(t, slot, u)
}

// planFrom is plan at the price as it is, for a device that was last polled at t, which may be in the past.
func (a *adaptive) planFrom(t tick, slot int32, u *deviceState) plan {
	d := a.devices.at(slot)
	a.count(d, d.Parked() && d.Drives(t))
	longest := a.bound(t, slot).Seconds()
	longest -= min(a.behind, longest/2) // due polls stand in line for that long
	wait, spare, p := longest, longest, plan{why: ReasonLongest}
	if d.Seen() {
		price := priceFor(a.market.price, a.pace.terms[slot])
		o := a.fleet.Outlook(&d.Device, t, a.tripWeight)
		var why forecast.Cause
		wait, why = d.Moment(&o, t, price*a.dither(d, slot), longest)
		p.why = reasons[why]
		if spare, why = d.Moment(&o, t, price*spareShare, longest); why == forecast.Due {
			p.step = forecast.FromSeconds(o.Period())
		}
	}
	gap := minGap
	if a.rate == 0 {
		gap = max(gap, a.market.price)
	}
	if bound := longest - (t - u.handedOut).Seconds(); wait >= bound {
		wait, p.why = bound, ReasonLongest
	}
	wait = max(wait, gap)
	p.due = t + forecast.FromSeconds(wait)
	p.spare = t + forecast.FromSeconds(max(min(spare, wait), gap))
	return p
}

// dither spreads the price evenly over the octave around it, from poll to poll and from device to device. If many
// devices have the same period, all of them would take every second fix at one price and every third at the
// next, and neither may fit the rate. With it some do the one and some the other, as many as the market, which
// interpolates between prices an octave apart, has counted on.
func (a *adaptive) dither(d *device, slot int32) float64 {
	d.polls++
	u := math.Mod(float64(d.polls)*0.6180339887498949+float64(slot)*0.7548776662466927, 1)
	return math.Exp2(u - 0.5)
}

// AppendMemory appends to b the knowledge about a device, about 60 bytes, so that [Schedule.Restore] can go on
// with it after a restart or in another replica. It appends nothing if nothing was learnt, and with a fixed
// interval.
func (s *Schedule) AppendMemory(b []byte, id string) []byte {
	slot, ok := s.slots.find(id)
	if !ok || s.adaptive == nil {
		return b
	}
	return s.adaptive.devices.at(slot).AppendMemory(b, s.clock.origin())
}

// Restore adds a device with a memory from AppendMemory. Its next poll is planned at once and does not queue for a
// first poll. A memory that cannot be read, and any memory with a fixed interval, makes it [Schedule.Add]; restored
// is then false. A device that was polled already stays as it is.
func (s *Schedule) Restore(now time.Time, id string, memory []byte) (restored bool) {
	t := s.clock.read(now)
	slot, fresh := s.add(id)
	if !fresh && !s.first.waits(slot) {
		return false
	}
	if s.adaptive != nil {
		if d, err := forecast.Recall(memory, s.clock.origin(), t); err == nil {
			s.first.drop(slot)
			s.adaptive.reprice(t)
			*s.adaptive.devices.at(slot) = device{Device: d}
			s.adaptive.keepRestored(slot, t)
			u := s.states.at(slot)
			u.handedOut = d.Polled()
			s.set(t, slot, s.adaptive.planFrom(d.Polled(), slot, u))
			return true
		}
	}
	if fresh {
		s.first.add(t, slot)
	}
	return false
}

// AppendFleetMemory appends to b the knowledge about the fleet as a whole, some 260 bytes. It appends nothing with a
// fixed interval.
func (s *Schedule) AppendFleetMemory(b []byte) []byte {
	if s.adaptive == nil {
		return b
	}
	b = s.adaptive.fleet.AppendMemory(b)
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(s.adaptive.market.price)))
}

// RestoreFleet replaces the knowledge about the fleet by a memory from AppendFleetMemory, and reports whether it could
// be read. It should be called before the devices are restored.
func (s *Schedule) RestoreFleet(memory []byte) bool {
	const priceSize = 4
	n := len(memory) - priceSize
	if s.adaptive == nil || n < 0 || s.adaptive.fleet.Recall(memory[:n]) != nil {
		return false
	}
	price := float64(math.Float32frombits(binary.LittleEndian.Uint32(memory[n:])))
	if price > 0 && price <= highestPrice {
		s.adaptive.market.recalled = price
	}
	return true
}
