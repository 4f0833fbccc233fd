package schedule_test

import (
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/schedule"
)

// After a start nothing is known; minutes later the plans are good.
func TestAdaptiveRelearnsInMinutes(t *testing.T) {
	t.Parallel()
	r := budgeted(fleet(26, 500, 30*time.Minute), 1.8, 10*time.Minute, 30*time.Minute)
	var got compared
	got.add(r.judge(r.run(lapByLap())), r.judge(r.run(adaptive())), 1)
	t.Log(got)
	if got.better < 1.8 {
		t.Errorf("mean delay from 10 to 30 minutes after the start: got %.2f times better, want 1.8", got.better)
	}
}

func TestAdaptiveStarvesNobody(t *testing.T) {
	t.Parallel()
	const horizon = 2 * time.Hour
	for _, ratio := range []float64{0.45, 1.8} {
		r := budgeted(fleet(22, 300, horizon), ratio, 0, horizon)
		p := adaptive()
		last := make([]time.Duration, len(r.trackers))
		worst := time.Duration(0)
		for _, q := range r.run(p) {
			worst = max(worst, q.at-last[q.device])
			last[q.device] = q.at
		}
		for _, at := range last {
			worst = max(worst, horizon-at)
		}
		if most := p.Stats(start.Add(horizon)).LongestWait * 5 / 4; worst > most {
			t.Errorf("longest wait at %.2f requests per fix: got %v, want %v at most", ratio, worst, most)
		}
	}
}

func TestAdaptiveFirstPollsAreSpreadOverALap(t *testing.T) {
	const n, rate = 2000, 1000
	p := adaptive()
	p.SetRate(start, rate)
	addAll(p, start, n)
	polls := serve(p, start, start.Add(2*time.Minute-time.Millisecond), 0, nothing)
	if got := len(polls); got != n {
		t.Fatalf("polls in the first lap: got %d, want %d", got, n)
	}
	for i, q := range polls {
		if want := start.Add(time.Duration(i) * 2 * time.Minute / n); q.at.Sub(want).Abs() > time.Millisecond {
			t.Fatalf("poll %d: got %v, want %v", i, q.at, want)
		}
	}
}

func TestAdaptiveFindsATripAfterLongParking(t *testing.T) {
	const began, horizon = 11 * time.Hour, 12 * time.Hour
	ts := steady(50, 30*time.Minute, horizon, apart)
	ts = altered(ts, func(_ int, f *fix) { f.speed, f.input = 0, 0 })
	for at := began; at < horizon; at += 20 * time.Second {
		ts[7].fixes = append(ts[7].fixes, fix{stamp: at, visible: at + 2*time.Second, speed: 60, input: 1})
	}
	ts[7].fixes = ts[7].fixes[22-1:] // in order: the last heartbeat, then the trip
	p := adaptive()
	r := &replay{trackers: ts, rate: 60, answer: delay, horizon: horizon, from: began}
	for _, q := range r.run(p) {
		if q.device == 7 && q.looked > began+2*time.Second {
			if got, most := q.at-began, p.Stats(start).LongestWait+5*time.Second; got > most {
				t.Errorf("trip seen after %v, want %v at most", got, most)
			}
			return
		}
	}
	t.Error("trip not seen")
}

func TestAdaptiveHoldsALowerBudget(t *testing.T) {
	t.Parallel()
	const horizon, cut = 2 * time.Hour, time.Hour
	r := budgeted(fleet(23, 300, horizon), 1.8, 0, horizon)
	throttled := false
	r.at = func(now time.Duration, p *schedule.Schedule) {
		if now >= cut && !throttled {
			throttled = true
			r.rate /= 2
			p.SetRate(start.Add(now), r.rate)
		}
	}
	whole := r.rate
	log := r.run(adaptive())
	withinBudget(t, log, whole)
	var late []asked
	for _, q := range log {
		if q.at > cut+time.Second {
			late = append(late, q)
		}
	}
	withinBudget(t, late, whole/2)
	if got, want := float64(len(late)), 0.9*whole/2*(horizon-cut).Minutes(); got < want {
		t.Errorf("requests at the lower budget: got %.0f, want %.0f at least", got, want)
	}
}

// Plans made while there were next to no requests must not outlive that.
func TestAdaptiveRecoversFromAStandstill(t *testing.T) {
	const n = 200
	p := adaptive()
	p.SetRate(start, 600)
	addAll(p, start, n)
	now := start.Add(5 * time.Minute)
	serve(p, start, now, time.Minute/600, nothing)
	p.SetRate(now, 0.5)
	serve(p, now, now.Add(10*time.Minute), time.Second, nothing)
	now = now.Add(10 * time.Minute)
	p.SetRate(now, 600)
	polled := make(map[string]bool)
	s := p.Stats(now)
	for _, q := range serve(p, now, now.Add(s.LongestWait+s.Lap), time.Minute/600, nothing) {
		polled[q.id] = true
	}
	if got := len(polled); got != n {
		t.Errorf("devices polled within %v: got %d, want %d", s.LongestWait+s.Lap, got, n)
	}
}

