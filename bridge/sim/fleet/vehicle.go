package fleet

import (
	"math"
	"math/rand/v2"
	"time"
)

// leg is a straight run along one street, from a standstill or a turn to the
// next: accelerate, hold, brake. Distances in metres, speeds in m/s, times in
// seconds from the leg's start.
type leg struct {
	from             crossing
	dir              heading
	edges            int32
	length           float64
	v0, v, v1        float64
	accel, brake     float64
	tHold, tBrake, t float64 // when holding starts, when braking starts, arrival
	wait             float64 // at the end: a traffic light
}

// plan fills in the times of a leg whose speeds, rates and length are set. The
// speed held is lowered if the leg is too short to reach it.
func (l *leg) plan() {
	peak := math.Sqrt((2*l.accel*l.brake*l.length + l.brake*l.v0*l.v0 + l.accel*l.v1*l.v1) / (l.accel + l.brake))
	l.v = min(l.v, peak)
	l.v = max(l.v, l.v0, l.v1)
	speedUp := (l.v*l.v - l.v0*l.v0) / (2 * l.accel)
	slowDown := (l.v*l.v - l.v1*l.v1) / (2 * l.brake)
	l.tHold = (l.v - l.v0) / l.accel
	l.tBrake = l.tHold + max(0, l.length-speedUp-slowDown)/l.v
	l.t = l.tBrake + (l.v-l.v1)/l.brake
}

// at is the distance gone and the speed, t seconds into the leg.
func (l *leg) at(t float64) (dist, speed float64) {
	switch {
	case t <= 0:
		return 0, l.v0
	case t < l.tHold:
		return l.v0*t + l.accel*t*t/2, l.v0 + l.accel*t
	case t < l.tBrake:
		return l.v0*l.tHold + l.accel*l.tHold*l.tHold/2 + l.v*(t-l.tHold), l.v
	case t < l.t:
		left := l.t - t
		return l.length - l.v1*left - l.brake*left*left/2, l.v1 + l.brake*left
	default:
		return l.length, 0
	}
}

// place is the offset and course after a distance along the leg's streets.
func (l *leg) place(dist float64) (x, y, course float64) {
	x0, y0 := l.from.offset()
	for i := int32(1); ; i++ {
		x1, y1 := l.from.step(l.dir, i).offset()
		d := math.Hypot(x1-x0, y1-y0)
		if dist <= d || i >= l.edges {
			f := min(1, dist/d)
			return x0 + f*(x1-x0), y0 + f*(y1-y0), bearing(x0, y0, x1, y1)
		}
		dist -= d
		x0, y0 = x1, y1
	}
}

// vehicle drives trips and parks between them. Times are nanoseconds since the
// Unix epoch and only ever move forward.
type vehicle struct {
	rng      *rand.Rand
	drives   bool    // leaves its place at all
	restless bool    // never parks: the next trip starts at the end of one
	temper   float64 // factor on speed limits, 0.85 to 1.3

	moving   bool
	since    int64 // when it parked or set off
	until    int64 // parked: when it sets off
	legStart int64
	leg      leg
	at       crossing // where the leg ends; where it is parked
	goal     crossing
	course   float64
	odometer float64 // metres, up to the start of the leg
}

// run moves the vehicle on to a time, or to the first departure or arrival
// before it, and returns that time and whether it is such a switch.
func (v *vehicle) run(to int64) (at int64, switched bool) {
	for {
		if !v.moving {
			if !v.drives || to < v.until {
				return to, false
			}
			v.depart(v.until)
			return v.since, true
		}
		end := v.legStart + nanos(v.leg.t+v.leg.wait)
		if to < end {
			return to, false
		}
		v.odometer += v.leg.length
		_, _, v.course = v.leg.place(v.leg.length)
		if v.at != v.goal {
			v.turn(end)
			continue
		}
		if v.restless {
			v.depart(end)
			continue
		}
		v.park(end, v.parkFor())
		return end, true
	}
}

// depart starts a trip at a time, to somewhere one to six kilometres away.
func (v *vehicle) depart(t int64) {
	v.moving, v.since = true, t
	for {
		v.goal = crossing{
			col: clamp(v.at.col+v.rng.Int32N(41)-20, columns),
			row: clamp(v.at.row+v.rng.Int32N(61)-30, rows),
		}
		if abs(v.goal.col-v.at.col)+abs(v.goal.row-v.at.row) >= 6 {
			break
		}
	}
	v.leg = leg{} // at rest: the first leg starts from zero
	v.turn(t)
}

