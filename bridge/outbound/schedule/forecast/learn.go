package forecast

import "math"

// Observe learns from the answer to a poll that came at t.
func (f *Fleet) Observe(d *Device, t Tick, o Observation) {
	if o.Fix {
		o.Stamp = min(max(o.Stamp, FromSeconds(-agesFixed)), FromSeconds(agesFixed))
		switch {
		case !d.seen:
			f.meet(d, t, o)
		case o.Stamp != d.stamp:
			f.fresh(d, t, o)
		case o.Changed:
			f.restated(d, t, o)
		default:
			f.nothing(d, t, o.Asked)
		}
	}
	d.polled, d.looked = t, o.Asked
	if d.seen && !d.parked && d.lag.known() {
		d.cadence().looked((d.looked - d.visible()).Seconds())
	}
}

// meet takes the first fix ever seen of a device. Its age is a guess, because the device's clock may be
// off by any amount. Only a fresh fix is a sign of the road.
func (f *Fleet) meet(d *Device, t Tick, o Observation) {
	age := (t - o.Stamp).Seconds()
	d.seen, d.cold, d.stamp = true, true, o.Stamp
	d.sign = signOf(o, age > -5 && age < 150)
	d.mid = age
	d.since, d.habit.counted, d.habit.met = t-FromSeconds(1800), t, secondOf(t)
	d.parked = d.signs.chance(d.sign) < 0.5
}

// restated takes an answer with the same dateTime but other content. A device with a stopped clock
// is only known by that: it has no rhythm to learn, but a rate of news.
func (f *Fleet) restated(d *Device, t Tick, o Observation) {
	d.expose((t-d.polled).Seconds()/2, true)
	d.sign = signOf(o, true)
	d.mid = (t - d.stamp).Seconds()
	d.proof, d.parked, d.judged = 0, false, true
}

// nothing takes a poll that showed nothing new.
func (f *Fleet) nothing(d *Device, t, asked Tick) {
	d.proof = asked
	d.expose((t - max(d.polled, d.visible())).Seconds(), false)
	quiet := d.quiet(f.typical)
	if quiet && !d.judged && !d.cold {
		d.signs.learn(d.sign, false)
		d.judged = true
	}
	switch {
	case d.parked:
		f.park(d, t)
	case quiet || d.live(f.typical) < 0.05:
		d.parked = true
		d.since, d.habit.counted = d.visible(), t
	}
}

// kept is the share of the rate of news that remains at each answer.
const kept = 0.96

// expose counts seconds on the road without a fix, and the fix that ended them. Time parked does not
// count: it says nothing about how often the device reports on the road.
func (d *Device) expose(seconds float64, fix bool) {
	if d.parked {
		return
	}
	d.news.seconds = d.news.seconds*kept + float32(max(0, seconds))
	d.news.fixes *= kept
	if fix {
		d.news.fixes++
	}
}

// park counts the time parked up to then.
func (f *Fleet) park(d *Device, to Tick) {
	from, end := max(0, (d.habit.counted-d.since).Seconds()), (to - d.since).Seconds()
	if end > from {
		d.habit.expected += float32(f.hazard.parked(from, end))
		d.habit.counted = to
	}
}

// fresh takes a fix that was not known.
func (f *Fleet) fresh(d *Device, t Tick, o Observation) {
	gap, silent := (o.Stamp - d.stamp).Seconds(), d.silent()
	wasStill, wasQuiet := d.still(), d.quiet(f.typical)
	p := min(d.period(f.typical), roadGap)
	first := !d.lag.known()
	road := gap > 0 && gap <= roadGap || !wasQuiet && d.live(f.typical) > 0.5

	visible := f.appeared(d, t, o.Stamp)
	road = road || !first && d.young((t-visible).Seconds(), gap, p)
	d.expose(max(0.5, min((t-d.polled).Seconds(), (t-visible).Seconds())), true)
	if !d.judged && !d.cold && (!first || silent > 0) {
		switch {
		case wasQuiet:
			d.signs.learn(d.sign, false)
		case gap > 0 && gap <= max(roadGap, 4*p):
			d.signs.learn(d.sign, true)
		}
	}
	d.stamp, d.sign = o.Stamp, signOf(o, road)
	d.judged, d.cold, d.proof = false, false, 0
	f.beat(d, gap, silent, wasStill, wasQuiet)
	f.turn(d, t, visible)
}

// young reports whether the age at which a poll found a fix is a sign of the road. On the road every poll finds a fix
// younger than the period. A parked device shows one that young only now and then, unless the poll was made for a
// predicted heartbeat.
func (d *Device) young(age, gap, period float64) bool {
	if gap <= 0 || age > period {
		return false
	}
	return !d.yard.known() || multiple(gap, float64(d.yard.period), 255) == 0
}

// appeared learns the lag of a fix that was not there at the last poll and is at this one, and returns
// when it probably appeared.
func (f *Fleet) appeared(d *Device, t, stamp Tick) Tick {
	d.lag.saw((d.looked - stamp).Seconds(), (t - stamp).Seconds(), f.usual)
	d.mid = d.lag.middle()
	first, _ := d.lag.span(0.06)
	d.lag.first = uint8(first)
	if d.lag.width < 2 {
		f.usual += min(0.02, max(-0.02, (d.mid-f.usual)*0.1))
	}
	return min(t, stamp+FromSeconds(d.mid))
}

// beat learns the rhythm from a gap. A gap between a fix that looks parked and one that does not is a
// trip that begins or ends, and a multiple of nothing.
func (f *Fleet) beat(d *Device, gap, silent float64, wasStill, wasQuiet bool) {
	if gap <= 0 || wasStill != d.still() {
		return
	}
	// An empty poll that long after the previous fix limits the gap to the number of periods that would
	// have left that silence. Two seconds allow for the upload, which varies.
	most := uint8(255)
	if proven := silent - 2; proven >= gap {
		most = 1
	} else if proven > 0 {
		most = uint8(min(255, max(1, math.Ceil(gap/max(proven, 1))-1)))
	}
	switch {
	case wasStill:
		d.yard.add(gap, most, nil)
	case !wasQuiet:
		fits := d.road.add(gap, most, &f.periods)
		if d.road.known() && d.road.period <= roadGap {
			f.typical += (float64(d.road.period) - f.typical) * 0.002
			if fits {
				f.periods.saw(float64(d.road.period))
			}
		}
	}
}

// turn decides by its newest fix, which appeared at visible, whether the device is parked.
func (f *Fleet) turn(d *Device, t, visible Tick) {
	live := d.signs.chance(d.sign) >= 0.5
	if live {
		d.habit.drove = secondOf(visible)
	}
	switch {
	case d.parked && live:
		f.park(d, max(d.habit.counted, visible))
		f.hazard.began(max(0, (visible - d.since).Seconds()))
		d.habit.begun++
		d.parked = false
	case d.parked:
		f.park(d, t)
	case !live:
		d.parked = true
		d.since, d.habit.counted = visible, visible
	}
}
