package forecast

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// ErrMemory is the error of a memory that cannot be read: its length, version or content is wrong.
var ErrMemory = errors.New("malformed forecast memory")

// memoryVersion is the first byte of each memory. Another version is another layout.
const memoryVersion = 1

// deviceMemory is the knowledge about a device that outlives a restart or a change of replica. It is stored in
// little endian without padding.
type deviceMemory struct {
	Version, Flags, Sign uint8
	RoadFit, YardFit     uint8   // in 255ths
	Stamp, Looked        int64   // ms since 1970; Looked: when the last poll was handed out
	Since, Drove         uint32  // s since 1970; Drove 0: never
	Lag, Width           float32 // s
	Road, Yard           float32 // periods, s
	Begun, Expected      uint16  // trips, in 16ths
	News                 float32 // s on the road per fix
	Signs                [signs / 2]uint8
}

// fleetMemory is the same for the whole fleet.
type fleetMemory struct {
	Version         uint8
	Typical, Usual  float32
	Trips, Seconds  [stretches]float32
	Periods, Shares [periodsKept]float32
}

// Bits of deviceMemory.Flags.
const (
	wasCold = 1 << iota
	wasParked
	wasJudged
	knewLag
	knewRoad
	knewYard
	sawNothing // the last poll
)

// AppendMemory appends the knowledge about the device that outlives a restart: its newest fix, rhythms, lag, habit, rate of news,
// the meaning of its signs, and since when it is parked. origin is the wall time of tick 0. A device without a
// fix has no memory, and b is returned as it is.
func (d *Device) AppendMemory(b []byte, origin time.Time) []byte {
	if !d.seen {
		return b
	}
	wall := func(t Tick) time.Time { return origin.Add(time.Duration(t)) }
	m := deviceMemory{
		Version: memoryVersion, Sign: uint8(d.sign), Stamp: wall(d.stamp).UnixMilli(), Looked: wall(d.looked).UnixMilli(), Since: uint32(wall(d.since).Unix()),
		Lag: float32(d.mid), Width: d.lag.width, Road: d.road.period, Yard: d.yard.period,
		RoadFit: uint8(255 * d.road.fit), YardFit: uint8(255 * d.yard.fit),
		Begun: sixteenths(d.habit.begun), Expected: sixteenths(d.habit.expected), News: d.news.seconds / max(1, d.news.fixes),
	}
	for bit, set := range map[uint8]bool{
		wasCold: d.cold, wasParked: d.parked, wasJudged: d.judged, knewLag: d.lag.known(), knewRoad: d.road.known(), knewYard: d.yard.known(),
		sawNothing: d.proof != 0 && d.proof == d.looked,
	} {
		if set {
			m.Flags |= bit
		}
	}
	if d.habit.drove != 0 {
		m.Drove = uint32(wall(d.habit.drove.tick()).Unix())
	}
	for i := range m.Signs {
		m.Signs[i] = d.signs[2*i]>>4 | d.signs[2*i+1]&0xf0
	}
	b, _ = binary.Append(b, binary.LittleEndian, m) // a struct of fixed size does not fail
	return b
}

func sixteenths(f float32) uint16 { return uint16(min(16*max(0, f), math.MaxUint16)) }

