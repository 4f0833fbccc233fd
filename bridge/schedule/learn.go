package schedule

import "math"

// learn takes in an answer.
func (a *Adaptive) learn(d *device, t tick, o Observation) {
	if !o.Fix {
		return
	}
	stamp := tick(o.FixTime.Sub(a.clock.base))
	switch {
	case !d.seen:
		a.meet(d, t, stamp, o)
	case stamp != d.stamp:
		a.fresh(d, t, stamp, o)
	default:
		a.nothing(d, t)
	}
}

// meet is the first fix ever seen of a device.
func (a *Adaptive) meet(d *device, t, stamp tick, o Observation) {
	d.seen, d.cold = true, true
	d.stamp = stamp
	age := (t - stamp).seconds()
	road := age >= -5 && age < 150
	d.sign = signOf(o, road)
	d.mid = min(max(age, -1e8), 1e8)
	d.proof = 0
	d.since, d.counted = t-fromSeconds(1800), t
	if d.signs.chance(d.sign) < 0.5 {
		d.parked = true
	}
}

// nothing is a poll that showed nothing new.
func (a *Adaptive) nothing(d *device, t tick) {
	d.proof = d.asked
	d.exposed = d.exposed*0.9 + float32((t - max(d.polled, d.visible())).seconds())
	d.news *= 0.9
	p := d.period(a.typical)
	if c := d.cadence(); c.period > 0 {
		p = float64(c.period)
	}
	quiet := d.silent() > 3*p+silentPlus
	if quiet && !d.judged && !d.cold {
		d.signs.learn(d.sign, false)
		d.judged = true
	}
	switch {
	case !d.parked && (quiet || d.live(a.typical) < 0.05):
		d.parked = true
		d.since = d.visible()
		d.counted = t
	case d.parked:
		a.park(d, t)
	}
}

// park counts time parked.
func (a *Adaptive) park(d *device, to tick) {
	from := max(0, (d.counted - d.since).seconds())
	end := (to - d.since).seconds()
	if end > from {
		d.expected += float32(a.hazard.parked(from, end))
		d.counted = to
	}
}

// fresh is a fix that was not known.
func (a *Adaptive) fresh(d *device, t, stamp tick, o Observation) {
	low, high := (d.looked - stamp).seconds(), (t - stamp).seconds()
	gap := (stamp - d.stamp).seconds()
	z := d.silent()
	p := d.period(a.typical)
	wasParked, wasStill, wasLive := d.parked, d.still(), d.live(a.typical) > 0.5
	known := d.lag.known()
	d.lag.saw(low, high, a.usual)
	if d.lag.width < 2 {
		a.usual += min(0.02, max(-0.02, (d.lag.middle()-a.usual)*0.1))
	}
	d.mid = d.lag.middle()
	e, _ := d.lag.span(0.06)
	d.early = d.lag.from + float64(e)*float64(d.lag.width)
	visible := min(t, stamp+fromSeconds(d.mid))
	d.exposed = d.exposed*0.9 + float32(max(0.5, min((t-d.polled).seconds(), (t-visible).seconds())))
	d.news = d.news*0.9 + 1

	road := gap > 0 && gap <= roadGap || wasLive && z < 3*p+silentPlus
	s := signOf(o, road)
	if known || z > 0 {
		if !d.judged && !d.cold {
			switch {
			case z > 3*p+silentPlus:
				d.signs.learn(d.sign, false)
			case gap > 0 && gap <= max(roadGap, 4*p):
				d.signs.learn(d.sign, true)
			}
		}
	}
	old := d.stamp
	_ = old
	d.stamp, d.sign, d.judged, d.cold = stamp, s, false, false
	d.proof = 0
	nowStill := d.still()
	if gap > 0 {
		most := uint8(255)
		if zz := z - 2; zz > 0 {
			most = uint8(min(255, max(1, math.Ceil(gap/max(zz, 1))-1)))
			if zz >= gap {
				most = 1
			}
		}
		switch {
		case !wasStill && !nowStill && z < 3*p+silentPlus:
			d.road.add(gap, most)
			a.learnt(&d.road)
		case wasStill && nowStill:
			d.yard.add(gap, most)
		}
	}
	live := d.signs.chance(d.sign) >= 0.5
	switch {
	case wasParked && live:
		a.park(d, max(d.counted, visible))
		a.hazard.began(max(0, (visible - d.since).seconds()))
		d.trips++
		d.parked = false
	case wasParked:
		a.park(d, t)
	case !live:
		d.parked = true
		d.since = visible
		d.counted = visible
	}
}

func (a *Adaptive) learnt(r *rhythm) {
	if r.known() && r.period <= roadGap {
		a.typical += (float64(r.period) - a.typical) * 0.002
	}
}
