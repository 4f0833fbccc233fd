package harness_test

import (
	"flag"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim/fault"
)

var posts = flag.Bool("posts", false, "run TestPosts")

// TestPosts tests the consumer side at its full size: 10,000 messages of 200 devices,
// locations and alerts. Three of ten requests to the API fail with errors, resets or
// timeouts. Further runs also kill the bridge, kill and pause NATS, and stop NATS for 1, 5,
// 15 and 30 seconds. In the last one 5,000 messages arrive while the API is down for a
// minute.
func TestPosts(t *testing.T) {
	if !*posts {
		t.Skip("takes two minutes; -posts runs it")
	}
	const devices = 200
	const length = 42 * time.Second
	failing := func(r *harness.Rig) {
		for _, f := range []fault.Rule{
			{Kind: fault.Status, Status: 500, Probability: 0.085}, {Kind: fault.Status, Status: 503, Probability: 0.085},
			{Kind: fault.Reset, Probability: 0.085}, {Kind: fault.Hang, Probability: 0.085},
		} {
			for _, endpoint := range []string{"locations", "alerts"} {
				f.Endpoint, f.Until = endpoint, time.Now().Add(length)
				r.API.Sim.Fault(f)
			}
		}
	}
	outages := harness.Plan{
		{At: 4 * time.Second, Act: harness.KillBroker, For: time.Second},
		{At: 12 * time.Second, Act: harness.StopBroker, For: 5 * time.Second},
		{At: 24 * time.Second, Act: harness.PauseBroker, For: 15 * time.Second},
		{At: 48 * time.Second, Act: harness.KillBroker, For: 30 * time.Second},
	}
	for _, test := range []struct {
		name   string
		plan   harness.Plan
		every  time.Duration
		length time.Duration
		fault  func(*harness.Rig)
	}{
		{"failing", nil, 800 * time.Millisecond, length, failing},
		{"failing-and-killed", harness.NewPlan(*seed, length, harness.Mix{Bridge: true}), 800 * time.Millisecond, length, failing},
		{"failing-and-cut-off", harness.NewPlan(*seed, length, harness.Mix{Bridge: true, Broker: true}), 800 * time.Millisecond, length, failing},
		{"failing-without-nats", outages, 800 * time.Millisecond, 85 * time.Second, failing},
		{"down", nil, 2400 * time.Millisecond, 65 * time.Second, func(r *harness.Rig) {
			r.API.Sim.Fault(fault.Rule{Kind: fault.Status, Status: 503, Until: time.Now().Add(time.Minute)})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := harness.Options{Devices: 5, Seed: *seed, Env: []string{"PLASPY_TIMEOUT=2s", "BRIDGE_INBOUND_WORKERS=200", "BRIDGE_BACKOFF_MAX=5s", "BRIDGE_DEVICES_REFRESH=2s"}}
			report := run(t, o, test.name, test.plan, test.length, func(r *harness.Rig) {
				test.fault(r)
				r.Produce(devices, test.every)
			})
			if in := report.Inbound; in.Dead != 0 || in.Posted != in.Accepted || in.Unreported != 0 || in.Accepted < 5000 {
				t.Errorf("of %d messages %d were posted, %d dead-lettered, %d without a result", in.Accepted, in.Posted, in.Dead, in.Unreported)
			}
		})
	}
}
