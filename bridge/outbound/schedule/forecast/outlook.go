package forecast

import "math"

// Outlook is the fixes that may appear on a device after a moment. All times are seconds from that moment.
// [Fleet.Outlook] makes it.
type Outlook struct {
	event float64 // rate of single fixes at random, per second
	trip  float64 // growth of the rate of fixes, per second squared: hazard of a trip over its period

	fixes series // predicted fixes on the road
	beats series // predicted heartbeats of a parked device

	width float64 // seconds within which the first of a late series may come
	lost  bool    // the last predicted fix did not come in that time
	quiet bool    // the device is parked
}

// series is a row of predicted fixes. The zero series predicts none.
type series struct {
	first float64 // moment of the first
	each  float64 // seconds from one to the next; 0 if none is predicted
	worth float64 // probability of each
	base  Tick    // own time of the fix before the first
	late  bool    // the first should have been there and may come at any moment
}

// Cause is the reason for the moment that [Device.Moment] chose.
type Cause uint8

// The causes.
const (
	Longest Cause = iota // nothing is worth a poll before the longest wait is over
	Due                  // a fix is predicted
	Late                 // a predicted fix has not come yet
	Trip                 // a parked device may have begun a trip
	Rate                 // there is no rhythm; news is likely by then
)

// Period returns the seconds between predicted fixes on the road, 0 unless they are predicted with more
// than even odds.
func (o *Outlook) Period() float64 {
	if o.fixes.worth > 0.5 {
		return o.fixes.each
	}
	return 0
}

// Wait returns how many seconds to leave the device alone if a request costs price seconds of delay and
// the wait may not exceed longest: until the delays since the last poll of all that has appeared add up
// to the price. For fixes every p seconds that is the k-th fix, with k(k+1)/2 p at least the price; for
// random ones with rate r the square root of 2 price/r; for a trip at hazard h the cube root of
// 3p price/h. Over time this costs least. k is the number of the predicted fix, 0 for a heartbeat or
// none.
func (o *Outlook) Wait(price, longest float64) (seconds float64, why Cause, k float64) {
	sum := 0.
	next, beat := math.Inf(1), math.Inf(1)
	if o.fixes.each > 0 {
		next = o.fixes.first
	}
	if o.beats.each > 0 {
		beat = o.beats.first
	}
	for n := 0.; ; {
		at := min(next, beat, longest)
		if left := price - sum; o.delay(at) >= left { // else smooth is not below at
			if s := o.smooth(left); s < at {
				return s, o.cause(), 0
			}
		}
		if at == longest {
			return longest, Longest, 0
		}
		if at == next {
			n++
			k = n
			sum += o.fixes.worth * n * o.fixes.each
			next += o.fixes.each
		} else {
			k = 0
			sum += o.beats.worth * o.beats.each
			beat += o.beats.each
		}
		if sum < price {
			continue
		}
		if o.isLate(k) {
			// A fix that comes at any moment within the width is looked for at this distance.
			at = min(longest, at+min(o.width, math.Sqrt(2*price*o.width)))
		}
		return at, Due, k
	}
}

// isLate reports whether the k-th predicted fix, or the heartbeat for 0, is a late one.
func (o *Outlook) isLate(k float64) bool { return o.fixes.late && k == 1 || o.beats.late && k == 0 }

func (o *Outlook) cause() Cause {
	switch {
	case o.lost:
		return Late
	case o.quiet:
		return Trip
	}
	return Rate
}

// delay is the delay in seconds, after s seconds, of what is not predicted but comes at random.
func (o *Outlook) delay(s float64) float64 { return s * s * (o.event/2 + o.trip*s/3) }

// smooth solves delay(s) = worth for s. The left side is convex, so Newton's method
// stays too high if it starts too high, and three steps are plenty.
func (o *Outlook) smooth(worth float64) float64 {
	s := math.Inf(1)
	if o.event > 0 {
		s = math.Sqrt(2 * worth / o.event)
	}
	if o.trip > 0 {
		s = min(s, math.Cbrt(3*worth/o.trip))
	}
	if o.event <= 0 || o.trip <= 0 || s <= 0 {
		return s
	}
	for range 3 {
		s -= (o.delay(s) - worth) / (s * (o.event + o.trip*s))
	}
	return s
}