// If all devices are held until the same moment, they must not be polled all at once then.
func TestAdaptiveComesBackSpread(t *testing.T) {
	const n = 1000
	for _, tc := range []struct {
		name string
		wait time.Duration
		most int // polls in any second
	}{
		{"throttled for a minute", time.Minute, n / 8},
		{"quota until midnight", 6 * time.Hour, n / 30},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := adaptive()
			addAll(p, start, n)
			then := start.Add(time.Minute + tc.wait)
			polls := serve(p, start, then.Add(2*time.Minute), 0, func(now time.Time, _ string) schedule.Observation {
				if now.Before(then) {
					return schedule.Observation{Failed: true, NotBefore: then}
				}
				return nothing(now, "")
			})
			perSecond := make(map[int64]int)
			back := 0
			for _, q := range polls {
				if q.at.Before(then) {
					if q.at.After(start.Add(time.Minute)) {
						t.Fatalf("%s polled at %v, want not before %v", q.id, q.at, then)
					}
					continue
				}
				back++
				perSecond[q.at.Unix()]++
			}
			if back < n {
				t.Errorf("polls after the wait: got %d, want %d at least", back, n)
			}
			for s, got := range perSecond {
				if got > tc.most {
					t.Errorf("polls in second %d: got %d, want %d at most", s, got, tc.most)
				}
			}
		})
	}
}

// taught is a policy with one device that reports every 30 s and is polled every 3.
func taught(t *testing.T) (p *schedule.Schedule, now time.Time) {
	t.Helper()
	p = adaptive()
	p.Add(start, "a")
	now = start
	for now.Before(start.Add(20 * time.Minute)) {
		id, ok, wake := p.Next(now)
		if !ok {
			now = wake
			continue
		}
		p.Done(now, id, ticking(now))
		now = now.Add(time.Second)
	}
	return p, now
}

// ticking is a device that made its newest fix at the last half minute, seen 3 s later.
func ticking(now time.Time) schedule.Observation {
	return schedule.Observation{Fix: true, FixTime: now.Add(-3 * time.Second).Truncate(30 * time.Second), Speed: 40, Input: 1}
}

func TestAdaptiveExplains(t *testing.T) {
	p, now := taught(t)
	got := p.Explain(now, "a")
	if !strings.HasPrefix(got.Line, "reports every 30 s, seen ") || !strings.HasSuffix(got.Line, " because a fix is due") {
		t.Errorf("line: got %q, want 30 s and a fix that is due", got.Line)
	}
	if got.Reason != schedule.ReasonDue || !strings.Contains(got.Line, got.Next.Format(time.TimeOnly)) {
		t.Errorf("reason and next: got %v and %v, want due and the time of the line: %q", got.Reason, got.Next, got.Line)
	}
	if past := got.Next.Sub(got.Next.Truncate(30 * time.Second)); past < 2*time.Second || past > 6*time.Second {
		t.Errorf("next poll: got %v after a half minute, want about 3 s", past)
	}
	p.Soon(now, "a")
	if got := p.Explain(now, "a"); got.Reason != schedule.ReasonAsked {
		t.Errorf("after Soon: got %v, want %v", got.Reason, schedule.ReasonAsked)
	}
	if _, ok, _ := p.Next(now); !ok {
		t.Fatal("after Soon: got no device, want one at once")
	}
	if got := p.Explain(now, "a"); got.Reason != schedule.ReasonOut {
		t.Errorf("under way: got %v, want %v", got.Reason, schedule.ReasonOut)
	}
	p.Add(now, "b")
	for id, want := range map[string]schedule.Reason{"b": schedule.ReasonFirst, "c": schedule.ReasonUnknown} {
		if got := p.Explain(now, id); got.Reason != want {
			t.Errorf("%s: got %v, want %v", id, got.Reason, want)
		}
	}
}

func TestAdaptiveLearnsNothingFromFailures(t *testing.T) {
	p, now := taught(t)
	what := func() string {
		line, _, _ := strings.Cut(p.Explain(now, "a").Line, ";")
		return line
	}
	want := what()
	last := time.Duration(0)
	for range 6 {
		_, ok, wake := p.Next(now)
		for !ok {
			now = wake
			_, ok, wake = p.Next(now)
		}
		p.Done(now, "a", schedule.Observation{Failed: true})
		if got := what(); got != want {
			t.Fatalf("after a failure: got %q, want %q", got, want)
		}
		e := p.Explain(now, "a")
		if wait := e.Next.Sub(now); e.Reason != schedule.ReasonBackoff || wait < last {
			t.Errorf("after a failure: got %v in %v, want %v in %v at least", e.Reason, wait, schedule.ReasonBackoff, last)
		} else {
			last = wait
		}
	}
}

