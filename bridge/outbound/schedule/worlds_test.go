package schedule_test

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// full runs the evaluation at the size of the published figures: three seeds of 1,000 devices.
var full = flag.Bool("full", false, "evaluate the adaptive schedule at full size; takes minutes")

// world is a kind of fleet or of run in which the adaptive schedule is compared with the fixed interval.
type world struct {
	name    string
	change  func(*traits)
	options schedule.AdaptiveOptions
	halved  bool // the budget is halved for half an hour
	targets []target
}

// target is the required result at a number of requests per fix; 0 means that it is not bounded.
type target struct {
	ratio  float64
	better float64 // mean delay of the fixed interval over the adaptive one's, at least
	p95    float64 // 95th percentile over the fixed interval's, at most
	missed float64 // share of fixes that no poll saw, at most
	starts float64 // median delay of a trip's first fix over the fixed interval's, at most
}

var worlds = []world{
	{name: "ordinary", targets: []target{
		{ratio: 0.45, better: 1.7, p95: 0.9, missed: 0.75}, {ratio: 0.9, better: 2.4, p95: 0.67, missed: 0.53},
		{ratio: 1.8, better: 3.9, p95: 0.52, missed: 0.15}, {ratio: 4.5, better: 5.0, p95: 0.36, missed: 0.03},
	}},
	{name: "memoryless", change: func(d *traits) { d.random = true }, targets: []target{
		{ratio: 0.45, better: 1.55}, {ratio: 0.9, better: 1.95}, {ratio: 1.8, better: 2.2}, {ratio: 4.5, better: 2.4},
	}},
	// No inputs, no first and last fix of a trip, wild upload times, outages for all, random extra fixes that
	// restart the timer: harsher than any real fleet.
	{name: "harsh", change: harsh, targets: []target{
		{ratio: 0.45, better: 1.6, p95: 0.9}, {ratio: 0.9, better: 2.1, p95: 0.8}, {ratio: 1.8, better: 2.8, p95: 0.67}, {ratio: 4.5, better: 3.1},
	}},
	{name: "budget halved", halved: true, targets: []target{{ratio: 0.9, better: 1.9}, {ratio: 1.8, better: 2.7}}},
	{name: "trip starts", options: schedule.AdaptiveOptions{TripStartWeight: 8}, targets: []target{
		{ratio: 0.9, better: 2.2, starts: 1.2}, {ratio: 1.8, better: 3.4, starts: 1.2}, {ratio: 4.5, better: 4.7, starts: 1.25},
	}},
}

func harsh(d *traits) {
	d.shaky, d.outages, d.announces, d.concludes, d.resets = true, true, false, false, true
	d.jitter *= 4
	if d.events == 0 {
		d.events = d.period * 5
	}
	if d.input == 1 {
		d.input = 0
	}
}

// heldOut are seeds that no constant was chosen with; those were chosen with 1 and 2.
var heldOut = []uint64{9001, 9002, 9003}

// size is how much is simulated.
func size() (seeds []uint64, devices int) {
	if *full {
		return heldOut, 1000
	}
	return heldOut[:1], 150
}

func TestAdaptiveReachesTargets(t *testing.T) {
	t.Parallel()
	for _, w := range worlds {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			for _, want := range w.targets {
				if (raced || testing.Short()) && want.ratio != 0.9 {
					continue
				}
				got := w.compare(t, want.ratio)
				t.Logf("%.2f requests per fix: %v", want.ratio, got)
				got.check(t, want)
			}
		})
	}
}

// compare runs both schedules in the world.
func (w world) compare(tb testing.TB, ratio float64) compared {
	tb.Helper()
	seeds, n := size()
	var got compared
	for _, seed := range seeds {
		ts := fleetOf(seed, n, runs, func(d *traits) {
			if w.change != nil {
				w.change(d)
			}
		})
		r := budgeted(ts, ratio, counts, runs)
		options := w.options
		options.Interval, options.Seed = time.Minute, 1
		fixed, adaptive := w.run(r, lapByLap()), w.run(r, schedule.NewAdaptive(options))
		if !w.halved {
			withinBudget(tb, adaptive, r.rate)
		}
		judge := *r
		if w.halved {
			judge.from, judge.horizon = halvedAt, halvedAt+time.Hour
		}
		got.add(judge.judge(fixed), judge.judge(adaptive), len(seeds))
	}
	return got
}

const halvedAt, halvedFor = 2 * time.Hour, 30 * time.Minute

func (w world) run(r *replay, s *schedule.Schedule) []asked {
	own := *r
	if w.halved {
		own.at = func(now time.Duration, s *schedule.Schedule) {
			rate := r.rate
			if now >= halvedAt && now < halvedAt+halvedFor {
				rate /= 2
			}
			if rate != own.rate {
				own.rate = rate
				s.SetRate(start.Add(now), rate)
			}
		}
	}
	return own.run(s)
}