// Outlook returns the fixes that may appear on the device after a poll that was answered at t. The first fix of a
// trip counts tripWeight times as much as any other; at least 1.
func (f *Fleet) Outlook(d *Device, t Tick, tripWeight float64) Outlook {
	var o Outlook
	q := d.live(f.typical)
	o.quiet = q < 0.5
	since := (t - d.visible()).Seconds()
	if q > 0.02 {
		f.onRoad(&o, d, q, since)
	}
	if q < 0.98 {
		f.inYard(&o, d, 1-q, t, since, tripWeight)
	}
	return o
}

// onRoad adds the fixes of a device that is live with probability q.
func (f *Fleet) onRoad(o *Outlook, d *Device, q, since float64) {
	c := d.cadence()
	if !c.known() {
		o.event += q * d.rate(f.typical)
		return
	}
	p, fit := d.period(f.typical), float64(c.fit)
	o.event += q * (1 - fit) / p
	o.fixes.each, o.fixes.worth = p, q*fit
	passed := d.passed(p)
	if passed >= 1 {
		own := d.stamp + FromSeconds(passed*p)
		if o.fixes.late = d.pending(o, own); o.fixes.late {
			passed--
		} else {
			// It may still come at any moment, and is the less likely the later it is.
			o.event += 0.7 * q / (max(0, since-passed*p) + 1.5)
			o.lost = true
		}
	}
	o.fixes.base = d.stamp + FromSeconds(passed*p)
	o.fixes.first = max(0, (passed+1)*p-since)
}

// inYard adds the trip or the heartbeats of a device that is parked with probability q.
func (f *Fleet) inYard(o *Outlook, d *Device, q float64, t Tick, since, tripWeight float64) {
	age := since
	if d.parked {
		age = (t - d.since).Seconds()
	}
	p := f.typical
	if d.road.period > 0 {
		p = min(max(float64(d.road.period), 0.5), roadGap)
	}
	h := f.hazard.at(max(0, age)) * d.keen() * q
	o.event += h * max(1, tripWeight)
	o.trip += h / p
	y := &d.yard
	if !y.known() || y.period <= roadGap {
		return
	}
	o.beats.each, o.beats.worth = float64(y.period), float64(y.fit)*q
	passed := d.passed(o.beats.each)
	if passed >= 1 {
		if o.beats.late = d.pending(o, d.stamp+FromSeconds(passed*o.beats.each)); o.beats.late {
			passed--
		}
	}
	o.beats.base = d.stamp + FromSeconds(passed*o.beats.each)
	o.beats.first = max(0, (passed+1)*o.beats.each-since)
}

// TripLikelihood returns the hazard of a trip of a parked device at t, per second.
func (f *Fleet) TripLikelihood(d *Device, t Tick) float64 {
	return f.hazard.at(max(0, (t-d.since).Seconds())) * d.keen()
}

// pending reports whether a predicted fix with that own time, which the last poll did not show, may
// still be on its ordinary way, and sets the width within which it then comes.
func (d *Device) pending(o *Outlook, own Tick) bool {
	after := (d.looked - own).Seconds()
	if !d.lag.known() || !d.lag.pending(after) {
		return false
	}
	o.width = max(narrowest, d.lag.to()-after)
	return true
}

// Moment is [Outlook.Wait], but with the moment of a predicted fix chosen by how its lag varies: coming
// too early, and having to ask again, then costs as much as coming too late.
func (d *Device) Moment(o *Outlook, t Tick, price, longest float64) (float64, Cause) {
	wait, why, k := o.Wait(price, longest)
	if !d.lag.known() || why != Due {
		return wait, why
	}
	own := o.beats.base + FromSeconds(o.beats.each)
	missed := price // cost of a poll that comes too early
	if k > 0 {
		own = o.fixes.base + FromSeconds(k*o.fixes.each)
		// A fix that is missed is seen with the next one at the latest.
		missed = min(price, k*o.fixes.each)
		if d.cadence().doubtful() {
			own -= FromSeconds(0.42 * o.fixes.each)
		}
	}
	if o.isLate(k) {
		why = Late
	}
	at := d.lag.moment(missed, (d.looked - own).Seconds())
	return min(longest, max(0, (own+FromSeconds(at)-t).Seconds())), why
}

// Period returns the seconds at which the device reports on the road, and false if it has no known
// rhythm; then they are the mean time between its fixes there.
func (f *Fleet) Period(d *Device) (seconds float64, known bool) {
	if !d.cadence().known() {
		return 1 / d.rate(f.typical), false
	}
	return d.period(f.typical), true
}
