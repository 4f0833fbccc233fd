package schedule_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// fix is one state of the API: from visible on, until the next one of the device, its newest fix is
// this. Times are since the start of the run; stamp is by the device's clock.
type fix struct {
	visible, stamp time.Duration
	speed          float32 // km/h, NaN: none
	input          int8
	begins         bool // the first of a trip
	extra          bool // sent at a moment that nothing predicts
}

// tracker is one device and all that it will ever show, in order.
type tracker struct {
	id    string
	fixes []fix
}

// traits are the properties in which devices of the synthetic fleet differ.
type traits struct {
	drives    bool
	period    float64 // seconds between fixes on the road
	heartbeat float64 // and parked
	latency   float64 // smallest upload time
	shaky     bool    // upload time anywhere between 1 and 6 s, each fix anew
	jitter    float64 // of the reporting timer
	events    float64 // mean seconds between extra fixes (turns, brakes), 0: none
	resets    bool    // an extra fix starts the period anew
	input     int     // 0 none, 1 ignition, 2 stuck on, 3 stuck off
	speed     bool
	announces bool // reports the start of a trip when it starts
	concludes bool // and its end
	random    bool // no timer: the time to the next fix is exponential
	batch     int  // fixes per upload
	outages   bool
	buffers   bool // keeps fixes during an outage and sends them afterwards
	skew      float64
	setBack   float64 // when its clock goes back, 0: never
	stops     float64 // scale of its stops
}

// settings are the periods that trackers are sold and set up with.
var settings = [...]float64{10, 15, 30, 60, 120}

func newTraits(r *rand.Rand, horizon float64) traits {
	d := traits{
		drives:    r.Float64() < 0.7,
		period:    settings[r.IntN(len(settings))],
		heartbeat: math.Round(logUniform(r, 300, 3600)),
		latency:   1 + 3*r.Float64(),
		shaky:     r.Float64() < 0.2,
		jitter:    0.05 + 0.4*r.Float64(),
		resets:    r.Float64() < 0.5,
		input:     1,
		speed:     r.Float64() < 0.9,
		announces: r.Float64() < 0.85,
		concludes: r.Float64() < 0.85,
		batch:     1,
		outages:   r.Float64() < 0.5,
		buffers:   r.Float64() < 0.8,
		skew:      r.NormFloat64() * 0.5,
		stops:     math.Exp(0.5 * r.NormFloat64()),
	}
	if r.Float64() < 0.15 {
		d.events = d.period * (2 + 4*r.Float64())
	}
	switch u := r.Float64(); {
	case u < 1./3:
		d.input = 0
	case u < 1./3+0.03:
		d.input = 2 + r.IntN(2)
	}
	if r.Float64() < 0.1 {
		d.batch = 3 + r.IntN(6)
	}
	switch u := r.Float64(); {
	case u < 0.15:
		d.skew = 120*r.Float64() - 60
	case u < 0.2:
		d.skew = 3600 * float64(r.IntN(24)-12)
	}
	if r.Float64() < 0.02 {
		d.setBack = horizon * r.Float64()
	}
	return d
}

func logUniform(r *rand.Rand, lo, hi float64) float64 {
	return lo * math.Exp(r.Float64()*math.Log(hi/lo))
}

// fleet draws n devices and their lives, from well before the start of the run to its end.
func fleet(seed uint64, n int, horizon time.Duration) []tracker {
	return fleetOf(seed, n, horizon, func(*traits) {})
}

// fleetOf is fleet with the traits of every device changed.
func fleetOf(seed uint64, n int, horizon time.Duration, change func(*traits)) []tracker {
	out := make([]tracker, n)
	for i := range out {
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		out[i] = tracker{id: fmt.Sprintf("s%d-%05d", seed, i)}
		d := newTraits(r, horizon.Seconds())
		change(&d)
		l := life{traits: d, r: r, end: horizon.Seconds(), upload: math.Inf(-1)}
		l.run()
		out[i].fixes = l.settle()
	}
	return out
}

// life writes down the fixes of one device.
type life struct {
	traits
	r       *rand.Rand
	end     float64
	t       float64 // now
	silent  float64 // no coverage until then
	pending []report
	sent    []report
	upload  float64 // end of the last upload: a device uploads in order
}

type report struct {
	made, visible float64
	speed         float64
	on, begins    bool
	hidden        bool // superseded in the same upload
}

const before = 4 * 3600

func (l *life) run() {
	l.t = -before - 3600*l.r.Float64()
	if !l.drives {
		l.park(l.end - l.t)
		return
	}
	for l.t < l.end {
		l.park(l.stop())
		l.drive(math.Max(120, 1200*math.Exp(0.8*l.r.NormFloat64())))
	}
}

func (l *life) stop() float64 {
	if l.r.Float64() < 0.55 {
		return l.stops * (120 + 720*l.r.ExpFloat64())
	}
	return l.stops * (900 + 4500*l.r.ExpFloat64())
}

