package outbound

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/bridge/outbound/quota"
	"plaspy-bridge/bridge/outbound/schedule"
	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

// put publishes a location as another replica would.
func (r *rig) put(raw string) {
	r.t.Helper()
	last, err := r.pub.Last(context.Background(), subjects.Location("d"))
	if err != nil {
		r.t.Error(err)
		return
	}
	hash, err := r.pool.parser.Hash([]byte(raw))
	if err != nil {
		r.t.Error(err)
		return
	}
	f, err := r.pool.parser.Fix([]byte(raw), hash)
	if err != nil {
		r.t.Error(err)
		return
	}
	e := subjects.LocationEvent(&publisher.Location{
		DeviceID: "d", Token: "d", Name: "Truck d", Source: "x", FixTime: f.Time, ObservedAt: time.Now(), Raw: f.Raw, Hash: hash,
	}, last.Seq)
	done := make(chan error, 1)
	if err := r.pub.Publish(context.Background(), []*publisher.Event{e}, func(err error) { done <- err }); err != nil {
		r.t.Error(err)
	}
	if err := <-done; err != nil {
		r.t.Error(err)
	}
}

// TestAnswerThatWaitedIsDropped: another replica has published the same fix, and one
// with an earlier dateTime, while this one held its answer.
func TestAnswerThatWaitedIsDropped(t *testing.T) {
	t.Parallel()
	f0, f1, f2 := at(1, "f0"), at(10, "f1"), at(5, "f2")
	api := newFakeAPI("d")
	var step atomic.Int32
	var r *rig
	api.next["d"] = func(int) (string, error) {
		switch step.Load() {
		case 0:
			return f0, nil
		case 1:
			step.Store(2)
			r.put(f1)
			r.put(f2)
			return f1, nil
		case 2:
			step.Store(3)
			return f2, nil
		}
		return at(12, "f3"), nil
	}
	r = newRig(t, natstest.Start(t), api, options())
	r.until("f0", body("f0"))
	step.Store(1)
	got := r.until("f3", body("f3"))
	r.stop()
	equal(t, withoutDevices(summary(got)), []string{"location.d f0", "location.d f1", "location.d f2", "location.d f3"})
}

// TestHistoryThatIsOwedStaysOwed: a fix whose time does not go forward does not end
// the gap that a failed request has left.
func TestHistoryThatIsOwedStaysOwed(t *testing.T) {
	t.Parallel()
	for _, between := range []string{"", at(5, "battery"), at(2, "back")} {
		t.Run(between, func(t *testing.T) {
			o := withHistory()
			r := firstFix(t, o)
			api := r.api
			api.set(func() { api.alerts["d"] = "refused"; api.shown["d"] = at(5, "second") })
			r.until("the second", body("second"))
			if between != "" {
				api.show("d", between)
				r.until("the fix between", body(between))
				r.stop() // it survives a restart
				r = newRig(t, r.srv, api, o)
			}
			second := 8
			api.set(func() {
				api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:03Z","latitude":1,"longitude":2,"text":"t","alerts":["Missed"]}`
				api.next["d"] = func(int) (string, error) { second++; return at(second, second), nil }
			})
			r.until("the alert", body(`"alert":"Missed"`))
		})
	}
}

// hookedAlerts calls a hook after the first answer of the alert history.
type hookedAlerts struct {
	*fakeAPI
	hook func()
}

// Alerts implements [gap.API].
func (h *hookedAlerts) Alerts(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	a, err := h.fakeAPI.Alerts(ctx, id, body, o)
	if hook := h.hook; hook != nil {
		h.hook = nil
		hook()
	}
	return a, err
}

// TestRowsThatAnotherReplicaPublished: while this one held the rows of the alert
// history, another one published them and the fix.
func TestRowsThatAnotherReplicaPublished(t *testing.T) {
	t.Parallel()
	o := withHistory()
	srv := natstest.Start(t)
	mine, theirs := newFakeAPI("d"), newFakeAPI("d")
	hooked := &hookedAlerts{fakeAPI: mine}
	mine.show("d", at(1, "f1"))
	theirs.show("d", at(1, "f1"))
	a := newRigOn(t, srv, mine, hooked, o)
	a.until("f1", body("f1"))
	row := `{"dateTime":"2026-01-02T03:00:%02dZ","latitude":1,"longitude":2,"text":"t","alerts":["X"]}`
	rows := fmt.Sprintf(row, 3) + "," + fmt.Sprintf(row, 4)
	hooked.hook = func() {
		theirs.set(func() { theirs.alerts["d"] = rows; theirs.shown["d"] = at(5, "f2") })
		b := newRig(t, srv, theirs, o)
		b.until("f2", body("f2"))
		b.stop()
	}
	mine.set(func() { mine.alerts["d"] = rows; mine.shown["d"] = at(5, "f2") })
	a.until("f2", body("f2"))
	mine.show("d", at(9, "f3"))
	got := a.until("f3", body("f3"))
	equal(t, withoutDevices(summary(got)), []string{
		"location.d f1", "alert.d.X raised history", "alert.d.X raised history", "location.d f2", "location.d f3",
	})
}

