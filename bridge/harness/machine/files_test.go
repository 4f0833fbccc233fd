//go:build linux

package machine_test

import (
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/machine"
)

// TestNoFiles leaves the bridge no file descriptors and then ends its connections, first
// to the API and then to the broker.
func TestNoFiles(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 20}, false)
	ctx := harness.Within(t, 5*time.Minute)
	r.start(ctx, t)
	w := r.watch(t)
	ok(t, r.Polled(ctx, time.Now()))
	from := time.Now()
	restore, err := machine.LimitFiles(r.Bridge.PID())
	ok(t, err)
	ok(t, r.Inject(ctx, harness.Plan{{Act: harness.Refuse, For: 300 * time.Millisecond}}, 4*time.Second))
	ok(t, r.Broker.Kill())
	r.startBroker(ctx, t)
	wait(ctx, t, 6*time.Second)
	ok(t, restore())
	r.recovers(ctx, t)
	r.truthful(t, w, from)
	report := r.settled(ctx, t, "no file descriptors", 0)
	if report.Published != report.Shown {
		t.Errorf("%d published of %d shown: nothing excuses that", report.Published, report.Shown)
	}
	log, err := r.Bridge.Log()
	ok(t, err)
	// The third attempt to post for each of ten gateways has a line, and each part a few.
	if n := strings.Count(log, "too many open files"); n == 0 || n > 20 {
		t.Errorf("the log has %d lines about too many open files, want 1 to 20", n)
		r.keep(t)
	}
}
