package view

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var quietLog = slog.New(slog.DiscardHandler)

// running runs a view in a bubble until the test's function ends.
func running(t *testing.T, o Options, f func(t *testing.T, v *View)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o.Log = quietLog
		v := New(o)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { v.Run(ctx) })
		synctest.Wait()
		f(t, v)
		cancel()
		run.Wait()
	})
}

// second lets one tick pass, and its effects.
func second() {
	time.Sleep(frameEvery)
	synctest.Wait()
}

func truck(id string, lat float32, alerts ...string) Device {
	now := time.Now()
	return Device{
		ID: id, Name: "Truck " + id, Fix: true, FixTime: now.Add(-3 * time.Second), Seen: now, Lat: lat, Lon: -74.1, Speed: 42.5, Alerts: alerts,
		Polled: now, Result: "changed", Reason: "due", Next: now.Add(30 * time.Second),
	}
}

func TestPictureThenChanges(t *testing.T) {
	source := &plain{}
	running(t, Options{Source: source, Version: "v1", Replica: "r1"}, func(t *testing.T, v *View) {
		d := truck("a", 4.7, "SpeedLimit")
		source.put(d, truck("b", 5))
		second()
		w := watch(t, v)
		w.catchUp()
		if w.hello.Version != "v1" || w.hello.Replica != "r1" || w.hello.Devices != 2 || w.events["ready"] != 1 {
			t.Errorf("hello %+v, %v", w.hello, w)
		}
		want := shown{
			ID: "a", Name: "Truck a", Lat: 470000, Lon: -7410000, Fix: d.FixTime.UnixMilli(), Seen: d.Seen.UnixMilli(), Speed: 425,
			Alerts: []string{"SpeedLimit"}, Polled: d.Polled.UnixMilli(), Next: d.Next.UnixMilli(), Result: "changed", Reason: "due",
		}
		if diff := cmp.Diff(w.byID()["a"], want); diff != "" {
			t.Errorf("a: %s", diff)
		}
		d.Polled, d.Result, d.Failures = d.Polled.Add(time.Minute), "error", 2
		source.put(d)
		second()
		w.catchUp()
		want.Polled, want.Result, want.Failures = d.Polled.UnixMilli(), "error", 2
		if diff := cmp.Diff(w.byID()["a"], want); diff != "" {
			t.Errorf("a after a poll: %s", diff)
		}
		source.put(Device{ID: "a", Gone: true}, Device{ID: "never seen", Gone: true})
		second()
		w.catchUp()
		if _, there := w.byID()["a"]; there || len(w.rows) != 1 {
			t.Errorf("a is still shown: %v", w.rows)
		}
	})
}

// TestChangesOfASecondAreOneRow checks that the traffic depends on the visible changes,
// and not on the number of a source's reports.
func TestChangesOfASecondAreOneRow(t *testing.T) {
	source := &plain{}
	running(t, Options{Source: source}, func(t *testing.T, v *View) {
		source.put(truck("a", 1), truck("b", 2))
		second()
		w := watch(t, v)
		w.catchUp()
		for i := range 500 {
			source.put(truck("a", float32(i)/10))
		}
		second()
		data := <-w.client.frames
		if n := strings.Count(string(data), "["); n > 7 { // fix, its row and alerts, poll and its row
			t.Errorf("%d lists for one device that changed: %s", n, data)
		}
		w.take(data)
		if got := w.byID()["a"].Lat; got != 4990000 {
			t.Errorf("latitude %d, want the last one, 4990000", got)
		}
		second()
		if data := <-w.client.frames; len(data) > 60 {
			t.Errorf("sent without a change: %s", data)
		}
	})
}

func TestBusyLeavesWhatWasShown(t *testing.T) {
	source := &plain{}
	running(t, Options{Source: source}, func(t *testing.T, v *View) {
		source.put(truck("a", 1, "SOSButton"), Device{ID: "new", Name: "N", Busy: true})
		second()
		source.put(Device{ID: "a", Name: "Renamed", Busy: true})
		second()
		w := watch(t, v)
		w.catchUp()
		if a := w.byID()["a"]; a.Name != "Renamed" || a.Lat != 100000 || len(a.Alerts) != 1 {
			t.Errorf("a: %+v", a)
		}
		if n, there := w.byID()["new"]; !there || n.Fix != 0 {
			t.Errorf("new: %+v", n)
		}
	})
}

