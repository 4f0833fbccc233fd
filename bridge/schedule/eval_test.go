package schedule_test

import (
	"maps"
	"slices"
	"testing"
	"time"

	"plaspy-bridge/bridge/schedule"
)

var ratios = []float64{0.45, 0.9, 1.8, 4.5}

func setting(seed uint64, n int, ratio float64) *replay {
	const horizon, from = 4 * time.Hour, time.Hour
	ts := fleet(seed, n, horizon)
	rate := ratio * float64(made(ts, from, horizon)) / (horizon - from).Minutes()
	return &replay{trackers: ts, rate: rate, answer: 150 * time.Millisecond, horizon: horizon, from: from}
}

func TestTable(t *testing.T) {
	for _, ratio := range ratios {
		var sum [12]float64
		const seeds = 2
		for seed := uint64(1); seed <= seeds; seed++ {
			r := setting(seed, 1000, ratio)
			f := r.judge(r.run(schedule.NewFixed(time.Second)))
			schedule.Spare = 0
			p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
			c := r.judge(r.run(p))
			for i, v := range []float64{f.Mean, f.missed(), c.Mean, f.Mean / c.Mean, c.P95 / f.P95, c.P50, c.missed() / f.missed(), c.requests() / f.requests(), f.Trips, c.Trips, float64(c.Requests) / float64(f.Requests), r.rate} {
				sum[i] += v / seeds
			}
			if seed == 1 {
				pr, _ := p.Debug()
				t.Log(pr, schedule.Spare, c.Requests)
				for _, k := range slices.Sorted(maps.Keys(c.kinds)) {
					v := c.kinds[k]
					t.Logf("   %s n %d mean %.1f share %.1f", k, len(v), avg(v), avg(v)*float64(len(v))/float64(c.Fixes))
				}
			}
		}
		t.Logf("%.2f R %.0f fixed %.1f miss %.3f | mean %.2f x%.2f p95 x%.2f p50 %.1f miss x%.3f rpf x%.3f trips %.0f->%.0f req %.2f", ratio, sum[11], sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6], sum[7], sum[8], sum[9], sum[10])
	}
}
func avg(v []float64) (m float64) {
	for _, x := range v {
		m += x / float64(len(v))
	}
	return m
}
