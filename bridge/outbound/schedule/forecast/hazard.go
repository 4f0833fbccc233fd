package forecast

import "math/bits"

// hazard is how likely a parked device is to set off, by the time it has been parked, learnt from the
// whole fleet: seconds parked and trips begun in each stretch of time parked, each twice as long as
// the one before. A trip is the likelier the shorter the stop has been.
type hazard struct {
	trips, seconds [stretches]float64
}

const (
	stretches    = 14 // the first up to a minute, the last from 68 hours
	firstStretch = 60.
)

func newHazard() *hazard {
	h := new(hazard)
	for i := range stretches {
		// What one would guess: a stop lasts about as long again as it has, ten minutes at least;
		// worth two trips, so that an hour with a fleet of a hundred corrects it.
		age := firstStretch * float64(uint(1)<<i) * 0.7
		h.trips[i] = 2
		h.seconds[i] = 2 * (900 + 1.5*age)
	}
	return h
}

func stretch(age float64) int {
	if age < firstStretch {
		return 0
	}
	return min(bits.Len64(uint64(age/firstStretch)), stretches-1)
}

// at is the hazard per second.
func (h *hazard) at(age float64) float64 {
	i := stretch(age)
	return h.trips[i] / h.seconds[i]
}

// parked counts the time from one age to another and returns the trips that were to be expected.
func (h *hazard) parked(from, to float64) (expected float64) {
	for from < to {
		i := stretch(from)
		end := to
		if i < stretches-1 {
			end = min(to, firstStretch*float64(uint(1)<<i))
		}
		if end <= from {
			end = to
		}
		expected += (end - from) * h.trips[i] / h.seconds[i]
		h.seconds[i] += end - from
		from = end
	}
	return expected
}

// began counts a trip. What is old counts less and less, so that the hazard follows the day.
func (h *hazard) began(age float64) {
	i := stretch(age)
	h.trips[i]++
	if h.trips[i] > 300 {
		h.trips[i] /= 2
		h.seconds[i] /= 2
	}
}