func TestAlertsAreNoted(t *testing.T) {
	source := &plain{}
	running(t, Options{Source: source}, func(t *testing.T, v *View) {
		source.put(truck("a", 1, "there from the start"))
		second()
		w := watch(t, v)
		source.put(truck("a", 1, "there from the start", "new"))
		second()
		source.put(truck("a", 2, "new"), truck("b", 2, "of a new device"))
		second()
		w.catchUp()
		var got []string
		for _, o := range w.alerts {
			got = append(got, fmt.Sprint(o.ID, " ", o.Alert, " ", o.Raised))
		}
		want := []string{"a new true", "a there from the start false", "b of a new device true"}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Error(diff)
		}
		late := watch(t, v)
		late.catchUp()
		if len(late.hello.Alerts) != 3 {
			t.Errorf("a later page has %d alerts, want 3", len(late.hello.Alerts))
		}
		for i := range 3 * occurrences {
			source.put(truck("a", 1, fmt.Sprint(i)))
		}
		second()
		v.mu.Lock()
		defer v.mu.Unlock()
		if len(v.fleet.events) != occurrences || v.fleet.events[occurrences-2].Alert != fmt.Sprint(3*occurrences-1) {
			t.Errorf("%d alerts are remembered, want the last %d", len(v.fleet.events), occurrences)
		}
	})
}

func TestTrails(t *testing.T) {
	source := &plain{}
	running(t, Options{Source: source}, func(t *testing.T, v *View) {
		for i := range 600 {
			source.put(truck("moves", float32(i)/100), truck("stands", 1))
			second()
		}
		w := watch(t, v)
		w.catchUp()
		if got := w.byID()["moves"]; got.Trail != 41 || got.TrailEnd != [2]int64{599000, -7410000} {
			t.Errorf("ten minutes have %d spots to %v, want 41 to the last position: one every 15 s and the newest", got.Trail, got.TrailEnd)
		}
		if got := w.byID()["stands"].Trail; got != 0 {
			t.Errorf("%d spots where nothing moved", got)
		}
		time.Sleep(trailAge + time.Minute)
		source.put(truck("moves", 50))
		second()
		w = watch(t, v)
		w.catchUp()
		if got := w.byID()["moves"].Trail; got != 0 {
			t.Errorf("%d spots, all but one too old", got)
		}
	})
}

func TestSlowPageIsCutOff(t *testing.T) {
	source := &plain{}
	reg := prometheus.NewRegistry()
	running(t, Options{Source: source, Registerer: reg}, func(t *testing.T, v *View) {
		slow, fast := watch(t, v), watch(t, v)
		for range queued + 2 {
			second()
			if !fast.catchUp() {
				t.Fatal("the page that keeps up was disconnected")
			}
		}
		if slow.catchUp() {
			t.Error("the page that reads nothing was not disconnected")
		}
		v.leave(slow.client) // its handler ends, too
		if n := testutil.ToFloat64(v.metrics.dropped); n != 1 {
			t.Errorf("%g dropped, want 1", n)
		}
		watch(t, v)
	})
}

func TestRoomIsBounded(t *testing.T) {
	running(t, Options{Source: &plain{}, Clients: 2}, func(t *testing.T, v *View) {
		first, _ := watch(t, v), watch(t, v)
		if v.join() != nil {
			t.Error("room for a third")
		}
		v.leave(first.client)
		v.leave(first.client)
		watch(t, v)
		if n := testutil.ToFloat64(v.metrics.refused); n != 1 {
			t.Errorf("%g refused, want 1", n)
		}
	})
}

// TestPagesShareBytes: one frame is made, however many look.
func TestPagesShareBytes(t *testing.T) {
	source := &plain{}
	running(t, Options{Source: source}, func(t *testing.T, v *View) {
		source.put(truck("a", 1))
		second()
		one, two := watch(t, v), watch(t, v)
		source.put(truck("a", 2))
		second()
		for i := range 2 { // the picture, then the change
			if p, q := <-one.client.frames, <-two.client.frames; &p[0] != &q[0] {
				t.Errorf("frame %d was built twice", i)
			}
		}
	})
}

func TestNothingAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := New(Options{Source: &plain{}, Log: quietLog})
		early := watch(t, v) // before Run
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			v.Run(ctx)
		}()
		second()
		cancel()
		<-done
		if early.catchUp() {
			t.Error("the stream is still open")
		}
		if v.join() != nil {
			t.Error("a closed view accepts a page")
		}
	})
}

