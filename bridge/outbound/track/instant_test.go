package track

import (
	"math"
	"testing"
	"time"
)

// TestInstant: an instant keeps a time to the nanosecond, and the order of all times.
func TestInstant(t *testing.T) {
	var last Instant
	for i, tc := range []struct{ at, want time.Time }{
		{time.Time{}, time.Time{}},
		{time.Date(2, 1, 1, 0, 0, 0, 0, time.UTC), Instant(1).Time()},
		{time.Date(1700, 1, 1, 0, 0, 0, 1, time.UTC), Instant(1).Time()},
		{time.Unix(0, 0), time.Unix(0, 0)},
		{time.Date(2026, 11, 26, 12, 0, 0, 123456789, time.FixedZone("", -5*3600)), time.Date(2026, 11, 26, 17, 0, 0, 123456789, time.UTC)},
		{time.Date(2284, 1, 1, 0, 0, 0, 999999999, time.UTC), time.Date(2284, 1, 1, 0, 0, 0, 999999999, time.UTC)},
		{time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), Instant(math.MaxUint64).Time()},
	} {
		got := InstantOf(tc.at)
		if !got.Time().Equal(tc.want) || got.IsZero() != tc.at.IsZero() {
			t.Errorf("the instant of %v is %v, want %v", tc.at, got.Time(), tc.want)
		}
		if got < last || got == last && i > 2 {
			t.Errorf("the instant of %v is not after the one before", tc.at)
		}
		last = got
	}
	if got := InstantOf(Instant(math.MaxUint64).Time()); got != math.MaxUint64 {
		t.Errorf("the last instant becomes %d", got)
	}
}
