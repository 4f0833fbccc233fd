package harness_test

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/front"
	"plaspy-bridge/bridge/sim/fault"
	"plaspy-bridge/bridge/sim/fleet"
)

var messageID = regexp.MustCompile(`harness-\d+-\d+`)

// TestGatewayPage makes a gateway answer with pages of HTML for some seconds, again and
// again. No inbound message may be dead-lettered because of them.
func TestGatewayPage(t *testing.T) {
	t.Parallel()
	r := newRig(t, harness.Options{Devices: 10, Env: []string{"BRIDGE_DEVICES_REFRESH=2s"}})
	ctx := harness.Within(t, 5*time.Minute)
	ok(t, r.Start(ctx))
	r.Produce(10, 100*time.Millisecond)
	for _, status := range []int{200, 302, 403, 404, 503} {
		ok(t, r.Inject(ctx, nil, time.Second))
		r.API.Front(front.Page(status))
		ok(t, r.Inject(ctx, nil, length(2*time.Second, 4*time.Second)))
		r.API.Front(nil)
		ok(t, r.Ready(ctx))
	}
	report := settled(t, r, "gateway's pages", nil)
	if report.Inbound.Dead != 0 || report.Inbound.Accepted < 100 {
		t.Errorf("of %d messages %d are dead letters", report.Inbound.Accepted, report.Inbound.Dead)
	}
}

// TestDevicesOverQuota makes the API refuse a few devices until midnight. The others have to
// be polled at the same rate as before.
func TestDevicesOverQuota(t *testing.T) {
	t.Parallel()
	const devices = 20
	r := newRig(t, harness.Options{Devices: devices, Env: []string{"BRIDGE_SCHEDULE=fixed"}})
	ctx := harness.Within(t, 5*time.Minute)
	ok(t, r.Start(ctx))
	ids := r.API.Sim.IDs()
	over := map[string]bool{ids[0]: true, ids[7]: true, ids[13]: true}
	pace := func() float64 {
		from, n := time.Now(), 0
		ok(t, r.Inject(ctx, nil, length(6*time.Second, 12*time.Second)))
		took := time.Since(from)
		for _, id := range ids {
			for _, s := range r.API.Sim.Shown(id) {
				if !over[id] && s.At.After(from) && s.At.Before(from.Add(took)) {
					n++
				}
			}
		}
		return float64(n) / took.Seconds()
	}
	ok(t, r.Polled(ctx, time.Now()))
	before := pace()
	now := time.Now().UTC()
	for id := range over {
		r.API.Sim.Fault(fault.Rule{Kind: fault.Throttle, Device: id, RetryAfter: now.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(now)})
	}
	// Something else may have the processors in one round. A bridge that the refused devices
	// hold up is slower in every round.
	for round := 1; ; round++ {
		after := pace()
		t.Logf("%d devices are polled %.1f times a second, and %.1f times while %d are refused until midnight", devices-len(over), before, after, len(over))
		if after >= 0.95*before {
			break
		}
		if round == 5 {
			t.Errorf("in each of %d rounds the others are polled less often than before, in the last one %.1f times a second, want %.1f", round, after, before)
			break
		}
	}
	r.API.Sim.ClearFaults()
	_, err := r.Bridge.Stop(ctx)
	ok(t, err)
}

// TestLogReader stalls or closes the reader of the bridge's log while the bridge logs much.
func TestLogReader(t *testing.T) {
	t.Parallel()
	for _, closes := range []bool{false, true} {
		t.Run(map[bool]string{false: "stalls", true: "goes away"}[closes], func(t *testing.T) {
			t.Parallel()
			r := newRig(t, harness.Options{Devices: 50, Env: []string{"BRIDGE_LOG_LEVEL=debug"}})
			ctx := harness.Within(t, 5*time.Minute)
			reader, writer, err := os.Pipe()
			ok(t, err)
			defer reader.Close()
			r.Bridge.LogTo(writer)
			ok(t, r.Start(ctx))
			ok(t, writer.Close()) // the bridge has its own copy
			_, err = io.CopyN(io.Discard, reader, 1)
			ok(t, err)
			if closes {
				ok(t, reader.Close())
			}
			// Every failing poll logs a line. Together they exceed the capacity of a pipe.
			ok(t, r.Inject(ctx, harness.Plan{{Act: harness.FaultAPI, For: 2 * time.Second, Fault: fault.Rule{Kind: fault.Status, Status: 500, Endpoint: "lastLocation", Probability: 0.3}}}, 4*time.Second))
			report := settled(t, r, "log's reader "+t.Name(), nil)
			if report.Published != report.Shown {
				t.Errorf("%d published of %d shown", report.Published, report.Shown)
			}
		})
	}
}