func TestStatusIsToldWhenItChanges(t *testing.T) {
	var mu sync.Mutex
	status := Status{Ready: true, Parts: []Part{{Name: "nats", OK: true}}}
	set := func(s Status) {
		mu.Lock()
		defer mu.Unlock()
		status = s
	}
	o := Options{Source: &plain{}, Status: func() Status {
		mu.Lock()
		defer mu.Unlock()
		return status
	}}
	running(t, o, func(t *testing.T, v *View) {
		w := watch(t, v)
		for range 5 {
			second()
		}
		w.catchUp()
		if w.events["status"] != 1 || !w.status.Ready {
			t.Errorf("status sent %d times, want once: %+v", w.events["status"], w.status)
		}
		set(Status{Parts: []Part{{Name: "nats", Reason: "no server"}}})
		second()
		w.catchUp()
		if w.events["status"] != 2 || w.status.Ready || w.status.Parts[0].Reason != "no server" {
			t.Errorf("after a change: %d, %+v", w.events["status"], w.status)
		}
	})
}

// TestPagesAgreeWithTheSource drives a fleet at random, with pages that come, go
// and stall, and checks that each shows the source's last state.
func TestPagesAgreeWithTheSource(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		source := &plain{}
		running(t, Options{Source: source}, func(t *testing.T, v *View) {
			truth := map[string]Device{}
			var pages []*watcher
			for range 60 {
				for range r.IntN(12) {
					id := fmt.Sprint(r.IntN(9))
					old, there := truth[id]
					switch r.IntN(6) {
					case 0:
						delete(truth, id)
						source.put(Device{ID: id, Gone: true})
					case 1:
						if there {
							old.Name = fmt.Sprint("name ", r.IntN(4))
							truth[id] = old
							source.put(Device{ID: id, Name: old.Name, Busy: true})
						}
					default:
						d := truck(id, float32(r.IntN(5)), []string{"x", "y", "z"}[:r.IntN(4)]...)
						if r.IntN(4) == 0 {
							d.Speed = float32(math.NaN())
						}
						truth[id] = d
						source.put(d)
					}
				}
				second()
				if r.IntN(4) == 0 {
					if c := v.join(); c != nil {
						pages = append(pages, &watcher{newPage(t), c})
					}
				}
				for _, p := range pages {
					if r.IntN(3) > 0 {
						p.catchUp()
					}
				}
			}
			for i, p := range pages {
				if p.catchUp() {
					compare(t, fmt.Sprintf("seed %d page %d", seed, i), p, truth)
				}
			}
		})
	}
}

func compare(t *testing.T, what string, p *watcher, truth map[string]Device) {
	t.Helper()
	want := map[string]shown{}
	for id, d := range truth {
		s := shown{
			ID: id, Name: d.Name, Lat: int32(math.Round(float64(d.Lat) * 1e5)), Lon: int32(math.Round(float64(d.Lon) * 1e5)),
			Fix: d.FixTime.UnixMilli(), Seen: d.Seen.UnixMilli(), Speed: 425, Alerts: d.Alerts,
			Polled: d.Polled.UnixMilli(), Next: d.Next.UnixMilli(), Result: d.Result, Reason: d.Reason,
		}
		if d.Speed != 42.5 {
			s.Speed = unknownSpeed
		}
		want[id] = s
	}
	if diff := cmp.Diff(p.byID(), want, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(shown{}, "Trail", "TrailEnd")); diff != "" {
		t.Errorf("%s: %s", what, diff)
	}
}

// counted counts the reads of a source.
type counted struct {
	plain
	reads atomic.Int32
}

func (c *counted) Changed(f func(Device)) {
	c.reads.Add(1)
	c.plain.Changed(f)
}

// TestUnwatched: without a page the devices are read once in five seconds, and the first page shows them as they are
// when it opens, with each device and alert once.
func TestUnwatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &counted{}
		source.put(truck("a", 1))
		v := New(Options{Source: source, Log: quietLog})
		ctx, cancel := context.WithCancel(t.Context())
		go v.Run(ctx)
		time.Sleep(unwatched - time.Millisecond)
		first := source.reads.Load()
		time.Sleep(10 * unwatched)
		if got := source.reads.Load() - first; got != 10 {
			t.Errorf("without a page the devices were read %d times in %v, want 10", got, 10*unwatched)
		}
		time.Sleep(2 * frameEvery)
		source.put(truck("a", 2, "sos"), truck("b", 3))
		page := v.join()
		time.Sleep(3 * frameEvery)
		cancel()
		synctest.Wait()
		var shown []byte
		for frame := range page.frames {
			shown = append(shown, frame...)
		}
		for _, text := range []string{`"Truck a"]`, `"Truck b"]`, `"alert":"sos"`} {
			if n := bytes.Count(shown, []byte(text)); n != 1 {
				t.Errorf("the page got %s %d times, want once: %s", text, n, shown)
			}
		}
	})
}
