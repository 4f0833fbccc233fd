package schedule_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

func memorylessFleet(seed uint64, n int, h time.Duration) []tracker {
	return fleetOf(seed, n, h, func(d *traits) { d.random = true })
}
func harshFleet(seed uint64, n int, h time.Duration) []tracker {
	return fleetOf(seed, n, h, func(d *traits) {
		d.shaky, d.outages, d.announces, d.concludes = true, true, false, false
		d.jitter *= 4
		if d.events == 0 {
			d.events = d.period * 5
		}
		d.resets = true
		if d.input == 1 {
			d.input = 0
		}
	})
}

func TestTune(t *testing.T) {
	which := os.Getenv("TUNE")
	if which == "" {
		t.Skip()
	}
	n := 1000
	seeds := []uint64{1, 2}
	worlds := map[string]func(uint64, int, time.Duration) []tracker{"plain": fleet, "memoryless": memorylessFleet, "harsh": harshFleet, "halved": fleet, "starts": fleet}
	for _, w := range strings.Split(which, ",") {
		for _, ratio := range []float64{0.45, 0.9, 1.8, 4.5} {
			if w == "halved" && (ratio == 0.45 || ratio == 4.5) {
				continue
			}
			var mu sync.Mutex
			var fm, am, fp, ap, miss, fs, as, as95, fs95, fmiss, lw float64
			var wg sync.WaitGroup
			for _, s := range seeds {
				wg.Go(func() {
					r := budgeted(worlds[w](s, n, runs), ratio, counts, runs)
					run := func(p schedule.Policy) result {
						rr := *r
						if w == "halved" {
							st := 0
							rr.at = func(now time.Duration, p schedule.Policy) {
								if st == 0 && now >= 2*time.Hour {
									st = 1
									rr.rate = r.rate / 2
									p.SetRate(start.Add(now), rr.rate)
								}
								if st == 1 && now >= 2*time.Hour+30*time.Minute {
									st = 2
									rr.rate = r.rate
									p.SetRate(start.Add(now), rr.rate)
								}
							}
							rr.from = 2 * time.Hour
							rr.horizon = 3 * time.Hour
						}
						return rr.judge(rr.run(p))
					}
					f := run(lapByLap())
					wt := 1.
					if w == "starts" {
						wt = 8
					}
					p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: wt, Seed: 1})
					a := run(p)
					mu.Lock()
					defer mu.Unlock()
					k := float64(len(seeds))
					fm += f.Mean / k
					am += a.Mean / k
					fp += f.P95 / k
					ap += a.P95 / k
					miss += a.missed() / k
					fmiss += f.missed() / k
					fs += f.Trips / k
					as += a.Trips / k
					as95 += a.Trips95 / k
					fs95 += f.Trips95 / k
					lw = p.Stats(start.Add(runs)).LongestWait.Seconds()
				})
			}
			wg.Wait()
			fmt.Printf("%-10s %.2f: mean %.1f -> %.2f  x%.2f | p95 %.0f -> %.1f  %.2f | missed %.3f (%.3f) | start50 %.1f -> %.1f %.2f start95 %.2f  bound %.0f\n", w, ratio, fm, am, fm/am, fp, ap, ap/fp, miss, fmiss, fs, as, as/fs, as95/fs95, lw)
		}
	}
}