// park ends a trip at a time, for a while.
func (v *vehicle) park(t int64, d time.Duration) {
	v.moving, v.since, v.until = false, t, t+int64(d)
	v.leg = leg{}
}

// parkFor draws how long a stop lasts: most are errands, some are nights.
func (v *vehicle) parkFor() time.Duration {
	minutes := 3 * math.Exp(v.rng.Float64()*math.Log(120)) // 3 min to 6 h, log-uniform
	return time.Duration(minutes * float64(time.Minute))
}

// Rates of a careful driver and of one that brakes hard, m/s². Trackers call
// 3.5 and more harsh.
const (
	usualAccel, usualBrake = 1.3, 1.7
	harshAccel, harshBrake = 3.7, 4.4
	turnSpeed              = 15 / 3.6
)

// turn starts the next leg at a time: along one axis towards the goal, for a
// few blocks, to a light, a corner or the goal itself.
func (v *vehicle) turn(t int64) {
	dc, dr := v.goal.col-v.at.col, v.goal.row-v.at.row
	dir, left := axis(dc, east, west), abs(dc)
	// The vehicle stays on an avenue, and leaves a side street at the next chance.
	if dc == 0 || dr != 0 && (v.at.col%avenueEvery == 0 || v.rng.IntN(2) == 0) {
		dir, left = axis(dr, north, south), abs(dr)
	}
	l := leg{from: v.at, dir: dir, edges: 1 + v.rng.Int32N(min(left, 6)), v0: v.leg.v1, accel: usualAccel, brake: usualBrake}
	v.at = v.at.step(dir, l.edges)
	x0, y0 := l.from.offset()
	for i := int32(1); i <= l.edges; i++ {
		x1, y1 := l.from.step(dir, i).offset()
		l.length += math.Hypot(x1-x0, y1-y0)
		x0, y0 = x1, y1
	}
	l.v = l.from.speedLimit(dir) / 3.6 * v.temper * (0.9 + 0.2*v.rng.Float64())
	v.finish(&l)
	l.plan()
	v.leg, v.legStart = l, t
}

// finish decides how a leg ends and whether it is driven harshly.
func (v *vehicle) finish(l *leg) {
	switch {
	case v.at == v.goal:
	case v.rng.IntN(100) < 40:
		l.wait = 4 + 46*v.rng.Float64()
	default:
		l.v1 = turnSpeed
	}
	switch v.rng.IntN(60) {
	case 0:
		l.brake = harshBrake
	case 1:
		l.accel = harshAccel
	}
}

// instant is the exact state of the vehicle at one moment.
type instant struct {
	x, y     float64 // metres, see degrees
	speed    float64 // km/h
	course   float64 // degrees
	odometer float64 // metres
	near     crossing
	limit    float64 // km/h
	harshAcc bool    // accelerated harshly within the last seconds
	harshBrk bool    // braked harshly within the last seconds
	idle     float64 // seconds of standing with the engine on
}

// look is the vehicle at a time that run has reached.
func (v *vehicle) look(t int64) instant {
	if !v.moving {
		x, y := v.at.offset()
		return instant{x: x, y: y, course: v.course, odometer: v.odometer, near: v.at, limit: 45}
	}
	sec := float64(t-v.legStart) / 1e9
	dist, speed := v.leg.at(sec)
	x, y, course := v.leg.place(dist)
	// The crossing last passed; within a leg the sign is the same all along.
	passed := min(v.leg.edges, int32(dist/block))
	return instant{
		x: x, y: y, speed: speed * 3.6, course: course,
		odometer: v.odometer + dist,
		near:     v.leg.from.step(v.leg.dir, passed),
		limit:    v.leg.from.speedLimit(v.leg.dir),
		harshAcc: v.leg.accel > usualAccel && sec < v.leg.tHold+10,
		harshBrk: v.leg.brake > usualBrake && sec > v.leg.tBrake,
		idle:     max(0, sec-v.leg.t),
	}
}

func axis(delta int32, plus, minus heading) heading {
	if delta < 0 {
		return minus
	}
	return plus
}

func clamp(n, size int32) int32 { return max(0, min(size-1, n)) }

func abs(n int32) int32 { return max(n, -n) }

func nanos(seconds float64) int64 { return int64(seconds * 1e9) }
