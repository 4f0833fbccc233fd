package harness_test

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	"plaspy-bridge/bridge/harness"
	"plaspy-bridge/bridge/harness/judge"
	"plaspy-bridge/bridge/sim/fleet"
)

var full = flag.Bool("replicas", false, "run the tests of several bridges at their full size, one after the other")

// size is the size of the tests of several bridges. The limit is twice the rate that the
// interval needs, because with less the adaptive schedule exceeds the interval.
type size struct {
	devices  int
	interval time.Duration
	limit    int
}

var (
	large = size{devices: 3000, interval: 10 * time.Second, limit: 36_000}
	small = size{devices: 120, interval: 2 * time.Second, limit: 7200}
)

// beside runs a small test in parallel with others.
func beside(t *testing.T) {
	t.Helper()
	if !*full {
		t.Parallel()
	}
}

// sized returns the size, and runs a small test in parallel with others.
func sized(t *testing.T) size {
	t.Helper()
	if *full {
		return large
	}
	beside(t)
	return small
}

func (s size) options(bridges int) harness.Options {
	return harness.Options{
		Bridges: bridges, Devices: s.devices, Profile: fleet.Percent(100), Limit: s.limit, Record: 10_000,
		Env: []string{"BRIDGE_POLL_INTERVAL=" + s.interval.String(), "BRIDGE_WORKERS=64"},
	}
}

// settled ends a run and fails the test if the report has a fault.
func settled(t *testing.T, r *harness.Rig, name string, p harness.Plan) judge.Report {
	t.Helper()
	ctx := harness.Within(t, 5*time.Minute)
	ok(t, r.Settle(ctx))
	report, err := r.Report(ctx, name, p)
	ok(t, err)
	t.Logf("\n%s", report.String())
	if err := report.Err(); err != nil {
		t.Errorf("%s: %v", name, err)
		keep(t, r)
	}
	return report
}

// TestReplicaGone kills one of three bridges, and stops one of three: promise 7.
func TestReplicaGone(t *testing.T) {
	beside(t)
	const told = 3 * time.Second
	for _, test := range []struct {
		name        string
		end         func(t *testing.T, b *harness.Bridge)
		first, last time.Duration
	}{
		{"killed", func(t *testing.T, b *harness.Bridge) { ok(t, b.Kill()) }, 8 * time.Second, 15 * time.Second},
		{"stopped", func(t *testing.T, b *harness.Bridge) {
			_, err := b.Stop(harness.Within(t, 20*time.Second))
			ok(t, err)
		}, told, told + large.interval},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := sized(t)
			r := newRig(t, s.options(3))
			ctx := harness.Within(t, 5*time.Minute)
			ok(t, r.Start(ctx))
			ok(t, r.Polled(ctx, time.Now()))
			ok(t, r.Inject(ctx, nil, s.interval))
			at := time.Now()
			test.end(t, r.Bridge)
			ok(t, r.Inject(ctx, nil, test.last+s.interval))
			ok(t, r.Polled(ctx, time.Now()))
			h := handedOver(r, 0, at)
			t.Logf("%s: %s", test.name, h)
			if h.devices < s.devices/5 {
				t.Errorf("it had %d of %d devices, want about a third", h.devices, s.devices)
			}
			if h.first > atMost(test.first) {
				t.Errorf("none of its devices was polled for %v, want at most %v", h.first, atMost(test.first))
			}
			if h.last > atMost(test.last) {
				t.Errorf("one of its devices was polled after %v, want at most %v", h.last, atMost(test.last))
			}
			settled(t, r, test.name, nil)
		})
	}
}

// TestReplicaPaused suspends one of three bridges until the others have taken over. When it
// continues, its answers are out of date and must not be published.
func TestReplicaPaused(t *testing.T) {
	s := sized(t)
	still := 9 * time.Second
	if *full {
		still = 30 * time.Second
	}
	r := newRig(t, s.options(3))
	ctx := harness.Within(t, 5*time.Minute)
	ok(t, r.Start(ctx))
	ok(t, r.Polled(ctx, time.Now()))
	at := time.Now()
	ok(t, r.Inject(ctx, harness.Plan{{Act: harness.PauseBridge, For: still}}, still+s.interval))
	ok(t, r.Polled(ctx, time.Now()))
	h := handedOver(r, 0, at)
	t.Log(h)
	if h.devices < s.devices/5 || h.first > atMost(8*time.Second) || h.last > atMost(15*time.Second) {
		t.Errorf("want about a third of %d devices, the first polled by others after 8 s and all after 15 s", s.devices)
	}
	ok(t, r.Ready(ctx))
	settled(t, r, "paused", nil)
}

// TestReplicasChange starts, stops and kills bridges at random.
func TestReplicasChange(t *testing.T) {
	s := sized(t)
	changes, length := 5, 20*time.Second
	if *full {
		changes, length = 10, 2*time.Minute
	}
	r := newRig(t, s.options(3))
	ctx := harness.Within(t, length+3*time.Minute)
	ok(t, r.Start(ctx))
	ok(t, r.Polled(ctx, time.Now()))
	p := harness.NewChanges(*seed, 3, 4, changes, length)
	for _, step := range p {
		t.Log(step)
	}
	from := time.Now()
	ok(t, r.Inject(ctx, p, length+s.interval))
	worst := longest(r, from, time.Now())
	t.Logf("%d changes in %v: %s", changes, length, worst)
	if worst.length() > s.interval+atMost(15*time.Second) {
		t.Errorf("want at most %v and 15s", s.interval)
	}
	settled(t, r, "changes", p)
}

