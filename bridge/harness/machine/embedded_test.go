//go:build linux

package machine_test

import (
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
)

// TestStartsFull starts a bridge with an embedded server while the disk is full.
func TestStartsFull(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 20}, true)
	ctx := harness.Within(t, 5*time.Minute)
	r.start(ctx, t)
	ok(t, r.Polled(ctx, time.Now()))
	_, err := r.Bridge.Stop(ctx)
	ok(t, err)
	r.bridge.Full(0)
	from := time.Now()
	ok(t, r.Bridge.Start(ctx))
	w := r.watch(t)
	ok(t, r.Bridge.Await(ctx, func(h harness.Health) bool { return h.Reasons["streams"] != "starting" && h.Reasons["streams"] != "" }))
	wait(ctx, t, 3*time.Second)
	r.bridge.Full(-1)
	r.recovers(ctx, t)
	r.truthful(t, w, from)
	r.settled(ctx, t, "disk full at the start", workers)
}

// TestKilledAgainAndAgain kills a bridge with an embedded server at every stage of the
// start, and some time later.
func TestKilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 20}, true)
	ctx := harness.Within(t, 5*time.Minute)
	r.start(ctx, t)
	ok(t, r.Polled(ctx, time.Now()))
	for _, after := range []time.Duration{0, 50, 100, 150, 200, 300, 400, 600, 800, 6500} {
		ok(t, r.Bridge.Kill())
		ok(t, r.Bridge.Start(ctx))
		wait(ctx, t, after*time.Millisecond)
	}
	at := time.Now()
	ok(t, r.Bridge.Kill())
	ok(t, r.Bridge.Start(ctx))
	ok(t, r.Bridge.Ready(ctx))
	ok(t, r.Polled(ctx, at))
	if took := time.Since(at); took > harness.AtMost(15*time.Second) {
		t.Errorf("it took %v until every device was polled", took)
	}
	r.settled(ctx, t, "killed again and again", 0)
}
