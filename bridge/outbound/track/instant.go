package track

import (
	"math"
	"time"
)

// Instant is a time in a third of its memory: nanoseconds since the year 1700, and 0 for the zero time. A time that
// it cannot hold, before 1700 or after 2284, becomes the nearest one that it can.
type Instant uint64

const (
	second = 1_000_000_000
	// origin is the Unix time of the year 1700.
	origin = -8_520_336_000
)

// InstantOf returns the instant of a time.
func InstantOf(t time.Time) Instant {
	seconds := t.Unix() - origin
	switch {
	case t.IsZero():
		return 0
	case seconds < 0:
		return 1
	case seconds >= math.MaxUint64/second:
		return math.MaxUint64
	}
	return max(Instant(seconds)*second+Instant(t.Nanosecond()), 1)
}

// IsZero reports whether it is the zero time.
func (i Instant) IsZero() bool { return i == 0 }

// Time returns the time, in UTC.
func (i Instant) Time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(origin+int64(i/second), int64(i%second)).UTC()
}
