package forecast

import "math"

// Device is the knowledge about one device. Make it with [NewDevice]. Stamps are by the device's clock,
// all other ticks by the caller's; the lag is the difference. A Device is a value and may be copied.
type Device struct {
	looked Tick // when the last poll that was answered was handed out
	polled Tick // when its answer came
	proof  Tick // when the last poll that showed nothing newer was handed out; 0 if none
	stamp  Tick // own time of the newest fix
	since  Tick // parked since

	mid   float64 // median of the lag, seconds
	lag   lag
	habit habit
	news  news
	road  rhythm // of fixes after one that looks like being on the road
	yard  rhythm // of fixes after one that looks parked
	signs liveness

	sign   sign // of the newest fix
	seen   bool // there is a newest fix
	cold   bool // only one fix was ever seen, and its age is a guess
	parked bool
	judged bool // the meaning of the newest fix's sign has been learnt
}

// news is the rate of news on the road: fixes seen, and the seconds in which they could have been. Both
// are running sums with forgetting.
type news struct{ fixes, seconds float32 }

// habit is how often a device begins trips.
type habit struct {
	begun    float32 // trips
	expected float32 // trips of an average device parked for as long
	counted  Tick    // the time parked is included up to then
	met      second  // when its first fix was seen
	drove    second  // when the device was last seen on the road; 0 if never
}

// second is a [Tick] to the second below, for what is compared with hours and days.
type second int32

func secondOf(t Tick) second {
	return second(min(max(math.Floor(t.Seconds()), math.MinInt32), math.MaxInt32))
}

func (s second) tick() Tick { return Tick(s) * 1e9 }

const (
	roadGap    = 180. // seconds; a longer gap is not the road's rhythm
	silentPlus = 60.  // seconds beyond three periods after which a silent device is parked
	agesFixed  = 4e9  // seconds; stamps are no further than that from the origin
	driverFor  = Tick(72 * 3600e9)
	// observedFor is how long a device is observed before it may count as idle.
	observedFor = Tick(1800e9)
)

// Seen reports whether a fix of the device was ever seen.
func (d *Device) Seen() bool { return d.seen }

// Parked reports whether the device is taken to be parked.
func (d *Device) Parked() bool { return d.parked }

// ParkedSince returns when a parked device stopped, as far as is known.
func (d *Device) ParkedSince() Tick { return d.since }

// Polled returns when the last answer came.
func (d *Device) Polled() Tick { return d.polled }

// Waited returns the seconds between the last request that was answered and one at asked.
func (d *Device) Waited(asked Tick) float64 { return (asked - d.looked).Seconds() }

// Idle reports whether the device was not seen on the road in the three days before t, and has been observed
// for long enough to say so.
func (d *Device) Idle(t Tick) bool {
	return !d.Drives(t) && d.seen && t-d.habit.met.tick() > observedFor
}

// Drives reports whether the device was seen on the road in the three days before t.
func (d *Device) Drives(t Tick) bool { return d.habit.drove != 0 && t-d.habit.drove.tick() < driverFor }

// Lag returns the median lag in seconds, and false if it is not known.
func (d *Device) Lag() (seconds float64, ok bool) { return d.mid, d.lag.known() }

// Heartbeat returns the period in seconds at which a parked device reports; 0 if it is not known.
func (d *Device) Heartbeat() float64 {
	if !d.yard.known() {
		return 0
	}
	return float64(d.yard.period)
}

// visible is when the newest fix probably appeared.
func (d *Device) visible() Tick { return d.stamp + FromSeconds(d.mid) }

// still reports whether the newest fix looks parked.
func (d *Device) still() bool {
	input, speed, road := d.sign/6, d.sign/2%3, d.sign%2 == 1
	switch {
	case input == 2 || speed == 2:
		return false
	case input == 1 || speed == 1:
		return true
	}
	return !road
}

// cadence is the rhythm that applies after the newest fix while the device is live. A parked device
// that reports in short steady gaps is as live as one on the road.
func (d *Device) cadence() *rhythm {
	if d.still() && d.yard.known() && d.yard.period <= roadGap {
		return &d.yard
	}
	return &d.road
}

// period is the assumed period of the cadence, in seconds.
func (d *Device) period(typical float64) float64 {
	if c := d.cadence(); c.period > 0 {
		return max(0.5, float64(c.period))
	}
	return typical
}

// silent is the number of seconds for which nothing newer than the newest fix is known to have appeared.
func (d *Device) silent() float64 {
	if d.proof == 0 {
		return 0
	}
	return max(0, (d.proof - d.visible()).Seconds())
}

// quiet reports whether a device has been silent for too long to be on the road.
func (d *Device) quiet(typical float64) bool {
	return d.silent() > 3*min(d.period(typical), roadGap)+silentPlus
}

// live is the probability that the device still reports at its cadence, given how late its next fix is.
// Of the late ones most come within seconds, and few after a period.
func (d *Device) live(typical float64) float64 {
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

// rate is the news per second on the road.
func (d *Device) rate(typical float64) float64 {
	return (float64(d.news.fixes) + 1) / (float64(d.news.seconds) + typical)
}

// keen is how many times likelier than an average device this one is to begin a trip.
func (d *Device) keen() float64 {
	return (float64(d.habit.begun) + 0.7) / (float64(d.habit.expected) + 0.7)
}

// passed is how many fixes a period apart should have appeared after the newest one by the last poll,
// counted from the earliest moment at which they may.
func (d *Device) passed(period float64) float64 {
	early := d.mid
	if d.lag.known() {
		early = max(d.lag.early(), d.mid-period/3)
	}
	return max(0, math.Floor(((d.looked-d.stamp).Seconds()-early)/period))
}
