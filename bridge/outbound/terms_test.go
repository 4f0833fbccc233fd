package outbound

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/publisher/natstest"
)

func (r *rig) polled(id string) (n int) {
	r.api.set(func() { n = r.api.polls[id] })
	return n
}

func (r *rig) why(id string) Reason {
	r.t.Helper()
	data, ok := r.pool.Why(id)
	var reason Reason
	if err := json.Unmarshal(data, &reason); !ok || err != nil {
		r.t.Fatal(ok, err)
	}
	return reason
}

// TestPause pauses a device and the group of another one, and lets them go again.
func TestPause(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "c", "x") // a is in the group North, c in South
	for _, id := range []string{"a", "c", "x"} {
		api.show(id, at(0, 4.7))
	}
	r := newRig(t, natstest.Start(t), api, options())
	natstest.Eventually(t, "every device was polled", func() bool { return r.polled("a") > 0 && r.polled("c") > 0 && r.polled("x") > 0 })
	r.pool.SetTerms(func(_, token string, groups []string) Terms {
		if token == "a" || slices.Contains(groups, "South") {
			return Terms{Paused: true, Control: "by hand"}
		}
		return Terms{}
	}, true)
	natstest.Eventually(t, "both are paused", func() bool { return r.pool.fleet.controls().paused == 2 && r.pool.Owned() == 1 })
	natstest.Eventually(t, "no poll is under way", func() bool { return r.why("a").Reason == reasonPaused && r.why("c").Reason == reasonPaused })
	was := r.polled("a") + r.polled("c")
	x := r.polled("x")
	natstest.Eventually(t, "the other one is polled", func() bool { return r.polled("x") > x+50 })
	if n := r.polled("a") + r.polled("c"); n > was+2 { // polls in flight
		t.Errorf("%d polls of paused devices", n-was)
	}
	if why := r.why("a"); why.Control != "by hand" || !strings.Contains(why.Plan, "paused") || !r.pool.Polls("a") {
		t.Errorf("why: %+v", why)
	}
	if _, err := r.pool.Poll(t.Context(), "a"); !errors.Is(err, ErrPaused) {
		t.Errorf("poll of a paused device: %v", err)
	}
	r.pool.SetTerms(nil, false)
	natstest.Eventually(t, "they are polled again", func() bool { return r.polled("a")+r.polled("c") > was+20 })
	if why := r.why("a"); why.Control != nil {
		t.Errorf("why: %+v", why)
	}
}

// TestIntervalThatTheBudgetCannotHold checks that why says so.
func TestIntervalThatTheBudgetCannotHold(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	r := newRigWith(t, natstest.Start(t), api, api, options(), func(_ *rig, p *Parts) { p.Budget = slowBudget{p.Budget} })
	natstest.Eventually(t, "polled", func() bool { return r.polled("a") > 0 })
	set := func(d time.Duration) {
		r.pool.SetTerms(func(id, _ string, _ []string) Terms {
			if id == "b" {
				return Terms{}
			}
			return Terms{Terms: schedule.Terms{Interval: d}}
		}, false)
	}
	set(time.Second) // 60 a minute; the budget says 90
	if why := r.why("a"); strings.Contains(why.Plan, "cannot hold") {
		t.Errorf("why: %s", why.Plan)
	}
	set(500 * time.Millisecond)
	if why := r.why("a"); !strings.Contains(why.Plan, "they need 120 polls a minute, it has room for 90") {
		t.Errorf("why: %s", why.Plan)
	}
	if why := r.why("b"); strings.Contains(why.Plan, "cannot hold") {
		t.Errorf("why of another device: %s", why.Plan)
	}
}

// slowBudget reports a rate and holds nothing back.
type slowBudget struct{ Budget }

func (slowBudget) PollRate() float64 { return 90 }

// TestChooseAnew changes the patterns that choose devices.
func TestChooseAnew(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b", "c")
	o := options()
	o.Refresh = time.Hour
	o.Select.Devices = []string{"a", "b"}
	r := newRig(t, natstest.Start(t), api, o)
	natstest.Eventually(t, "two devices", func() bool { return r.polled("a") > 0 && r.polled("b") > 0 })
	r.pool.Select(nil, []string{"b"})
	natstest.Eventually(t, "another one, of which the stream had no event", func() bool { return r.polled("c") > 0 && r.pool.Owned() == 2 && r.pool.Listed().Devices == 2 })
	b := r.polled("b")
	a := r.polled("a")
	natstest.Eventually(t, "polls go on", func() bool { return r.polled("a") > a+50 })
	if n := r.polled("b"); n > b+1 {
		t.Errorf("%d polls of a device that is excluded", n-b)
	}
	if _, err := r.pool.Poll(t.Context(), "b"); !errors.Is(err, ErrUnknown) {
		t.Errorf("poll of an excluded device: %v", err)
	}
	r.pool.Select([]string{"a", "b"}, nil)
	natstest.Eventually(t, "as before", func() bool { return r.polled("b") > b+20 && r.pool.Owned() == 2 })
}