// TestSilenceOfAHeldUpReplica: another replica has published a new fix before this
// one raises the alert, which is then not raised.
func TestSilenceOfAHeldUpReplica(t *testing.T) {
	t.Parallel()
	o := options()
	o.SilentAfter = 3 * time.Second
	api := newFakeAPI("d")
	api.show("d", at(1, "f1"))
	var r *rig
	held := false
	api.next["d"] = func(int) (string, error) {
		if r.pool.fleet.seenBefore(o.SilentAfter/10) && !held {
			for !r.pool.fleet.seenBefore(o.SilentAfter) { // a late answer
				time.Sleep(o.SilentAfter / 100)
			}
			held = true
			r.put(at(2, "f2"))
		}
		if held {
			return at(2, "f2"), nil
		}
		return at(1, "f1"), nil
	}
	newRigWith(t, natstest.Start(t), api, api, o, func(made *rig, _ *Parts) { r = made }) // before its first poll
	got := r.until("f2", body("f2"))
	equal(t, withoutDevices(summary(got)), []string{"location.d f1", "location.d f2"})
	got = r.until("silence of f2", body(`"alert":"silent"`))
	if !strings.Contains(got[len(got)-1].body, "03:00:02Z") {
		t.Errorf("silent is raised for another fix: %s", got[len(got)-1].body)
	}
}

// seenBefore reports whether the last fix of the device d was seen so long ago.
func (f *fleet) seenBefore(age time.Duration) bool {
	f.mu.Lock()
	d := f.devices["d"] // busy, and the caller's
	f.mu.Unlock()
	return d != nil && d.track.Known && time.Since(d.track.SeenAt) >= age
}

// TestEventsThatTheStreamCannotTake: a row, an alert or a location above the limit
// holds up no other event.
func TestEventsThatTheStreamCannotTake(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 1100<<10)
	r := firstFix(t, withHistory())
	api := r.api
	api.set(func() {
		api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:03Z","latitude":1,"longitude":2,"text":"` + large + `","alerts":["Big"]}`
		api.shown["d"] = at(5, "second")
	})
	r.until("the second", body("second"))
	api.show("d", at(7, large, `"alerts":["SOS"]`))
	r.until("the alert of a location that is too large", body(`"alert":"SOS"`))
	r.polls("d", 5)
	api.show("d", at(9, "third"))
	got := r.until("the end of the alert", body("cleared"))
	equal(t, withoutDevices(summary(got)), []string{
		"location.d first", "location.d second", "alert.d.SOS raised", "location.d third", "alert.d.SOS cleared",
	})
}

// TestAlertsOfTheAPINamedSilent: with or without the bridge's own alert of that
// name.
func TestAlertsOfTheAPINamedSilent(t *testing.T) {
	t.Parallel()
	for _, after := range []time.Duration{0, 20 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			o := options()
			o.SilentAfter = after
			api := newFakeAPI("a")
			api.show("a", at(1, 1, `"alerts":["silent","Other"]`))
			r := newRig(t, natstest.Start(t), api, o)
			r.until("the other", body(`"alert":"Other"`))
			want := []string{"location.a 1", "alert.a.silent raised", "alert.a.Other raised"}
			if after > 0 {
				r.until("silence", body(`"source":"bridge"`))
				want = append(want, "alert.a.silent raised bridge")
			}
			r.stop()
			o.SilentAfter = 0
			r = newRig(t, r.srv, api, o)
			r.polls("a", 5)
			api.show("a", at(2, 2))
			want = append(want, "location.a 2", "alert.a.silent cleared", "alert.a.Other cleared")
			last := body(`"alert":"Other","state":"cleared"`)
			if after > 0 {
				want = append(want, "alert.a.silent cleared bridge")
				last = func(e event) bool { return strings.Contains(e.body, "cleared") && strings.Contains(e.body, "bridge") }
			}
			got := r.until("all to be cleared", last)
			equal(t, withoutDevices(summary(got)), want)
		})
	}
}

// TestBackfillAfterAFixThatWentBack: nothing of the stream is published again, also
// after a restart.
func TestBackfillAfterAFixThatWentBack(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint(restart), func(t *testing.T) {
			o := options()
			o.Backfill = true
			api := newFakeAPI("d")
			api.show("d", at(10, "ten"))
			r := newRig(t, natstest.Start(t), api, o)
			r.until("ten", body("ten"))
			api.show("d", `{"dateTime":"1970-01-01T00:00:00Z","latitude":1,"longitude":2,"v":"old"}`)
			r.until("the old one", body("old"))
			if restart {
				r.stop()
				r = newRig(t, r.srv, api, o)
			}
			api.set(func() {
				api.ranges["d"] = at(10, "ten") + "," + at(15, "fifteen")
				api.shown["d"] = at(20, "twenty")
			})
			got := r.until("twenty", body("twenty"))
			equal(t, withoutDevices(summary(got)), []string{"location.d ten", "location.d old", "location.d backfilled fifteen", "location.d twenty"})
			api.set(func() {
				if want := []string{`locations d {"from":"2026-01-02T03:00:10Z","to":"2026-01-02T03:00:20Z"}`}; !slices.Equal(api.asked, want) {
					t.Errorf("asked %q, want %q", api.asked, want)
				}
			})
		})
	}
}

