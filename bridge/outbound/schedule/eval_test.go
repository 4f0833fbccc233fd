package schedule_test

import (
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

const (
	runs   = 4 * time.Hour
	counts = time.Hour // the time before is start-up and not counted
	delay  = 150 * time.Millisecond
)

// budgeted is a replay of the trackers at so many requests per fix made.
func budgeted(ts []tracker, ratio float64, from, horizon time.Duration) *replay {
	rate := ratio * float64(made(ts, from, horizon)) / (horizon - from).Minutes()
	return &replay{trackers: ts, rate: rate, answer: delay, horizon: horizon, from: from}
}

// lapByLap is the fixed schedule with all of the rate: an interval as short as it can be.
func lapByLap() *schedule.Schedule { return schedule.NewFixed(time.Millisecond) }

func adaptive() *schedule.Schedule {
	return schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1, Seed: 1})
}

// compared are the means of a policy's results over those of the fixed interval.
type compared struct {
	fixed, mean, better, missed, requests, p95, starts float64
}

func (c *compared) add(fixed, with result, n int) {
	k := float64(n)
	c.fixed += fixed.Mean / k
	c.mean += with.Mean / k
	c.better += fixed.Mean / with.Mean / k
	c.missed += with.missed() / k
	c.requests += with.requests() / fixed.requests() / k
	c.p95 += with.P95 / fixed.P95 / k
	c.starts += with.Trips / max(fixed.Trips, 0.1) / k
}

func (c compared) String() string {
	return fmt.Sprintf("mean %.1f -> %.2f s (%.2fx), missed %.3f, requests per new fix %.3f, p95 %.2f, trip starts %.2f",
		c.fixed, c.mean, c.better, c.missed, c.requests, c.p95, c.starts)
}

// quick says to simulate less.
func quick() bool { return testing.Short() || raced }

// withinBudget fails if any 60 s see more requests than the rate.
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
	t.Parallel()
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
	t.Parallel()
	r := budgeted(fleet(11, 200, time.Hour), 1.8, 0, time.Hour)
	samePolls(t, r.run(adaptive()), r.run(adaptive()), time.Hour)
}

// Cutting off later fixes must change no earlier poll.
func TestAdaptiveCannotSeeTheFuture(t *testing.T) {
	t.Parallel()
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

// BenchmarkBatch measures how much older positions become if the requests of a slot are sent together, with 100 devices.
func BenchmarkBatch(b *testing.B) {
	for _, ratio := range []float64{0.9, 4.5, 10} {
		for _, batch := range []time.Duration{100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond} {
			b.Run(fmt.Sprintf("%.1f requests per fix/%v", ratio, batch), func(b *testing.B) {
				var one, many float64
				for b.Loop() {
					for seed := range uint64(10) {
						r := budgeted(fleet(9001+seed, 100, runs), ratio, counts, runs)
						one += r.judge(r.run(adaptive())).Mean
						r.batch, r.known = batch, nil
						many += r.judge(r.run(adaptive())).Mean
					}
				}
				b.ReportMetric(many/one, "mean-delay-ratio")
			})
		}
	}
}
