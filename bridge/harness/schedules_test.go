package harness_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/front"
	"plaspy-bridge/bridge/sim"
	"plaspy-bridge/bridge/sim/account"
	"plaspy-bridge/bridge/sim/fleet"
)

var schedules = flag.Duration("schedules", 0, "run TestSchedules, for so long after its warm-up, with a restart in the middle")

// TestSchedules runs the real binary with the fixed and with the adaptive schedule side by
// side, with the same budget and the same fleet. It prints the delays between the time at
// which the API showed a fix and its poll. Both bridges restart half-way.
func TestSchedules(t *testing.T) {
	if *schedules == 0 {
		t.Skip("takes long; -schedules 20m runs it")
	}
	const (
		devices = 200
		limit   = 120 // requests a minute
	)
	warm := *schedules // the adaptive schedule learns
	start := time.Now().Add(-3 * time.Hour)
	ctx := harness.Within(t, warm+*schedules+2*time.Minute)
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			t.Fatal(context.Cause(ctx))
		}
	}
	names := []string{"fixed", "adaptive"}
	apis, bridges := map[string]*sim.Server{}, map[string]*harness.Bridge{}
	for _, name := range names {
		apis[name] = sim.New(sim.Options{
			Devices: devices, Seed: *seed, Start: start, Profile: fleet.Mixed, History: 10_000, Record: 100_000, APIKey: harness.APIKey,
		})
		bridges[name] = launchAlone(ctx, t, apis[name], "BRIDGE_SCHEDULE="+name, fmt.Sprint("PLASPY_RATE_LIMIT=", limit), "BRIDGE_POLL_INTERVAL=60s")
	}
	pause(warm)
	from := time.Now()
	pause(*schedules / 2)
	restart := time.Now()
	for _, name := range names {
		_, err := bridges[name].Stop(ctx)
		ok(t, err)
		ok(t, bridges[name].Start(ctx))
	}
	for _, name := range names {
		ok(t, bridges[name].Ready(ctx))
	}
	pause(time.Until(from.Add(*schedules)))
	to := time.Now()
	for _, part := range []struct {
		name     string
		from, to time.Time
	}{{"whole", from, to}, {"before the restart", from, restart}, {"after the restart", restart, to}} {
		for _, name := range names {
			t.Logf("%-18s %-8s %s", part.name, name, freshness(t, apis[name], start, part.from, part.to, to))
		}
	}
}

// freshness summarizes the delays until the polls of the fixes that became visible between
// two instants. The record of the answers ends at end.
func freshness(t *testing.T, api *sim.Server, start, from, to, end time.Time) string {
	t.Helper()
	var delays []time.Duration
	var sum time.Duration
	missed, requests := 0, 0
	for _, id := range api.IDs() {
		shown := api.Shown(id)
		for _, s := range shown {
			if !s.At.Before(from) && !s.At.After(to) {
				requests++
			}
		}
		d, m := waits(fleet.NewDevice(id, *seed, start, fleet.Mixed, 10_000), shown, from, to, end)
		delays = append(delays, d...)
		missed += m
	}
	if len(delays) == 0 {
		t.Fatalf("no fix was shown from %v to %v", from, to)
	}
	slices.Sort(delays)
	for _, d := range delays {
		sum += d
	}
	n := len(delays)
	return fmt.Sprintf("fixes %d, requests %d, mean delay %.1f s, median %.1f s, 95th percentile %.1f s, missed %.0f%%",
		n, requests, (sum / time.Duration(n)).Seconds(), delays[n/2].Seconds(), delays[n*95/100].Seconds(), 100*float64(missed)/float64(n))
}

// waits returns, for each fix that became visible between two instants, the delay until the
// next poll of its device, and the number of fixes that were superseded by then.
func waits(d *fleet.Device, shown []account.Shown, from, to, end time.Time) (delays []time.Duration, missed int) {
	var visible []time.Time
	d.Poll(end)
	d.History(end, func(f *fleet.Fix) { visible = append(visible, f.Visible()) })
	slices.SortFunc(visible, time.Time.Compare)
	for i, at := range visible {
		if at.Before(from) || at.After(to) {
			continue
		}
		seen := end
		if j, _ := slices.BinarySearchFunc(shown, at, func(s account.Shown, at time.Time) int { return s.At.Compare(at) }); j < len(shown) {
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
func launchAlone(ctx context.Context, t *testing.T, s *sim.Server, set ...string) *harness.Bridge {
	t.Helper()
	binaries, err := built()
	ok(t, err)
	nats, err := ports.Take(ctx)
	ok(t, err)
	http, err := ports.Take(ctx)
	ok(t, err)
	api := front.New(s, ports)
	t.Cleanup(api.Close)
	b := harness.NewBridge(harness.BridgeOptions{Binary: binaries.Bridge, Dir: t.TempDir(), API: api, HTTP: http, Env: append(set, "BRIDGE_EMBEDDED_ADDR="+nats)})
	ok(t, b.Start(ctx))
	t.Cleanup(func() {
		if _, err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ok(t, b.Ready(ctx))
	return b
}
