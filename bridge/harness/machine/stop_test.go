//go:build linux

package machine_test

import (
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/sim/fault"
)

// TestStopFull stops a busy bridge while the API answers slowly, the broker does not answer
// and messages wait to be posted.
func TestStopFull(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		broker bool // is suspended
	}{{"slow API", false}, {"slow API and a broker that stands still", true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			const timeout = 20 * time.Second // the default
			r := newRig(t, harness.Options{Devices: 60, Env: []string{"BRIDGE_SHUTDOWN_TIMEOUT=" + timeout.String()}}, false)
			ctx := harness.Within(t, 5*time.Minute)
			r.start(ctx, t)
			ok(t, r.Polled(ctx, time.Now()))
			end := r.API.Sim.Fault(fault.Rule{Kind: fault.Slow, Delay: 3 * time.Second})
			wait(ctx, t, 2*time.Second)
			if test.broker {
				ok(t, r.Broker.Pause())
				wait(ctx, t, 1500*time.Millisecond)
			}
			begun := time.Now()
			life, err := r.Bridge.Stop(ctx)
			ok(t, err)
			if took, most := life.To.Sub(begun), timeout+harness.AtMost(2*time.Second); took > most {
				t.Errorf("took %v to stop, want at most %v", took, most)
			}
			if life.Status != 0 {
				t.Errorf("ended with status %d", life.Status)
			}
			log, err := r.Bridge.Log()
			ok(t, err)
			if said := strings.Contains(log, "stopped before all events were stored"); said != test.broker {
				t.Errorf("logged that events were not stored: %v, want %v", said, test.broker)
			}
			end()
			if test.broker {
				ok(t, r.Broker.Resume(ctx))
			}
			ok(t, r.Bridge.Start(ctx))
			ok(t, r.Bridge.Ready(ctx))
			report := r.settled(ctx, t, "stopped, "+test.name, 0)
			if !test.broker && report.Published != report.Shown {
				t.Errorf("%d published of %d shown: nothing excuses that", report.Published, report.Shown)
			}
		})
	}
}
