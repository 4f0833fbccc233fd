package schedule

import "math"

// A plan weighs the delay that a poll ends against the price of a request, both in seconds. While
// fixes appear at moments s1, s2, ... after the last poll, waiting until the sum of the moments reaches
// the price costs least in the long run: for fixes every p seconds that is the k-th, with k(k+1)/2
// times p at least the price; for a trip that begins at hazard h and then shows a fix every p seconds,
// the cube root of 3p times the price over h; for news at random with rate r, the square root of twice
// the price over r.

// outlook is what may appear after now, in seconds from now.
type outlook struct {
	event    float64 // rate of single fixes at random, per second
	trip     float64 // growth of the rate of fixes, per second squared (hazard over period)
	first    float64 // moment of the first predicted fix on the road
	each     float64 // and from one to the next; 0: none predicted
	worth    float64 // chance of each
	beat     float64 // moment of the next heartbeat
	beats    float64 // from one to the next, 0: none predicted
	sure     float64 // chance of it
	late     bool    // a predicted fix has not come
	lost     bool
	spread   float64
	base     tick // when the newest fix was made, or the predicted one that is late
	beatBase tick
	beatLate bool
	live     float64
	quiet    bool // not on the road
}

// wait is how long to leave the device alone at a price, and why then. It is longest where the
// outlook is poor.
func (o *outlook) wait(price, longest float64) (float64, Reason, float64) {
	sum := 0.
	next, beat := math.Inf(1), math.Inf(1)
	if o.each > 0 {
		next = o.first
	}
	if o.beats > 0 {
		beat = o.beat
	}
	for k := 1.; ; {
		at := min(next, beat, longest)
		if s := o.smooth(price - sum); s < at {
			return s, o.smoothReason(), 0
		}
		if at == longest {
			return longest, ReasonLongest, 0
		}
		was := k
		if at == next {
			sum += o.worth * k * o.each
			next += o.each
			k++
		} else {
			sum += o.sure * o.beats
			beat += o.beats
			was = 0
		}
		if sum >= price {
			if o.late && was == 1 {
				at = min(longest, at+min(o.spread, math.Sqrt(2*price*o.spread)))
			}
			return at, ReasonDue, was
		}
	}
}

func (o *outlook) smoothReason() Reason {
	switch {
	case o.lost:
		return ReasonLate
	case o.quiet:
		return ReasonParked
	}
	return ReasonRate
}

// smooth solves event s^2/2 + trip s^3/3 = worth for s. Newton's method from above converges from above, the
// left side being convex.
func (o *outlook) smooth(worth float64) float64 {
	s := math.Inf(1)
	if o.event > 0 {
		s = math.Sqrt(2 * worth / o.event)
	}
	if o.trip > 0 {
		s = min(s, math.Cbrt(3*worth/o.trip))
	}
	if o.event <= 0 || o.trip <= 0 {
		return s
	}
	for range 3 {
		f := s*s*(o.event/2+o.trip*s/3) - worth
		s -= f / (s * (o.event + o.trip*s))
	}
	return s
}

// outlook is the device's, after a poll at t.
func (a *Adaptive) outlook(d *device, t tick) outlook {
	var o outlook
	q := d.live(a.typical)
	o.live = max(q, 1e-3)
	c := d.cadence()
	since := (t - d.visible()).seconds()
	p := d.period(a.typical)
	if q > 0.02 {
		a.onRoad(&o, d, c, q, since)
	}
	if q < 0.98 {
		age := max(0, (t - d.since).seconds())
		if !d.parked {
			age = max(0, since)
		}
		h := a.hazard.at(age) * d.fondness() * (1 - q)
		o.event += h * a.weight
		o.trip += X6 * h / p
		if y := &d.yard; y.known() && y.fit > 0.4 && float64(y.period) > roadGap {
			o.beats, o.sure = float64(y.period), float64(y.fit)*(1-q)
			passed := d.passed(o.beats)
			o.beatBase = d.stamp + fromSeconds(passed*o.beats)
			if passed >= 1 && d.lag.known() && d.lag.pending((d.looked - o.beatBase).seconds()) {
				o.beatLate = true
				passed--
				o.beatBase = d.stamp + fromSeconds(passed*o.beats)
			}
			o.beat = max(0, (passed+1)*o.beats-since)
		}
	}
	o.quiet = q < 0.5
	return o
}

// onRoad adds what a live device will show.
func (a *Adaptive) onRoad(o *outlook, d *device, c *rhythm, q, since float64) {
	if !c.known() || c.fit < 0.45 {
		o.event += q * d.rate(a.typical)
		return
	}
	p, fit := float64(c.period), float64(c.fit)
	o.event += q * (1 - fit) / p
	o.each, o.worth = p, q*fit
	passed := d.passed(p)
	o.base = d.stamp + fromSeconds(passed*p)
	o.first = max(0, (passed+1)*p-since)
	if passed >= 1 {
		after := (d.looked - o.base).seconds()
		if d.lag.known() && d.lag.pending(after) {
			o.late = true
			o.base -= fromSeconds(p)
			o.first = max(0, passed*p-since)
			o.spread = max(narrowest, d.lag.to()-after)
			return
		}
		// The last predicted fix has not come in the ordinary time: it may any moment, the less
		// likely the later it is already.
		o.event += X4 * q / (max(0, since-passed*p) + 1.5)
		o.lost = true
	}
}

// passed is how many fixes a period apart were expected since the newest one when the last poll
// looked: those whose earliest moment to appear was over.
func (d *device) passed(p float64) float64 {
	early := max(d.early, d.mid-p/3)
	if !d.lag.known() {
		early = d.mid
	}
	return max(0, math.Floor(((d.looked-d.stamp).seconds()-early)/p))
}

// moment turns a wait into the planned poll.
func (a *Adaptive) moment(d *device, o *outlook, t tick, price, longest float64) (float64, Reason) {
	w, why, k := o.wait(price, longest)
	if !d.lag.known() || why != ReasonDue {
		return w, why
	}
	base, waiting, m := o.beatBase+fromSeconds(o.beats), 0., price
	if k > 0 {
		base = o.base + fromSeconds(k*o.each)
		m = min(price, k*o.each)
		if d.cadence().doubtful() && o.each > 4 {
			base -= fromSeconds(0.42 * o.each)
		}
		if k == 1 {
			waiting = -X2 * min(1, price/o.each)
			m = min(price/o.live, X3*k*o.each)
		}
		if k == 1 && o.late {
			why = ReasonLate
		}
	} else if o.beatLate {
		why = ReasonLate
	}
	at := d.lag.moment(m, waiting, (d.looked - base).seconds())
	return min(longest, max(0, (base+fromSeconds(at)-t).seconds())), why
}
