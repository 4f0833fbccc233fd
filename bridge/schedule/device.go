package schedule

import "math"

// device is what is known of one device. Ticks are the policy's, stamps the device's own clock on the
// policy's time line; lag is the difference.
type device struct {
	asked     tick // when the last poll was handed out
	looked    tick // when the last poll that was answered was handed out
	polled    tick // when its answer came
	proof     tick // when the last poll that showed nothing newer than stamp was handed out; 0: none
	notBefore tick
	stamp     tick // of the newest fix
	counted   tick // up to when the time parked is in the hazard
	since     tick // parked since

	lag      lag
	mid      float64 // the lag's median, seconds
	early    float64
	road     rhythm // of fixes that follow one that looks like being on the road
	yard     rhythm // of those that follow one that does not
	signs    liveness
	sign     sign // of the newest fix
	seen     bool // there is a newest fix
	cold     bool // only one fix was ever seen: its age is anybody's guess
	parked   bool
	judged   bool    // the liveness of the newest fix's sign is settled
	turn     uint8   // polls, for spreading the price
	failures uint8   // in a row
	news     float32 // fixes seen, a running mean ...
	exposed  float32 // ... and the seconds in which they could have been, for the rate of news
	trips    float32 // trips begun ...
	expected float32 // ... and to be expected of an average device

	next tick   // planned poll
	why  Reason // and its reason
	bin  int16  // in the histogram of waits of the parked, -1 none
}

const (
	roadGap    = 180. // seconds: a longer silence is not the road's cadence
	silentPlus = 60.  // seconds over three periods after which a device is parked
)

// visible is when the newest fix appeared, as far as known.
func (d *device) visible() tick { return d.stamp + fromSeconds(d.mid) }

func fromSeconds(s float64) tick {
	return tick(min(max(s, -1e9), 1e9) * 1e9)
}

func (t tick) seconds() float64 { return float64(t) / 1e9 }

// period is the road's, or the fleet's while it is not known.
func (d *device) period(typical float64) float64 {
	if d.road.period > 0 {
		return min(max(float64(d.road.period), 0.5), roadGap)
	}
	return typical
}

// cadence is the rhythm that applies after the newest fix while the device is live.
func (d *device) cadence() *rhythm {
	if d.still() && d.yard.known() && d.yard.period <= roadGap {
		return &d.yard
	}
	return &d.road
}

// still says whether the newest fix looks parked.
func (d *device) still() bool {
	in, speed, road := d.sign/6, d.sign/2%3, d.sign%2 == 1
	switch {
	case in == 2 || speed == 2:
		return false
	case in == 1 || speed == 1:
		return true
	}
	return !road
}

// silent is for how long nothing newer than the newest fix is known to have appeared.
func (d *device) silent() float64 {
	if d.proof == 0 {
		return 0
	}
	return max(0, (d.proof - d.visible()).seconds())
}

// live is the chance that the device still reports at the road's cadence.
func (d *device) live(typical float64) float64 {
	if d.parked {
		return 0
	}
	q := d.signs.chance(d.sign)
	p := typical
	if c := d.cadence(); c.period > 0 {
		p = float64(c.period)
	}
	late := d.silent() - p
	if late < -0.02*p {
		return q
	}
	late = max(0, late)
	odds := q / max(1e-3, 1-q) * (0.03*math.Exp(-1.2*late/p) + 0.12*math.Exp(-late/(2*X3+2*float64(d.lag.width))))
	return odds / (1 + odds)
}

// rate is the news a second, from how old the newest fix was whenever there was one.
func (d *device) rate(typical float64) float64 {
	return (float64(d.news) + 1) / (float64(d.exposed) + typical)
}

// fondness is how much likelier than an average device this one is to begin a trip.
func (d *device) fondness() float64 { return (float64(d.trips) + 0.7) / (float64(d.expected) + 0.7) }

// sight is what one answered poll showed.
type sight struct {
	t   tick // the answer
	fix bool
	new bool // a fix that was not known
	o   Observation
}