// TestPollNow polls a device before its turn and gives the result.
func TestPollNow(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("a", "b")
	api.show("a", at(0, 4.7))
	r := newRigWith(t, natstest.Start(t), api, api, options(), func(_ *rig, p *Parts) { p.Schedule = schedule.NewFixed(time.Hour) })
	var first PollAnswer
	poll := func(id string) (PollAnswer, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		data, err := r.pool.Poll(ctx, id)
		var got PollAnswer
		if err == nil {
			err = json.Unmarshal(data, &got)
		}
		return got, err
	}
	natstest.Eventually(t, "ready", func() bool {
		got, err := poll("a")
		first = got
		return err == nil
	})
	if first.DeviceID != "a" || first.Result != "changed" && first.Result != "unchanged" || first.At.IsZero() {
		t.Errorf("got %+v", first)
	}
	if got, err := poll("a"); err != nil || got.Result != "unchanged" || got.ID != "" {
		t.Errorf("got %+v, %v, want unchanged", got, err)
	}
	api.show("a", at(5, 4.8))
	got, err := poll("a")
	if err != nil || got.Result != "changed" || got.Published != 1 {
		t.Fatalf("got %+v, %v, want changed", got, err)
	}
	events := r.until("the event", func(e event) bool { return strings.Contains(e.body, `"v":4.8`) })
	last := events[len(events)-1]
	if got.ID != last.header.Get("ce-id") || got.Sequence != uint64(len(events)) {
		t.Errorf("got id %s and sequence %d, want %s and %d", got.ID, got.Sequence, last.header.Get("ce-id"), len(events))
	}
	if _, err := poll("nobody"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown device: %v", err)
	}
	api.set(func() {
		api.next["a"] = func(int) (string, error) { return "", errors.New("broken") }
	})
	if _, err := poll("a"); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("API error: %v", err)
	}
	r.own(func(token string) bool { return token == "a" })
	natstest.Eventually(t, "another replica's", func() bool {
		_, err := poll("b")
		return errors.Is(err, ErrElsewhere)
	})
	r.stop()
	if _, err := poll("a"); !errors.Is(err, ErrHeld) {
		t.Errorf("after the end: %v", err)
	}
}

// TestPollNowOfDevicesLeftAlone: a caller gets an answer at once also if the device's
// next poll is far off because its polls fail, or because of the daily quota.
func TestPollNowOfDevicesLeftAlone(t *testing.T) {
	t.Parallel()
	api := newFakeAPI("failing", "used up", "forgotten")
	for _, id := range []string{"failing", "used up", "forgotten"} {
		api.show(id, at(0, 4.7))
	}
	api.set(func() {
		api.next["failing"] = func(int) (string, error) { return "", errors.New("broken") }
	})
	o := options()
	o.BackoffInitial, o.BackoffMax, o.Quota = time.Hour, time.Hour, quotaOf(2)
	forgotten := func(token string) bool { return token == "forgotten" }
	r := newRigWith(t, natstest.Start(t), api, api, o, func(_ *rig, p *Parts) {
		p.Schedule, p.Forgotten = schedule.NewFixed(time.Hour), forgotten
	})
	r.own(func(token string) bool { return !forgotten(token) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	poll := func(id string) (err error) {
		natstest.Eventually(t, "polls are not held back", func() bool {
			_, err = r.pool.Poll(ctx, id)
			return !errors.Is(err, ErrHeld)
		})
		return err
	}
	for range 3 { // the first may be the device's first poll
		if err := poll("failing"); err == nil || !strings.Contains(err.Error(), "broken") {
			t.Fatalf("poll of a failing device: %v", err)
		}
	}
	natstest.Eventually(t, "the quota of the day is used up", func() bool {
		err := poll("used up")
		return errors.Is(err, quota.ErrUsedUp) || ctx.Err() != nil
	})
	if ctx.Err() != nil {
		t.Error("a caller waited in vain")
	}
	natstest.Eventually(t, "the forgotten device is not polled", func() bool { return errors.Is(poll("forgotten"), ErrForgotten) })
	if why, ok := r.pool.reason("forgotten"); !ok || why.Reason != reasonForgotten || why.Polled() {
		t.Errorf("why of a forgotten device: %+v, %v", why, ok)
	}
}