func (l *life) park(length float64) {
	end := l.t + length
	next := l.t + l.heartbeat
	for next < math.Min(end, l.end) {
		l.report(next, 0, false, false)
		l.flush(next, true)
		next += l.heartbeat + l.jitter*l.r.NormFloat64()
	}
	l.t = end
}

func (l *life) drive(length float64) {
	end := l.t + length
	begins := true
	next := l.t
	if !l.announces {
		next += l.period * l.r.Float64()
	}
	extra := math.Inf(1)
	if l.events > 0 {
		extra = l.t + l.events*l.r.ExpFloat64()
	}
	outage := math.Inf(1)
	if l.outages {
		outage = l.t + 3*3600*l.r.ExpFloat64()
	}
	for {
		at := math.Min(next, extra)
		if at >= end || at >= l.end {
			break
		}
		if at > outage {
			l.silent = outage + logUniform(l.r, 60, 1500)
			outage = l.silent + 3*3600*l.r.ExpFloat64()
		}
		l.report(at, 3+l.r.ExpFloat64()*25*btof(l.r.Float64() < 0.85), true, begins)
		l.flush(at, begins)
		begins = false
		if at == extra {
			extra = at + 2 + l.events*l.r.ExpFloat64()
			if !l.resets {
				continue
			}
		}
		next = at + l.period + l.jitter*l.r.NormFloat64()
		if l.random {
			next = at + max(0.5, l.period*l.r.ExpFloat64())
		}
	}
	l.t = end
	if end < l.end && l.concludes {
		l.report(end, 0, false, false)
	}
	l.flush(end, true)
}

func btof(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func (l *life) report(at, speed float64, on, begins bool) {
	l.pending = append(l.pending, report{made: at, speed: speed, on: on, begins: begins})
}

// flush uploads the pending reports if there is coverage and enough of them, or if it must.
func (l *life) flush(at float64, must bool) {
	if at < l.silent {
		if !l.buffers {
			l.pending = l.pending[:0]
		}
		return
	}
	if len(l.pending) == 0 || (len(l.pending) < l.batch && !must) {
		return
	}
	took := l.latency + 0.6*l.r.ExpFloat64()
	if l.shaky {
		took = 1 + 5*l.r.Float64()
	}
	// Ten fixes go in one upload; only the last of them is ever seen.
	l.upload = math.Max(l.upload, at+math.Min(took, 6))
	for i, p := range l.pending {
		p.visible = l.upload
		p.hidden = i%10 != 9 && i != len(l.pending)-1
		if i%10 == 9 {
			l.upload++
		}
		l.sent = append(l.sent, p)
	}
	l.pending = l.pending[:0]
}

// settle turns the reports into the fixes that the API shows.
func (l *life) settle() []fix {
	var out []fix
	for _, p := range l.sent {
		if p.hidden || p.visible > l.end {
			continue
		}
		stamp := p.made + l.skew
		if l.setBack > 0 && p.made > l.setBack {
			stamp -= 3600
		}
		f := fix{visible: seconds(p.visible), stamp: seconds(stamp).Truncate(time.Second), speed: float32(p.speed), begins: p.begins}
		if !l.speed {
			f.speed = float32(math.NaN())
		}
		switch {
		case l.input == 0:
			f.input = -1
		case l.input == 2, l.input == 1 && p.on:
			f.input = 1
		}
		out = append(out, f)
	}
	// Of the past only the newest is there when the run begins.
	first := sort.Search(len(out), func(i int) bool { return out[i].visible > 0 })
	return out[max(0, first-1):]
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// made counts the fixes that became visible in a span.
func made(ts []tracker, from, to time.Duration) int {
	n := 0
	for _, d := range ts {
		for _, f := range d.fixes {
			if f.visible >= from && f.visible < to {
				n++
			}
		}
	}
	return n
}

// withEvents adds 24 fixes a day of each device, parked or not, sent at once.
func withEvents(seed uint64, ts []tracker) []tracker {
	for i := range ts {
		r := rand.New(rand.NewPCG(seed+77, uint64(i)))
		for at := 3600 * r.ExpFloat64(); at < runs.Seconds(); at += 3600 * r.ExpFloat64() {
			visible := seconds(at)
			j := sort.Search(len(ts[i].fixes), func(j int) bool { return ts[i].fixes[j].visible > visible })
			f := fix{visible: visible, stamp: seconds(at - 2), extra: true, speed: 0, input: 0}
			if j > 0 {
				last := ts[i].fixes[j-1]
				f.speed, f.input = last.speed, last.input
				f.stamp = last.stamp + (visible - last.visible)
			}
			ts[i].fixes = slices.Insert(ts[i].fixes, j, f)
		}
	}
	return ts
}
