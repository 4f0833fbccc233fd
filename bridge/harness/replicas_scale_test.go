package harness_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/process"
	"plaspy-bridge/bridge/sim/fleet"
)

// TestReplicasScale measures the cost of a very large fleet for two bridges:
//
//	go test ./bridge/harness -run TestReplicasScale -scale -v -timeout 20m
func TestReplicasScale(t *testing.T) {
	if !*scale {
		t.Skip("runs only with -scale")
	}
	const devices, interval, warm, measured = 100_000, 60 * time.Second, 100 * time.Second, 2 * time.Minute
	for _, test := range []struct {
		schedule string
		limit    int
	}{{"adaptive", 0}, {"fixed", 120_000}} {
		t.Run(test.schedule, func(t *testing.T) {
			r := newRig(t, harness.Options{
				Bridges: 2, Devices: devices, Profile: fleet.Mixed, Record: harness.Nothing,
				Env: []string{
					fmt.Sprint("PLASPY_RATE_LIMIT=", test.limit), "BRIDGE_POLL_INTERVAL=" + interval.String(), "BRIDGE_WORKERS=64",
					"BRIDGE_SCHEDULE=" + test.schedule,
				},
			})
			ctx := harness.Within(t, 15*time.Minute)
			ok(t, r.Start(ctx))
			ok(t, r.Inject(ctx, nil, warm))
			before := usage(t, r)
			r.API.CountPolls()
			ok(t, r.Inject(ctx, nil, measured))
			polls := r.API.Counted()
			after := usage(t, r)
			var gaps []time.Duration
			n := 0
			for _, p := range polls {
				gaps = append(gaps, p.Longest)
				n += p.N
			}
			slices.Sort(gaps)
			if len(gaps) != devices {
				t.Fatalf("%d of %d devices were polled", len(gaps), devices)
			}
			var each []string
			for i := range before {
				cpu := after[i].CPU - before[i].CPU
				name := "broker"
				if i < 2 {
					name = fmt.Sprint("bridge ", i)
				}
				each = append(each, fmt.Sprintf("%s CPU %.0f%% of one core, RSS %d MB", name, 100*cpu.Seconds()/measured.Seconds(), after[i].RSS>>20))
			}
			longest := gaps[len(gaps)-1]
			t.Logf("%d devices every %v over two bridges, %s, limit %d: %.0f polls/s; longest gap of a device: median %v, p99 %v, of all %v; %s",
				devices, interval, test.schedule, test.limit, float64(n)/measured.Seconds(), gaps[len(gaps)/2].Round(time.Millisecond),
				gaps[len(gaps)*99/100].Round(time.Millisecond), longest.Round(time.Millisecond), strings.Join(each, "; "))
			if longest > interval+5*time.Second {
				t.Errorf("a device was not polled for %v", longest)
			}
			for _, b := range r.Running() {
				_, err := b.Stop(ctx)
				ok(t, err)
			}
		})
	}
}

// usage returns the usage of each bridge, and then that of the broker.
func usage(t *testing.T, r *harness.Rig) []process.Usage {
	t.Helper()
	var list []process.Usage
	for _, b := range r.Running() {
		u, err := b.Usage()
		ok(t, err)
		list = append(list, u)
	}
	u, err := r.Broker.Usage()
	ok(t, err)
	return append(list, u)
}