// TestReplicasThrottled throttles three devices of one bridge. All bridges have to slow
// down: promise 6.
func TestReplicasThrottled(t *testing.T) {
	s := sized(t)
	r := newRig(t, s.options(3))
	ctx := harness.Within(t, 5*time.Minute)
	ok(t, r.Start(ctx))
	ok(t, r.Polled(ctx, time.Now()))
	for _, retry := range []time.Duration{4 * time.Second, 3 * time.Second} {
		// Beside other tests one of the processes may not run for a second. Bridges that do
		// not slow down show it in every round.
		err := throttledRound(ctx, t, r, retry)
		for rounds := 1; err != nil && rounds < 3; rounds++ {
			t.Log(err)
			err = throttledRound(ctx, t, r, retry)
		}
		if err != nil {
			t.Error(err)
		}
	}
	settled(t, r, "throttled", nil)
}

// throttledRound throttles one bridge and returns an error if any of the bridges sends a
// request meanwhile, or none sends one soon after.
func throttledRound(ctx context.Context, t *testing.T, r *harness.Rig, retry time.Duration) error {
	t.Helper()
	ok(t, r.Inject(ctx, nil, 2*time.Second))
	select {
	case <-r.API.Door(1).Throttle(3, retry): // a single device would wait alone
	case <-ctx.Done():
		t.Fatal("the second bridge sends no requests")
	}
	at := time.Now()
	ok(t, r.Inject(ctx, nil, retry+3*time.Second))
	var last, next time.Duration
	late := 0
	for _, q := range r.API.Requests() {
		switch after := q.At.Sub(at); {
		case after < 0:
		case after < retry-500*time.Millisecond: // the header has whole seconds
			last = after
			if after > time.Second {
				late++
			}
		case next == 0:
			next = after
		}
	}
	t.Logf("429 with Retry-After %v to one of three: the last request of any went out %v later, the next %v later", retry, last.Round(time.Millisecond), next.Round(time.Millisecond))
	if late > 0 {
		return fmt.Errorf("%d requests went out more than a second after the 429 and before it was over, the last %v after", late, last)
	}
	if next == 0 || next > retry+2*time.Second {
		return fmt.Errorf("the next request went out %v after the 429, want it soon after %v", next, retry)
	}
	return nil
}

// TestReplicaCutOff cuts one of three bridges off from the broker.
func TestReplicaCutOff(t *testing.T) {
	beside(t)
	for _, act := range []harness.Act{harness.DropLink, harness.ResetLink} {
		t.Run(string(act), func(t *testing.T) {
			s := sized(t)
			length := 10 * time.Second
			if *full {
				length = 30 * time.Second
			}
			o := s.options(3)
			o.Linked = true
			r := newRig(t, o)
			ctx := harness.Within(t, 5*time.Minute)
			ok(t, r.Start(ctx))
			ok(t, r.Polled(ctx, time.Now()))
			at := time.Now()
			told := make(chan string, 1)
			var noticed time.Duration
			go func() {
				var why string
				if err := r.Bridge.Await(ctx, func(h harness.Health) bool { why = fmt.Sprint(h.Reasons); return !h.Ready }); err != nil {
					t.Error(err)
				}
				noticed = time.Since(at)
				told <- why
			}()
			ok(t, r.Inject(ctx, harness.Plan{{Act: act, For: length}}, length))
			healed := time.Now()
			why := <-told
			ok(t, r.Ready(ctx))
			back := time.Since(healed)
			ok(t, r.Inject(ctx, nil, s.interval))
			ok(t, r.Polled(ctx, time.Now()))
			h := handedOver(r, 0, at)
			t.Logf("%s; not ready after %v (%s), ready %v after it was over", h, noticed.Round(10*time.Millisecond), why, back.Round(10*time.Millisecond))
			if h.devices < s.devices/5 || h.first > atMost(8*time.Second) || h.last > atMost(15*time.Second) {
				t.Errorf("want about a third of %d devices, the first polled by others after 8 s and all after 15 s", s.devices)
			}
			if noticed > atMost(8*time.Second) {
				t.Errorf("it reported that it was ready for %v without a broker", noticed)
			}
			if back > atMost(8*time.Second) {
				t.Errorf("it was ready only %v after the broker was back", back)
			}
			settled(t, r, string(act), nil)
		})
	}
}

// TestReplicasInbound kills, stops and suspends three bridges that post messages.
func TestReplicasInbound(t *testing.T) {
	s := sized(t)
	devices, every, length := 20, 100*time.Millisecond, 15*time.Second
	if *full {
		devices, every, length = 200, 500*time.Millisecond, 2*time.Minute
	}
	s.devices, s.limit = 10, 0
	o := s.options(3)
	o.Env = append(o.Env, "BRIDGE_DEVICES_REFRESH=2s") // the producer adds its devices later
	r := newRig(t, o)
	ctx := harness.Within(t, length+3*time.Minute)
	ok(t, r.Start(ctx))
	r.Produce(devices, every)
	p := harness.Plan{
		{At: 2 * time.Second, Act: harness.KillBridge, Bridge: 0},
		{At: 3 * time.Second, Act: harness.PauseBridge, Bridge: 1, For: 8 * time.Second},
		{At: 10 * time.Second, Act: harness.StopBridge, Bridge: 2, For: time.Second},
		{At: 13 * time.Second, Act: harness.KillBridge, Bridge: 1},
	}
	if *full {
		p = harness.NewPlan(*seed, length, harness.Mix{Bridge: true, Bridges: 3})
	}
	for _, step := range p {
		t.Log(step)
	}
	ok(t, r.Inject(ctx, p, length))
	report := settled(t, r, "inbound", p)
	if in := report.Inbound; in.Accepted < devices*int(length/every)/2 || in.Dead != 0 {
		t.Errorf("%d messages were accepted, %d dead-lettered", in.Accepted, in.Dead)
	}
}
