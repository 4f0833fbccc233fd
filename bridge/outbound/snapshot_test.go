package outbound

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/outbound/decision"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher/natstest"
)

// statuses follows the pool's reports until ok accepts the statuses by device.
func (r *rig) statuses(known map[string]DeviceStatus, what string, ok func() bool) {
	r.t.Helper()
	timeout := time.After(time.Minute)
	look := time.NewTicker(time.Millisecond) // when a poll begins, its device is busy
	defer look.Stop()
	for !ok() {
		select {
		case <-timeout:
			r.t.Fatalf("waiting for %s: %+v", what, known)
		case <-look.C:
		}
		r.pool.Changed(func(g DeviceStatus) {
			if !g.Busy {
				known[g.ID] = g
			}
		})
	}
}

// TestChanged looks on while devices are polled, which with the race detector
// also shows that nothing of a busy device is touched.
func TestChanged(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	api.show("a", at(1, 1, `"speed":42.5`, `"alerts":["SpeedLimit"]`))
	n := 0
	api.next["b"] = func(int) (string, error) { // moves, and raises and clears all the time
		n++
		return at(n%3600, n, fmt.Sprintf(`"alerts":["x%d","y"]`, n%3)), nil
	}
	r := newRig(t, natstest.Start(t), api, options())
	known := map[string]DeviceStatus{}
	r.statuses(known, "both devices", func() bool {
		return known["a"].Fix && known["b"].Fix && known["a"].Result == decision.Unchanged.String()
	})
	a := known["a"]
	if a.Polled.IsZero() || a.Seen.IsZero() || a.Next.IsZero() {
		t.Errorf("a has no time of its last poll, first sight or next poll: %+v", a)
	}
	a.Polled, a.Seen, a.Next = time.Time{}, time.Time{}, time.Time{}
	want := DeviceStatus{
		ID: "a", Name: "Truck a", Fix: true, FixTime: time.Date(2026, 1, 2, 3, 0, 1, 0, time.UTC), Lat: 4.7, Lon: -74.1, Speed: 42.5,
		Alerts: []string{"SpeedLimit"}, Result: decision.Unchanged.String(), Reason: "interval",
	}
	if diff := cmp.Diff(a, want); diff != "" {
		t.Error(diff)
	}
	if b := known["b"]; !math.IsNaN(float64(b.Speed)) || len(b.Alerts) != 2 {
		t.Errorf("b: %+v", b)
	}
	api.set(func() {
		api.next["a"] = func(int) (string, error) { return "", &plaspy.Error{Endpoint: "last_location", Status: 500} }
	})
	r.statuses(known, "failures", func() bool {
		return known["a"].Failures > 2 && known["a"].Result == decision.Failed.String() && known["a"].Detail != ""
	})
	api.setList("b")
	r.statuses(known, "the device that is gone", func() bool { return known["a"].Gone })
	r.stop()
	r.pool.Changed(func(DeviceStatus) {})
	r.pool.Changed(func(g DeviceStatus) { t.Errorf("reported without a change: %+v", g) })
}

func TestNothingIsRememberedForNobody(t *testing.T) {
	api := newFakeAPI("a")
	r := newRig(t, natstest.Start(t), api, options())
	r.polls("a", 3)
	r.stop()
	if n := len(r.pool.fleet.changes.list); n != 0 {
		t.Errorf("%d changed devices are remembered without a caller of Changed", n)
	}
}

// BenchmarkChanged measures the cost of an observer for a second of 1,000 polls
// in 10,000 devices.
func BenchmarkChanged(b *testing.B) {
	api := newFakeAPI()
	p := New(options(), parts(api, nil, schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, Seed: 1}))).fleet
	now := time.Now()
	var all []*device
	for i := range 10_000 {
		id := fmt.Sprint("dev-", i)
		d := p.addLocked(id, id)
		d.listed, d.track.Known = true, true
		p.activateLocked(now, d)
		all = append(all, d)
	}
	for range 3 * 60 * 1000 { // three minutes of polls, so that every device has a plan
		now = now.Add(time.Millisecond)
		if id, ok, _ := p.table.policy.Next(now); ok {
			p.table.policy.Done(now, id, schedule.Observation{Fix: true, Changed: true, FixTime: now, Speed: 30})
		}
	}
	p.statuses(func(DeviceStatus) {})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.mu.Lock()
		for n := range 1000 {
			p.changes.mark(all[(i*1000+n)%len(all)])
		}
		p.mu.Unlock()
		p.statuses(func(DeviceStatus) {})
	}
}