// After its clock has gone back an hour, or after the bridge's has, a device is polled as well as before.
func TestAdaptiveSurvivesClockSteps(t *testing.T) {
	t.Parallel()
	const horizon, step = 3 * time.Hour, time.Hour
	ts := steady(100, 40*time.Second, horizon, apart)
	back := altered(ts, func(_ int, f *fix) {
		if f.visible > step {
			f.stamp -= time.Hour
		}
	})
	run := func(ts []tracker) float64 {
		r := &replay{trackers: ts, rate: 300, answer: delay, horizon: horizon, from: step + 20*time.Minute}
		return r.judge(r.run(adaptive())).Mean
	}
	if got, want := run(back), run(ts); got > 1.3*want+0.2 {
		t.Errorf("mean delay: got %.2f s after the step, want about %.2f s", got, want)
	}

	p, now := taught(t)
	past := now.Add(-time.Hour)
	e := p.Explain(past, "a")
	if wait := e.Next.Sub(past); wait > time.Minute {
		t.Errorf("bridge's clock set back: next poll in %v, want within a minute", wait)
	}
}

func TestAdaptiveParksTheSilent(t *testing.T) {
	p, now := taught(t)
	fixTime := ticking(now).FixTime
	quiet := now
	polls := serve(p, now, now.Add(time.Hour), time.Second, func(time.Time, string) schedule.Observation {
		return schedule.Observation{Fix: true, FixTime: fixTime, Speed: 40, Input: 1}
	})
	e := p.Explain(quiet.Add(time.Hour), "a")
	if !strings.HasPrefix(e.Line, "parked since ") {
		t.Errorf("after an hour of silence: got %q, want parked", e.Line)
	}
	if got := len(polls); got < 60 || got > 200 {
		t.Errorf("polls in an hour of silence: got %d, want 60 to 200", got)
	}
}

// A device that reports each second, an interval of a second and no limit: a poll a second, just
// after it is due, and not as many as there can be.
func TestAdaptiveWithoutLimitDoesNotHammer(t *testing.T) {
	t.Parallel()
	ts := steady(20, time.Second, 10*time.Minute, together)
	for i := range ts {
		for j := range ts[i].fixes {
			ts[i].fixes[j].visible -= 2800 * time.Millisecond // 0.2 s after its own time
		}
	}
	r := &replay{trackers: ts, answer: 20 * time.Millisecond, horizon: 10 * time.Minute, from: 2 * time.Minute}
	p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Second})
	got := r.judge(r.run(p))
	if perFix := float64(got.Requests) / float64(got.Fixes); perFix < 0.95 || perFix > 2 {
		t.Errorf("requests per fix: got %.2f, want 1 to 2", perFix)
	}
	if got.missed() > 0.02 || got.Mean > 0.5 {
		t.Errorf("got %.3f missed and %.2f s of delay, want 0.02 and 0.5 at most", got.missed(), got.Mean)
	}
}

func TestAdaptiveKeepsTheIntervalWithoutLimit(t *testing.T) {
	p := adaptive()
	addAll(p, start, 10)
	last := make(map[string]time.Time)
	for _, q := range serve(p, start, start.Add(30*time.Minute), time.Millisecond, nothing) {
		if before, ok := last[q.id]; ok && q.at.Sub(before) > time.Minute+time.Second {
			t.Fatalf("%s: got %v between polls, want a minute at most", q.id, q.at.Sub(before))
		}
		last[q.id] = q.at
	}
}

func TestAdaptiveReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	const horizon = 2 * time.Hour
	ts := fleet(24, 400, horizon)
	all := budgeted(ts, 1.8, 30*time.Minute, horizon)
	want := all.judge(all.run(adaptive())).Mean
	got := 0.
	for i := range 2 {
		half := *all
		half.trackers, half.rate = ts[i*200:(i+1)*200], all.rate/2
		r := half.judge(half.run(adaptive()))
		got += r.Mean * float64(r.Fixes)
	}
	if got /= float64(made(ts, all.from, horizon)); got > 1.25*want {
		t.Errorf("mean delay with two replicas: got %.2f s, want about %.2f s", got, want)
	}
}

func TestAdaptiveTripStartWeight(t *testing.T) {
	t.Parallel()
	r := budgeted(fleet(25, 400, 3*time.Hour), 1.8, time.Hour, 3*time.Hour)
	var seen, promised []float64
	for _, weight := range []float64{1, 64} {
		p := schedule.NewAdaptive(schedule.AdaptiveOptions{Interval: time.Minute, TripStartWeight: weight})
		seen = append(seen, r.judge(r.run(p)).Trips)
		promised = append(promised, p.Stats(start.Add(r.horizon)).TripDetection.Seconds())
	}
	t.Logf("trips seen after %.0f s, promised %.0f s", seen, promised)
	if seen[1] > 0.8*seen[0] || promised[1] > 0.8*promised[0] {
		t.Errorf("trips seen after %.0f s, promised %.0f s; want the second 0.8 of the first at most", seen, promised)
	}
	for i := range seen {
		if promised[i] < seen[i]/2 || promised[i] > seen[i]*2 {
			t.Errorf("detection: promised %.0f s, got %.0f s; want within a factor of 2", promised[i], seen[i])
		}
	}
}
