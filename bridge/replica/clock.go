package replica

import "time"

// moment is a point in time by two clocks. The steady one is never set and, on
// Linux, goes on while the machine is suspended. The wall clock is looked at
// too because a virtual machine that is suspended from outside stops the steady
// one.
type moment struct {
	steady time.Duration // since some time in the past
	wall   time.Duration // since 1970
}

// since is the steady time from an earlier moment.
func (m moment) since(earlier moment) time.Duration { return m.steady - earlier.steady }

// within reports whether less than d has passed since an earlier moment,
// whichever clock one asks. It errs towards false: a wall clock that jumps ahead
// ends a lease, until its next renewal.
func (m moment) within(d time.Duration, earlier moment) bool {
	return m.steady-earlier.steady < d && m.wall-earlier.wall < d
}

func systemClock() moment {
	return moment{steady: steady(), wall: time.Duration(time.Now().UnixNano())}
}

var started = time.Now()

// awake is the steady clock of Go's own: it stands still while the machine is
// suspended.
func awake() time.Duration { return time.Since(started) }
