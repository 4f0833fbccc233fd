package forecast

import (
	"math"
	"time"
)

// Tick is a moment on the caller's time line, in nanoseconds since an origin of its choice.
type Tick int64

// Never lies after every other moment.
const Never = Tick(math.MaxInt64)

// After returns the moment d after t, or [Never] if that would overflow.
func (t Tick) After(d time.Duration) Tick {
	if d > 0 && t > Never-Tick(d) {
		return Never
	}
	return t + Tick(d)
}

// Seconds returns t in seconds since the origin.
func (t Tick) Seconds() float64 { return float64(t) / 1e9 }

// FromSeconds returns the moment s seconds after the origin, at most about 126 years from it.
func FromSeconds(s float64) Tick { return Tick(min(max(s, -agesFixed), agesFixed) * 1e9) }

// Observation is the answer to one poll. The zero value is an answer without a usable fix.
type Observation struct {
	Asked   Tick    // when the request was handed out
	Fix     bool    // the answer has a usable fix, which the fields below describe
	Stamp   Tick    // the fix's own time, by the device's clock
	Changed bool    // the answer differs from the one before in more than ignored fields
	Speed   float64 // km/h; NaN if the fix has none
	Input   int8    // digital inputs: -1 unknown, 0 all off, 1 at least one on
}

// Fleet is the knowledge about all devices together. Make it with [NewFleet].
type Fleet struct {
	hazard  *hazard
	periods periods
	typical float64 // period on the road of a device not known better, seconds
	usual   float64 // lag of a device with the right time, seconds
}

// NewFleet returns a Fleet with the assumptions that hold before anything was observed.
func NewFleet() *Fleet { return &Fleet{hazard: newHazard(), typical: 40, usual: 3} }

// NewDevice returns a Device of which nothing is known.
func NewDevice() Device { return Device{signs: priorLiveness} }
