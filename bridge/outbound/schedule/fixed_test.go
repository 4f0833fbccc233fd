package schedule_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"plaspy-bridge/bridge/outbound/schedule"
)

var start = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func name(i int) string { return fmt.Sprintf("dev%05d", i) }

func addAll(p *schedule.Schedule, now time.Time, n int) {
	for i := range n {
		p.Add(now, name(i))
	}
}

// poll is one request of a run.
type poll struct {
	id string
	at time.Time
}

// serve runs the policy from now to end, as a pool with a request each gap (0 means no limit) does,
// and answers each poll at once with the result of answer.
func serve(p *schedule.Schedule, now, end time.Time, gap time.Duration, answer func(now time.Time, id string) schedule.Observation) []poll {
	var polls []poll
	for !now.After(end) {
		id, ok, wake := p.Next(now)
		if !ok {
			if wake.IsZero() {
				return polls
			}
			if !wake.After(now) {
				panic("wake is not in the future")
			}
			now = wake
			continue
		}
		polls = append(polls, poll{id, now})
		p.Done(now, id, answer(now, id))
		now = now.Add(gap)
	}
	return polls
}

func nothing(time.Time, string) schedule.Observation {
	return schedule.Observation{Speed: math.NaN(), Input: -1}
}

func TestFixedSpreadsFirstPolls(t *testing.T) {
	t.Parallel()
	const n = 20000
	for _, tc := range []struct {
		name string
		rate float64
		lap  time.Duration
	}{
		{"no limit", 0, time.Minute},
		{"budget suffices", 40000, time.Minute},
		{"budget makes the interval impossible", 10000, 2 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := schedule.NewFixed(time.Minute)
			p.SetRate(start, tc.rate)
			addAll(p, start, n)
			polls := serve(p, start, start.Add(tc.lap-time.Millisecond), 0, nothing)
			if got, want := len(polls), n; got != want {
				t.Fatalf("polls in the first lap: got %d, want %d", got, want)
			}
			if !polls[0].at.Equal(start) {
				t.Errorf("first poll: got %v, want %v", polls[0].at, start)
			}
			gap := tc.lap / n
			seen := make(map[string]bool)
			for i, q := range polls {
				if want := start.Add(time.Duration(i) * gap); q.at.Sub(want).Abs() > time.Millisecond {
					t.Fatalf("poll %d: got %v, want %v", i, q.at, want)
				}
				seen[q.id] = true
			}
			if len(seen) != n {
				t.Errorf("devices polled: got %d, want %d", len(seen), n)
			}
		})
	}
}

func TestFixedNoDriftNoPileUp(t *testing.T) {
	p := schedule.NewFixed(10 * time.Second)
	p.Add(start, "a")
	var at []time.Duration
	for now := start; now.Before(start.Add(2 * time.Minute)); {
		id, ok, wake := p.Next(now)
		if !ok {
			now = wake
			continue
		}
		at = append(at, now.Sub(start))
		took := 3 * time.Second
		if len(at) == 3 {
			took = 34 * time.Second
		}
		now = now.Add(took)
		p.Done(now, id, schedule.Observation{})
	}
	// The answer of the third poll takes 34 s: the turns at 30, 40 and 50 have passed by then, one
	// poll stands for all of them, and the next is back on the grid.
	want := []time.Duration{0, 10, 20, 54, 60, 70, 80, 90, 100, 110}
	for i := range want {
		want[i] *= time.Second
	}
	if diff := cmp.Diff(want, at); diff != "" {
		t.Errorf("polls (-want +got):\n%s", diff)
	}
}

func TestFixedLeavesAloneAndComesBackSpread(t *testing.T) {
	const n = 600
	p := schedule.NewFixed(time.Minute)
	addAll(p, start, n)
	then := start.Add(time.Hour)
	perSecond := make(map[int64]int)
	for _, q := range serve(p, start, then.Add(2*time.Minute), 0, func(now time.Time, _ string) schedule.Observation {
		if now.Before(then) {
			return schedule.Observation{Failed: true, NotBefore: then}
		}
		return schedule.Observation{}
	}) {
		if q.at.Before(then) && q.at.After(start.Add(time.Minute)) {
			t.Fatalf("%s polled at %v, want not before %v", q.id, q.at, then)
		}
		perSecond[q.at.Unix()]++
	}
	for s, got := range perSecond {
		if got > 12 {
			t.Errorf("polls in second %d: got %d, want about %d", s, got, n/60)
		}
	}
}

// A rate so low that a lap takes hours must not outlive itself in the plans.
func TestFixedFollowsTheRate(t *testing.T) {
	p := schedule.NewFixed(time.Minute)
	addAll(p, start, 100)
	serve(p, start, start.Add(time.Minute), 0, nothing)
	p.SetRate(start.Add(time.Minute), 1)
	serve(p, start.Add(time.Minute), start.Add(10*time.Minute), time.Minute, nothing)
	p.SetRate(start.Add(10*time.Minute), 0)
	seen := make(map[string]int)
	for _, q := range serve(p, start.Add(10*time.Minute), start.Add(13*time.Minute), 0, nothing) {
		seen[q.id]++
	}
	for i := range 100 {
		if got := seen[name(i)]; got < 3 || got > 4 {
			t.Errorf("%s: got %d polls in 3 minutes, want 3", name(i), got)
		}
	}
}

func TestFixedExplains(t *testing.T) {
	p := schedule.NewFixed(time.Minute)
	p.Add(start, "a")
	p.Add(start, "b")
	id, _, _ := p.Next(start)
	p.Done(start, id, schedule.Observation{})
	want := schedule.Explanation{
		Line:   "polled every 60 s; next poll 12:01:00 because the fixed interval ends then",
		Next:   start.Add(time.Minute),
		Reason: schedule.ReasonInterval,
	}
	if diff := cmp.Diff(want, p.Explain(start, "a")); diff != "" {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
	for id, want := range map[string]schedule.Reason{"b": schedule.ReasonFirst, "c": schedule.ReasonUnknown} {
		if got := p.Explain(start, id).Reason; got != want {
			t.Errorf("%s: got %v, want %v", id, got, want)
		}
	}
}

// TestReasonsHaveNames also checks that the page for operators explains each name.
func TestReasonsHaveNames(t *testing.T) {
	page, err := os.ReadFile("../../../deploy/docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for r := schedule.ReasonUnknown; r <= schedule.ReasonLongest; r++ {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d: got the name %q, want one of its own", r, r)
		}
		if !bytes.Contains(page, []byte("`"+r.String()+"`")) {
			t.Errorf("deploy/docs/metrics.md does not explain the reason %q", r)
		}
		seen[r.String()] = true
	}
	if got := schedule.Reason(200).String(); got != "unknown" {
		t.Errorf("no reason at all: got %q, want unknown", got)
	}
}
