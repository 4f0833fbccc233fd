package schedule_test

import (
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// target is what the adaptive schedule must reach against the fixed interval, at so many requests per
// fix made.
type target struct {
	ratio    float64
	better   float64 // mean delay of the fixed interval over the adaptive one's, at least
	missed   float64 // of the fixed interval's share of fixes missed, at most
	requests float64 // of its requests per new fix, at most
	p95      float64 // of its 95th percentile, at most; 0: not bounded
}

var targets = []target{
	{ratio: 0.45, better: 1.15, missed: 0.97, requests: 0.87},
	{ratio: 0.9, better: 1.8, missed: 0.76, requests: 0.63, p95: 1},
	{ratio: 1.8, better: 3.3, missed: 0.25, requests: 0.52, p95: 0.7},
	{ratio: 4.5, better: 3.3, missed: 0.15, requests: 0.76},
}

// heldOut are seeds that no constant was chosen with; those were chosen with 1, 2 and 1001 to 1003.
var heldOut = []uint64{9001, 9002, 9003}

const (
	runs   = 4 * time.Hour
	counts = time.Hour // what happens before is start-up and not counted
	delay  = 150 * time.Millisecond
)

// budgeted is a replay of the trackers at so many requests per fix made.
func budgeted(ts []tracker, ratio float64, from, horizon time.Duration) *replay {
	rate := ratio * float64(made(ts, from, horizon)) / (horizon - from).Minutes()
	return &replay{trackers: ts, rate: rate, answer: delay, horizon: horizon, from: from}
}

// lapByLap is the fixed schedule with all of the rate: an interval as short as it can be.
func lapByLap() *schedule.Fixed { return schedule.NewFixed(time.Millisecond) }

func adaptive() *schedule.Adaptive {
	return schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1, Seed: 1})
}

// compared are the means of a policy's results over those of the fixed interval.
type compared struct {
	fixed, mean, better, missed, requests, p95, trips float64
}

func (c *compared) add(fixed, with result, n int) {
	k := float64(n)
	c.fixed += fixed.Mean / k
	c.mean += with.Mean / k
	c.better += fixed.Mean / with.Mean / k
	c.missed += with.missed() / fixed.missed() / k
	c.requests += with.requests() / fixed.requests() / k
	c.p95 += with.P95 / fixed.P95 / k
	c.trips += with.Trips / k
}

func (c compared) String() string {
	return fmt.Sprintf("mean %.1f -> %.2f s (%.2fx), missed %.3f, requests per new fix %.3f, p95 %.2f, trips seen after %.0f s",
		c.fixed, c.mean, c.better, c.missed, c.requests, c.p95, c.trips)
}

// quick says to simulate less.
func quick() bool { return testing.Short() || raced }

func TestAdaptiveReachesTargets(t *testing.T) {
	seeds, n := heldOut, 1000
	if quick() {
		seeds, n = seeds[:1], 300
	}
	for _, want := range targets {
		t.Run(fmt.Sprint(want.ratio), func(t *testing.T) {
			var got compared
			for _, seed := range seeds {
				r := budgeted(fleet(seed, n, runs), want.ratio, counts, runs)
				log := r.run(adaptive())
				withinBudget(t, log, r.rate)
				got.add(r.judge(r.run(lapByLap())), r.judge(log), len(seeds))
			}
			t.Log(got)
			if got.better < want.better {
				t.Errorf("mean delay: got %.2f times better, want %.2f", got.better, want.better)
			}
			if got.missed > want.missed {
				t.Errorf("missed fixes: got %.3f of the fixed interval's, want %.3f", got.missed, want.missed)
			}
			if got.requests > want.requests {
				t.Errorf("requests per new fix: got %.3f of the fixed interval's, want %.3f", got.requests, want.requests)
			}
			if want.p95 > 0 && got.p95 > want.p95 {
				t.Errorf("95th percentile: got %.2f of the fixed interval's, want %.2f", got.p95, want.p95)
			}
		})
	}
}

