// Package clock measures how much time has passed, also if the machine was suspended
// or its clock was set.
package clock

import "time"

// Moment is a point in time by two clocks. The steady one is never set and, on
// Linux, goes on while the machine is suspended. The wall clock is read too,
// because a virtual machine that is suspended from outside stops the steady one.
type Moment struct {
	Steady time.Duration // since some time in the past
	Wall   time.Duration // since 1970
}

// Since is the steady time from an earlier moment.
func (m Moment) Since(earlier Moment) time.Duration { return m.Steady - earlier.Steady }

// Add is the moment a steady time later, by both clocks.
func (m Moment) Add(d time.Duration) Moment { return Moment{m.Steady + d, m.Wall + d} }

// Before reports whether m is earlier by the steady clock.
func (m Moment) Before(other Moment) bool { return m.Steady < other.Steady }

// Within reports whether less than d has passed since an earlier moment by either
// clock. It errs towards false: a wall clock that jumps ahead ends a lease, until
// its next renewal.
func (m Moment) Within(d time.Duration, earlier Moment) bool {
	return m.Steady-earlier.Steady < d && m.Wall-earlier.Wall < d
}

// System reads the clocks of the machine.
func System() Moment {
	return Moment{Steady: steady(), Wall: time.Duration(time.Now().UnixNano())}
}

var started = time.Now()

// awake is Go's own steady clock: it stands still while the machine is suspended.
func awake() time.Duration { return time.Since(started) }
