package forecast

import "math"

// sign is the evidence in a fix for whether its device goes on reporting as on the road: its inputs,
// its speed, and whether it came at the road's cadence itself.
type sign uint8

const signs = 18

const movingSpeed = 3. // km/h

func signOf(o Observation, live bool) sign {
	speed := 0
	switch {
	case math.IsNaN(o.Speed):
	case o.Speed > movingSpeed:
		speed = 2
	default:
		speed = 1
	}
	s := (min(max(int(o.Input), -1), 1)+1)*6 + speed*2
	if live {
		s++
	}
	return sign(s)
}

// liveness is, for each sign, the probability in 255ths that the next fix comes at the road's cadence.
// It starts from the usual meaning of the signs and learns their meaning for one device, so inputs and
// speeds that are missing or stuck do no harm.
type liveness [signs]uint8

// priorLiveness is by input (unknown, off, on), speed (none, still, moving), cadence (parked, road).
var priorLiveness = liveness{
	60, 210, 30, 150, 235, 245,
	8, 40, 8, 25, 220, 235,
	240, 245, 170, 235, 245, 250,
}

func (l *liveness) chance(s sign) float64 { return float64(l[s]) / 255 }

func (l *liveness) learn(s sign, live bool) {
	to := 0
	if live {
		to = 255
	}
	l[s] = uint8(int(l[s]) + (to-int(l[s]))/6)
}
