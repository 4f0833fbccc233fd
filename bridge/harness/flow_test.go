package harness_test

import (
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim/fault"
)

// TestEveryChange checks the bridge's main promise without faults.
func TestEveryChange(t *testing.T) {
	t.Parallel()
	d := length(5*time.Second, 15*time.Second)
	r := run(t, harness.Options{Devices: 50}, "clean", nil, d)
	if want := 50 * int(d/time.Second); r.Shown < want {
		t.Errorf("only %d changes shown, want %d", r.Shown, want)
	}
	if r.Published != r.Shown {
		t.Errorf("%d published of %d shown", r.Published, r.Shown)
	}
	if r.Answers <= r.Shown {
		t.Errorf("%d answers with %d changes: none was unchanged, so that nothing is proven about those", r.Answers, r.Shown)
	}
}

// TestKilled kills the bridge during its work, and again during its start.
func TestKilled(t *testing.T) {
	t.Parallel()
	d := length(7*time.Second, 15*time.Second)
	run(t, harness.Options{Devices: 50}, "killed twice", harness.Plan{
		{At: d / 3, Act: harness.KillBridge},
		{At: d/3 + 400*time.Millisecond, Act: harness.KillBridge},
	}, d)
}

// TestBackfilled kills the bridge twice with back-fill, which excuses nothing.
func TestBackfilled(t *testing.T) {
	t.Parallel()
	d := length(7*time.Second, 15*time.Second)
	r := run(t, harness.Options{Devices: 50, Backfill: true}, "killed twice, back-fill", harness.Plan{
		{At: d / 3, Act: harness.KillBridge, For: 2500 * time.Millisecond},
		{At: d * 2 / 3, Act: harness.KillBridge},
	}, d)
	if r.Killed+r.TimedOut+r.Taken != 0 {
		t.Errorf("back-fill was excused: %v", r)
	}
}

// TestBrokerGone kills the broker and restarts it after a while.
func TestBrokerGone(t *testing.T) {
	t.Parallel()
	d := length(7*time.Second, 15*time.Second)
	r := run(t, harness.Options{Devices: 50}, "broker killed for 3s", harness.Plan{
		{At: 2 * time.Second, Act: harness.KillBroker, For: 3 * time.Second},
	}, d)
	if r.Published != r.Shown {
		t.Errorf("%d published of %d shown: nothing excuses that", r.Published, r.Shown)
	}
}

// TestRollback restarts the broker on an older copy of its store.
func TestRollback(t *testing.T) {
	t.Parallel()
	d := length(7*time.Second, 12*time.Second)
	r := run(t, harness.Options{Devices: 50}, "broker rolled back by 2s", harness.Plan{
		{At: 2 * time.Second, Act: harness.Rollback, For: 2 * time.Second},
	}, d)
	if r.Taken == 0 {
		t.Error("the broker lost nothing, so that nothing is proven")
	}
}

// TestStreamDeleted deletes the stream while the bridge runs.
func TestStreamDeleted(t *testing.T) {
	t.Parallel()
	d := length(7*time.Second, 12*time.Second)
	r := run(t, harness.Options{Devices: 50}, "stream deleted", harness.Plan{
		{At: 3 * time.Second, Act: harness.Delete},
	}, d)
	if r.Taken == 0 {
		t.Error("the broker lost nothing, so that nothing is proven")
	}
}

// TestInbound kills the bridge and lets the API fail while messages are posted.
func TestInbound(t *testing.T) {
	t.Parallel()
	d := length(5*time.Second, 15*time.Second)
	r := run(t, harness.Options{Devices: 5}, "inbound", harness.Plan{
		{At: 500 * time.Millisecond, Act: harness.FaultAPI, For: d / 2, Fault: fault.Rule{Kind: fault.Status, Status: 503, Endpoint: "*s", Probability: 0.2}},
		{At: d/2 + time.Second, Act: harness.FaultAPI, For: d / 4, Fault: fault.Rule{Kind: fault.CutOff, Endpoint: "locations", Probability: 0.1}},
		{At: d / 3, Act: harness.KillBridge},
		{At: d / 2, Act: harness.KillBridge, For: time.Second},
		{At: d * 2 / 3, Act: harness.KillBroker, For: time.Second},
	}, d, func(r *harness.Rig) { r.Produce(20, 100*time.Millisecond) })
	if r.Inbound.Accepted < 20*10*int(d/time.Second)/3 {
		t.Errorf("only %d messages were produced", r.Inbound.Accepted)
	}
	if r.Inbound.Dead != 0 {
		t.Errorf("%d dead letters", r.Inbound.Dead)
	}
}
