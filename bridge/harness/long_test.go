package harness_test

import (
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim/fleet"
)

// TestLong injects random faults from a seed:
//
//	go test ./bridge/harness -run TestLong -long 10m -seed 7 -parallel 13 -timeout 90m -v
//
// All kinds of runs have that length, and with -parallel 13 they run at once. -run
// TestLong/everything selects one.
func TestLong(t *testing.T) {
	if *long == 0 {
		t.Skip("runs only with -long, such as -long 10m")
	}
	length := *long
	gone := harness.Plan{{At: length / 3, Act: harness.KillBroker, For: 10 * time.Second}}
	for _, test := range []struct {
		name    string
		o       harness.Options
		plan    harness.Plan
		inbound bool
	}{
		{"clean", harness.Options{}, nil, false},
		{"kills", harness.Options{}, harness.NewPlan(*seed, length, harness.Mix{Bridge: true}), false},
		{"broker-gone", harness.Options{}, gone, false},
		{"broker", harness.Options{}, harness.NewPlan(*seed, length, harness.Mix{Broker: true}), false},
		{"everything", harness.Options{}, harness.NewPlan(*seed, length, harness.Mix{Bridge: true, Broker: true, API: true, Loss: true}), false},
		{"fixed", harness.Options{Env: []string{"BRIDGE_SCHEDULE=fixed"}},
			harness.NewPlan(*seed+1, length, harness.Mix{Bridge: true, Broker: true, API: true, Loss: true}), false},
		{"mixed-fleet", harness.Options{Devices: 300, Profile: fleet.Mixed, Env: []string{"BRIDGE_POLL_INTERVAL=1s"}},
			harness.NewPlan(*seed+2, length, harness.Mix{Bridge: true, Broker: true, API: true, Loss: true}), false},
		{"back-fill", harness.Options{Backfill: true}, harness.NewPlan(*seed+3, length, harness.Mix{Bridge: true, Broker: true, API: true, SparePosts: true}), false},
		{"replicas", harness.Options{Bridges: 3, Linked: true, Limit: 12_000},
			harness.NewPlan(*seed+5, length, harness.Mix{Bridge: true, Broker: true, API: true, Loss: true, Bridges: 3, Links: true, Joins: true}), false},
		{"replicas-inbound", harness.Options{Devices: 10, Bridges: 3, Linked: true, Env: []string{"BRIDGE_DEVICES_REFRESH=2s"}},
			harness.NewPlan(*seed+6, length, harness.Mix{Bridge: true, Broker: true, API: true, Bridges: 3, Links: true, Joins: true}), true},
		{"back-fill-replicas", harness.Options{Bridges: 3, Linked: true, Backfill: true},
			harness.NewPlan(*seed+7, length, harness.Mix{Bridge: true, Broker: true, API: true, Bridges: 3, Links: true, Joins: true, SparePosts: true}), false},
		{"silent-and-history", harness.Options{Devices: 100, Profile: fleet.Mixed, Env: []string{"BRIDGE_SILENT_AFTER=4s", "BRIDGE_ALERT_HISTORY=true"}},
			harness.NewPlan(*seed+8, length, harness.Mix{Bridge: true, Broker: true, API: true}), false},
		{"inbound", harness.Options{Devices: 10}, harness.NewPlan(*seed+4, length, harness.Mix{Bridge: true, Broker: true, API: true}), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.o.Devices == 0 {
				test.o.Devices = 50
			}
			test.o.Seed = *seed
			run(t, test.o, test.name, test.plan, length, func(r *harness.Rig) {
				if test.inbound {
					r.Produce(100, 2*time.Second)
				}
			})
		})
	}
}
