package outbound

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
	"plaspy-bridge/publisher"
	"plaspy-bridge/publisher/natstest"
)

func TestBackfill(t *testing.T) {
	t.Parallel()
	o := options()
	o.Backfill = true
	r := firstFix(t, o)
	api := r.api
	api.set(func() {
		api.ranges["d"] = strings.Join([]string{at(12, 12), at(11, 11, `"alerts":["SOS"]`), at(1, "first"), at(20, "now"), at(12, 12), `{"bad":1}`, at(99, "later")}, ",")
		api.shown["d"] = at(20, "now")
	})
	r.until("the edge's end", body("cleared"))
	r.stop()
	equal(t, withoutDevices(summary(r.events())), []string{
		"location.d first", "location.d backfilled 11", "alert.d.SOS raised", "location.d backfilled 12", "alert.d.SOS cleared", "location.d now",
	})
	if got, want := api.asked, []string{`locations d {"from":"2026-01-02T03:00:01Z","to":"2026-01-02T03:00:20Z"}`}; !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestBackfillThatFailsDoesNotKeepThePositionBack(t *testing.T) {
	t.Parallel()
	for _, answer := range []string{"error", "refused"} {
		t.Run(answer, func(t *testing.T) {
			o := options()
			o.Backfill, o.AlertHistory = true, true
			r := firstFix(t, o)
			api := r.api
			api.set(func() { api.ranges["d"], api.alerts["d"] = answer, answer; api.shown["d"] = at(20, "now") })
			got := r.until("the second", body("now"))
			if got := got[len(got)-1].header.Get(publisher.HeaderHistorySince); got != "2026-01-02T03:00:01Z" {
				t.Errorf("the history is still to be read from %q", got)
			}
			// Once the history answers again, the unread part of it is requested.
			api.set(func() {
				api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:05Z","latitude":1,"longitude":2,"text":"late","alerts":["SOS"]}`
				api.ranges["d"], api.asked = "", nil
				second := 29 // a refusal is not tried again at once
				api.next["d"] = func(int) (string, error) { second++; return at(second, second), nil }
			})
			r.until("the alert", body(`"source":"history"`))
		})
	}
}

// TestLastingGapTrouble: once a gap was given up, the fixes that follow are not
// held back each in its turn.
func TestLastingGapTrouble(t *testing.T) {
	t.Parallel()
	o := options()
	o.Backfill = true
	r := firstFix(t, o)
	api := r.api
	api.set(func() { api.ranges["d"] = "error"; api.shown["d"] = at(20, "given up") })
	r.until("the one given up", body("given up"))
	api.set(func() { api.asked = nil })
	for i := range 5 {
		fix := fmt.Sprintf("live %d", i)
		api.show("d", at(30+10*i, fix))
		r.until(fix, body(fix))
	}
	api.set(func() {
		if len(api.asked) > 5 {
			t.Errorf("asked %d times what lay before five fixes, want once each at most", len(api.asked))
		}
	})
	// Once it can be read again, it is, for the first fix after the pause.
	second := 90
	api.set(func() {
		api.next["d"] = func(int) (string, error) {
			second += 10
			api.set(func() { api.ranges["d"] = at(second-5, "between") })
			return at(second, second), nil
		}
	})
	r.until("what lay between", body("between"))
}

func TestAlertHistory(t *testing.T) {
	t.Parallel()
	o := withHistory()
	r := firstFix(t, o, `"alerts":["SOS"]`)
	api := r.api
	r.until("the first", body(`"alert":"SOS"`))
	row := func(second int, names string) string {
		return fmt.Sprintf(`{"dateTime":"2026-01-02T03:00:%02dZ","latitude":1,"longitude":2,"text":"t","alerts":[%s]}`, second, names)
	}
	api.set(func() {
		api.alerts["d"] = strings.Join([]string{row(9, `"B","A"`), row(5, `"SOS"`), row(9, `"A"`), row(20, `"Door"`), row(1, `"SOS"`), row(50, `"future"`), `{"alerts":["x"]}`}, ",")
		api.shown["d"] = at(20, "now", `"alerts":["Door"]`)
	})
	r.until("the edge", body(`"alert":"SOS","state":"cleared"`))
	r.stop()
	want := []string{
		"location.d first", "alert.d.SOS raised", "alert.d.SOS raised history", "alert.d.A raised history", "alert.d.B raised history",
		"location.d now", "alert.d.Door raised", "alert.d.SOS cleared",
	}
	equal(t, withoutDevices(summary(r.events())), want)

	// After a restart none of it is published again, although the API still returns it.
	api.show("d", at(30, "third", `"alerts":["Door"]`))
	r = newRig(t, r.srv, api, o)
	r.until("the third", body("third"))
	r.stop()
	equal(t, withoutDevices(summary(r.events())), append(want, "location.d third"))
}

// TestRestartBetweenFixesOfOneTime keeps an alert raised at a time that has another last
// location after a restart. The history does not repeat the alert.
func TestRestartBetweenFixesOfOneTime(t *testing.T) {
	t.Parallel()
	o := withHistory()
	r := firstFix(t, o, `"alerts":["SOS"]`)
	api := r.api
	r.until("the alert", body(`"alert":"SOS"`))
	api.show("d", at(20, "second", `"alerts":["SOS"]`))
	r.until("the second fix", body("second"))
	api.show("d", at(20, "third"))
	r.until("the alert's end", body("cleared"))
	r.stop()
	api.set(func() {
		api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:20Z","alerts":["SOS"]},{"dateTime":"2026-01-02T03:00:25Z","alerts":["SOS"]}`
		api.shown["d"] = at(30, "fourth")
	})
	r = newRig(t, r.srv, api, o)
	r.until("the fourth fix", body("fourth"))
	r.stop()
	var rows []string
	for _, e := range r.events() {
		if strings.Contains(e.body, `"source":"history"`) {
			rows = append(rows, e.body)
		}
	}
	if len(rows) != 1 || !strings.Contains(rows[0], "03:00:25Z") {
		t.Errorf("published of the history %q, want the alert of second 25 alone", rows)
	}
}

// once returns answers in which one fix shows a single time, and another one after it.
func once() func(int) (string, error) {
	shown := false
	return func(int) (string, error) {
		if !shown {
			shown = true
			return at(20, "once"), nil
		}
		return at(40, "then"), nil
	}
}

// TestFixIsPublishedWithoutItsAlertHistory makes the API refuse the history while
// it shows a fix once. The fix is published, and the next one brings the alerts.
func TestFixIsPublishedWithoutItsAlertHistory(t *testing.T) {
	t.Parallel()
	r := firstFix(t, withHistory())
	api := r.api
	api.set(func() {
		api.alerts["d"] = "error"
		api.next["d"] = once()
	})
	r.until("the fix after", body("then"))
	api.set(func() {
		api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:10Z","latitude":1,"longitude":2,"text":"t","alerts":["SOS"]}`
		api.next["d"] = func(int) (string, error) { return at(50, "last"), nil }
	})
	r.until("the last fix", body("last"))
	r.stop()
	equal(t, withoutDevices(summary(r.events())), []string{
		"location.d first", "location.d once", "location.d then", "alert.d.SOS raised history", "location.d last",
	})
}

// TestHistoryOfAnotherReplica: the device's location has aged out, and another replica has
// published an alert of the history since.
func TestHistoryOfAnotherReplica(t *testing.T) {
	t.Parallel()
	r := firstFix(t, withHistory())
	api := r.api
	r.until("its addition", body(`"change":"added"`))
	r.ageOut()
	r.retention(time.Hour)
	row := `{"alert":"SOS","state":"raised","source":"history","dateTime":"2026-01-02T03:00:05Z"}`
	if _, err := natstest.Own(t, r.pub).Publish(t.Context(), subjects.Alert("d", "SOS"), []byte(row)); err != nil {
		t.Fatal(err)
	}
	api.set(func() {
		api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:05Z","alerts":["SOS"]},{"dateTime":"2026-01-02T03:00:06Z","alerts":["SOS"]}`
		api.shown["d"] = at(10, "second")
	})
	r.until("the second", body("second"))
	r.stop()
	equal(t, withoutDevices(summary(r.events())), []string{"alert.d.SOS raised history", "alert.d.SOS raised history", "location.d second"})
}

// lostAnswers loses the stream's answer to the first event of each chain, and sends the
// event again.
type lostAnswers struct{ *publisher.Publisher }

// Publish implements [inventory.Stream].
func (l lostAnswers) Publish(ctx context.Context, events []*publisher.Event, done func(error)) error {
	if len(events) > 1 {
		stored := make(chan error, 1)
		if err := l.Publisher.Publish(ctx, events[:1], func(err error) { stored <- err }); err != nil {
			return err
		}
		if err := <-stored; err != nil {
			done(err)
			return nil
		}
	}
	return l.Publisher.Publish(ctx, events, done)
}

// TestFixAfterAnEventWhoseAnswerWasLost makes the API show a fix once. An event of its gap
// comes before it, and the stream's answer to that is lost.
func TestFixAfterAnEventWhoseAnswerWasLost(t *testing.T) {
	t.Parallel()
	for _, event := range []string{"alert.d.SOS raised history", "location.d backfilled between"} {
		t.Run(event, func(t *testing.T) {
			o := options()
			o.AlertHistory, o.Backfill = strings.HasPrefix(event, "alert"), strings.HasPrefix(event, "location")
			api := newFakeAPI("d")
			api.show("d", at(1, "first"))
			r := newRigWith(t, natstest.Start(t), api, api, o, func(r *rig, p *Parts) { p.Events = lostAnswers{r.pub} })
			r.until("the first", body("first"))
			api.set(func() {
				api.alerts["d"] = `{"dateTime":"2026-01-02T03:00:10Z","alerts":["SOS"]}`
				api.ranges["d"] = at(10, "between")
				api.next["d"] = once()
			})
			r.until("the fix after", body("then"))
			r.stop()
			equal(t, withoutDevices(summary(r.events())), []string{"location.d first", event, "location.d once", "location.d then"})
		})
	}
}

// TestStopDoesNotWaitForTheAlertHistory stops while the history of a new fix hangs: the
// fix is published, and says that its history is owed.
func TestStopDoesNotWaitForTheAlertHistory(t *testing.T) {
	api := newFakeAPI("a")
	api.show("a", at(1, 1))
	o := withHistory()
	hung := &hangingAlerts{fakeAPI: api, asked: make(chan struct{})}
	r := newRigOn(t, natstest.Start(t), api, hung, o)
	r.until("the first fix", body(`"v":1`))
	api.show("a", at(30, 2))
	<-hung.asked
	r.stop()
	for _, e := range r.events() {
		if strings.Contains(e.body, `"v":2`) && e.header.Get(publisher.HeaderHistorySince) != "" {
			return
		}
	}
	t.Errorf("the fix was not published while its history is unread: %v", summary(r.events()))
}

// hangingAlerts never answers for alerts.
type hangingAlerts struct {
	*fakeAPI

	once  sync.Once
	asked chan struct{} // closed by the first request
}

// Alerts waits until the request is given up.
func (h *hangingAlerts) Alerts(ctx context.Context, _ string, _ []byte, _ plaspy.PostOptions) (plaspy.Answer, error) {
	h.once.Do(func() { close(h.asked) })
	<-ctx.Done()
	return plaspy.Answer{}, context.Cause(ctx)
}
