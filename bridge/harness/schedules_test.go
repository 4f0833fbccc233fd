package harness_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/fleet"
)

var schedules = flag.Duration("schedules", 0, "run TestSchedules, for so long after its warm-up")

// TestSchedules runs the real binary with the fixed and with the adaptive
// schedule side by side, at the same budget against the same fleet, and prints
// how long every fix that the API showed waited to be seen.
func TestSchedules(t *testing.T) {
	if *schedules == 0 {
		t.Skip("takes long; -schedules 10m runs it")
	}
	const (
		devices = 200
		limit   = 120 // 0.9 requests for each of the 134 fixes a minute
		warm    = 8 * time.Minute
	)
	start := time.Now().Add(-3 * time.Hour)
	ctx := within(t, warm+*schedules+time.Minute)
	apis := map[string]*sim.Server{}
	for _, name := range []string{"fixed", "adaptive"} {
		apis[name] = sim.New(sim.Options{
			Devices: devices, Seed: *seed, Start: start, Profile: fleet.Mixed, History: 10_000, Record: 100_000, APIKey: harness.APIKey,
		})
		launchAlone(ctx, t, apis[name], "BRIDGE_SCHEDULE="+name, fmt.Sprint("PLASPY_RATE_LIMIT=", limit), "BRIDGE_POLL_INTERVAL=60s")
	}
	select {
	case <-time.After(warm + *schedules):
	case <-ctx.Done():
		t.Fatal(context.Cause(ctx))
	}
	to := time.Now()
	from := to.Add(-*schedules)
	for _, name := range []string{"fixed", "adaptive"} {
		var delays []time.Duration
		missed, requests := 0, 0
		for _, id := range apis[name].IDs() {
			shown := apis[name].Shown(id)
			requests += len(slices.DeleteFunc(slices.Clone(shown), func(s sim.Shown) bool { return s.At.Before(from) || s.At.After(to) }))
			d, m := waits(fleet.NewDevice(id, *seed, start, fleet.Mixed, 10_000), shown, from, to)
			delays = append(delays, d...)
			missed += m
		}
		slices.Sort(delays)
		var sum time.Duration
		for _, d := range delays {
			sum += d
		}
		n := len(delays)
		if n == 0 {
			t.Fatalf("%s: no fix was shown", name)
		}
		second := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
		t.Logf("%-8s fixes %d, requests %d, mean delay %s, median %s, 95th percentile %s, missed %.0f%%",
			name, n, requests, second(sum/time.Duration(n)), second(delays[n/2]), second(delays[n*95/100]), 100*float64(missed)/float64(n))
	}
}

// waits gives, for each fix that became visible in a time, how long it took
// until the device was asked about again, and how many were superseded by then.
func waits(d *fleet.Device, shown []sim.Shown, from, to time.Time) (delays []time.Duration, missed int) {
	var visible []time.Time
	d.Poll(to)
	d.History(to, func(f *fleet.Fix) { visible = append(visible, f.Visible()) })
	slices.SortFunc(visible, time.Time.Compare)
	for i, at := range visible {
		if at.Before(from) || at.After(to) {
			continue
		}
		seen := to
		if j, _ := slices.BinarySearchFunc(shown, at, func(s sim.Shown, at time.Time) int { return s.At.Compare(at) }); j < len(shown) {
			seen = shown[j].At
		}
		delays = append(delays, seen.Sub(at))
		if i+1 < len(visible) && !visible[i+1].After(seen) {
			missed++
		}
	}
	return delays, missed
}

// launchAlone runs a bridge with the embedded broker until the test ends.
func launchAlone(ctx context.Context, t *testing.T, s *sim.Server, set ...string) {
	t.Helper()
	binaries, err := built()
	ok(t, err)
	nats, err := ports.Take(ctx)
	ok(t, err)
	http, err := ports.Take(ctx)
	ok(t, err)
	api := harness.NewAPI(s, ports)
	t.Cleanup(api.Close)
	b := harness.NewBridge(binaries.Bridge, t.TempDir(), "", http, api, append(set, "BRIDGE_EMBEDDED_ADDR="+nats))
	ok(t, b.Start(ctx))
	t.Cleanup(func() {
		if _, err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ok(t, b.Ready(ctx))
}