// TestGapIsBounded: back-fill and alert history ask for no more than their limit,
// and the part before a fix of the future is requested with the next one.
func TestGapIsBounded(t *testing.T) {
	t.Parallel()
	o := options()
	o.Backfill, o.AlertHistory, o.BackfillMax = true, true, time.Minute
	r := firstFix(t, o)
	api := r.api
	api.show("d", strings.Replace(at(1, "future"), "2026", "2099", 1))
	r.until("the future", body("future"))
	api.show("d", at(40, "second"))
	r.until("the second", body("second"))
	api.show("d", at(240, "third"))
	r.until("the third", body("third"))
	api.set(func() {
		want := []string{
			`locations d {"from":"2026-01-02T03:00:01Z","to":"2026-01-02T03:00:40Z"}`, `alerts d {"from":"2026-01-02T03:00:01Z","to":"2026-01-02T03:00:40Z"}`,
			`locations d {"from":"2026-01-02T03:03:00Z","to":"2026-01-02T03:04:00Z"}`, `alerts d {"from":"2026-01-02T03:03:00Z","to":"2026-01-02T03:04:00Z"}`,
		}
		equal(t, api.asked, want)
	})
}

// TestRefusedBackfillIsAskedForLessAndLess.
func TestRefusedBackfillIsAskedForLessAndLess(t *testing.T) {
	t.Parallel()
	o := options()
	o.Backfill, o.BackoffInitial = true, time.Hour
	api := newFakeAPI("d", "e")
	api.set(func() { api.ranges["d"], api.ranges["e"] = "refused", "refused" })
	var n atomic.Int64
	next := func(int) (string, error) { return at(int(2*n.Add(1)), n.Load()), nil }
	api.next["d"], api.next["e"] = next, next
	r := newRig(t, natstest.Start(t), api, o)
	r.polls("d", 60)
	api.set(func() {
		if len(api.asked) > 5 {
			t.Errorf("of %d polls, %d asked for a range that was refused for good", n.Load(), len(api.asked))
		}
	})
}

// TestHistoryNarrowedByTheQuota: the part that the quota leaves out is read later.
func TestHistoryNarrowedByTheQuota(t *testing.T) {
	t.Parallel()
	o := withHistory()
	o.Quota = quotaOf(40)
	r := firstFix(t, o)
	api := r.api
	api.set(func() {
		api.alerts["d"] = strings.Replace(at(10, "x", `"text":"t"`, `"alerts":["Missed"]`), `"v":"x",`, "", 1)
		api.shown["d"] = at(3000, "late") // 50 minutes: more than half the quota pays for
	})
	got := r.until("the late one", body("late"))
	if e := got[len(got)-1]; e.header.Get(publisher.HeaderHistorySince) == "" {
		t.Error("no history is left to be read")
	}
	if !slices.ContainsFunc(got, body("Missed")) {
		t.Errorf("the oldest alert was not read: %v", summary(got))
	}
}

// probing is an open circuit that lets every probe out, and counts them.
type probing struct{ allowed atomic.Int64 }

func (c *probing) Allow(time.Time) (bool, time.Time) {
	c.allowed.Add(1)
	return true, time.Time{}
}

func (*probing) Report(string, error) {}

func (*probing) State() plaspy.CircuitState { return plaspy.CircuitState{Open: true} }

// TestProbesAreSent: while the API is down, a probe is counted only if a device is
// polled with it. The only device is not due again for an hour.
func TestProbesAreSent(t *testing.T) {
	api := newFakeAPI("a")
	api.next["a"] = func(int) (string, error) {
		return "", &plaspy.Error{Endpoint: "last_location", Status: 500, Message: "uncontrolled error"}
	}
	var circuit probing
	turned := make(chan struct{}, 1)
	o := options()
	o.Alive = func() { nudge(turned) }
	r := newRigWith(t, natstest.Start(t), api, api, o, func(_ *rig, p *Parts) {
		p.Circuit, p.Schedule = &circuit, schedule.NewFixed(time.Hour)
	})
	natstest.Eventually(t, "a poll", func() bool { return r.polled("a") > 0 })
	for range 10 {
		nudge(r.pool.dispatcher.wake)
		select {
		case <-turned:
		case <-time.After(time.Minute):
			t.Fatal("the dispatcher is stuck")
		}
	}
	r.stop()
	api.set(func() {
		if got := circuit.allowed.Load(); got != int64(api.polls["a"]) {
			t.Errorf("%d probes were counted and %d sent", got, api.polls["a"])
		}
	})
}

func quotaOf(n int) *quota.Quota { return quota.New(n, nil) }
