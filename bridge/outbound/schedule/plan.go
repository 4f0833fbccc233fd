package schedule

import "math"

// outlook is what may appear on a device after a moment, in seconds from it.
type outlook struct {
	event float64 // rate of single fixes at random, per second
	trip  float64 // growth of the rate of fixes, per second squared: hazard of a trip over its period

	first float64 // moment of the first predicted fix ...
	each  float64 // ... and from one to the next, 0: none predicted
	worth float64 // chance of each
	base  tick    // own time of the fix before the first

	beat     float64 // likewise for heartbeats
	beats    float64
	sure     float64
	beatBase tick

	live     float64 // chance that the device reports as on the road
	late     bool    // the first predicted fix should have been there and may come any moment ...
	beatLate bool    // ... or the heartbeat ...
	width    float64 // ... within so many seconds
	lost     bool    // the last predicted fix did not come in that time
	quiet    bool    // the device is parked
}

// wait is how long to leave the device alone at a price: until the moments, counted from the last
// poll, at which something appears add up to the price. For fixes every p seconds that is the k-th
// fix, k(k+1)/2 p being at least the price; for random ones with rate r the square root of 2 price/r;
// for a trip at hazard h the cube root of 3p price/h. It costs least in the long run. k is which
// predicted fix it is, 0 for a heartbeat or none.
func (o *outlook) wait(price, longest float64) (seconds float64, why Reason, k float64) {
	sum := 0.
	next, beat := math.Inf(1), math.Inf(1)
	if o.each > 0 {
		next = o.first
	}
	if o.beats > 0 {
		beat = o.beat
	}
	for n := 0.; ; {
		at := min(next, beat, longest)
		if s := o.smooth(price - sum); s < at {
			return s, o.reason(), 0
		}
		if at == longest {
			return longest, ReasonLongest, 0
		}
		if at == next {
			n++
			k = n
			sum += o.worth * n * o.each
			next += o.each
		} else {
			k = 0
			sum += o.sure * o.beats
			beat += o.beats
		}
		if sum < price {
			continue
		}
		if o.late && k == 1 || o.beatLate && k == 0 {
			// Something that comes within a width at any moment is looked for each so often.
			at = min(longest, at+min(o.width, math.Sqrt(2*price*o.width)))
		}
		return at, ReasonDue, k
	}
}

func (o *outlook) reason() Reason {
	switch {
	case o.lost:
		return ReasonLate
	case o.quiet:
		return ReasonParked
	}
	return ReasonRate
}

// smooth solves event s^2/2 + trip s^3/3 = worth for s. The left side is convex, so that Newton's
// method, started too high, stays so and three steps are plenty.
func (o *outlook) smooth(worth float64) float64 {
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
		f := s*s*(o.event/2+o.trip*s/3) - worth
		s -= f / (s * (o.event + o.trip*s))
	}
	return s
}

// outlook is the device's after a poll answered at t.
func (a *Adaptive) outlook(d *device, t tick) outlook {
	var o outlook
	q := d.live(a.typical)
	o.live, o.quiet = max(q, 1e-3), q < 0.5
	since := (t - d.visible()).seconds()
	if q > 0.02 {
		a.onRoad(&o, d, q, since)
	}
	if q < 0.98 {
		a.inYard(&o, d, 1-q, t, since)
	}
	return o
}

// onRoad adds what a device will show that is live with chance q.
func (a *Adaptive) onRoad(o *outlook, d *device, q, since float64) {
	c := d.cadence()
	if !c.known() {
		o.event += q * d.rate(a.typical)
		return
	}
	p, fit := d.period(a.typical), float64(c.fit)
	o.event += q * (1 - fit) / p
	o.each, o.worth = p, q*fit
	passed := d.passed(p)
	if passed >= 1 {
		own := d.stamp + fromSeconds(passed*p)
		if o.late = d.pending(o, own); o.late {
			passed--
		} else {
			// It may still come any moment, the less likely the later it is already.
			o.event += 0.7 * q / (max(0, since-passed*p) + 1.5)
			o.lost = true
		}
	}
	o.base = d.stamp + fromSeconds(passed*p)
	o.first = max(0, (passed+1)*p-since)
}

// inYard adds what a device will show that is parked with chance q: a trip, or a heartbeat.
func (a *Adaptive) inYard(o *outlook, d *device, q float64, t tick, since float64) {
	age := since
	if d.parked {
		age = (t - d.since).seconds()
	}
	p := a.typical
	if d.road.period > 0 {
		p = min(max(float64(d.road.period), 0.5), roadGap)
	}
	h := a.hazard.at(max(0, age)) * d.keen() * q
	o.event += h * a.weight
	o.trip += h / p
	y := &d.yard
	if !y.known() || y.period <= roadGap {
		return
	}
	o.beats, o.sure = float64(y.period), float64(y.fit)*q
	passed := d.passed(o.beats)
	if passed >= 1 {
		if o.beatLate = d.pending(o, d.stamp+fromSeconds(passed*o.beats)); o.beatLate {
			passed--
		}
	}
	o.beatBase = d.stamp + fromSeconds(passed*o.beats)
	o.beat = max(0, (passed+1)*o.beats-since)
}

// pending says whether a predicted fix with that own time, which the last poll did not show, may
// still be on its ordinary way, and for how long.
func (d *device) pending(o *outlook, own tick) bool {
	after := (d.looked - own).seconds()
	if !d.lag.known() || !d.lag.pending(after) {
		return false
	}
	o.width = max(narrowest, d.lag.to()-after)
	return true
}

// moment is wait, but with the moment of a predicted fix chosen by how its lag varies.
func (a *Adaptive) moment(d *device, o *outlook, t tick, price, longest float64) (float64, Reason) {
	wait, why, k := o.wait(price, longest)
	if !d.lag.known() || why != ReasonDue {
		return wait, why
	}
	own := o.beatBase + fromSeconds(o.beats)
	missed := price // what it costs to come too early
	if k > 0 {
		own = o.base + fromSeconds(k*o.each)
		// A fix that is missed is seen with the next one at the latest.
		missed = min(price, k*o.each)
		if d.cadence().doubtful() {
			own -= fromSeconds(0.42 * o.each)
		}
	}
	if o.late && k == 1 || o.beatLate && k == 0 {
		why = ReasonLate
	}
	at := d.lag.moment(missed, (d.looked - own).seconds())
	return min(longest, max(0, (own+fromSeconds(at)-t).seconds())), why
}