func (c compared) check(t *testing.T, want target) {
	t.Helper()
	if !*full {
		want.starts *= 1.1 // one small fleet has few trips
	}
	if c.better < want.better {
		t.Errorf("mean delay: got %.2f times better than the fixed interval, want %.2f", c.better, want.better)
	}
	for _, most := range []struct {
		name      string
		got, want float64
	}{{"95th percentile over fixed's", c.p95, want.p95}, {"missed", c.missed, want.missed}, {"median trip start over fixed's", c.starts, want.starts}} {
		if most.want > 0 && most.got > most.want {
			t.Errorf("%s: got %.3f, want %.3f at most", most.name, most.got, most.want)
		}
	}
}

// TestAdaptiveRemembers compares the half hour after a restart with the same half hour without one. The 15 s of
// downtime are not in it.
func TestAdaptiveRemembers(t *testing.T) {
	t.Parallel()
	const at, down = 150 * time.Minute, 15 * time.Second
	seeds, n := size()
	for _, want := range []struct{ ratio, most float64 }{{0.9, 1.12}, {1.8, 1.15}, {4.5, 1.2}} {
		t.Run(fmt.Sprint(want.ratio), func(t *testing.T) {
			t.Parallel()
			var steady, with, without float64
			for _, seed := range seeds {
				r := budgeted(fleet(seed, n, runs), want.ratio, counts, runs)
				r.from, r.horizon = at+down, at+30*time.Minute
				steady += r.judge(r.run(adaptive())).Mean
				for _, memory := range []bool{false, true} {
					again := *r
					again.known = nil
					again.swap = restart(r, at, down, memory)
					mean := again.judge(again.run(adaptive())).Mean
					if memory {
						with += mean
					} else {
						without += mean
					}
				}
			}
			t.Logf("%.1f requests per fix: %.3f of the steady mean with memory, %.3f without", want.ratio, with/steady, without/steady)
			if !*full {
				want.most *= 1.1 // one small fleet
			}
			if with/steady > want.most {
				t.Errorf("%.1f requests per fix: got %.3f of the steady mean, want %.3f at most", want.ratio, with/steady, want.most)
			}
			if with >= without {
				t.Errorf("%.1f requests per fix: memory has no effect", want.ratio)
			}
		})
	}
}

// restart is a swap that replaces the schedule at a moment, with its memory or without.
func restart(r *replay, at, down time.Duration, memory bool) func(time.Duration, *schedule.Schedule) (*schedule.Schedule, time.Duration) {
	swapped := false
	return func(now time.Duration, s *schedule.Schedule) (*schedule.Schedule, time.Duration) {
		if swapped || now < at {
			return s, now
		}
		swapped = true
		next, then := adaptive(), now+down
		next.SetRate(start.Add(then), r.rate)
		if memory {
			next.RestoreFleet(s.AppendFleetMemory(nil))
		}
		for _, d := range r.trackers {
			var m []byte
			if memory {
				m = s.AppendMemory(nil, d.id)
			}
			next.Restore(start.Add(then), d.id, m)
		}
		return next, then
	}
}

// TestAdaptiveTakesOver: half of the fleet comes from another replica at once, with its memory.
func TestAdaptiveTakesOver(t *testing.T) {
	t.Parallel()
	const at = 150 * time.Minute
	seeds, n := size()
	for _, ratio := range []float64{0.9, 1.8} {
		t.Run(fmt.Sprint(ratio), func(t *testing.T) {
			t.Parallel()
			var took, tookSteady, own, ownSteady float64
			for _, seed := range seeds {
				ts := fleet(seed, n, runs)
				whole := budgeted(ts, ratio, counts, runs)
				whole.from, whole.horizon = at, at+30*time.Minute
				half := func(ts []tracker) replay {
					r := *whole
					r.trackers, r.rate = ts, whole.rate/2
					return r
				}
				mine, other := half(ts[:n/2]), half(ts[n/2:])
				ownSteady += mine.judge(mine.run(adaptive())).Mean
				other.known = nil
				tookSteady += other.judge(other.run(adaptive())).Mean

				dead, gone := adaptive(), half(ts[n/2:])
				gone.horizon = at
				gone.run(dead)
				r := *whole
				r.rate, r.only = whole.rate/2, n/2
				for range n / 2 {
					r.known = append(r.known, -1)
				}
				r.known = append(r.known, gone.known...)
				r.at = func(now time.Duration, s *schedule.Schedule) {
					if now < at || r.rate == whole.rate {
						return
					}
					r.rate = whole.rate
					s.SetRate(start.Add(now), r.rate)
					for _, d := range ts[n/2:] {
						s.Restore(start.Add(now), d.id, dead.AppendMemory(nil, d.id))
					}
				}
				log := r.run(adaptive())
				took += other.judge(part(log, n/2, n)).Mean
				own += mine.judge(part(log, 0, n/2)).Mean
			}
			t.Logf("%.1f requests per fix: with the memory of another replica %.3f, with its own %.3f of the steady mean", ratio, took/tookSteady, own/ownSteady)
			most := 1.15
			if !*full {
				most = 1.4 // the halves of one small fleet need different shares
			}
			if took/tookSteady > most || own/ownSteady > most {
				t.Errorf("%.1f requests per fix: with the memory of another replica %.3f, with its own %.3f of the steady mean; want %.2f at most", ratio, took/tookSteady, own/ownSteady, most)
			}
		})
	}
}

