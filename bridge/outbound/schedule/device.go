package schedule

import "math"

// device is what is known of one device. Stamps are the device's own clock, the other ticks the
// policy's; the lag is what lies between.
type device struct {
	asked     tick // when the poll that is out, or else the last one, was handed out
	looked    tick // when the last poll that was answered was handed out
	polled    tick // when its answer came
	proof     tick // when the last poll that showed nothing newer was handed out, 0: none
	notBefore tick
	stamp     tick // of the newest fix
	since     tick // parked since
	counted   tick // up to when the time parked is in the hazard
	next      tick // planned poll
	drove     tick // when the last trip began that was seen; only if trips is not 0
	step      tick // from one predicted fix to the next, where a spare request is only worth it just after one; 0: at any time

	mid   float64 // median of the lag, seconds
	early float64 // near the smallest lag, seconds
	lag   lag
	road  rhythm // of fixes after one that looks like being on the road
	yard  rhythm // of fixes after one that looks parked
	signs liveness

	news     float32 // fixes seen, a running sum ...
	exposed  float32 // ... and the seconds in which they could have been: the rate of news
	trips    float32 // begun ...
	expected float32 // ... and to be expected of an average device parked as long

	weight   float32 // in the count of waits
	bin      int16   // and where, 0 not in
	why      Reason  // for next
	sign     sign    // of the newest fix
	failures uint8   // polls without an answer in a row, up to 10
	polls    uint8   // planned, for the dither
	seen     bool    // there is a newest fix
	cold     bool    // only one fix was ever seen, whose age is anybody's guess
	parked   bool
	yardbird bool // counted in Adaptive.drivers
	judged   bool // what the sign of the newest fix led to is learnt
}

const (
	roadGap    = 180. // seconds; longer is not the road's cadence
	silentPlus = 60.  // seconds over three periods after which a silent device is parked
	agesFixed  = 4e9  // seconds; stamps are no further than that from the beginning
)

func newDevice() device { return device{signs: priorLiveness} }

func fromSeconds(s float64) tick { return tick(min(max(s, -agesFixed), agesFixed) * 1e9) }

func (t tick) seconds() float64 { return float64(t) / 1e9 }

// visible is when the newest fix probably appeared.
func (d *device) visible() tick { return d.stamp + fromSeconds(d.mid) }

// still says whether the newest fix looks parked.
func (d *device) still() bool {
	input, speed, road := d.sign/6, d.sign/2%3, d.sign%2 == 1
	switch {
	case input == 2 || speed == 2:
		return false
	case input == 1 || speed == 1:
		return true
	}
	return !road
}

// cadence is the rhythm that applies after the newest fix while the device is live: a parked device
// that reports in short steady gaps is as live as one on the road.
func (d *device) cadence() *rhythm {
	if d.still() && d.yard.known() && d.yard.period <= roadGap {
		return &d.yard
	}
	return &d.road
}

// period is what the cadence is taken to be, in seconds.
func (d *device) period(typical float64) float64 {
	if c := d.cadence(); c.period > 0 {
		return max(0.5, float64(c.period))
	}
	return typical
}

// silent is for how many seconds nothing newer than the newest fix is known to have appeared.
func (d *device) silent() float64 {
	if d.proof == 0 {
		return 0
	}
	return max(0, (d.proof - d.visible()).seconds())
}

// quiet says whether a device has been silent for too long to be on the road.
func (d *device) quiet(typical float64) bool {
	return d.silent() > 3*min(d.period(typical), roadGap)+silentPlus
}

// live is the chance that the device still reports at its cadence, given how late its next fix is
// already: most that come at all come within seconds, few after a period.
func (d *device) live(typical float64) float64 {
	if d.parked {
		return 0
	}
	q, p := d.signs.chance(d.sign), d.period(typical)
	if !d.cadence().known() {
		odds := q / max(1e-3, 1-q) * math.Exp(-d.silent()*d.rate(typical))
		return odds / (1 + odds)
	}
	late := d.silent() - p
	if late < -0.02*p {
		return q
	}
	late = max(0, late)
	odds := q / max(1e-3, 1-q)
	odds *= 0.03*math.Exp(-1.2*late/p) + 0.12*math.Exp(-late/(2+2*float64(d.lag.width)))
	return odds / (1 + odds)
}

// rate is the news a second, from how old the newest fix was whenever there was one.
func (d *device) rate(typical float64) float64 {
	return (float64(d.news) + 1) / (float64(d.exposed) + typical)
}

// keen is how much likelier than an average device this one is to begin a trip.
func (d *device) keen() float64 { return (float64(d.trips) + 0.7) / (float64(d.expected) + 0.7) }

// passed is how many fixes a period apart should have appeared after the newest one when the last poll
// looked, counted from the earliest moment that they may.
func (d *device) passed(period float64) float64 {
	early := d.mid
	if d.lag.known() {
		early = max(d.early, d.mid-period/3)
	}
	return max(0, math.Floor(((d.looked-d.stamp).seconds()-early)/period))
}
