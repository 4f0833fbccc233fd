package schedule_test

import (
	"math"
	"sort"
	"time"
)

// clairvoyant returns the requests of a poller that knows every fix before it comes: for a price per
// request the best plan of each device (dynamic programming over "fetch at the moment when fix i
// appears"), the price in each stretch of time being such that the plans fit the budget there, and
// then one request at a time. It is no proven bound, but no policy without a view of the future comes
// near it.
func clairvoyant(r *replay) []asked {
	const stretch = 5 * time.Minute
	prices := make([]float64, int(r.horizon/stretch)+1)
	for i := range prices {
		prices[i] = 10
	}
	price := func(at time.Duration) float64 { return prices[min(len(prices)-1, int(max(0, at)/stretch))] }
	budget := 0.98 * r.rate * stretch.Minutes()
	var plan []asked
	for range 25 {
		plan = plan[:0]
		used := make([]float64, len(prices))
		for i, d := range r.trackers {
			for _, at := range cheapest(d.fixes, price) {
				if at >= r.horizon {
					continue
				}
				plan = append(plan, asked{at: at, device: i})
				used[at/stretch]++
			}
		}
		for i := range prices {
			prices[i] = min(1e4, max(1e-3, prices[i]*math.Pow((used[i]+1)/budget, 0.7)))
		}
	}
	sort.Slice(plan, func(i, j int) bool { return plan[i].at < plan[j].at })
	gap := time.Duration(float64(time.Minute) / r.rate)
	var slot time.Duration
	for i := range plan {
		slot = max(slot, plan[i].at-r.answer/2)
		plan[i].at, plan[i].looked, plan[i].answered = slot, slot+r.answer/2, slot+r.answer
		slot += gap
	}
	return plan
}

// cheapest is the set of moments to fetch at for which delay and prices add up to the least.
func cheapest(fixes []fix, price func(time.Duration) float64) []time.Duration {
	n := len(fixes)
	cost, from := make([]float64, n+1), make([]int, n+1)
	for j := 1; j <= n; j++ {
		cost[j] = -1
		waited, m := 0., price(fixes[j-1].visible)
		for i := j - 1; i >= 0; i-- {
			// One fetch when fix j-1 appears covers fixes i to j-1.
			waited += (fixes[j-1].visible - fixes[i].visible).Seconds()
			if waited > 4*m+1 && i < j-1 {
				break
			}
			if c := cost[i] + waited + m; cost[j] < 0 || c < cost[j] {
				cost[j], from[j] = c, i
			}
		}
	}
	var out []time.Duration
	for j := n; j > 0; j = from[j] {
		out = append(out, max(0, fixes[j-1].visible))
	}
	return out
}
