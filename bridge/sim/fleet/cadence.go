package fleet

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Cadence is how one tracker reports. The zero value reports once, when the
// model starts, and never again.
type Cadence struct {
	Moving    time.Duration // between fixes on the road; 0 means none after the first
	Parked    time.Duration // between heartbeats; 0 means none
	LatencyLo time.Duration // from the fix to its being visible: at least
	LatencyHi time.Duration // and at most
	Batch     int           // fixes on the road that travel together; 0 and 1: each on its own

	OutageEvery time.Duration // mean time between losses of coverage; 0 means never lost
	OutageFor   time.Duration // average length; fixes measured during an outage arrive after it

	ClockOff time.Duration // how far the tracker's clock is ahead
	FirstFix time.Duration // how long after the start the first report comes; 0 means that it is there at the start

	Stationary bool // never drives
	Restless   bool // never parks
	Ignition   bool // has an ignition input
	Announces  bool // sends a fix at once when a trip starts and ends

	// Change is the chance that a question finds a new fix, 0 to 1. Above 0,
	// nothing else of the cadence counts: the fix is made by the asking.
	Change float64
}

// Profile draws the cadence of one device. It must use no randomness but r's,
// so that the same seed gives the same fleet.
type Profile func(r *rand.Rand) Cadence

// Mixed is a fleet as one finds it: 70% of the devices drive; 10 s to 60 s
// between fixes on the road, 5 to 60 minutes parked; uploads take 1 to 6 s; a
// third has no ignition input, one in five announces no trip, one in ten sends
// in batches; coverage is lost now and then; some clocks are off by seconds,
// a few by hours; one in a hundred has not reported yet.
func Mixed(r *rand.Rand) Cadence {
	periods := [...]time.Duration{5, 10, 10, 15, 20, 30, 30, 30, 60, 60}
	beats := [...]time.Duration{5, 10, 10, 15, 30, 60}
	lo := time.Second + time.Duration(r.Int64N(int64(2*time.Second)))
	c := Cadence{
		Moving:      periods[r.IntN(len(periods))] * time.Second,
		Parked:      beats[r.IntN(len(beats))] * time.Minute,
		LatencyLo:   lo,
		LatencyHi:   lo + time.Duration(r.Int64N(int64(3*time.Second))),
		OutageEvery: 2 * time.Hour,
		OutageFor:   3 * time.Minute,
		Stationary:  r.IntN(100) < 30,
		Ignition:    r.IntN(3) > 0,
		Announces:   r.IntN(5) > 0,
	}
	if r.IntN(10) == 0 {
		c.Batch = 3 + r.IntN(6)
	}
	switch n := r.IntN(100); {
	case n < 8:
		c.ClockOff = time.Duration(r.Int64N(int64(time.Minute))) - 30*time.Second
	case n < 11:
		c.ClockOff = time.Duration(r.IntN(11)-5) * time.Hour
	}
	if r.IntN(100) == 0 {
		c.FirstFix = time.Minute + time.Duration(r.Int64N(int64(10*time.Minute)))
	}
	return c
}

// EverySecond has a new fix of each device every second, visible at once.
func EverySecond(r *rand.Rand) Cadence { return Every(time.Second)(r) }

// Every has a new fix of each device every d, visible at once, from vehicles
// that never park. The devices' phases differ.
func Every(d time.Duration) Profile {
	return func(*rand.Rand) Cadence {
		return Cadence{Moving: d, Restless: true, Ignition: true}
	}
}

// Unchanged has one fix of each device, for ever.
func Unchanged(*rand.Rand) Cadence { return Cadence{Stationary: true, Ignition: true} }

// Percent has a new fix at p percent of the questions, 0 to 100.
func Percent(p float64) Profile {
	return func(*rand.Rand) Cadence {
		return Cadence{Change: p / 100, Restless: true, Ignition: true}
	}
}

// ParseProfile reads a profile's name: "mixed", "every-second", "unchanged",
// "every:30s" with any duration from 10ms, or "percent:5" with 0 to 100.
func ParseProfile(name string) (Profile, error) {
	kind, arg, _ := strings.Cut(name, ":")
	switch kind {
	case "mixed", "":
		return Mixed, nil
	case "every-second":
		return EverySecond, nil
	case "unchanged":
		return Unchanged, nil
	case "every":
		d, err := time.ParseDuration(arg)
		if err != nil || d < 10*time.Millisecond {
			return nil, fmt.Errorf("profile %q: want a duration of at least 10ms after the colon", name)
		}
		return Every(d), nil
	case "percent":
		p, err := strconv.ParseFloat(arg, 64)
		if err != nil || math.IsNaN(p) || p < 0 || p > 100 {
			return nil, fmt.Errorf("profile %q: want a number from 0 to 100 after the colon", name)
		}
		return Percent(p), nil
	}
	return nil, fmt.Errorf("profile %q: want mixed, every-second, unchanged, every:DURATION or percent:NUMBER", name)
}