// Recall returns the device that a memory was made of. origin is the wall time of tick 0, now the present; times
// later than that count as now. The error is [ErrMemory].
func Recall(memory []byte, origin time.Time, now Tick) (Device, error) {
	var m deviceMemory
	if n, err := binary.Decode(memory, binary.LittleEndian, &m); err != nil || n != len(memory) || m.Version != memoryVersion {
		return Device{}, ErrMemory
	}
	for _, f := range []float32{m.Lag, m.Width, m.Road, m.Yard, m.News} {
		if !(math.Abs(float64(f)) <= agesFixed) {
			return Device{}, ErrMemory
		}
	}
	if m.Sign >= signs || m.Width < 0 || m.Road < 0 || m.Yard < 0 || m.News < 0 {
		return Device{}, ErrMemory
	}
	tick := func(wall time.Time) Tick { return Tick(wall.Sub(origin)) }
	is := func(bit uint8) bool { return m.Flags&bit != 0 }
	d := NewDevice()
	d.seen, d.cold, d.parked, d.judged = true, is(wasCold), is(wasParked), is(wasJudged)
	d.sign, d.mid = sign(m.Sign), float64(m.Lag)
	d.stamp = min(max(tick(time.UnixMilli(m.Stamp)), FromSeconds(-agesFixed)), FromSeconds(agesFixed))
	d.since = min(now, tick(time.Unix(int64(m.Since), 0)))
	if m.Drove != 0 {
		d.habit.drove = secondOf(min(now, tick(time.Unix(int64(m.Drove), 0))))
	}
	if is(knewLag) {
		d.lag.recall(d.mid, float64(m.Width))
	}
	if is(knewRoad) && m.Road >= 0.5 {
		d.road.recall(m.Road, m.RoadFit)
	}
	if is(knewYard) && m.Yard >= 0.5 {
		d.yard.recall(m.Yard, m.YardFit)
	}
	d.habit.begun, d.habit.expected = float32(m.Begun)/16, float32(m.Expected)/16
	if m.News > 0 {
		d.news = news{fixes: newsRecalled, seconds: newsRecalled * m.News}
	}
	for i, both := range m.Signs {
		d.signs[2*i], d.signs[2*i+1] = both<<4|8, both&0xf0|8
	}
	d.looked = min(now, max(tick(time.UnixMilli(m.Looked)), FromSeconds(-agesFixed)))
	if is(sawNothing) {
		d.proof = d.looked
	}
	d.polled, d.habit.counted = d.looked, d.looked
	d.habit.met = secondOf(d.looked - observedFor - 1)
	return d, nil
}

// newsRecalled is the weight in fixes of a rate of news that is recalled.
const newsRecalled = 8

// recall sets a rhythm that is known to hold, with a fit in 255ths.
func (r *rhythm) recall(period float32, fit uint8) {
	*r = rhythm{period: period, fit: max(float32(fit)/255, 0.5), evidence: 1, count: 2, at: 2}
	r.gaps[0], r.gaps[1], r.most[0], r.most[1] = period, period, 1, 1
}

// recall sets a lag of which the median and the width of a stretch are known: most of the weight lies around the
// median.
func (l *lag) recall(middle, width float64) {
	width = max(width, narrowest)
	*l = lag{from: middle - stretchesOfLag/2*width, width: float32(width), fixes: 8}
	var w weights
	for i := range w {
		away := (float64(i) + 0.5 - stretchesOfLag/2) / 2
		w[i] = float32(math.Exp(-away*away/2)) + trace
	}
	l.keep(&w)
}

// AppendMemory appends the knowledge about all devices together.
func (f *Fleet) AppendMemory(b []byte) []byte {
	m := fleetMemory{Version: memoryVersion, Typical: float32(f.typical), Usual: float32(f.usual)}
	for i := range stretches {
		m.Trips[i], m.Seconds[i] = float32(f.hazard.trips[i]), float32(f.hazard.seconds[i])
	}
	for i := range periodsKept {
		m.Periods[i], m.Shares[i] = f.periods.seconds[i], f.periods.fixes[i]/max(1, f.periods.all)
	}
	b, _ = binary.Append(b, binary.LittleEndian, m) // a struct of fixed size does not fail
	return b
}

// Recall replaces the knowledge about all devices together by a memory. The error is [ErrMemory], and f is then as it was.
func (f *Fleet) Recall(memory []byte) error {
	var m fleetMemory
	if n, err := binary.Decode(memory, binary.LittleEndian, &m); err != nil || n != len(memory) || m.Version != memoryVersion {
		return ErrMemory
	}
	if !(m.Typical >= 0.5 && m.Typical <= roadGap && math.Abs(float64(m.Usual)) < 600) {
		return ErrMemory
	}
	h := newHazard()
	p := periods{all: periodsAfter}
	for i := range stretches {
		if !(m.Trips[i] > 0 && m.Seconds[i] > 0 && m.Trips[i] < 1e9 && m.Seconds[i] < 1e15) {
			return ErrMemory
		}
		h.trips[i], h.seconds[i] = float64(m.Trips[i]), float64(m.Seconds[i])
	}
	for i := range periodsKept {
		if !(m.Periods[i] >= 0 && m.Periods[i] <= roadGap && m.Shares[i] >= 0 && m.Shares[i] <= 1) {
			return ErrMemory
		}
		p.seconds[i], p.fixes[i] = m.Periods[i], m.Shares[i]*periodsAfter
	}
	f.typical, f.usual, f.hazard, f.periods = float64(m.Typical), float64(m.Usual), h, p
	return nil
}
