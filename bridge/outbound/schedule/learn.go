package schedule

import "math"

// learn takes in an answer.
func (a *Adaptive) learn(d *device, t tick, o Observation) {
	if o.Fix {
		stamp := tick(o.FixTime.Sub(a.clock.base))
		stamp = min(max(stamp, fromSeconds(-agesFixed)), fromSeconds(agesFixed))
		switch {
		case !d.seen:
			a.meet(d, t, stamp, o)
		case stamp != d.stamp:
			a.fresh(d, t, stamp, o)
		case o.Changed:
			a.restated(d, t, o)
		default:
			a.nothing(d, t)
		}
	}
	d.polled, d.looked = t, d.asked
	if d.seen && !d.parked && d.lag.known() {
		d.cadence().looked((d.looked - d.visible()).seconds())
	}
}

// meet is the first fix ever seen of a device. It may be any age by a clock that may be off by any
// amount: only a fresh one is taken for a sign of the road.
func (a *Adaptive) meet(d *device, t, stamp tick, o Observation) {
	age := (t - stamp).seconds()
	d.seen, d.cold, d.stamp = true, true, stamp
	d.sign = signOf(o, age > -5 && age < 150)
	d.mid = age
	d.since, d.counted = t-fromSeconds(1800), t
	d.parked = d.signs.chance(d.sign) < 0.5
}

// restated is an answer with the dateTime known but other content. A device whose clock stands still
// is only known by that: there is no rhythm to learn, but a rate of news.
func (a *Adaptive) restated(d *device, t tick, o Observation) {
	d.expose((t-d.polled).seconds()/2, true)
	d.sign = signOf(o, true)
	d.mid = (t - d.stamp).seconds()
	d.proof, d.parked, d.judged = 0, false, true
}

// nothing is a poll that showed nothing new.
func (a *Adaptive) nothing(d *device, t tick) {
	d.proof = d.asked
	d.expose((t - max(d.polled, d.visible())).seconds(), false)
	quiet := d.quiet(a.typical)
	if quiet && !d.judged && !d.cold {
		d.signs.learn(d.sign, false)
		d.judged = true
	}
	switch {
	case d.parked:
		a.park(d, t)
	case quiet || d.live(a.typical) < 0.05:
		d.parked = true
		d.since, d.counted = d.visible(), t
	}
}

// kept is what of the count of news remains with each answer.
const kept = 0.96

// expose counts seconds without a fix, and whether one ended them, of a device that is on the road: a
// night parked says nothing about how often it reports by day.
func (d *device) expose(seconds float64, news bool) {
	if d.parked {
		return
	}
	d.exposed = d.exposed*kept + float32(max(0, seconds))
	d.news *= kept
	if news {
		d.news++
	}
}

// park counts time parked up to then.
func (a *Adaptive) park(d *device, to tick) {
	from, end := max(0, (d.counted-d.since).seconds()), (to - d.since).seconds()
	if end > from {
		d.expected += float32(a.hazard.parked(from, end))
		d.counted = to
	}
}

// fresh is a fix that was not known.
func (a *Adaptive) fresh(d *device, t, stamp tick, o Observation) {
	gap, silent := (stamp - d.stamp).seconds(), d.silent()
	wasStill, wasQuiet := d.still(), d.quiet(a.typical)
	p := min(d.period(a.typical), roadGap)
	first := !d.lag.known()
	road := gap > 0 && gap <= roadGap || !wasQuiet && d.live(a.typical) > 0.5

	visible := a.appeared(d, t, stamp)
	d.expose(max(0.5, min((t-d.polled).seconds(), (t-visible).seconds())), true)
	if !d.judged && !d.cold && (!first || silent > 0) {
		switch {
		case wasQuiet:
			d.signs.learn(d.sign, false)
		case gap > 0 && gap <= max(roadGap, 4*p):
			d.signs.learn(d.sign, true)
		}
	}
	d.stamp, d.sign = stamp, signOf(o, road)
	d.judged, d.cold, d.proof = false, false, 0
	a.beat(d, gap, silent, wasStill, wasQuiet)
	a.turn(d, t, visible)
}

// appeared learns the lag of a fix that was not there at the last poll and is at this one, and
// returns when it probably appeared.
func (a *Adaptive) appeared(d *device, t, stamp tick) tick {
	d.lag.saw((d.looked - stamp).seconds(), (t - stamp).seconds(), a.usual)
	d.mid = d.lag.middle()
	first, _ := d.lag.span(0.06)
	d.early = d.lag.from + float64(first)*float64(d.lag.width)
	if d.lag.width < 2 {
		a.usual += min(0.02, max(-0.02, (d.mid-a.usual)*0.1))
	}
	return min(t, stamp+fromSeconds(d.mid))
}

// beat learns the rhythm from a gap. Gaps between a fix that looks parked and one that does not are
// trips beginning or ending and no multiple of anything.
func (a *Adaptive) beat(d *device, gap, silent float64, wasStill, wasQuiet bool) {
	if gap <= 0 || wasStill != d.still() {
		return
	}
	// An empty poll so many seconds after the fix before: the gap is no more periods than would
	// have left that silence. Two seconds are for the upload, which varies.
	most := uint8(255)
	if proven := silent - 2; proven >= gap {
		most = 1
	} else if proven > 0 {
		most = uint8(min(255, max(1, math.Ceil(gap/max(proven, 1))-1)))
	}
	switch {
	case wasStill:
		d.yard.add(gap, most)
	case !wasQuiet:
		d.road.add(gap, most)
		if d.road.known() && d.road.period <= roadGap {
			a.typical += (float64(d.road.period) - a.typical) * 0.002
		}
	}
}

// turn decides whether the device is parked, by its newest fix, which appeared at some time.
func (a *Adaptive) turn(d *device, t, visible tick) {
	live := d.signs.chance(d.sign) >= 0.5
	if live {
		d.drove = visible
	}
	switch {
	case d.parked && live:
		a.park(d, max(d.counted, visible))
		a.hazard.began(max(0, (visible - d.since).seconds()))
		d.trips++
		d.parked = false
	case d.parked:
		a.park(d, t)
	case !live:
		d.parked = true
		d.since, d.counted = visible, visible
	}
}
