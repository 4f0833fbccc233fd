package fleet

import (
	"hash/fnv"
	"math"
	"math/rand/v2"
	"time"
)

// never is a time that no device reaches.
const never = math.MaxInt64

// Device is one tracker and the vehicle it is in. It is not safe for
// concurrent use.
type Device struct {
	pcg     rand.PCG
	rng     *rand.Rand
	cadence Cadence
	car     vehicle
	sensors sensors

	next      int64 // when the next fix is measured
	lostFrom  int64 // the next or present loss of coverage
	lostUntil int64
	batch     []Fix // measured, waiting for their batch to fill
	queue     []Fix // sent, in order, not visible yet or just becoming so
	sent      int64 // when the newest of the queue becomes visible

	latest Fix
	count  uint64
	past   ring
}

// NewDevice makes the device with an id, at a time. The same seed, id, start
// and profile give the same device. It keeps the newest history of its fixes,
// at least one.
func NewDevice(id string, seed uint64, start time.Time, profile Profile, history int) *Device {
	h := fnv.New64a()
	h.Write([]byte(id)) // never fails, says hash.Hash
	d := &Device{past: ring{limit: max(1, history)}}
	d.pcg.Seed(seed, mix(h.Sum64()))
	d.rng = rand.New(&d.pcg)
	d.cadence = profile(d.rng)
	d.car = vehicle{
		rng:      d.rng,
		drives:   !d.cadence.Stationary,
		restless: d.cadence.Restless,
		temper:   0.85 + 0.4*d.rng.Float64()*d.rng.Float64(),
		at:       crossing{col: d.rng.Int32N(columns), row: d.rng.Int32N(rows)},
		course:   float64(d.rng.IntN(360)),
		odometer: 1e8 * d.rng.Float64(),
	}
	d.sensors = newSensors(d.rng, d.cadence)
	d.begin(start.UnixNano())
	return d
}

// Cadence is how the device reports.
func (d *Device) Cadence() Cadence { return d.cadence }

// begin puts the device into the middle of its life: on the road or parked,
// with a last fix that is already there.
func (d *Device) begin(start int64) {
	d.lostFrom, d.lostUntil = never, never
	if d.cadence.OutageEvery > 0 {
		d.planOutage(start)
	}
	driving := d.car.restless || d.car.drives && d.rng.IntN(100) < 35
	first := start + int64(d.cadence.FirstFix)
	if d.cadence.FirstFix == 0 {
		// The devices' fixes are spread over the period before the start.
		if period := d.period(driving); period > 0 {
			first -= d.rng.Int64N(int64(period))
		}
	}
	d.sensors.at, d.sensors.odo = first, d.car.odometer
	if driving {
		d.car.depart(first)
	} else {
		d.car.park(first, time.Duration(d.rng.Float64()*float64(d.car.parkFor())))
	}
	f := d.measure(first)
	f.visible, d.sent = first, first
	d.queue = append(d.queue, f)
	d.next = d.after(first)
}

// period is the time between fixes; 0 means that there are none.
func (d *Device) period(driving bool) time.Duration {
	switch {
	case d.cadence.Change > 0:
		return 0
	case driving:
		return d.cadence.Moving
	default:
		return d.cadence.Parked
	}
}

// after is when the next fix is due, after one at t.
func (d *Device) after(t int64) int64 {
	if p := d.period(d.car.moving); p > 0 {
		return t + int64(p)
	}
	return never
}

// Poll brings the device to a time as a question to the API does, and tells
// its newest visible fix; ok is false while there is none. Times that go back
// are taken as no progress.
func (d *Device) Poll(now time.Time) (f *Fix, ok bool) {
	t := now.UnixNano()
	if d.cadence.Change > 0 && d.count > 0 && d.rng.Float64() < d.cadence.Change {
		// Two questions in the same instant get two times.
		at := max(t, d.latest.measured+int64(time.Millisecond))
		d.drive(at)
		f := d.measure(at)
		f.visible = at
		d.show(f)
		return &d.latest, true
	}
	d.advance(t)
	return &d.latest, d.count > 0
}

// Count is how many fixes have become visible; it changes with every new one.
func (d *Device) Count() uint64 { return d.count }

// History calls f for the fixes kept that are visible, oldest first.
func (d *Device) History(now time.Time, f func(*Fix)) {
	d.advance(now.UnixNano())
	d.past.each(f)
}

