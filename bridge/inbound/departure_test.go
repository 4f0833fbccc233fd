package inbound

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"plaspy-bridge/bridge/plaspy"
)

// queued is an API behind a budget that has no room until it is opened.
type queued struct {
	*fakeAPI
	room    chan struct{}
	waiting atomic.Int64
}

func (a *queued) Locations(ctx context.Context, id string, body []byte, o plaspy.PostOptions) (plaspy.Answer, error) {
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	select {
	case <-a.room:
		return a.post(ctx, id, body, o)
	case <-ctx.Done():
		return plaspy.Answer{}, ctx.Err()
	}
}

func (a *queued) await(t *testing.T, n int64) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for a.waiting.Load() != n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d posts wait, want %d", a.waiting.Load(), n)
		}
	}
}

// TestStopWhileWaiting: what waits for the budget is not waited for at a stop:
// another replica could post it meanwhile.
func TestStopWhileWaiting(t *testing.T) {
	r := newRig(t)
	api := &queued{fakeAPI: newFakeAPI(nil), room: make(chan struct{})}
	r.putMany(8, device)
	c := r.consumer(api, func(c *Consumer) { c.opt.Grace = 20 * time.Second })
	stop := run(t, c)
	api.await(t, 8)
	began := time.Now()
	stop()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("a stop took %v although nothing was under way", took)
	}
	if n := len(api.accepted()); n != 0 {
		t.Errorf("%d posts went out", n)
	}
	r.waitCount(subjects.Inbound(), 8)
}

// frozen is a lease of which nobody notices that it was lost, as in a process
// that has just been woken.
type frozen struct{ lost atomic.Bool }

func (f *frozen) Hold(ctx context.Context) (Term, error) {
	if f.lost.Load() {
		<-ctx.Done()
		return Term{}, context.Cause(ctx)
	}
	return Term{Context: context.WithoutCancel(ctx), Valid: func() bool { return !f.lost.Load() }, Release: func() {}}, nil
}

// TestLeaseLostWhileWaiting: a post that waited for the budget while the lease
// was lost does not go out, and nothing is held against its message.
func TestLeaseLostWhileWaiting(t *testing.T) {
	r := newRig(t)
	api := &queued{fakeAPI: newFakeAPI(nil), room: make(chan struct{})}
	r.putMany(8, device)
	lease := &frozen{}
	c := r.consumer(api, func(c *Consumer) { c.opt.Lease = lease })
	stop := run(t, c)
	api.await(t, 8)
	lease.lost.Store(true)
	close(api.room)
	api.await(t, 0)
	stop()
	if n := len(api.accepted()); n != 0 {
		t.Errorf("%d posts went out after the lease was lost", n)
	}
	r.waitCount(subjects.Inbound(), 8)
	next := r.consumer(api.fakeAPI)
	run(t, next)
	r.waitCount(subjects.Inbound(), 0)
	for _, m := range r.messages(subjects.Results(), 8) {
		if want := `"attempts":1,`; !strings.Contains(string(m.Data), want) {
			t.Errorf("result %s, want %s", m.Data, want)
		}
	}
}

// TestDeparture: what has gone out is not called back, and what was kept back
// does not go out.
func TestDeparture(t *testing.T) {
	valid, stopped := true, error(nil)
	d := &desk{valid: func() bool { return valid }, stop: func(err error) { stopped = err }}
	cancelled := false
	trip := func() *departure {
		cancelled = false
		return &departure{cancel: func() { cancelled = true }}
	}
	out := trip()
	if err := d.leave(out); err != nil {
		t.Fatal(err)
	}
	if out.stay(); cancelled {
		t.Error("a post that was under way was cut off")
	}
	if err := d.leave(out); err != nil {
		t.Errorf("a replay was kept back: %v", err)
	}
	out = trip()
	if out.stay(); !cancelled {
		t.Error("a post that waited was not called back")
	}
	if err := d.leave(out); !errors.Is(err, errUnsent) {
		t.Errorf("a post went out after the end of its run: %v", err)
	}
	valid = false
	out = trip()
	if err := d.leave(out); !errors.Is(err, errUnsent) || !errors.Is(stopped, errLease) || !cancelled {
		t.Errorf("without a lease: %v, run ended by %v", err, stopped)
	}
	if plaspy.Classify(errUnsent) != plaspy.Canceled {
		t.Error("a post that was kept back counts as an outage")
	}
}

// TestDemand: the estimate follows what is tried and what waits, smoothly, and
// forgets.
func TestDemand(t *testing.T) {
	d := &demand{}
	now := time.Unix(1_000_000, 0)
	ask := func(backlog int, seconds int) (got int) {
		for range seconds {
			now = now.Add(time.Second)
			got = d.wanted(now, backlog)
		}
		return got
	}
	if got := ask(0, 10); got != 0 {
		t.Errorf("%d wanted of nothing", got)
	}
	if got := ask(1000, 1); got > 150 {
		t.Errorf("%d wanted for what came a second ago", got)
	}
	if got := ask(1000, 40); got < 950 || got > 1000 {
		t.Errorf("%d wanted with 1000 waiting for 40 s", got)
	}
	last := ask(0, 1)
	for range 30 {
		now = now.Add(time.Second)
		for range 2 {
			d.tried(now)
		}
		got := d.wanted(now, 0)
		if got > last+2 {
			t.Errorf("%d wanted after %d although nothing waits any more", got, last)
		}
		last = got
	}
	for range 90 {
		now = now.Add(time.Second)
		for range 2 {
			d.tried(now)
		}
		last = d.wanted(now, 0)
	}
	if last < 105 || last > 121 {
		t.Errorf("%d wanted where 120 a minute are tried", last)
	}
	now = now.Add(-time.Hour)
	if got := d.wanted(now, 0); got < 0 || got > 121 {
		t.Errorf("%d wanted after the clock was set back", got)
	}
	if got := ask(0, 200); got != 0 {
		t.Errorf("%d wanted of a minute long gone", got)
	}
}

// TestWanted: only what waits for the budget counts, not what waits for a device
// or for the API.
func TestWanted(t *testing.T) {
	c := &Consumer{log: slog.New(slog.DiscardHandler)}
	if got := c.Wanted(true); got != 0 {
		t.Errorf("%d wanted by one that does not consume", got)
	}
	three := []*item{{}, {}, {}}
	d := &desk{lanes: map[string]*lane{
		"a": {state: laneReady, hand: three}, "b": {state: laneBusy, hand: three}, "c": {state: laneWaiting, hand: three, handed: 90}, "d": {state: laneParked, hand: three},
	}}
	for pending, want := range map[int]int{0: 6, 12: 6, 110: 14, 1000: 24} {
		if got := d.backlog(pending); got != want {
			t.Errorf("%d pending: backlog %d, want %d", pending, got, want)
		}
	}
}