// part is the requests for the trackers from one index to another, renumbered.
func part(log []asked, from, to int) []asked {
	var out []asked
	for _, q := range log {
		if q.device >= from && q.device < to {
			q.device -= from
			out = append(out, q)
		}
	}
	return out
}

// TestAdaptiveWeights gives a twentieth of the devices the weight 8: their unforeseeable fixes come sooner than at the
// fixed interval, and the others pay little.
func TestAdaptiveWeights(t *testing.T) {
	t.Parallel()
	if raced || testing.Short() {
		t.Skip("a twentieth of a small fleet has too few unforeseeable fixes to judge")
	}
	seeds, n := size()
	if !*full {
		seeds = heldOut // one small fleet has too few unforeseeable fixes
	}
	for _, want := range []struct{ ratio, events, rest float64 }{{4.5, 0.9, 1.08}, {1.8, 0.8, 1.18}, {0.9, 0.8, 1.15}} {
		t.Run(fmt.Sprint(want.ratio), func(t *testing.T) {
			t.Parallel()
			var fixed, heavy, rest, restBefore float64
			for _, seed := range seeds {
				ts := withEvents(seed, fleet(seed, n, runs))
				r := budgeted(ts, want.ratio, counts, runs)
				weighted := func(weight float64) []asked {
					own, set := *r, false
					own.at = func(now time.Duration, s *schedule.Schedule) {
						for i := 0; !set && i < n/20; i++ {
							s.SetTerms(start.Add(now), ts[i].id, schedule.Terms{Weight: weight})
						}
						set = true
					}
					return own.run(adaptive())
				}
				light, weighty := weighted(1), weighted(8)
				others := *r
				others.trackers = ts[n/20:]
				fixed += r.events(r.run(lapByLap()), n/20)
				heavy += r.events(weighty, n/20)
				restBefore += others.judge(part(light, n/20, n)).Mean
				rest += others.judge(part(weighty, n/20, n)).Mean
			}
			t.Logf("%.1f requests per fix: events %.2f of fixed's, the rest %.3f of before", want.ratio, heavy/fixed, rest/restBefore)
			if !*full {
				want.events, want.rest = want.events*1.15, want.rest*1.05 // one small fleet
			}
			if heavy/fixed > want.events || rest/restBefore > want.rest {
				t.Errorf("%.1f requests per fix: events %.2f of fixed's, want %.2f; the rest %.3f, want %.3f", want.ratio, heavy/fixed, want.events, rest/restBefore, want.rest)
			}
		})
	}
}

// BenchmarkTable prints the table of the decision page: every world, and the buses if the trace is there, with the fixed
// interval, the adaptive schedule and a clairvoyant one. Run it with -full for the published figures.
func BenchmarkTable(b *testing.B) {
	for _, w := range worlds {
		for _, want := range w.targets {
			b.Run(fmt.Sprintf("%s/%.2f", w.name, want.ratio), func(b *testing.B) {
				var got compared
				for b.Loop() {
					got = w.compare(b, want.ratio)
				}
				b.Log(got)
				b.ReportMetric(got.better, "times-better")
				b.ReportMetric(got.missed, "missed")
				b.ReportMetric(got.p95, "p95-ratio")
				b.ReportMetric(got.starts, "starts-ratio")
			})
		}
	}
	for _, ratio := range []float64{1, 2, 4.5} {
		b.Run(fmt.Sprintf("buses/%.2f", ratio), func(b *testing.B) {
			r := budgeted(buses(b), ratio, 30*time.Minute, 6*time.Hour)
			var with, best compared
			for b.Loop() {
				with, best = compared{}, compared{}
				fixed := r.judge(r.run(lapByLap()))
				with.add(fixed, r.judge(r.run(adaptive())), 1)
				best.add(fixed, r.judge(clairvoyant(r)), 1)
			}
			b.Logf("adaptive: %v; clairvoyant: %v", with, best)
			b.ReportMetric(with.better, "times-better")
			b.ReportMetric(best.better, "clairvoyant-times-better")
		})
	}
}
