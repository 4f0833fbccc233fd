package schedule_test

import (
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// TestSameRateAgainChangesNothing compares a policy that gets its rate every
// second with one that gets it once: they poll the same devices.
func TestSameRateAgainChangesNothing(t *testing.T) {
	const devices, perMinute = 40, 60.0
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	start := now
	var once, often *schedule.Schedule
	for _, p := range []**schedule.Schedule{&once, &often} {
		*p = schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: 1, Seed: 1})
		(*p).SetRate(now, perMinute)
		for i := range devices {
			(*p).Add(now, fmt.Sprint("d", i))
		}
	}
	for step := range 2000 {
		now = now.Add(time.Second)
		often.SetRate(now, perMinute)
		id, ok, _ := once.Next(now)
		again, okAgain, _ := often.Next(now)
		if id != again || ok != okAgain {
			t.Fatalf("step %d: %q and %q", step, id, again)
		}
		if !ok {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(id, "d%d", &n); err != nil {
			t.Fatal(err)
		}
		period := time.Duration(10+10*(n%5)) * time.Second
		fix := start.Add(now.Sub(start).Truncate(period))
		o := schedule.Observation{Fix: true, FixTime: fix, Changed: now.Sub(fix) < time.Minute, Speed: 40, Input: -1}
		once.Done(now, id, o)
		often.Done(now, id, o)
	}
}

// TestHigherRateBringsAllForward: plans that were made with next to no requests are brought forward, a thousand at a
// call, when the rate rises. If nothing is due meanwhile, Next asks to be called again at once.
func TestHigherRateBringsAllForward(t *testing.T) {
	const devices = 3500
	both(t, func(t *testing.T, p *schedule.Schedule) {
		p.SetRate(start, 0)
		addAll(p, start, devices)
		now := start.Add(2 * time.Minute)
		serve(p, start, now, time.Millisecond, nothing)
		p.SetRate(now, 1)
		now = now.Add(3 * time.Minute)
		for id, ok, _ := p.Next(now); ok; id, ok, _ = p.Next(now) {
			p.Done(now, id, nothing(now, id)) // the next time is days ahead
		}
		p.SetRate(now, 60*devices)
		for end := now.Add(time.Second); ; {
			id, ok, wake := p.Next(now)
			if ok {
				p.Done(now, id, nothing(now, id))
				continue
			}
			if wake.IsZero() || wake.After(end) {
				break
			}
			now = wake
		}
		late := 0
		for i := range devices {
			if due, _ := p.Due(now, name(i)); due.Sub(now) > p.Stats(now).LongestWait {
				late++
			}
		}
		if late > 0 {
			t.Errorf("%d of %d devices are due later than the longest wait allows", late, devices)
		}
	})
}
