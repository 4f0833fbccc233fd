package schedule_test

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// steady is n devices that make a fix every period, phases as given, seen three seconds later.
func steady(n int, period, horizon time.Duration, phase func(i int) time.Duration) []tracker {
	out := make([]tracker, n)
	for i := range out {
		out[i].id = name(i)
		for at := phase(i); at < horizon; at += period {
			out[i].fixes = append(out[i].fixes, fix{stamp: at, visible: at + 3*time.Second, speed: 50, input: 1})
		}
	}
	return out
}

func together(int) time.Duration { return 0 }

func apart(i int) time.Duration { return time.Duration(i*7919%30000) * time.Millisecond }

// altered is the trackers with every fix changed.
func altered(ts []tracker, change func(device int, f *fix)) []tracker {
	out := make([]tracker, len(ts))
	for i, d := range ts {
		out[i].id = d.id
		for _, f := range d.fixes {
			change(i, &f)
			out[i].fixes = append(out[i].fixes, f)
		}
	}
	return out
}

// random is n devices with no rhythm at all.
func random(n int, mean, horizon time.Duration) []tracker {
	out := make([]tracker, n)
	for i := range out {
		r := rand.New(rand.NewPCG(5, uint64(i)))
		out[i].id = name(i)
		for at := 0.; at < horizon.Seconds(); at += mean.Seconds() * r.ExpFloat64() {
			out[i].fixes = append(out[i].fixes, fix{stamp: seconds(at), visible: seconds(at + 1 + 5*r.Float64()), speed: float32(math.NaN()), input: -1})
		}
		for j := 1; j < len(out[i].fixes); j++ {
			out[i].fixes[j].visible = max(out[i].fixes[j].visible, out[i].fixes[j-1].visible+1)
		}
	}
	return out
}

// Fleets with little or nothing to learn from, and fleets that mislead the schedule.
func TestAdaptiveIsNeverMateriallyWorse(t *testing.T) {
	t.Parallel()
	const horizon = 2 * time.Hour
	mixed := fleet(21, 300, horizon)
	for _, tc := range []struct {
		name     string
		trackers []tracker
	}{
		{"homogeneous", steady(300, 30*time.Second, horizon, apart)},
		{"all in the same second", steady(300, 30*time.Second, horizon, together)},
		{"all in batches", altered(steady(300, 15*time.Second, horizon, apart), func(i int, f *fix) {
			const upload = 2 * time.Minute
			f.visible = (f.stamp/upload+1)*upload + apart(i)*4
		})},
		{"no rhythm", random(300, time.Minute, horizon)},
		{"inputs stuck on", altered(mixed, func(_ int, f *fix) { f.input = 1 })},
		{"inputs stuck off", altered(mixed, func(_ int, f *fix) { f.input = 0 })},
		{"no flags", altered(mixed, func(_ int, f *fix) { f.input, f.speed = -1, float32(math.NaN()) })},
		{"time zones", altered(mixed, func(i int, f *fix) { f.stamp += time.Duration(i%24-12) * time.Hour })},
		{"clocks that run wild", altered(mixed, func(i int, f *fix) { f.stamp += time.Duration(int64(f.visible)*7919%7200e9) - time.Hour })},
		{"clocks that stand still", altered(mixed, func(_ int, f *fix) { f.stamp = 0 })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ratios := []float64{0.45, 0.9, 1.8}
			if quick() {
				ratios = ratios[1:2]
			}
			for _, ratio := range ratios {
				r := budgeted(tc.trackers, ratio, 30*time.Minute, horizon)
				var got compared
				got.add(r.judge(r.run(lapByLap())), r.judge(r.run(adaptive())), 1)
				t.Logf("%.2f: %v", ratio, got)
				if got.better < 0.9 {
					t.Errorf("mean delay at %.2f requests per fix: got %.2f times better, want 0.9", ratio, got.better)
				}
			}
		})
	}
}
