package schedule

import (
	"math"
)

// market finds the price of a request: the one at which there are as many polls worth it as requests.
// With every answer it adds the polls that the device would have had since the answer before, at each
// of a row of prices. The price is the one at which the sum meets the rate. That is a solution and not
// a controller: it does not ask whether the price so far was too high or too low, and so cannot
// oscillate.
type market struct {
	demand [prices]float64 // polls a second at each price, a running mean
	filled float64         // how much of the mean is measured by now, 0 to 1
	seen   tick            // when demand was last added to
	price  float64         // seconds of delay
	// recalled is the price from before a restart, which holds until enough was observed; 0 if there is none.
	recalled float64
}

const (
	prices       = 12      // up to the first one above the highest price
	lowestPrice  = 1. / 32 // seconds, below every least price; each next price is twice the one before
	highestPrice = 45.     // seconds; a cap, so that below one request per fix due polls wait in line and are not priced out
	bought       = 0.97    // of the rate; the rest is for the unforeseen
	priceFall    = 2.      // at most, from one look at the price to the next
	minMean      = 20.     // seconds
	maxMean      = 300.
)

func priceAt(i int) float64 { return math.Ldexp(lowestPrice, i) }

// add counts a device for span seconds until t. wait is the time between its polls at a price.
func (m *market) add(t tick, span, lap float64, wait func(price float64) float64) {
	mean := min(maxMean, max(minMean, lap))
	keep := math.Exp(-(t - m.seen).Seconds() / mean)
	m.seen = t
	m.filled = m.filled*keep + (1 - keep)
	for i := range prices {
		m.demand[i] = m.demand[i]*keep + span/(max(wait(priceAt(i)), minGap)*mean)
	}
}

// resize scales the demand when the number of devices changes: until the new ones were observed, they are taken
// to be average.
func (m *market) resize(from, to int) {
	if from == 0 || m.filled < 0.5 {
		return
	}
	for i := range m.demand {
		m.demand[i] *= float64(to) / float64(from)
	}
}

// settle works out the price for a supply in requests a second. Until enough was observed it is a tenth
// of a lap, but at most 10 s. It is never below least.
func (m *market) settle(supply, lap, least float64) {
	if m.filled < 0.5 {
		m.price = max(least, min(10, lap/10))
		if m.recalled > 0 {
			m.price = max(least, m.recalled)
		}
		return
	}
	// If the rate rises, the devices that come with it may not be known yet: the price falls step by step.
	least = max(least, m.price/priceFall)
	supply *= bought * m.filled
	i := 0
	for i < prices && m.demand[i] > supply {
		i++
	}
	switch i {
	case 0:
		m.price = lowestPrice
	case prices:
		m.price = priceAt(prices - 1)
	default:
		dear, cheap := math.Log(max(m.demand[i], 1e-12)), math.Log(m.demand[i-1])
		m.price = priceAt(i-1) * math.Exp2((cheap-math.Log(supply))/(cheap-dear))
	}
	m.price = max(min(m.price, highestPrice), least)
}

// waits is a histogram of the times between the last two polls of parked devices, in steps of a fifth of
// an octave from 50 ms on, weighted by the likelihood of a trip.
type waits struct {
	weights [waitBins]float64
	devices int
}

const (
	waitBins     = 120
	shortestWait = 0.05
)

// count replaces the device's wait.
func (w *waits) count(d *device, seconds, weight float64) {
	w.forget(d)
	d.bin = int16(min(5*math.Log2(max(1, seconds/shortestWait)), waitBins-1)) + 1
	d.weight = float32(weight)
	w.weights[d.bin-1] += float64(d.weight)
	w.devices++
}

func (w *waits) forget(d *device) {
	if d.bin == 0 {
		return
	}
	w.weights[d.bin-1] -= float64(d.weight)
	d.bin = 0
	if w.devices--; w.devices == 0 {
		w.weights = [waitBins]float64{} // removes rounding errors
	}
}

// median is in seconds; 0 if no device is parked.
func (w *waits) median() float64 {
	if w.devices == 0 {
		return 0
	}
	var all, sum float64
	for _, v := range w.weights {
		all += v
	}
	for i, v := range w.weights {
		if sum += v; sum >= all/2 {
			return shortestWait * math.Exp2((float64(i)+0.5)/5)
		}
	}
	return 0
}