// advance shows everything that is visible by a time.
func (d *Device) advance(t int64) {
	for d.foresee() && d.queue[0].visible <= t {
		i := 0
		for i < len(d.queue) && d.queue[i].visible <= t {
			d.show(d.queue[i])
			i++
		}
		d.queue = append(d.queue[:0], d.queue[i:]...)
	}
}

// foresee runs the model on until it has a fix that is not shown yet, and
// reports whether there will ever be one. Since fixes become visible in the
// order they are sent in, that one is the next.
func (d *Device) foresee() bool {
	for len(d.queue) == 0 {
		if d.next == never && !d.wakes() {
			return false
		}
		d.step()
	}
	return true
}

// wakes reports whether setting off or arriving will bring fixes, if no next
// one is planned.
func (d *Device) wakes() bool {
	c := &d.cadence
	return d.car.drives && !d.car.restless && c.Change == 0 && (c.Announces || c.Moving > 0 || c.Parked > 0)
}

func (d *Device) show(f Fix) {
	d.latest = f
	d.count++
	d.past.add(f)
}

// step goes on to the next thing that happens: a fix that is due, or the
// vehicle setting off or arriving, which may be a fix as well.
func (d *Device) step() {
	at, switched := d.car.run(d.next)
	if !switched {
		d.send(d.measure(at))
		d.next = d.after(at)
		return
	}
	if !d.car.moving {
		d.flush(at)
	}
	if d.cadence.Announces {
		d.send(d.measure(at))
	}
	d.next = d.after(at)
}

// drive moves the vehicle alone.
func (d *Device) drive(t int64) {
	for {
		if _, switched := d.car.run(t); !switched {
			return
		}
	}
}

// send takes a fix to its batch or on its way.
func (d *Device) send(f Fix) {
	if d.cadence.Batch > 1 && d.car.moving {
		d.batch = append(d.batch, f)
		if len(d.batch) >= d.cadence.Batch {
			d.flush(f.measured)
		}
		return
	}
	d.upload(f, f.measured)
}

// flush sends a batch at a time.
func (d *Device) flush(t int64) {
	for _, f := range d.batch {
		d.upload(f, t)
	}
	d.batch = d.batch[:0]
}

// upload decides when a fix becomes visible: after the upload's latency, after
// an outage's end if it falls into one, and never before an earlier fix.
func (d *Device) upload(f Fix, t int64) {
	for t >= d.lostUntil {
		d.planOutage(d.lostUntil)
	}
	if t >= d.lostFrom {
		t = d.lostUntil
		f.flags |= wasBuffered
	}
	latency := int64(d.cadence.LatencyLo)
	if spread := int64(d.cadence.LatencyHi) - latency; spread > 0 {
		latency += d.rng.Int64N(spread)
	}
	f.visible = max(t+latency, d.sent)
	d.sent = f.visible
	d.queue = append(d.queue, f)
}

// planOutage draws the next loss of coverage after a time.
func (d *Device) planOutage(t int64) {
	d.lostFrom = t + int64(d.rng.ExpFloat64()*float64(d.cadence.OutageEvery))
	d.lostUntil = d.lostFrom + int64(time.Second) + int64(d.rng.ExpFloat64()*float64(d.cadence.OutageFor))
}

// measure returns the fix of the vehicle at a time.
func (d *Device) measure(t int64) Fix {
	now := d.car.look(t)
	f := Fix{
		measured: t,
		stamped:  t + int64(d.cadence.ClockOff),
		odometer: uint32(now.odometer),
		speed:    int16(now.speed * 10),
		course:   int16(now.course*10) % 3600,
		near:     now.near,
	}
	x, y := now.x, now.y
	if d.car.moving { // trackers keep the position while the vehicle stands
		x += 1.5 * d.rng.NormFloat64()
		y += 1.5 * d.rng.NormFloat64()
	}
	lat, lon := degrees(x, y)
	f.lat, f.lon = int32(lat*1e6), int32(lon*1e6)
	d.sensors.read(d, &f, now)
	return f
}

// ring holds the newest fixes.
type ring struct {
	limit int
	fixes []Fix
	start int
}

func (r *ring) add(f Fix) {
	if len(r.fixes) < r.limit {
		r.fixes = append(r.fixes, f)
		return
	}
	r.fixes[r.start] = f
	r.start = (r.start + 1) % r.limit
}

func (r *ring) each(f func(*Fix)) {
	for i := range r.fixes {
		f(&r.fixes[(r.start+i)%len(r.fixes)])
	}
}
