package harness_test

import (
	"slices"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim/fleet"
)

// TestScale measures the cost of a large fleet:
//
//	go test ./bridge/harness -run TestScale -scale -v -timeout 10m
func TestScale(t *testing.T) {
	if !*scale {
		t.Skip("runs only with -scale")
	}
	const devices, interval, warm, measured = 20_000, 30 * time.Second, 75 * time.Second, 3 * time.Minute
	for _, schedule := range []string{"fixed", "adaptive"} {
		t.Run(schedule, func(t *testing.T) {
			r := newRig(t, harness.Options{Devices: devices, Profile: fleet.Mixed, Record: harness.Nothing, Env: []string{
				"PLASPY_RATE_LIMIT=0", "BRIDGE_POLL_INTERVAL=" + interval.String(), "BRIDGE_WORKERS=64", "BRIDGE_SCHEDULE=" + schedule,
			}})
			ctx := harness.Within(t, 9*time.Minute)
			ok(t, r.Start(ctx))
			ok(t, r.Inject(ctx, nil, warm))
			before, err := r.Bridge.Usage()
			ok(t, err)
			r.API.CountPolls()
			ok(t, r.Inject(ctx, nil, measured))
			polls := r.API.Counted()
			after, err := r.Bridge.Usage()
			ok(t, err)
			life, err := r.Bridge.Stop(ctx)
			ok(t, err)
			if len(polls) != devices {
				t.Errorf("%d of %d devices were polled", len(polls), devices)
			}
			var gaps []time.Duration
			n := 0
			for _, p := range polls {
				gaps = append(gaps, p.Longest)
				n += p.N
			}
			slices.Sort(gaps)
			cpu := after.CPU - before.CPU
			t.Logf("%d devices every %v, %s: %.0f polls/s; longest gap of a device: median %v, p99 %v, of all %v; CPU %.1f%% of one core, %.0f us a poll; RSS %d MB now, %d MB at most",
				devices, interval, schedule, float64(n)/measured.Seconds(), gaps[len(gaps)/2].Round(time.Millisecond),
				gaps[len(gaps)*99/100].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond),
				100*cpu.Seconds()/measured.Seconds(), float64(cpu.Microseconds())/float64(n), after.RSS>>20, life.RSS>>20)
			if longest := gaps[len(gaps)-1]; longest > interval+2*time.Second {
				t.Errorf("a device was not polled for %v", longest)
			}
		})
	}
}
