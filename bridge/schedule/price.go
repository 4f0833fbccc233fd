package schedule

import "math"

// market finds the price of a request: the one at which the polls that are worth it are as many as
// there are requests. At every poll it adds what the device would have cost at each of a row of prices
// over the time since its poll before; the price follows from that by interpolation. It is a solution
// and not a controller: it does not look at whether the price so far was too high or too low.
type market struct {
	demand     [prices]float64 // polls a second at each price, a running mean
	filled     float64         // how much of it is measured and not yet assumed, 0 to 1
	last, seen tick
	price      float64
}

const (
	prices = 20
	lowest = 1.0 / 1024 // seconds
	tiers  = 1.0
)

func priceAt(i int) float64 { return lowest * math.Exp2(float64(i)) }

// settle solves for the price at which demand meets the supply in polls a second.
func (m *market) settle(supply float64) {
	for i := range prices {
		if m.demand[i] <= supply {
			if i == 0 {
				m.price = lowest
				return
			}
			hi, lo := math.Log(m.demand[i-1]), math.Log(max(1e-12, m.demand[i]))
			f := 0.5
			if hi > lo {
				f = (hi - math.Log(supply)) / (hi - lo)
			}
			m.price = priceAt(i-1) * math.Exp2(f)
			return
		}
	}
	m.price = priceAt(prices - 1)
}
