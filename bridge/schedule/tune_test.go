package schedule_test

import (
	"fmt"
	"os"
	"plaspy-bridge/bridge/schedule"
	"strconv"
	"sync"
	"testing"
	"time"
)

func envf(k string, p *float64) {
	if v := os.Getenv(k); v != "" {
		*p, _ = strconv.ParseFloat(v, 64)
	}
}

var base sync.Map

func TestTune(t *testing.T) {
	envf("RHO", &schedule.Rho)
	envf("PHI", &schedule.Phi)
	envf("DITHER", &schedule.Dither)
	envf("X1", &schedule.X1)
	envf("X2", &schedule.X2)
	envf("X3", &schedule.X3)
	envf("X4", &schedule.X4)
	envf("X5", &schedule.X5)
	envf("X6", &schedule.X6)
	line := ""
	for _, ratio := range ratios {
		var sum [12]float64
		const seeds = 2
		for seed := uint64(1); seed <= seeds; seed++ {
			r := setting(seed, 1000, ratio)
			f := r.judge(r.run(schedule.NewFixed(time.Second)))
			p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1})
			schedule.DumpDbg()
			c := r.judge(r.run(p))
			if seed == 1 {
				t.Log(schedule.DumpDbg())
			}
			for i, v := range []float64{f.Mean, f.missed(), c.Mean, f.Mean / c.Mean, c.P95 / f.P95, c.P50, c.missed() / f.missed(), c.requests() / f.requests(), f.Trips, c.Trips, float64(c.Requests) / float64(f.Requests), r.rate} {
				sum[i] += v / seeds
			}
		}
		line += fmt.Sprintf("| %.2f x%.2f p95 %.2f miss %.3f rpf %.3f tr %.0f rq %.2f ", sum[2], sum[3], sum[4], sum[6], sum[7], sum[9], sum[10])
	}
	t.Log(line)
}