// withinBudget fails where any 60 s see more requests than the rate.
func withinBudget(tb testing.TB, log []asked, rate float64) {
	tb.Helper()
	first := 0
	for i, q := range log {
		for q.at-log[first].at >= time.Minute {
			first++
		}
		if n := i - first + 1; float64(n) > rate+1 {
			tb.Fatalf("requests in the minute to %v: got %d, want %.0f at most", q.at, n, rate)
		}
	}
}

func TestAdaptiveOnBuses(t *testing.T) {
	ts := buses(t)
	for _, tc := range []struct{ ratio, better float64 }{{1, 0.95}, {1.5, 0.95}, {2, 1.3}, {3, 0.95}, {4.5, 0.95}} {
		t.Run(fmt.Sprint(tc.ratio), func(t *testing.T) {
			horizon := 6 * time.Hour
			if quick() {
				horizon = 3 * time.Hour
			}
			r := budgeted(ts, tc.ratio, 30*time.Minute, horizon)
			var got compared
			got.add(r.judge(r.run(lapByLap())), r.judge(r.run(adaptive())), 1)
			t.Log(got)
			if got.better < tc.better {
				t.Errorf("mean delay: got %.2f times better, want %.2f", got.better, tc.better)
			}
		})
	}
}

func TestAdaptiveIsDeterministic(t *testing.T) {
	r := budgeted(fleet(11, 200, time.Hour), 1.8, 0, time.Hour)
	samePolls(t, r.run(adaptive()), r.run(adaptive()), time.Hour)
}

// Cutting off what comes later must change no earlier poll.
func TestAdaptiveCannotSeeTheFuture(t *testing.T) {
	const cut = 40 * time.Minute
	whole := budgeted(fleet(12, 200, time.Hour), 1.8, 0, time.Hour)
	part := *whole
	part.trackers = nil
	for _, d := range whole.trackers {
		var known []fix
		for _, f := range d.fixes {
			if f.visible <= cut {
				known = append(known, f)
			}
		}
		part.trackers = append(part.trackers, tracker{id: d.id, fixes: known})
	}
	samePolls(t, whole.run(adaptive()), part.run(adaptive()), cut)
}

func samePolls(t *testing.T, a, b []asked, until time.Duration) {
	t.Helper()
	n := 0
	for ; n < min(len(a), len(b)) && a[n].at < until; n++ {
		if a[n] != b[n] {
			t.Fatalf("poll %d: got %+v and %+v, want the same", n, a[n], b[n])
		}
	}
	if n < 1000 {
		t.Fatalf("polls compared: got %d, want 1000 at least", n)
	}
}

// BenchmarkTable prints the table of the decision page: synthetic fleets of 1,000 devices from the
// held-out seeds, and the buses where the trace is there, with the fixed interval, the adaptive
// schedule and a clairvoyant one.
func BenchmarkTable(b *testing.B) {
	for _, want := range targets {
		b.Run(fmt.Sprintf("fleet/%.2f", want.ratio), func(b *testing.B) {
			var all []*replay
			for _, seed := range heldOut {
				all = append(all, budgeted(fleet(seed, 1000, runs), want.ratio, counts, runs))
			}
			tabulate(b, all)
		})
	}
	for _, ratio := range []float64{1, 2, 4.5} {
		b.Run(fmt.Sprintf("buses/%.2f", ratio), func(b *testing.B) {
			tabulate(b, []*replay{budgeted(buses(b), ratio, 30*time.Minute, 6*time.Hour)})
		})
	}
}

func tabulate(b *testing.B, all []*replay) {
	var with, best compared
	for b.Loop() {
		with, best = compared{}, compared{}
		for _, r := range all {
			fixed := r.judge(r.run(lapByLap()))
			with.add(fixed, r.judge(r.run(adaptive())), len(all))
			best.add(fixed, r.judge(clairvoyant(r)), len(all))
		}
	}
	b.Logf("adaptive:    %v", with)
	b.Logf("clairvoyant: %v", best)
	b.ReportMetric(with.fixed, "fixed-s")
	b.ReportMetric(with.mean, "adaptive-s")
	b.ReportMetric(best.mean, "clairvoyant-s")
	b.ReportMetric(with.better, "times-better")
	b.ReportMetric(with.missed, "missed-ratio")
	b.ReportMetric(with.requests, "requests-ratio")
	b.ReportMetric(with.p95, "p95-ratio")
}