// TestBatchesKilled kills the bridge in the middle of batches. At most the element in
// progress of each batch may be posted again.
func TestBatchesKilled(t *testing.T) {
	t.Parallel()
	d := length(7*time.Second, 15*time.Second)
	const kills = 3
	var p harness.Plan
	for i := range kills {
		p = append(p, harness.Step{At: d * time.Duration(i+1) / (kills + 1), Act: harness.KillBridge})
	}
	var r *harness.Rig
	report := run(t, harness.Options{Devices: 5}, "batches", p, d, func(rig *harness.Rig) {
		r = rig
		slow := r.API.Sim.Fault(fault.Rule{Kind: fault.Slow, Delay: 20 * time.Millisecond, Endpoint: "locations"})
		t.Cleanup(slow)
		r.ProduceBatches(10, 500*time.Millisecond, 20)
	})
	if report.Inbound.Accepted < 1000 || report.Inbound.Dead != 0 {
		t.Errorf("%d elements, %d dead-lettered", report.Inbound.Accepted, report.Inbound.Dead)
	}
	for _, id := range r.API.Sim.IDs() {
		seen, again := map[string]bool{}, 0
		for _, post := range r.API.Sim.Posts(id) {
			element := messageID.FindString(post.Body)
			if element != "" && seen[element] {
				again++
			}
			seen[element] = true
		}
		if again > kills {
			t.Errorf("%s: %d elements were posted again after %d kills", id, again, kills)
		}
	}
}

// TestConnectionsDie freezes all connections to the API while new ones work. The bridge has
// to replace each within 30 seconds and publish the answers that it received.
func TestConnectionsDie(t *testing.T) {
	t.Parallel()
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("HTTP%d", version), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, harness.Options{Devices: 20, HTTP: version, Env: []string{"BRIDGE_DEVICES_REFRESH=2s"}})
			ctx := harness.Within(t, 4*time.Minute)
			ok(t, r.Start(ctx))
			r.Produce(5, 200*time.Millisecond)
			ok(t, r.Polled(ctx, time.Now()))
			ok(t, r.API.Freeze(ctx))
			frozen := time.Now()
			ok(t, r.Polled(ctx, frozen))
			took := time.Since(frozen)
			t.Logf("every device was polled again %v after the connections died", took.Round(time.Millisecond))
			if took > 30*time.Second {
				t.Errorf("every device was polled again only %v after the connections died", took)
			}
			report := settled(t, r, t.Name(), nil)
			if report.Published != report.Shown {
				t.Errorf("%d published of %d shown", report.Published, report.Shown)
			}
		})
	}
}

// TestSilentAndHistory kills the bridge and the broker with the bridge's own alert and the
// alert history enabled.
func TestSilentAndHistory(t *testing.T) {
	t.Parallel()
	d := length(12*time.Second, 20*time.Second)
	o := harness.Options{Devices: 60, Profile: fleet.Mixed, Env: []string{"BRIDGE_SILENT_AFTER=2s", "BRIDGE_ALERT_HISTORY=true"}}
	r := run(t, o, "silent devices and the alert history", harness.Plan{
		{At: d / 4, Act: harness.KillBridge},
		{At: d / 2, Act: harness.KillBroker, For: time.Second},
	}, d)
	if r.Silent == 0 {
		t.Error("no device was silent, so that nothing is proven")
	}
}

// TestReplicasBackfilled kills and stops some of three bridges that fill gaps.
func TestReplicasBackfilled(t *testing.T) {
	t.Parallel()
	d := length(12*time.Second, 30*time.Second)
	r := run(t, harness.Options{Devices: 50, Bridges: 3, Backfill: true}, "three bridges that fill gaps", harness.Plan{
		{At: d / 4, Act: harness.KillBridge, Bridge: 0, For: 2 * time.Second},
		{At: d / 2, Act: harness.StopBridge, Bridge: 1, For: time.Second},
		{At: d * 2 / 3, Act: harness.KillBridge, Bridge: 2},
	}, d)
	if r.Killed+r.TimedOut+r.Taken+r.Overtaken != 0 {
		t.Errorf("back-fill was excused: %v", r)
	}
}
